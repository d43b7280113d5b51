"""What an operator learns about a backend before the first client does."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.conftest import StartGateway
from tests.acceptance.fleet import state_of, until
from tests.acceptance.harness import Gateway
from tests.acceptance.keyed import KeyedServer
from tests.acceptance.replay import ReplayServer

QUICK = {"BACKBURNER_UPSTREAM__HEALTH_INTERVAL_S": 0.1}
NOBODY = "http://127.0.0.1:9/v1"
"""The discard port: nothing listens there."""


async def _checked(gateway: Gateway, result: str, backend: str = "default") -> dict[str, Any]:
    """Wait for what a check comes to; how the replica is then."""

    async def is_so() -> bool:
        return bool((await state_of(gateway, backend))["replicas"][0]["check"] == result)

    await until(is_so)
    sample = f'backburner_replica_check{{backend="{backend}",replica="0",result="{result}"}}'
    assert await gateway.metric(sample) == 1
    state: dict[str, Any] = (await state_of(gateway, backend))["replicas"][0]
    return state


async def test_a_dead_backend_without_traffic_is_not_healthy(start_gateway: StartGateway) -> None:
    gateway = await start_gateway(upstream=NOBODY, **QUICK)
    assert (await _checked(gateway, "unreachable"))["healthy"] is False
    assert await gateway.metric('backburner_replica_up{backend="default",replica="0"}') == 0
    said = await gateway.line(event="replica", check="unreachable")
    assert (said["backend"], said["healthy"]) == ("default", False)


async def test_a_backend_that_comes_is_healthy_again(
    start_gateway: StartGateway, replay_server: ReplayServer
) -> None:
    url = replay_server.url
    await replay_server.stop()
    gateway = await start_gateway(upstream=url, **QUICK)
    await _checked(gateway, "unreachable")
    again = ReplayServer()
    await again.start(int(url.rpartition(":")[2].partition("/")[0]))
    try:
        assert (await _checked(gateway, "ok"))["healthy"] is True
        assert await gateway.metric('backburner_replica_up{backend="default",replica="0"}') == 1
    finally:
        await gateway.stop()
        await again.stop()


async def test_a_wrong_path_of_the_base_url_is_told_at_the_start(
    start_gateway: StartGateway, demo_server: str
) -> None:
    gateway = await start_gateway(upstream=demo_server.replace("/v1", "/api/v9"), **QUICK)
    await _checked(gateway, "no_api")
    said = await gateway.line(event="replica", check="no_api")
    assert (said["level"], said["url"].endswith("/api/v9")) == ("warning", True)
    assert "base URL" in said["reason"]


async def test_a_gateway_key_that_is_refused_is_an_error_in_log_page_and_metrics(
    start_gateway: StartGateway, tmp_path: Path
) -> None:
    key = tmp_path / "key"
    key.write_text("sk-old")
    os.chmod(key, 0o600)
    async with KeyedServer("sk-new").running() as server:
        gateway = await start_gateway("--api-key-file", str(key), upstream=server.url, **QUICK)
        await _checked(gateway, "key_refused")
        said = await gateway.line(event="replica", check="key_refused")
        assert said["level"] == "error"
        assert "sk-old" not in gateway.stderr.decode()
        await gateway.stop()
        gateway.lines.clear()  # the error was wanted


async def test_without_a_key_of_its_own_a_refusal_says_nothing_about_the_backend(
    start_gateway: StartGateway,
) -> None:
    async with KeyedServer("sk-of-somebody").running() as server:
        gateway = await start_gateway(upstream=server.url, **QUICK)
        assert (await _checked(gateway, "ok"))["healthy"] is True


async def test_a_server_without_either_api_is_not_taken_for_a_chat_server(
    start_gateway: StartGateway, demo_server: str
) -> None:
    gateway = await start_gateway(upstream=demo_server.replace("/v1", "/nowhere"))
    answer = await gateway.call("POST", "/responses", {"model": "tiny", "input": "x"})
    assert answer.status == 404
    assert (await state_of(gateway, "default"))["api"] == "not known yet"
    said = await gateway.line(event="backend_api", api="none")
    assert "/nowhere" in said["reason"]


@pytest.mark.parametrize("route", ["responses", "chat/completions", "models"])
async def test_a_url_of_a_route_in_place_of_the_base_url_is_refused(tmp_path: Path, route: str) -> None:
    gateway = Gateway(f"http://127.0.0.1:8000/v1/{route}", tmp_path / "unused.db")
    await gateway.spawn()
    assert await gateway.exit_status() == 78
    assert f"without /{route}: its path is /v1" in gateway.stderr.decode()
    assert not (tmp_path / "unused.db").exists()
