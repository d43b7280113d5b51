"""Connections to servers that are there, and what is said of those that are not."""

from __future__ import annotations

import asyncio
import socket

import aiohttp
import pytest
from yarl import URL

from gateway.core.reason import Reason
from gateway.outbound.client import FAILURES, explain
from gateway.outbound.connector import BackendConnector


async def failure(url: str, limit_s: float = 5) -> tuple[Reason, str]:
    with pytest.raises(FAILURES) as failed:
        await BackendConnector(limit_s).connect(URL(url))
    reason, refusal = explain(failed.value, limit_s)
    return reason, refusal.message


async def test_of_several_addresses_the_one_that_answers_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    async with await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1") as listening:
        port = listening.sockets[0].getsockname()[1]
        dead = (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.2", port))
        live = (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port))
        asked = []

        async def resolve(host: str, *_: object, **__: object) -> list[object]:
            asked.append(host)
            return [dead, live]

        monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", resolve, raising=False)
        connector = BackendConnector(5)
        for _ in range(2):
            wire = await connector.connect(URL(f"http://model.example:{port}"))
            wire.close()
        assert asked == ["model.example"]  # kept for a while


async def test_a_refused_connection_is_told_without_an_address() -> None:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{one.getsockname()[1]}"
    reason, message = await failure(url)
    assert reason is Reason.UNREACHABLE
    assert "connection refused" in message
    assert "127" not in message


async def test_a_name_that_there_is_not_is_told() -> None:
    reason, message = await failure("http://nowhere.invalid:80")
    assert reason is Reason.UNREACHABLE
    assert "could not be resolved" in message
    assert "nowhere" not in message


async def test_a_server_that_speaks_no_tls_is_told() -> None:
    async def talk(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(talk, "127.0.0.1") as listening:
        reason, message = await failure(f"https://127.0.0.1:{listening.sockets[0].getsockname()[1]}")
    assert reason is Reason.UNREACHABLE
    assert "TLS" in message


async def test_a_connection_that_does_not_come_in_time_is_given_up() -> None:
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        waiting = []
        try:
            for _ in range(8):  # until the kernel answers no more
                one = socket.socket()
                one.setblocking(False)
                one.connect_ex(full.getsockname())
                waiting.append(one)
            with pytest.raises(aiohttp.ConnectionTimeoutError):
                await BackendConnector(0.3).connect(URL(f"http://127.0.0.1:{full.getsockname()[1]}"))
        finally:
            for one in waiting:
                one.close()
