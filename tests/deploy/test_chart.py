"""The Helm chart: what it renders is valid, what it refuses, and that its settings are the gateway's."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.deploy.house import DEPLOY, ROOT, alerts

CHART = DEPLOY / "helm" / "backburner"
EXAMPLES = sorted((CHART / "examples").glob("*.yaml"))
HELM = shutil.which("helm")
KUBERNETES = shutil.which("kubernetes-validate")
SECRETS = {
    "ADMIN_TOKEN": "t" * 32,
    "BACKBURNER_STORE__URL": "postgresql://backburner@db/backburner",
    "BACKBURNER_CREDENTIALS__SEALING_KEYS": f"one:{base64.b64encode(b's' * 32).decode()}",
    "BACKBURNER_UPSTREAM__API_KEY": "a-key",
}
"""What a cluster has in its Secrets, by the variable that they are given in."""
pytestmark = pytest.mark.skipif(HELM is None, reason="no helm on this machine")


def _helm(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [str(HELM), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


def _rendered(*arguments: object) -> dict[str, dict[str, Any]]:
    """What is rendered, by kind; of several, the last."""
    ran = _helm("template", "bb", CHART, *arguments)
    assert ran.returncode == 0, ran.stderr
    found = [document for document in yaml.safe_load_all(ran.stdout) if document]
    return {document["kind"]: document for document in found}


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_has_no_fault(example: Path) -> None:
    ran = _helm("lint", "--strict", CHART, "-f", example)
    assert ran.returncode == 0, ran.stdout + ran.stderr


@pytest.mark.skipif(KUBERNETES is None, reason="no kubernetes-validate: pip has it")
@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
@pytest.mark.parametrize("version", ["1.29", "1.37"])
def test_kubernetes_knows_every_field(example: Path, version: str, tmp_path: Path) -> None:
    ran = _helm("template", "bb", CHART, "-f", example)
    documents = [each for each in yaml.safe_load_all(ran.stdout) if each and "." not in _group(each)]
    file = tmp_path / "rendered.yaml"
    file.write_text(yaml.safe_dump_all(documents))
    command = [str(KUBERNETES), "--strict", "-k", version, str(file)]
    checked = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert checked.returncode == 0, checked.stdout + checked.stderr


def _group(document: dict[str, Any]) -> str:
    """The API group, without those of Kubernetes itself."""
    group: str = document["apiVersion"].partition("/")[0] if "/" in document["apiVersion"] else ""
    return group.removesuffix(".k8s.io")


def test_with_a_file_there_is_one_gateway() -> None:
    found = _rendered("-f", CHART / "examples" / "sqlite.yaml")
    assert found["StatefulSet"]["spec"]["replicas"] == 1
    claims = found["StatefulSet"]["spec"]["volumeClaimTemplates"]
    assert claims[0]["metadata"]["name"] == "data"
    ran = _helm("template", "bb", CHART, "-f", CHART / "examples" / "sqlite.yaml", "--set", "replicaCount=2")
    assert ran.returncode != 0
    assert "/replicaCount" in ran.stderr


def test_with_postgresql_there_may_be_several() -> None:
    found = _rendered("-f", CHART / "examples" / "postgresql.yaml")
    assert found["Deployment"]["spec"]["replicas"] == 3
    environ = found["Deployment"]["spec"]["template"]["spec"]["containers"][0]["env"]
    [url] = [each for each in environ if each["name"] == "BACKBURNER_STORE__URL"]
    assert url["valueFrom"]["secretKeyRef"]["name"] == "backburner-postgresql"


def test_gateways_that_push_to_each_other_are_reached_by_each_other_only() -> None:
    given = ("--set", "store.postgresql.peerPort=9002", "--set", "networkPolicy.enabled=true")
    found = _rendered("-f", CHART / "examples" / "postgresql.yaml", *given)
    pod = found["Deployment"]["spec"]["template"]
    (container,) = pod["spec"]["containers"]
    environ = {each["name"]: each.get("value") for each in container["env"]}
    assert environ["BACKBURNER_STORE__PEER_LISTEN"] == "0.0.0.0:9002"
    assert environ["BACKBURNER_STORE__PEER_ADDRESS"] == "$(POD_IP):9002"
    assert list(environ).index("POD_IP") < list(environ).index("BACKBURNER_STORE__PEER_ADDRESS")
    assert {"name": "peers", "containerPort": 9002} in container["ports"]
    rules = found["NetworkPolicy"]["spec"]
    (let_in,) = [rule for rule in rules["ingress"] if rule["ports"] == [{"port": "peers"}]]
    (let_out,) = [rule for rule in rules["egress"] if rule.get("ports") == [{"port": 9002}]]
    for peers in (let_in["from"], let_out["to"]):
        (selector,) = peers
        labels = selector["podSelector"]["matchLabels"]
        assert labels.items() <= pod["metadata"]["labels"].items()


@pytest.mark.parametrize(
    ("settings", "place"),
    [
        ([], "/config"),
        (["config.upstream.url=http://x/v1", "config.server.port=80"], "/config/server"),
        (["config.upstream.url=http://x/v1", "config.store.database=x"], "/config/store"),
        (["config.upstream.url=http://x/v1", "store.kind=mysql"], "/store/kind"),
        (["config.upstream.url=http://x/v1", "store.kind=postgresql"], "/store/postgresql"),
        (["config.upstream.url=http://x/v1", "ingress.enabled=true"], "/ingress/host"),
        (["config.upstream.url=http://x/v1", "replicas=2"], "replicas"),
    ],
)
def test_wrong_values_are_refused_with_their_place(settings: list[str], place: str) -> None:
    flags = [flag for setting in settings for flag in ("--set", setting)]
    ran = _helm("template", "bb", CHART, *flags)
    assert ran.returncode != 0
    assert place in ran.stderr


@pytest.mark.parametrize("drain_s", [0, 25, 3600])
def test_kubernetes_waits_longer_than_the_drain(drain_s: int) -> None:
    flags = ("--set", "config.upstream.url=http://x/v1", "--set", f"drainTimeoutSeconds={drain_s}")
    found = _rendered(*flags)
    grace_s = found["StatefulSet"]["spec"]["template"]["spec"]["terminationGracePeriodSeconds"]
    config = yaml.safe_load(found["ConfigMap"]["data"]["config.yaml"])
    assert config["server"]["drain_timeout_s"] == drain_s
    assert grace_s >= drain_s + 3 + 2 + 5


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_the_gateway_accepts_the_settings_that_are_rendered(example: Path, tmp_path: Path) -> None:
    found = _rendered("-f", example)
    ran = _helm("template", "bb", CHART, "-f", example, "-s", "templates/config.yaml")
    file = tmp_path / "config.yaml"
    file.write_text(yaml.safe_load(ran.stdout)["data"]["config.yaml"])
    command = [sys.executable, "-m", "gateway", "check-config", "--config", str(file)]
    controller = found.get("StatefulSet") or found["Deployment"]
    variables = controller["spec"]["template"]["spec"]["containers"][0]["env"]
    given = {each["name"]: each.get("value") or SECRETS[each["name"]] for each in variables}
    environ = {**given, "PYTHONPATH": str(ROOT)}
    checked = subprocess.run(command, env=environ, capture_output=True, text=True, check=False, timeout=60)
    assert checked.returncode == 0, checked.stderr


def test_the_pod_is_as_restricted_as_kubernetes_can_ask_for() -> None:
    pod = _rendered("-f", CHART / "examples" / "sqlite.yaml")["StatefulSet"]["spec"]["template"]["spec"]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["enableServiceLinks"] is False  # BACKBURNER_PORT and its like are no settings
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert pod["containers"][0]["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }


def test_rules_and_dashboards_are_those_of_deploy() -> None:
    found = _rendered("-f", CHART / "examples" / "sqlite.yaml")
    rules = [rule for group in found["PrometheusRule"]["spec"]["groups"] for rule in group["rules"]]
    rendered = {rule["alert"]: rule for rule in rules if "alert" in rule}
    assert {name: rule["expr"] for name, rule in rendered.items()} == {
        rule["alert"]: rule["expr"] for rule in alerts()
    }
    link = rendered["BackburnerDown"]["annotations"]["runbook_url"]
    assert link == "https://git.example.com/backburner/blob/main/docs/runbooks.md#backburnerdown"
    ran = _helm(
        "template", "bb", CHART, "-f", CHART / "examples" / "sqlite.yaml", "-s", "templates/dashboards.yaml"
    )
    maps = [each["data"] for each in yaml.safe_load_all(ran.stdout) if each]
    titles = {json.loads(text)["title"] for files in maps for text in files.values()}
    assert titles == {f"Backburner / {name}" for name in ("Overview", "Backends", "Store")}


def test_an_alert_can_be_left_out_and_another_be_made_stricter() -> None:
    found = _rendered(
        *("-f", CHART / "examples" / "sqlite.yaml"),
        *("--set", "metrics.prometheusRule.disabled={BackburnerDown}"),
        *("--set", "metrics.prometheusRule.overrides.BackburnerOldestWaiting.for=20m"),
        *("--set", "metrics.prometheusRule.overrides.BackburnerOldestWaiting.severity=critical"),
    )
    rules = [rule for group in found["PrometheusRule"]["spec"]["groups"] for rule in group["rules"]]
    rendered = {rule["alert"]: rule for rule in rules if "alert" in rule}
    assert "BackburnerDown" not in rendered
    changed = rendered["BackburnerOldestWaiting"]
    assert (changed["for"], changed["labels"]["severity"]) == ("20m", "critical")


def test_the_query_of_the_scaled_object_is_the_same_in_chart_and_file() -> None:
    rendered = _rendered("-f", CHART / "examples" / "sqlite.yaml")["ScaledObject"]
    alone = yaml.safe_load((DEPLOY / "keda" / "scaledobject.yaml").read_text())
    assert rendered["spec"]["triggers"] == alone["spec"]["triggers"]
