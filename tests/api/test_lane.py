"""The fast lane: connections that die, come in pieces, change lanes, or are forgotten by their clients."""

from __future__ import annotations

import asyncio
import socket

import pytest

from gateway.api.lane.connection import FastConnection
from gateway.api.lane.lane import Lane
from tests.api import test_passthrough
from tests.api.test_passthrough import (
    CHUNKED,
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


async def test_a_client_that_trickles_a_body_meets_the_limits_of_the_other_lane() -> None:
    limits = {
        "body_timeout_s": 0.4,
        "body_idle_timeout_s": 0.3,
        "keepalive_timeout_s": 0.2,
    }  # of the latter comes how often it is looked
    head = b"POST /v1/x HTTP/1.1\r\nHost: g\r\nContent-Length: 60000\r\n\r\n"

    async def script(reader: Reader, _: Writer) -> None:
        await gone(reader)

    async with (
        backend(script) as up,
        gateway(up, server=limits) as gw,
        client(gw.port) as (reader, writer),
    ):
        writer.write(head)
        answer = asyncio.create_task(head_of(reader))
        while not answer.done():
            writer.write(b" ")
            await asyncio.sleep(0.02)
        assert b" 408 " in await answer


async def test_requests_of_a_client_that_takes_no_answer_wait_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Answers of many sizes: of some the last piece comes when the client takes no more."""
    joined = Lane.joined

    def with_little_room(lane: Lane, connection: FastConnection, transport: asyncio.Transport) -> None:
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        joined(lane, connection, transport)

    monkeypatch.setattr(Lane, "joined", with_little_room)

    async def script(reader: Reader, writer: Writer) -> None:
        while head := await reader.readuntil(b"\r\n\r\n"):
            size = int(head.split()[1].rpartition(b"/")[2])
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size + b"b" * size)
            await writer.drain()

    async with backend(script) as up, gateway(up) as gw:
        for size in range(50_000, 700_000, 30_000):
            async with client(gw.port) as (reader, writer):
                writer.write(b"GET /v1/%d HTTP/1.1\r\nHost: g\r\n\r\n" % size)
                await asyncio.sleep(0.03)
                writer.write(b"GET /v1/7 HTTP/1.1\r\nHost: g\r\nConnection: close\r\n\r\n")
                await asyncio.sleep(0.01)
                assert b"Connection: close" not in await head_of(reader)
                assert await within(reader.readexactly(size)) == b"b" * size
                assert b"Connection: close" in await head_of(reader)
                assert await within(reader.read(-1)) == b"b" * 7


async def test_a_whole_answer_stays_so_whatever_follows_it() -> None:
    pieces = [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nok", b"ok and more"),
        (CHUNKED + b"4\r\nokok\r\n", b"0\r\n\r\nand more"),
    ]

    async def script(reader: Reader, writer: Writer) -> None:
        await reader.readuntil(b"\r\n\r\n")
        begins, ends = pieces[0]
        writer.write(begins)
        await writer.drain()
        await asyncio.sleep(0.05)
        writer.write(ends)
        await gone(reader)

    async with backend(script) as up, gateway(up) as gw:
        while pieces:
            async with client(gw.port) as (reader, writer):
                writer.write(GET.replace(b"Host", b"Connection: close\r\nHost"))
                body = await within(reader.read(-1))
                assert body.endswith((b"\r\n\r\nokok", b"4\r\nokok\r\n0\r\n\r\n"))
            del pieces[0]
        assert gw.failures("cut") == 0


async def test_an_answer_that_is_no_http_is_not_asked_for_again() -> None:
    asked: list[bytes] = []

    async def script(reader: Reader, writer: Writer) -> None:
        asked.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(OK)
        asked.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(b"no HTTP at all\r\n\r\n")
        await gone(reader)

    async with backend(script) as up, gateway(up) as gw, client(gw.port) as (reader, writer):
        writer.write(GET)
        await answer_of(reader)
        writer.write(GET)
        assert b" 502 " in await head_of(reader)
        assert gw.failures("cut") == 1
    assert len(asked) == 2


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
