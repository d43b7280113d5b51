"""Slow clients are let go of, and only they."""

from __future__ import annotations

import asyncio
import socket
import struct
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest
from aiohttp import web

from gateway.api.http.bodies import read_body
from gateway.api.http.errors import error_response
from gateway.api.http.server import Server
from gateway.api.passthrough import Passthrough
from gateway.config import ServerSettings
from gateway.observe import Observer
from gateway.wire.errors import Refusal
from tests.api.test_passthrough import (
    BACKEND,
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

GET = b"GET /v1/x HTTP/1.1\r\nHost: g\r\n\r\n"
POST = b"POST /v1/x HTTP/1.1\r\nHost: g\r\nContent-Length: 1000\r\n\r\n"
Handler = Callable[[web.BaseRequest], Any]


async def echo(request: web.BaseRequest) -> web.Response:
    return web.Response(body=await read_body(request, 2**20))


@asynccontextmanager
async def serving(handler: Handler = echo, **settings: Any) -> AsyncIterator[int]:
    """The server alone, on a free port."""

    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        try:
            response: web.StreamResponse = await handler(request)
        except Refusal as refusal:
            return error_response(refusal)
        return response

    server = Server(answer, ServerSettings.model_validate(settings), Observer())
    listener = await asyncio.get_running_loop().create_server(server, "127.0.0.1", 0)
    try:
        yield listener.sockets[0].getsockname()[1]
    finally:
        listener.close()
        await server.shutdown(1)


async def drip(writer: Writer, data: bytes, every_s: float = 0.05) -> None:
    """One byte after the other, until the other side has had enough."""
    try:
        for byte in data:
            writer.write(bytes([byte]))
            await writer.drain()
            await asyncio.sleep(every_s)
    except ConnectionError:
        pass


@pytest.mark.parametrize("before", [b"", GET])
async def test_head_that_does_not_end_in_time_is_408(before: bytes) -> None:
    async with serving(head_timeout_s=0.5) as port, client(port) as (reader, writer):
        if before:
            writer.write(before)
            assert b" 200 " in await head_of(reader)
        started = time.monotonic()
        dripping = asyncio.create_task(drip(writer, GET * 9))
        answer = await within(reader.read())
        assert 0.4 < time.monotonic() - started < 2
        await dripping
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert error_of(answer)["code"] == "request_timeout"


async def test_connection_that_says_nothing_is_closed_in_the_end() -> None:
    async with serving(keepalive_timeout_s=0.3) as port:
        for before in (b"", GET):
            async with client(port) as (reader, writer):
                writer.write(before)
                started = time.monotonic()
                assert (await within(reader.read())).count(b"HTTP/1.1 200") == bool(before)
                assert 0.2 < time.monotonic() - started < 2


async def test_head_that_comes_piece_by_piece_may_not_be_large() -> None:
    async with serving(head_bytes_max=4096) as port, client(port) as (reader, writer):
        writer.write(b"GET /v1/x HTTP/1.1\r\nHost: g\r\n")
        for _ in range(5):
            writer.write(b"A: " + b"b" * 1000 + b"\r\n")
            await writer.drain()
            await asyncio.sleep(0.05)
        answer = await within(reader.read())
    assert answer.startswith(b"HTTP/1.1 431 ")


async def test_client_that_goes_on_with_a_head_that_was_refused_hears_of_it() -> None:
    async with serving() as port, client(port) as (reader, writer):
        answer = asyncio.create_task(head_of(reader))
        writer.write(b"GET /v1/" + b"x" * 2**24)
        await within(writer.drain())
        writer.write(b" HTTP/1.1\r\n\r\n" + GET)
        assert (await within(answer))[8:13] == b" 431 "
        assert b"HTTP/1." not in await within(reader.read())


async def test_client_that_never_ends_its_refused_head_is_cut_off() -> None:
    async with serving() as port, client(port) as (reader, writer):
        writer.write(b"GET /v1/" + b"x" * 9000)
        assert (await within(head_of(reader)))[8:13] == b" 431 "
        started = time.monotonic()
        await within(drip(writer, b"x" * 10_000))
        assert 1 < time.monotonic() - started < 5


async def test_half_a_request_behind_a_running_one_does_not_end_it() -> None:
    release = asyncio.Event()

    async def slow(_request: web.BaseRequest) -> web.Response:
        await release.wait()
        return web.Response(text="done")

    async with serving(slow, head_timeout_s=0.2) as port, client(port) as (reader, writer):
        writer.write(GET)
        await asyncio.sleep(0.1)
        writer.write(GET[:20])
        await asyncio.sleep(0.5)
        writer.write(GET[20:])
        release.set()
        answer = await within(reader.read())
    assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
    assert answer.endswith(b"\r\n\r\ndone")  # and no more: the second one was late


@pytest.mark.parametrize(
    "limits", [{"body_idle_timeout_s": 0.3}, {"body_timeout_s": 1, "body_idle_timeout_s": 1}]
)
async def test_body_that_does_not_come_is_408(limits: dict[str, Any]) -> None:
    async with serving(**limits) as port, client(port) as (reader, writer):
        started = time.monotonic()
        writer.write(POST)
        dripping = asyncio.create_task(
            drip(writer, b"x" * 900, 5 if "body_timeout_s" not in limits else 0.05)
        )
        answer = await within(reader.read())
        assert 0.2 < time.monotonic() - started < 3
        dripping.cancel()
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b"\r\nConnection: close\r\n" in answer


async def test_body_that_nobody_reads_does_not_hold_the_connection() -> None:
    async def deaf(_request: web.BaseRequest) -> web.Response:
        return web.Response(text="not listening")

    async with serving(deaf, body_idle_timeout_s=0.3) as port, client(port) as (reader, writer):
        writer.write(POST)
        answer = await within(reader.read(), 3)
    assert answer.endswith(b"not listening")
    assert b"\r\nConnection: close\r\n" in answer


async def test_upload_that_does_not_come_is_408_and_the_backend_is_let_go() -> None:
    let_go = asyncio.Event()

    async def script(reader: Reader, _writer: Writer) -> None:
        await gone(reader)
        let_go.set()

    limits = {"body_idle_timeout_s": 0.3}
    async with backend(script) as up, gateway(up, server=limits) as gw, client(gw.port) as (reader, writer):
        writer.write(POST + b"some")
        answer = await within(reader.read())
        await within(let_go.wait(), 1)
        assert gw.failures("cut") == gw.failures("timeout") == 0
    assert answer.startswith(b"HTTP/1.1 408 ")


async def test_client_is_not_blamed_for_a_slow_backend() -> None:
    size = 24 * 2**20

    async def script(reader: Reader, writer: Writer) -> None:
        await reader.readuntil(b"\r\n\r\n")
        await asyncio.sleep(1.5)
        left = size
        while left:
            left -= len(await reader.read(2**20))
        writer.write(OK)

    limits = {"body_idle_timeout_s": 0.4, "body_timeout_s": 1}
    async with backend(script) as up, gateway(up, server=limits) as gw, client(gw.port) as (reader, writer):
        writer.write(b"POST /v1/x HTTP/1.1\r\nHost: g\r\nContent-Length: %d\r\n\r\n" % size)
        for _ in range(size // 2**20):
            writer.write(b"\0" * 2**20)
            await within(writer.drain())
        assert b" 200 OK" in await head_of(reader)


async def test_client_that_hangs_up_while_the_backend_takes_nothing_ends_the_call() -> None:
    cancelled = asyncio.Event()

    async def script(reader: Reader, _writer: Writer) -> None:
        await reader.readuntil(b"\r\n\r\n")
        await asyncio.Event().wait()

    async def handler(through: Passthrough, request: web.BaseRequest) -> web.StreamResponse:
        try:
            return await through.forward(request, BACKEND.get(), request_id="req_ours")
        finally:
            cancelled.set()

    async with backend(script) as up, gateway(up, handler=handler) as gw:
        async with client(gw.port) as (_reader, writer):
            writer.write(b"POST /v1/x HTTP/1.1\r\nHost: g\r\nContent-Length: %d\r\n\r\n" % 2**30)
            with suppress(TimeoutError):
                while True:
                    writer.write(b"\0" * 2**16)
                    await within(writer.drain(), 0.5)
            assert not cancelled.is_set()
            connection = writer.get_extra_info("socket")
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()  # with a reset; an end in good order would stand in line behind the data
        await within(cancelled.wait(), 2.5)


async def test_connection_that_is_one_too_many_is_told_so() -> None:
    async with serving(connections_max=2) as port, client(port) as (first, writer), client(port):
        writer.write(GET)
        assert b" 200 " in await head_of(first)
        async with client(port) as (third, _):
            answer = await within(third.read())
        assert answer.startswith(b"HTTP/1.1 503 ")
        assert error_of(answer)["code"] == "too_many_connections"
        writer.write(GET)
        assert b" 200 " in await head_of(first)


async def test_what_was_sent_behind_a_declined_upgrade_is_dropped() -> None:
    upgrade = b"GET /v1/x HTTP/1.1\r\nHost: g\r\nConnection: Upgrade\r\nUpgrade: %s\r\n\r\n"
    for protocol in (b"websocket", b"h2c"):
        async with serving() as port, client(port) as (reader, writer):
            writer.write(upgrade % protocol + GET)
            answer = await within(reader.read())
            assert answer.count(b"HTTP/1.1 200 ") == 1
            assert b"\r\nConnection: close\r\n" in answer


async def test_answers_to_pipelined_requests_come_in_order() -> None:
    async with backend(replying(OK, OK, OK)) as up, gateway(up) as gw, client(gw.port) as (reader, writer):
        writer.write(GET * 3)
        for _ in range(3):
            assert b" 200 OK" in await head_of(reader)
            assert await within(reader.readexactly(2)) == b"ok"
