"""What the commands say when the admin port does not do what they ask."""

from __future__ import annotations

import asyncio
import hashlib
import socket
from pathlib import Path

import pytest

from tests.acceptance.conftest import StartGateway
from tests.acceptance.test_admin_api import ADMIN, READ, tokens
from tests.command.asking import asked, port_of, typed

__all__ = ["tokens"]


@pytest.mark.parametrize("command", ["jobs", "top", "drain", "webhooks"])
async def test_a_gateway_that_is_not_there_is_said_so(command: str) -> None:
    with socket.socket() as bound:  # bound, so that nobody else gets the port, and not listening
        bound.bind(("127.0.0.1", 0))
        done = await typed(command, "--admin-port", str(bound.getsockname()[1]))
    assert (done.status, done.out) == (1, "")
    assert "nothing listens there" in done.err
    assert len(done.err.splitlines()) == 1


async def test_another_server_on_the_port_is_told_from_a_gateway() -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 15\r\nConnection: close\r\n\r\n<html>hi</html>")
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        port = str(server.sockets[0].getsockname()[1])
        done = await typed("jobs", "--admin-port", port)
    assert (done.status, done.out) == (1, "")
    assert "what answers there is no gateway's admin port" in done.err


@pytest.mark.parametrize("mode", ["credential", "static_keys"])
async def test_the_public_port_is_told_from_the_admin_port(
    start_gateway: StartGateway, mode: str, tmp_path: Path
) -> None:
    keys = tmp_path / "keys"
    keys.write_text(f"{hashlib.sha256(b'sk-of-somebody').hexdigest()} somebody\n")
    keys.chmod(0o600)
    settings = {"BACKBURNER_TENANTS__MODE": mode, "BACKBURNER_TENANTS__KEYS_FILE": keys}
    gateway = await start_gateway(**(settings if mode == "static_keys" else {}))
    public = gateway.url.split(":")[2].partition("/")[0]
    for words in (("jobs",), ("job", f"resp_{'0' * 48}"), ("pause", "default"), ("webhooks",)):
        done = await typed(*words, "--admin-port", public)
        assert (done.status, done.out) == (1, "")
        assert "is this the gateway's admin port (server.admin_port, --admin-port)" in done.err, done.err


async def test_the_token_of_the_settings_is_used_and_a_missing_one_is_told_with_its_setting(
    start_gateway: StartGateway,
    tokens: dict[str, object],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    gateway = await start_gateway(**tokens)
    nobody = await asked(gateway, "jobs")
    assert nobody.status == 1
    assert "This page wants a token: give the gateway's: server.admin_token_file" in nobody.err
    file = tmp_path / "operator.yaml"
    file.write_text(
        f"server: {{admin_port: {port_of(gateway)}, admin_token_file: {tmp_path / 'ADMIN_TOKEN'}}}\n"
    )
    assert (await typed("jobs", "--config", str(file))).status == 0
    monkeypatch.setenv("READER", READ)
    monkeypatch.setenv("BACKBURNER_SERVER__ADMIN_TOKEN_ENV", "READER")
    assert (await asked(gateway, "jobs")).status == 0
    reader = await asked(gateway, "pause", "default")
    assert reader.status == 1
    assert "This token may look, and change nothing: only the admin token changes anything" in reader.err
    for done in (nobody, reader):
        assert ADMIN not in done.err + done.out
        assert READ not in done.err + done.out


async def test_a_gateway_without_a_token_that_others_can_reach_says_what_it_needs(
    start_gateway: StartGateway,
) -> None:
    gateway = await start_gateway(BACKBURNER_SERVER__ADMIN_HOST="0.0.0.0")
    done = await asked(gateway, "top")
    assert done.status == 1
    assert "has no token: give it server.admin_token_file" in done.err
