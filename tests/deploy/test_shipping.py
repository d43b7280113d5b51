"""What ships beside the package: image, compose, systemd."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from gateway.config import Settings
from gateway.config.names import NAMES
from tests.deploy.house import DEPLOY, ROOT

COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "compose.yaml").read_text())
DOCKERFILE = (ROOT / "Dockerfile").read_text()
UNIT = (DEPLOY / "systemd" / "backburner.service").read_text()
DRAIN_S = Settings.model_fields["server"].get_default(call_default_factory=True).drain_timeout_s


def test_every_file_that_compose_mounts_is_there() -> None:
    mounts = [mount for service in COMPOSE["services"].values() for mount in service.get("volumes", ())]
    paths = [mount.partition(":")[0] for mount in mounts if mount.startswith(".")]
    assert len(paths) == 4
    assert [path for path in paths if not (ROOT / path).exists()] == []


def test_compose_builds_stages_that_there_are() -> None:
    stages = set(re.findall(r"^FROM \S+ AS (\w+)", DOCKERFILE, re.MULTILINE))
    targets = {
        service["build"].get("target") for service in COMPOSE["services"].values() if "build" in service
    }
    assert targets - {None} <= stages


def test_prometheus_in_compose_has_our_rules_and_job() -> None:
    settings = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yml").read_text())
    assert settings["rule_files"] == ["backburner.rules.yml"]
    assert settings["scrape_configs"][0]["job_name"] == "backburner"


def test_grafana_in_compose_finds_our_dashboards() -> None:
    provider = yaml.safe_load((DEPLOY / "grafana/provisioning/dashboards/backburner.yml").read_text())
    path = provider["providers"][0]["options"]["path"]
    assert f"./deploy/grafana/dashboards:{path}:ro" in COMPOSE["services"]["grafana"]["volumes"]


def test_variables_of_image_compose_and_unit_are_settings() -> None:
    text = DOCKERFILE + (ROOT / "compose.yaml").read_text() + UNIT
    named = re.findall(r"BACKBURNER_([A-Z]+)__([A-Z_]+?)(?=[=: ])", text)
    assert len(named) >= 5
    assert {f"{section}.{key}".lower() for section, key in named} <= set(NAMES)


def test_whoever_stops_the_gateway_waits_longer_than_its_drain() -> None:
    assert int(COMPOSE["services"]["gateway"]["stop_grace_period"].rstrip("s")) > DRAIN_S + 5
    assert int(re.findall(r"^TimeoutStopSec=(\d+)$", UNIT, re.MULTILINE)[0]) > DRAIN_S + 5


def test_nothing_in_compose_can_write_to_its_image_or_gain_rights() -> None:
    for name in ("model", "gateway"):
        service = COMPOSE["services"][name]
        assert (service["read_only"], service["cap_drop"]) == (True, ["ALL"])


ANALYZE = shutil.which("systemd-analyze")
needs_systemd = pytest.mark.skipif(ANALYZE is None, reason="no systemd-analyze on this machine")


@needs_systemd
def test_the_unit_is_one_that_systemd_understands(tmp_path: Path) -> None:
    file = tmp_path / "backburner.service"
    file.write_text(re.sub(r"^ExecStart=\S+", "ExecStart=/bin/true", UNIT, flags=re.MULTILINE))
    ran = subprocess.run(
        [str(ANALYZE), "verify", "--man=no", str(file)], capture_output=True, text=True, check=False
    )
    assert (ran.returncode, ran.stderr) == (0, "")


def test_the_settings_reach_a_user_that_cannot_read_what_is_roots() -> None:
    assert re.search(r"^DynamicUser=yes$", UNIT, re.MULTILINE)
    [(name, _)] = re.findall(r"^LoadCredential=([^:]+):(\S+)$", UNIT, re.MULTILINE)
    assert f" --config ${{CREDENTIALS_DIRECTORY}}/{name} " in UNIT


@needs_systemd
def test_the_unit_is_well_locked_up() -> None:
    command = [str(ANALYZE), "security", "--offline=true", "--json=short", "--threshold=20"]
    ran = subprocess.run(
        [*command, str(DEPLOY / "systemd" / "backburner.service")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, [one for one in json.loads(ran.stdout) if not one["set"]]


def test_the_image_runs_as_nobody_and_says_how_it_is() -> None:
    last = DOCKERFILE.rpartition("\nFROM ")[2]
    assert re.search(r"^USER 65532:65532$", last, re.MULTILINE)
    assert re.search(r"^HEALTHCHECK ", last, re.MULTILINE)
    assert last.startswith("python:")  # the default target, not a named stage
