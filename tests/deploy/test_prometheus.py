"""A real Prometheus scrapes a real gateway: panels show something, alerts fire when their cause is made."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator

import pytest
import yaml

from demo.model_server import ModelServer, listening, make_app
from reference.labels import label
from tests.acceptance.conftest import StartGateway
from tests.acceptance.harness import Gateway, within
from tests.acceptance.receivers import Answer, Receiver
from tests.acceptance.replay import ReplayServer, json_answer, replay
from tests.deploy.conftest import Watch
from tests.deploy.house import DEPLOY, rules

ASK = {"model": "tiny", "input": "Count to 5.", "background": True}
SECRET = "whsec_" + "A" * 44
QUICK = {"BACKBURNER_UPSTREAM__HEALTH_INTERVAL_S": 0.2, "BACKBURNER_UPSTREAM__BREAKER_OPEN_S": 0.2}

NEED_NOT_HAPPEN = {
    "Which alerts fire?": "there may be none",
    "Which errors does the database give?": "there are none",
    "What did backends refuse, or send that has no place?": "nothing",
    "Which calls fail below HTTP?": "none",
    "What is tried again, and why?": "nothing",
}
"""Panels that are empty while all is well."""


def _panels() -> Iterator[tuple[str, list[str]]]:
    for file in sorted((DEPLOY / "grafana" / "dashboards").glob("*.json")):
        for panel in json.loads(file.read_text())["panels"]:
            queries = [target["expr"] for target in panel["targets"]]
            yield panel["title"], [_filled(query) for query in queries]


def _filled(query: str) -> str:
    return query.replace("$backend", ".*").replace("$__rate_interval", "10s")


async def _create(gateway: Gateway, **more: object) -> str:
    answer = await gateway.call("POST", "/responses", {**ASK, **more})
    assert answer.status == 200, answer.body
    found: str = answer.json()["id"]
    return found


async def test_under_load_the_page_is_clean_and_every_panel_and_rule_has_data(
    start_gateway: StartGateway, demo_server: str, watch: Watch
) -> None:
    async with Receiver() as receiver:
        gateway = await start_gateway(
            upstream=demo_server,
            BACKBURNER_BACKGROUND__RETENTION_S=1,
            BACKBURNER_STORE__SWEEP_INTERVAL_S=1,
            **_hook(receiver),
        )
        prometheus = await watch(gateway)
        is_done = asyncio.Event()

        async def load() -> None:
            while not is_done.is_set():
                ids = [await _create(gateway, model="demo-model") for _ in range(5)]
                ids.append(await _create(gateway, model="demo-model", metadata={"demo_error": "cut"}))
                await gateway.call("POST", "/responses", {"model": "demo-model", "input": "Hi"})
                await gateway.call("GET", f"/responses/resp_{'0' * 48}")
                for response_id in ids:
                    await gateway.log_of_end(response_id)

        loading = asyncio.create_task(load())
        empty = {title for title, _ in _panels()} - NEED_NOT_HAPPEN.keys()

        async def until_all_have_data() -> None:
            while empty:
                for title, queries in _panels():
                    found = [await prometheus.query(query) for query in queries]
                    if any(found):
                        empty.discard(title)

        try:
            await within(until_all_have_data(), 60)
            for rule in rules():
                found = await prometheus.query(re.sub(r"\[\d+[mh]\]", "[10s]", rule["expr"]))
                assert found or "alert" in rule, rule
            scaled = yaml.safe_load((DEPLOY / "keda" / "scaledobject.yaml").read_text())
            assert len(await prometheus.query(scaled["spec"]["triggers"][0]["metadata"]["query"])) == 1
            async with gateway.http.get(f"{gateway.admin}/metrics") as answer:
                page = await answer.read()
        except TimeoutError:
            raise AssertionError(f"without data: {empty}") from None
        finally:
            is_done.set()
            await loading
    _is_clean(page)
    _says_only_what_is_told(page.decode())


def _is_clean(page: bytes) -> None:
    promtool = shutil.which("promtool")
    assert promtool is not None
    ran = subprocess.run([promtool, "check", "metrics"], input=page, capture_output=True, check=False)
    assert (ran.returncode, ran.stdout + ran.stderr) == (0, b"")


def _says_only_what_is_told(page: str) -> None:
    """Labels say what docs/metrics.md says that they can say."""
    for name, labels in re.findall(r"^backburner_(\w+){(.*)} \S+$", page, re.MULTILINE):
        metric = re.sub(r"_(total|bucket|sum|count)$", "", name)
        for key, value in re.findall(r'(\w+)="([^"]*)"', labels):
            if key != "le" and (known := label(metric, key).words):
                assert value in known, (name, key, value)


async def test_a_backend_that_is_down_and_one_of_two_replicas(
    start_gateway: StartGateway, demo_server: str, watch: Watch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    gateway = await start_gateway(
        upstream=demo_server,
        **QUICK,
        BACKBURNER_UPSTREAM__REPLICAS=f"http://127.0.0.1:{port}/v1",
    )
    prometheus = await watch(gateway)
    await prometheus.fires("BackburnerReplicaDown")
    async with listening(make_app(ModelServer(words_per_second=400)), "127.0.0.1", port):
        await prometheus.clears("BackburnerReplicaDown")


async def test_a_backend_that_is_down(
    start_gateway: StartGateway, replay_server: ReplayServer, watch: Watch
) -> None:
    gateway = await start_gateway(**QUICK)
    prometheus = await watch(gateway)
    port = int(replay_server.url.rpartition(":")[2].partition("/")[0])
    await replay_server.stop()
    waiting = await _create(gateway)
    await prometheus.fires("BackburnerBackendDown", "BackburnerOldestWaiting")
    [found] = await prometheus.query('sum by (reason) (backburner_jobs_waiting{backend="default"}) > 0')
    assert found["metric"]["reason"] in ("breaker", "retry")
    await replay_server.start(port)
    await prometheus.clears("BackburnerBackendDown", "BackburnerOldestWaiting")
    assert (await gateway.ended(waiting))["status"] == "completed"


async def test_a_backend_that_is_full_and_says_nothing(
    start_gateway: StartGateway, replay_server: ReplayServer, watch: Watch
) -> None:
    gateway = await start_gateway(
        BACKBURNER_UPSTREAM__CONCURRENCY_MAX=1, BACKBURNER_BACKGROUND__SILENT_AFTER_S=0.3
    )
    prometheus = await watch(gateway)
    held = replay_server.script(replay("vllm/responses-stream", hold_after=6))
    ids = [await _create(gateway) for _ in range(3)]
    await within(held.held.wait())
    alerts = (
        "BackburnerBackendSaturated",
        "BackburnerOldestWaiting",
        "BackburnerNothingFinishes",
        "BackburnerResponsesSilent",
    )
    await prometheus.fires(*alerts)
    [demand] = await prometheus.query("backburner_backend_demand")
    assert demand["value"][1] == "3"
    held.release.set()
    for response_id in ids:
        await gateway.ended(response_id)
    await prometheus.clears(*alerts)


@pytest.mark.parametrize(
    ("limits", "alert"),
    [
        ({"QUEUE_PER_TENANT_MAX": 1}, "BackburnerCallerFloods"),
        ({"QUEUE_PER_TENANT_MAX": 1, "QUEUE_MAX": 1}, "BackburnerQueueFull"),
    ],
)
async def test_a_queue_that_is_full(
    start_gateway: StartGateway,
    replay_server: ReplayServer,
    watch: Watch,
    limits: dict[str, int],
    alert: str,
) -> None:
    gateway = await start_gateway(
        BACKBURNER_UPSTREAM__CONCURRENCY_MAX=1,
        **{f"BACKBURNER_BACKGROUND__{name}": value for name, value in limits.items()},
    )
    prometheus = await watch(gateway)
    held = replay_server.script(replay("vllm/responses-stream", hold_after=6))
    await _create(gateway)
    await within(held.held.wait())
    await _create(gateway)
    assert (await gateway.call("POST", "/responses", ASK)).status == 429
    await prometheus.fires(alert)
    held.release.set()
    await prometheus.clears(alert)


async def test_a_caller_that_floods_is_told_by_what_its_responses_wait_for(
    start_gateway: StartGateway, replay_server: ReplayServer, watch: Watch
) -> None:
    gateway = await start_gateway(BACKBURNER_UPSTREAM__CONCURRENCY_MAX=2)
    prometheus = await watch(gateway)
    await gateway.ended(await _create(gateway))
    held = replay_server.script(replay("vllm/responses-stream", hold_after=6))
    for _ in range(3):
        answer = await gateway.call("POST", "/responses", ASK, key="sk-the-one-who-floods")
        assert answer.status == 200, answer.body
    await within(held.held.wait())
    await prometheus.until('backburner_jobs_waiting{reason="share"} == 2')
    held.release.set()
    await prometheus.until("backburner_backend_demand == 0")


async def test_responses_that_fail(
    start_gateway: StartGateway, replay_server: ReplayServer, watch: Watch
) -> None:
    gateway = await start_gateway()
    prometheus = await watch(gateway)
    is_known = asyncio.Event()

    async def fail() -> None:
        while not is_known.is_set():
            replay_server.script(json_answer({"error": {"message": "No."}}, 400))
            await gateway.ended(await _create(gateway))

    failing = asyncio.create_task(fail())
    await prometheus.fires("BackburnerFailures")
    is_known.set()
    await failing
    await prometheus.clears("BackburnerFailures")


async def test_a_key_that_is_refused(start_gateway: StartGateway, watch: Watch) -> None:
    server = ModelServer(words_per_second=400)
    async with listening(make_app(server, api_key="right"), "127.0.0.1", 0) as root:
        gateway = await start_gateway(
            "--admin-port",
            str(_free_port()),
            upstream=f"{root}/v1",
            **QUICK,
            BACKBURNER_UPSTREAM__API_KEY="wrong",
        )
        prometheus = await watch(gateway)
        await prometheus.fires("BackburnerKeyRefused")
        gateway.lines = []  # it says so as an error
        gateway.send(signal.SIGTERM)
        await gateway.exit_status()
        await gateway.restart(BACKBURNER_UPSTREAM__API_KEY="right")
        await prometheus.clears("BackburnerKeyRefused")


async def test_a_store_whose_file_was_moved(gateway: Gateway, watch: Watch) -> None:
    prometheus = await watch(gateway)
    elsewhere = gateway.database.with_name("moved.db")
    gateway.database.rename(elsewhere)
    await prometheus.fires("BackburnerStoreNotOk")
    elsewhere.rename(gateway.database)
    await prometheus.clears("BackburnerStoreNotOk")
    gateway.lines = [line for line in gateway.lines if not line["event"].startswith("store")]


async def test_a_receiver_of_webhooks_that_is_down(start_gateway: StartGateway, watch: Watch) -> None:
    async with Receiver() as receiver:
        receiver.default = Answer(status=503)
        gateway = await start_gateway(**_hook(receiver), BACKBURNER_WEBHOOKS__RETRY_DELAYS_S="0.2")
        prometheus = await watch(gateway)
        for _ in range(5):
            await gateway.ended(await _create(gateway))
        await prometheus.fires("BackburnerWebhookDown")
        receiver.default = Answer()
        await prometheus.clears("BackburnerWebhookDown")


async def test_events_that_are_given_up(start_gateway: StartGateway, watch: Watch) -> None:
    async with Receiver() as receiver:
        receiver.default = Answer(status=503)
        gateway = await start_gateway(**_hook(receiver), BACKBURNER_WEBHOOKS__RETRY_FOR_S=1)
        prometheus = await watch(gateway)
        await gateway.ended(await _create(gateway))
        await gateway.line(event="webhook", to="given_up")
        await prometheus.fires("BackburnerWebhooksGivenUp")
        await prometheus.clears("BackburnerWebhooksGivenUp")


def _hook(receiver: Receiver) -> dict[str, str]:
    """The settings of an endpoint."""
    prefix = "BACKBURNER_WEBHOOKS__ENDPOINTS__BILLING__"
    return {f"{prefix}URL": receiver.url, f"{prefix}SECRETS": SECRET}


async def test_a_gateway_that_halts_and_one_that_is_gone(start_gateway: StartGateway, watch: Watch) -> None:
    gateway = await start_gateway("--admin-port", str(_free_port()))
    prometheus = await watch(gateway)
    gateway.send(signal.SIGSTOP)
    await prometheus.fires("BackburnerDown")
    gateway.send(signal.SIGCONT)
    await prometheus.fires("BackburnerLoopLag")
    await prometheus.clears("BackburnerDown", "BackburnerLoopLag")
    await gateway.kill9()
    await prometheus.fires("BackburnerDown")
    await gateway.restart()
    await prometheus.clears("BackburnerDown")


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
    return port
