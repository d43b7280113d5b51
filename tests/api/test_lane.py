"""The fast lane: connections that die, come in pieces, change lanes, or are forgotten by their clients."""

from __future__ import annotations

import asyncio
import socket

import pytest

from tests.api import test_passthrough
from tests.api.test_passthrough import (
    GET,
    OK,
    Reader,
    Writer,
    backend,
    client,
    error_of,
    gateway,
    gone,
    head_of,
    replying,
    within,
)

POST = b"POST /v1/x HTTP/1.1\r\nHost: g\r\nContent-Length: 2\r\n\r\n{}"
BREW = b"BREW /v1/x HTTP/1.1\r\nHost: g\r\n\r\n"
"""For the other lane: the parser does not know this method."""


@pytest.fixture(autouse=True)
def _has_lane(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(test_passthrough, "HAS_LANE", True)


async def answer_of(reader: Reader) -> bytes:
    """One answer of two bytes."""
    head = await head_of(reader)
    return head + await within(reader.readexactly(2))


async def once_then_closed(reader: Reader, writer: Writer) -> None:
    """Answers the first request on each connection, reads the second, and goes."""
    await reader.readuntil(b"\r\n\r\n")
    writer.write(OK)
    await reader.readuntil(b"\r\n\r\n")


async def test_a_kept_connection_that_dies_costs_no_request_that_may_be_repeated() -> None:
    async with backend(once_then_closed) as up, gateway(up) as gw, client(gw.port) as (reader, writer):
        for _ in range(5):
            writer.write(GET)
            assert b" 200 OK" in await answer_of(reader)
        assert gw.failures("cut") == 0


async def test_a_request_that_a_server_has_read_and_not_answered_is_not_repeated() -> None:
    async def script(reader: Reader, writer: Writer) -> None:
        await reader.readuntil(b"{}")
        writer.write(OK)
        await reader.readuntil(b"{}")

    async with backend(script) as up, gateway(up) as gw:
        async with client(gw.port) as (reader, writer):
            writer.write(POST)
            assert b" 200 OK" in await answer_of(reader)
            writer.write(POST.replace(b"Host: g", b"Host: g\r\nConnection: close"))
            assert error_of(await within(reader.read()))["code"] == "backend_disconnected"
        assert gw.failures("cut") == 1


async def test_a_request_sent_into_a_connection_that_was_just_closed_is_sent_again() -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    listener.setblocking(False)
    loop = asyncio.get_running_loop()
    async with gateway(listener.getsockname()[1]) as gw, client(gw.port) as (reader, writer):
        for _ in range(30):
            writer.write(POST)
            kept, _ = await within(loop.sock_accept(listener))
            while not (await within(loop.sock_recv(kept, 2**16))).endswith(b"{}"):
                pass
            await loop.sock_sendall(kept, OK)
            assert b" 200 OK" in await answer_of(reader)
            kept.close()  # and in the same turn, before anybody can have seen it, the next request
        assert gw.failures("cut") == 0
    listener.close()


async def test_a_connection_goes_to_the_other_lane_and_comes_back() -> None:
    asked = [GET, BREW, POST, GET, BREW, BREW, GET]
    seen: list[bytes] = []

    async def script(reader: Reader, writer: Writer) -> None:
        while head := await reader.readuntil(b"\r\n\r\n"):
            if head.startswith(b"POST"):
                await reader.readexactly(2)
            seen.append(head.split()[0])
            writer.write(OK)

    async with backend(script) as up, gateway(up) as gw, client(gw.port) as (reader, writer):
        for request in asked:
            writer.write(request)
            assert b" 200 OK" in await answer_of(reader)
    assert seen == [request.split()[0] for request in asked]


async def test_requests_in_one_piece_are_answered_in_their_order() -> None:
    async with backend(replying(*[OK] * 6)) as up, gateway(up) as gw, client(gw.port) as (reader, writer):
        writer.write(GET * 3)
        for _ in range(3):
            assert b" 200 OK" in await answer_of(reader)
        for _ in range(3):
            writer.write(GET)
        for _ in range(3):
            assert b" 200 OK" in await answer_of(reader)


async def test_a_request_that_comes_byte_by_byte_is_answered() -> None:
    async def script(reader: Reader, writer: Writer) -> None:
        while await reader.readuntil(b"{}"):
            writer.write(OK)

    async with backend(script) as up, gateway(up) as gw, client(gw.port) as (reader, writer):
        for at in range(len(POST)):
            writer.write(POST[at : at + 1])
            await writer.drain()
            await asyncio.sleep(0)
        assert b" 200 OK" in await answer_of(reader)
        writer.write(POST[:-2])
        await writer.drain()
        await asyncio.sleep(0)
        writer.write(POST[-2:])
        assert b" 200 OK" in await answer_of(reader)


async def test_a_body_that_does_not_come_is_refused_as_in_the_other_lane() -> None:
    limits = {"body_idle_timeout_s": 0.3}

    async def script(reader: Reader, _: Writer) -> None:
        await gone(reader)

    async with (
        backend(script) as up,
        gateway(up, server=limits) as gw,
        client(gw.port) as (reader, writer),
    ):
        writer.write(POST[:-1])
        assert b" 408 " in await head_of(reader)


async def test_an_idle_connection_is_closed_after_its_time() -> None:
    limits = {"keepalive_timeout_s": 0.2}
    async with backend(replying(OK)) as up, gateway(up, server=limits) as gw:
        async with client(gw.port) as (reader, writer):
            writer.write(GET)
            await answer_of(reader)
            await within(gone(reader))
        async with client(gw.port) as (reader, _):
            await within(gone(reader))


async def test_connections_of_both_lanes_count_together() -> None:
    async with (
        backend(replying(OK, OK)) as up,
        gateway(up, server={"connections_max": 2}) as gw,
        client(gw.port) as (one, first),
        client(gw.port) as (other, second),
    ):
        first.write(GET)
        second.write(BREW)
        assert b" 200 OK" in await answer_of(one)
        assert b" 200 OK" in await answer_of(other)
        async with client(gw.port) as (third, _):
            assert b" 503 " in await head_of(third)


async def test_a_client_that_hangs_up_ends_the_call_to_the_backend() -> None:
    ended = asyncio.Event()

    async def script(reader: Reader, writer: Writer) -> None:
        await reader.readuntil(b"\r\n\r\n")
        await gone(reader)
        ended.set()

    async with backend(script) as up, gateway(up) as gw:
        async with client(gw.port) as (_, writer):
            writer.write(GET)
            await writer.drain()
            await asyncio.sleep(0.05)
        await within(ended.wait())


async def test_an_answer_while_the_gateway_leaves_is_the_last_on_its_connection() -> None:
    release = asyncio.Event()

    async def script(reader: Reader, writer: Writer) -> None:
        await reader.readuntil(b"\r\n\r\n")
        await within(release.wait())
        writer.write(OK)
        await gone(reader)

    async with backend(script) as up, gateway(up) as gw, client(gw.port) as (reader, writer):
        writer.write(GET)
        await writer.drain()
        gw.front.is_leaving = True
        release.set()
        assert b"\r\nConnection: close\r\n" in await head_of(reader)
        await within(gone(reader))
