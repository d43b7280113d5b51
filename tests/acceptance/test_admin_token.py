"""The admin port off loopback: it tells how things are, and changes nothing without the token."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import orjson
import pytest

from tests.acceptance.conftest import StartGateway
from tests.acceptance.harness import Gateway

TOKEN = "admin-canary-5d1c2e"
RIGHT = {"Authorization": f"Bearer {TOKEN}"}
EVERYWHERE = {"BACKBURNER_SERVER__ADMIN_HOST": "0.0.0.0"}


@pytest.fixture
def token_file(tmp_path: Path) -> Path:
    file = tmp_path / "token"
    file.write_text(f"{TOKEN}\n")
    os.chmod(file, 0o600)
    return file


async def _readyz(gateway: Gateway, headers: dict[str, str]) -> dict[str, Any]:
    async with gateway.http.get(f"{_local(gateway)}/readyz", headers=headers) as answer:
        assert answer.status == 200
        found: dict[str, Any] = orjson.loads(await answer.read())
        return found


def _local(gateway: Gateway) -> str:
    return gateway.admin.replace("0.0.0.0", "127.0.0.1")


async def _retry(gateway: Gateway, headers: dict[str, str]) -> tuple[int, str]:
    body = {"retry": "resp_x"}
    async with gateway.http.post(f"{_local(gateway)}/webhooks", json=body, headers=headers) as answer:
        return answer.status, (await answer.json())["error"]


async def test_off_loopback_nothing_is_changed_and_no_address_shown_without_a_token(
    start_gateway: StartGateway,
) -> None:
    gateway = await start_gateway(**EVERYWHERE)
    state = await _readyz(gateway, {})
    [replica] = state["backends"]["default"]["replicas"]
    assert "url" not in replica
    assert "healthy" in replica
    status, words = await _retry(gateway, RIGHT)
    assert status == 403
    assert "server.admin_token_file" in words
    for page in ("/healthz", "/metrics"):
        async with gateway.http.get(f"{_local(gateway)}{page}") as answer:
            assert answer.status == 200


@pytest.mark.parametrize("given", [{}, {"Authorization": "Bearer wrong"}, {"Authorization": TOKEN}])
async def test_with_a_token_only_who_brings_it_may_change_anything(
    start_gateway: StartGateway, token_file: Path, given: dict[str, str]
) -> None:
    gateway = await start_gateway(**EVERYWHERE, BACKBURNER_SERVER__ADMIN_TOKEN_FILE=token_file)
    assert (await _retry(gateway, given))[0] == 401
    assert (await _retry(gateway, RIGHT))[0] == 404  # nothing waits about this response
    assert "url" not in (await _readyz(gateway, given))["backends"]["default"]["replicas"][0]
    assert "url" in (await _readyz(gateway, RIGHT))["backends"]["default"]["replicas"][0]
    assert TOKEN not in gateway.stderr.decode()


async def test_on_loopback_the_token_is_wanted_where_there_is_one(start_gateway: StartGateway) -> None:
    free = await start_gateway()
    assert (await _retry(free, {}))[0] == 404
    held = await start_gateway(BACKBURNER_SERVER__ADMIN_TOKEN_ENV="MY_TOKEN", MY_TOKEN=TOKEN)
    assert (await _retry(held, {}))[0] == 401
    assert (await _retry(held, RIGHT))[0] == 404
