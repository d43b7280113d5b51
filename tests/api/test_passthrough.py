"""Real sockets on both sides: what a raw backend saw, what a raw client got, byte for byte."""

from __future__ import annotations

import asyncio
import gzip
import logging
import re
import socket
import struct
import time
import tracemalloc
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

import orjson
import pytest
from aiohttp import web

from gateway.api.http.cors import Cors
from gateway.api.http.errors import METHODS
from gateway.api.http.server import Server
from gateway.api.identity.credential_check import status_at
from gateway.api.lane.lane import Lane
from gateway.api.passthrough import Passthrough
from gateway.config import Settings
from gateway.observe import Observer
from gateway.outbound.backend import HttpBackend
from gateway.outbound.client import make_session
from gateway.wire.http.head import Head

Reader: TypeAlias = asyncio.StreamReader
Writer: TypeAlias = asyncio.StreamWriter
Script: TypeAlias = Callable[[Reader, Writer], Awaitable[None]]
Handler: TypeAlias = Callable[[Passthrough, web.BaseRequest], Awaitable[web.StreamResponse]]
T = TypeVar("T")

WAIT_S = 5
MISSING = frozenset({404, 405, 501})
GET = b"GET /v1/models HTTP/1.1\r\nHost: gateway\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
CHUNKED = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.fixture(autouse=True)
def _nothing_is_logged_as_an_error(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    yield
    errors = [r.getMessage() for r in caplog.get_records("call") if r.levelno >= logging.ERROR]
    assert errors == []


@dataclass
class Gateway:
    port: int
    observer: Observer
    front: Server

    def failures(self, reason: str, kind: str = "passthrough") -> float:
        labels = {"kind": kind, "reason": reason}
        return self.observer.registry.get_sample_value("backburner_upstream_errors_total", labels) or 0


async def within(awaitable: Awaitable[T], seconds: float = WAIT_S) -> T:
    async with asyncio.timeout(seconds):
        return await awaitable


HAS_LANE = False
"""Whether requests take the fast lane, where nothing else is to be done with them."""


@pytest.fixture(autouse=True, params=[True, False], ids=["fast", "slow"])
def _lane(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(globals(), "HAS_LANE", request.param)


class Forwarded:
    """Every request is for one backend."""

    is_gate = False

    def __init__(self, target: HttpBackend, settings: Settings) -> None:
        self._target = target
        self.cors = Cors(settings.server, lambda head: False)
        self.begun = 0

    def backend_of(self, head: Head) -> HttpBackend:
        return self._target

    def way(self, head: Head) -> Forwarded:
        return self

    def tenant(self, head: Head) -> bytes:
        return b""

    def look(self, head: Head, body: bytes, tenant: object) -> Any:
        raise AssertionError("no body has to be looked at")

    def begin(self) -> None:
        self.begun += 1

    def end(self) -> None:
        self.begun -= 1


BACKEND: ContextVar[HttpBackend] = ContextVar("backend")
"""Where the gateway of a test sends its requests."""


async def _forward(through: Passthrough, request: web.BaseRequest) -> web.StreamResponse:
    return await through.forward(request, BACKEND.get(), request_id="req_ours")


@asynccontextmanager
async def gateway(
    backend_port: int,
    *,
    handler: Handler = _forward,
    upstream: dict[str, Any] | None = None,
    server: dict[str, Any] | None = None,
) -> AsyncIterator[Gateway]:
    """The low-level server with one handler, on a free port."""
    settings = Settings.model_validate(
        {
            "upstream": {"url": f"http://127.0.0.1:{backend_port}/v1", **(upstream or {})},
            "server": server or {},
        }
    )
    observer = Observer()
    assert settings.upstream is not None
    async with make_session(settings.upstream) as session:
        stall_timeout_s = settings.server.write_stall_timeout_s
        through = Passthrough(observer, stall_timeout_s=stall_timeout_s)
        target = HttpBackend(
            "only", session, session, settings.upstream, event_bytes_max=2**20, observer=observer
        )

        async def handle(request: web.BaseRequest) -> web.StreamResponse:
            BACKEND.set(target)
            return await handler(through, request)

        front = Server(handle, settings.server, observer)
        requests = Forwarded(target, settings)
        if HAS_LANE and handler is _forward:
            lane = Lane(requests, front, settings.server, observer)
            lane.new_id = lambda: "req_ours"
            front.lane = lane
        listener = await asyncio.get_running_loop().create_server(front, "127.0.0.1", 0)
        try:
            yield Gateway(listener.sockets[0].getsockname()[1], observer, front)
        finally:
            listener.close()
            await front.shutdown(1)
            target.quick.close()
        assert not requests.begun


@asynccontextmanager
async def backend(script: Script) -> AsyncIterator[int]:
    """A server that runs `script` for each connection; its port. An assertion in a script counts."""
    tasks: set[asyncio.Task[None]] = set()
    failed: list[BaseException] = []

    async def serve(reader: Reader, writer: Writer) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        try:
            await script(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        except Exception as error:
            failed.append(error)
        finally:
            writer.close()

    listener = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield listener.sockets[0].getsockname()[1]
    finally:
        listener.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    assert failed == []


@asynccontextmanager
async def client(port: int) -> AsyncIterator[tuple[Reader, Writer]]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        yield reader, writer
    finally:
        writer.close()


async def head_of(reader: Reader) -> bytes:
    return await within(reader.readuntil(b"\r\n\r\n"))


def fields(head: bytes) -> list[tuple[str, str]]:
    lines = head.decode().split("\r\n")[1:-2]
    return [(name.lower(), value) for name, value in (line.split(": ", 1) for line in lines)]


async def gone(reader: Reader) -> None:
    """Until the other side has closed this connection."""
    try:
        while await reader.read(65536):
            pass
    except ConnectionError:
        pass


def replying(*answers: bytes, seen: list[bytes] | None = None) -> Script:
    """Reads heads (no bodies) and gives each the next answer; then holds the connection open."""
    rest = list(answers)

    async def script(reader: Reader, writer: Writer) -> None:
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            if seen is not None:
                seen.append(head)
            writer.write(rest.pop(0))

    return script


async def ask(port: int, request: bytes) -> bytes:
    """One request, and all that comes back until the end of the connection."""
    async with client(port) as (reader, writer):
        writer.write(request.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n", 1))
        return await within(reader.read())


def error_of(raw: bytes) -> dict[str, Any]:
    error: dict[str, Any] = orjson.loads(raw.partition(b"\r\n\r\n")[2])["error"]
    return error


# The request on its way to the backend.


async def test_request_arrives_with_its_target_untouched_and_no_header_invented() -> None:
    seen: list[bytes] = []
    target = b"/v1/files/a%20b:c/.x;y=1?q=a+b%20c&&e=%c3%a9&q=%zz"
    async with backend(replying(OK, seen=seen)) as up, gateway(up) as gw:
        await ask(gw.port, b"DELETE " + target + b" HTTP/1.1\r\nHost: gateway\r\nX-A: 1\r\nx-a: 2\r\n\r\n")
    assert seen[0].startswith(b"DELETE " + target + b" HTTP/1.1\r\n")
    assert fields(seen[0]) == [
        ("host", f"127.0.0.1:{up}"),
        ("x-a", "1"),
        ("x-a", "2"),
        ("x-request-id", "req_ours"),
        ("via", "1.1 backburner"),
        ("content-length", "0"),  # aiohttp's client says so for every method that may have a body
    ]


async def test_configured_key_replaces_the_callers() -> None:
    seen: list[bytes] = []
    async with backend(replying(OK, OK, seen=seen)) as up, gateway(up, upstream={"api_key": "k-1"}) as gw:
        for mine in (b"Authorization: Bearer x", b"api-key: x"):
            await ask(gw.port, GET.replace(b"\r\n\r\n", b"\r\n" + mine + b"\r\n\r\n"))
    for sent in map(fields, seen):
        assert ("authorization", "Bearer k-1") in sent
        assert not [value for name, value in sent if name == "api-key" or value == "Bearer x"]


async def test_cookie_of_one_caller_never_travels_with_the_next() -> None:
    seen: list[bytes] = []
    cookie = b"HTTP/1.1 200 OK\r\nSet-Cookie: s=1\r\nContent-Length: 0\r\n\r\n"
    async with backend(replying(cookie, OK, seen=seen)) as up, gateway(up) as gw:
        assert b"Set-Cookie" not in await ask(gw.port, GET)
        await ask(gw.port, GET)
    assert b"ookie" not in seen[1]


async def test_every_method_is_passed_on_as_it_was_sent_but_two() -> None:
    seen: list[str] = []

    async def script(reader: Reader, writer: Writer) -> None:
        while head := await reader.readuntil(b"\r\n\r\n"):
            seen.append(head.split()[0].decode())
            writer.write(b"HTTP/1.1 204 No Content\r\n\r\n")

    page = (Path(__file__).parents[2] / "docs" / "requests.md").read_text()
    assert METHODS in " ".join(page.split())
    passed = (*METHODS.split(", "), "FOO", "M0", "VERSION-CONTROL", "get", "Head", "PLAY", "DESCRIBE")
    async with backend(script) as up, gateway(up) as gw:
        for method in (*passed, "CONNECT", "TRACE", "tRACE"):
            async with client(gw.port) as (reader, writer):
                writer.write(f"{method} /v1/x HTTP/1.1\r\nHost: g\r\n\r\n".encode())
                head = await within(reader.readuntil(b"\r\n\r\n"))
                if method in passed:
                    assert head.split()[1] == b"204", method
                else:
                    assert head.split()[1] == b"405", method
                    assert f"\r\nAllow: {METHODS}\r\n".encode() in head
    assert seen == list(passed)


async def test_body_with_a_length_arrives_with_it() -> None:
    body = gzip.compress(b"not ours to open" * 100)

    async def script(reader: Reader, writer: Writer) -> None:
        sent = fields(await reader.readuntil(b"\r\n\r\n"))
        assert ("content-length", str(len(body))) in sent
        assert ("content-encoding", "gzip") in sent
        assert "transfer-encoding" not in dict(sent)
        writer.write(OK if await reader.readexactly(len(body)) == body else b"")

    head = b"POST /v1/x HTTP/1.1\r\nHost: g\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(
        body
    )
    async with backend(script) as up, gateway(up) as gw:
        assert (await ask(gw.port, head + body)).endswith(b"\r\n\r\nok")


async def test_the_head_of_a_stream_does_not_wait_for_its_first_event() -> None:
    heard = asyncio.Event()

    async def script(reader: Reader, writer: Writer) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(CHUNKED)
        await within(heard.wait())
        writer.write(b"3\r\none\r\n0\r\n\r\n")

    async with backend(script) as up, gateway(up) as gw, client(gw.port) as (reader, writer):
        writer.write(GET)
        assert b"text/event-stream" in await within(reader.readuntil(b"\r\n\r\n"))
        heard.set()
        assert await within(reader.readuntil(b"0\r\n\r\n")) == b"3\r\none\r\n0\r\n\r\n"


async def test_chunked_body_arrives_while_it_is_being_sent() -> None:
    first = asyncio.Event()

    async def script(reader: Reader, writer: Writer) -> None:
        sent = fields(await reader.readuntil(b"\r\n\r\n"))
        assert ("transfer-encoding", "chunked") in sent
        assert "content-length" not in dict(sent)
        assert await reader.readexactly(8) == b"3\r\none\r\n"
        first.set()
        assert await reader.readuntil(b"0\r\n\r\n") == b"3\r\ntwo\r\n0\r\n\r\n"
        writer.write(OK)

    async with backend(script) as up, gateway(up) as gw, client(gw.port) as (reader, writer):
        writer.write(b"PUT /v1/x HTTP/1.1\r\nHost: g\r\nTransfer-Encoding: chunked\r\n\r\n3\r\none\r\n")
        await within(first.wait())
        writer.write(b"3\r\ntwo\r\n0\r\n\r\n")
        assert b" 200 OK" in await head_of(reader)


@pytest.mark.parametrize("size", [0, 3, 3 * 2**20])
async def test_body_already_read_is_sent_with_its_own_length(size: int) -> None:
    async def script(reader: Reader, writer: Writer) -> None:
        sent = fields(await reader.readuntil(b"\r\n\r\n"))
        assert [value for name, value in sent if name == "content-length"] == [str(size)]
        assert "transfer-encoding" not in dict(sent)
        writer.write(OK if await reader.readexactly(size) == b"x" * size else b"")

    async def handler(through: Passthrough, request: web.BaseRequest) -> web.StreamResponse:
        assert await request.read() == b"abcde"
        return await through.forward(request, BACKEND.get(), request_id="req_ours", body=b"x" * size)

    async with backend(script) as up, gateway(up, handler=handler) as gw:
        request = b"POST /v1/x HTTP/1.1\r\nHost: g\r\nContent-Length: 5\r\n\r\nabcde"
        assert (await ask(gw.port, request)).endswith(b"\r\n\r\nok")


@pytest.mark.parametrize("chunked", [False, True])
async def test_large_upload_is_never_held_in_memory(chunked: bool) -> None:
    total, piece = 200 * 2**20, b"\0" * 2**20

    async def script(reader: Reader, writer: Writer) -> None:
        await reader.readuntil(b"\r\n\r\n")
        left = total
        while left > 0:  # chunk framing makes it a little more, which nobody waits for
            left -= len(await reader.read(2**20))
        writer.write(OK)

    framing = b"Transfer-Encoding: chunked" if chunked else b"Content-Length: %d" % total
    wrapped = b"%x\r\n%s\r\n" % (len(piece), piece) if chunked else piece
    async with backend(script) as up, gateway(up) as gw, client(gw.port) as (reader, writer):
        tracemalloc.start()
        started = time.monotonic()
        writer.write(b"POST /v1/files HTTP/1.1\r\nHost: g\r\n" + framing + b"\r\n\r\n")
        for _ in range(total // len(piece)):
            writer.write(wrapped)
            await within(writer.drain())
        if chunked:
            writer.write(b"0\r\n\r\n")
        assert b" 200 OK" in await head_of(reader)
        took_s, peak = time.monotonic() - started, tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < 16 * 2**20  # client, gateway and backend together
    assert took_s < WAIT_S


async def test_client_that_waits_for_100_gets_it_once_the_backend_has_the_head() -> None:
    head_seen = asyncio.Event()

    async def script(reader: Reader, writer: Writer) -> None:
        sent = fields(await reader.readuntil(b"\r\n\r\n"))
        assert "expect" not in dict(sent)
        head_seen.set()
        assert await reader.readexactly(5) == b"hello"
        writer.write(OK)

    async with backend(script) as up, gateway(up) as gw, client(gw.port) as (reader, writer):
        writer.write(b"POST /x HTTP/1.1\r\nHost: g\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n")
        assert await head_of(reader) == b"HTTP/1.1 100 Continue\r\n\r\n"
        writer.write(b"hello")
        assert (await head_of(reader)).startswith(b"HTTP/1.1 200 OK\r\n")
        await within(head_seen.wait())


async def test_client_that_waits_for_100_keeps_its_body_where_the_backend_is_down() -> None:
    async with gateway(_free_port()) as gw, client(gw.port) as (reader, writer):
        writer.write(b"POST /x HTTP/1.1\r\nHost: g\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n")
        assert (await head_of(reader)).startswith(b"HTTP/1.1 502 ")


async def test_answer_that_comes_before_the_upload_has_ended_is_passed_on() -> None:
    async def script(reader: Reader, writer: Writer) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 413 Too Big\r\nContent-Length: 3\r\n\r\nbig")
        await gone(reader)

    async with backend(script) as up, gateway(up) as gw, client(gw.port) as (reader, writer):
        writer.write(b"POST /x HTTP/1.1\r\nHost: g\r\nContent-Length: 1000\r\n\r\nonly this")
        assert (await head_of(reader)).startswith(b"HTTP/1.1 413 Too Big\r\n")
        assert await within(reader.readexactly(3)) == b"big"


async def test_upload_goes_on_after_the_head_of_the_answer() -> None:
    async def script(reader: Reader, writer: Writer) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(CHUNKED)
        assert await reader.readexactly(4) == b"ping"
        writer.write(b"4\r\npong\r\n0\r\n\r\n")

    async with backend(script) as up, gateway(up) as gw, client(gw.port) as (reader, writer):
        writer.write(b"POST /x HTTP/1.1\r\nHost: g\r\nContent-Length: 4\r\n\r\n")
        assert b" 200 OK" in await head_of(reader)
        writer.write(b"ping")
        assert await within(reader.readexactly(9)) == b"4\r\npong\r\n"


async def test_body_that_breaks_is_the_clients_fault() -> None:
    started, let_go = asyncio.Event(), asyncio.Event()

    async def script(reader: Reader, writer: Writer) -> None:
        await reader.readuntil(b"3\r\none\r\n")
        started.set()
        await gone(reader)
        let_go.set()

    async with backend(script) as up, gateway(up) as gw, client(gw.port) as (reader, writer):
        writer.write(b"POST /x HTTP/1.1\r\nHost: g\r\nTransfer-Encoding: chunked\r\n\r\n3\r\none\r\n")
        await within(started.wait())
        writer.write(b"no size\r\n\r\n" + GET)
        answer = await within(reader.read())
        await within(let_go.wait(), 1)
        assert gw.failures("cut") == 0
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert error_of(answer)["code"] == "invalid_http"
    assert answer.count(b"HTTP/1.") == 1


async def test_upload_that_stops_is_given_up() -> None:
    let_go = asyncio.Event()

    async def script(reader: Reader, writer: Writer) -> None:
        await gone(reader)
        let_go.set()

    async with (
        backend(script) as up,
        gateway(up, upstream={"plain_head_timeout_s": 0.1}) as gw,
        client(gw.port) as (reader, writer),
    ):
        writer.write(b"POST /x HTTP/1.1\r\nHost: g\r\nContent-Length: 1000\r\n\r\nonly this")
        assert (await head_of(reader)).startswith(b"HTTP/1.1 504 ")
        await within(let_go.wait(), 1)


# The answer on its way to the client.


async def test_answer_arrives_as_it_was_sent() -> None:
    body = gzip.compress(b"not ours to open")
    answer = (
        b"HTTP/1.1 218 This Is Fine\r\nDate: Thu, 01 Jan 2026 00:00:00 GMT\r\nVary: a\r\nVary: b\r\n"
        b"Content-Type: a/b\r\nContent-Encoding: gzip\r\nServer: uvicorn\r\nETag: caf\xc3\xa9\r\n"
        b"X-Latin: caf\xe9\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)
    )
    async with backend(replying(answer)) as up, gateway(up) as gw:
        head, _, got = (await ask(gw.port, GET)).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 218 This Is Fine\r\n")
    assert got == body
    assert fields(head + b"\r\n\r\n") == [
        ("date", "Thu, 01 Jan 2026 00:00:00 GMT"),
        ("vary", "a"),
        ("vary", "b"),
        ("content-type", "a/b"),
        ("content-encoding", "gzip"),
        ("etag", "café"),
        ("content-length", str(len(body))),
        ("server", "backburner"),
        ("x-request-id", "req_ours"),
        ("x-content-type-options", "nosniff"),
        ("cache-control", "no-store"),
        ("connection", "close"),
    ]


async def test_no_content_type_is_invented() -> None:
    async with backend(replying(OK)) as up, gateway(up) as gw:
        head, _, body = (await ask(gw.port, GET)).partition(b"\r\n\r\n")
    assert body == b"ok"
    assert b"content-type:" not in head.lower()


async def test_reason_that_cannot_be_sent_does_not_cost_the_answer() -> None:
    answer = OK.replace(b"200 OK", b"200 caf\xe9")
    async with backend(replying(answer)) as up, gateway(up) as gw:
        assert (await ask(gw.port, GET)).startswith(b"HTTP/1.1 200 OK\r\n")


async def test_events_arrive_one_by_one() -> None:
    first_seen = asyncio.Event()

    async def script(reader: Reader, writer: Writer) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(CHUNKED + b"9\r\ndata: 1\n\n\r\n")
        await first_seen.wait()
        writer.write(b"9\r\ndata: 2\n\n\r\n0\r\n\r\n")

    async with backend(script) as up, gateway(up) as gw, client(gw.port) as (reader, writer):
        writer.write(GET)
        assert ("x-accel-buffering", "no") in fields(await head_of(reader))
        assert await within(reader.readexactly(14)) == b"9\r\ndata: 1\n\n\r\n"
        first_seen.set()
        assert await within(reader.readexactly(19)) == b"9\r\ndata: 2\n\n\r\n0\r\n\r\n"


async def test_head_arrives_before_any_event() -> None:
    async def script(reader: Reader, writer: Writer) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(CHUNKED)
        await gone(reader)

    async with backend(script) as up, gateway(up) as gw, client(gw.port) as (reader, writer):
        writer.write(GET)
        assert b" 200 OK" in await head_of(reader)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_redirect_is_the_clients_to_follow(status: int) -> None:
    seen: list[bytes] = []
    location = b"http://127.0.0.1:1/elsewhere?a=%2F"
    answer = b"HTTP/1.1 %d Go\r\nLocation: %s\r\nContent-Length: 0\r\n\r\n" % (status, location)
    async with backend(replying(answer, OK, seen=seen)) as up, gateway(up) as gw:
        got = await ask(gw.port, GET)
    assert got.startswith(b"HTTP/1.1 %d Go\r\n" % status)
    assert b"\r\nLocation: " + location + b"\r\n" in got
    assert len(seen) == 1


@pytest.mark.parametrize(
    ("method", "answer", "length"),
    [
        (b"HEAD", b"HTTP/1.1 200 OK\r\nContent-Length: 1234\r\n\r\n", "1234"),
        (b"HEAD", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", None),
        (b"GET", b"HTTP/1.1 204 No Content\r\n\r\n", None),
        (b"GET", b'HTTP/1.1 304 Not Modified\r\nETag: "a"\r\n\r\n', None),
        (b"DELETE", b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", "0"),
    ],
)
async def test_answer_without_a_body_leaves_both_connections_usable(
    method: bytes, answer: bytes, length: str | None
) -> None:
    seen: list[bytes] = []
    async with (
        backend(replying(answer, OK, seen=seen)) as up,
        gateway(up) as gw,
        client(gw.port) as (reader, writer),
    ):
        writer.write(GET.replace(b"GET", method, 1))
        head = await head_of(reader)
        assert head.split(b"\r\n")[0] == answer.split(b"\r\n")[0]
        assert dict(fields(head)).get("content-length") == length
        assert "transfer-encoding" not in dict(fields(head))
        writer.write(GET)
        assert (await head_of(reader)).startswith(b"HTTP/1.1 200 OK\r\n")
        assert await within(reader.readexactly(2)) == b"ok"
    assert len(seen) == 2  # on one connection: the script answers in turn


@pytest.mark.parametrize("keep_alive", [b"", b"Connection: keep-alive\r\n"])
async def test_http_1_0_client_gets_a_body_that_ends_with_the_connection(keep_alive: bytes) -> None:
    answer = CHUNKED + b"3\r\none\r\n3\r\ntwo\r\n0\r\n\r\n"
    async with backend(replying(answer)) as up, gateway(up) as gw, client(gw.port) as (reader, writer):
        writer.write(b"GET /x HTTP/1.0\r\nHost: g\r\n" + keep_alive + b"\r\n")
        head, _, body = (await within(reader.read())).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.0 200 OK\r\n")
    assert b"chunked" not in head
    assert body == b"onetwo"


async def test_interim_answers_are_not_the_answer() -> None:
    hints = b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"
    async with backend(replying(hints + OK)) as up, gateway(up) as gw:
        assert (await ask(gw.port, GET)).startswith(b"HTTP/1.1 200 OK\r\n")


async def test_observer_counts_what_was_passed_through() -> None:
    async with backend(replying(OK)) as up, gateway(up) as gw:
        await ask(gw.port, GET)
        sample = gw.observer.registry.get_sample_value
        labels = {"method": "GET", "status": "200"}
        assert sample("backburner_passthrough_requests_total", labels) == 1
        assert sample("backburner_upstream_head_seconds_count", {"kind": "passthrough"}) == 1


# A backend that fails.


def _free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port: int = taken.getsockname()[1]
        return port


async def test_backend_that_is_down_is_502() -> None:
    port = _free_port()
    async with gateway(port, upstream={"api_key": "k-1"}) as gw:
        answer = await ask(gw.port, GET)
        assert gw.failures("unreachable") == 2, "it is tried once more"
    assert answer.startswith(b"HTTP/1.1 502 ")
    assert error_of(answer)["code"] == "backend_unreachable"
    assert not re.search(rb"127\.0|%d|k-1" % port, answer)


async def test_backend_that_hangs_up_before_the_head_is_502_and_a_post_is_sent_once() -> None:
    seen: list[bytes] = []

    async def script(reader: Reader, writer: Writer) -> None:
        seen.append(await reader.readuntil(b"\r\n\r\n"))

    async with backend(script) as up, gateway(up) as gw:
        answer = await ask(gw.port, GET.replace(b"GET", b"POST", 1))
        assert gw.failures("cut") == 1
    assert answer.startswith(b"HTTP/1.1 502 ")
    assert error_of(answer)["code"] == "backend_disconnected"
    assert len(seen) == 1


@pytest.mark.parametrize(
    "nonsense", [b"hello\r\n\r\n", b"HTTP/1.1 101 Switching\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n"]
)
async def test_backend_that_does_not_speak_http_is_502(nonsense: bytes) -> None:
    async with backend(replying(nonsense, nonsense)) as up, gateway(up) as gw:
        answer = await ask(gw.port, GET)
    assert answer.startswith(b"HTTP/1.1 502 ")
    assert error_of(answer)["code"] == "backend_disconnected"


async def test_backend_that_sends_no_head_in_time_is_504_and_let_go() -> None:
    let_go = asyncio.Event()

    async def script(reader: Reader, writer: Writer) -> None:
        await gone(reader)
        let_go.set()

    async with backend(script) as up, gateway(up, upstream={"plain_head_timeout_s": 0.1}) as gw:
        answer = await ask(gw.port, GET)
        await within(let_go.wait(), 1)
        assert gw.failures("timeout") == 1
    assert answer.startswith(b"HTTP/1.1 504 ")
    assert error_of(answer)["code"] == "backend_timeout"


async def test_upload_that_moves_does_not_use_up_the_backends_time() -> None:
    """Three pieces, each within the limit, take longer than the limit together."""

    async def script(reader: Reader, writer: Writer) -> None:
        await reader.readuntil(b"\r\n\r\n")
        await reader.readexactly(3)
        writer.write(OK)

    async with (
        backend(script) as up,
        gateway(up, upstream={"plain_head_timeout_s": 0.4}) as gw,
        client(gw.port) as (reader, writer),
    ):
        writer.write(b"POST /x HTTP/1.1\r\nHost: g\r\nContent-Length: 3\r\n\r\n")
        for _ in range(3):
            await asyncio.sleep(0.25)  # the client's own pace; nobody is waited for
            writer.write(b"x")
        assert b" 200 OK" in await head_of(reader)


DYING = {
    "chunked": (CHUNKED + b"9\r\ndata: 1\n\n\r\n", b"9\r\ndata: 1\n\n\r\n"),
    "with a length": (b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\ndata: 1\n\n", b"data: 1\n\n"),
}


@pytest.mark.parametrize("kind", DYING)
async def test_backend_that_dies_in_mid_body_takes_the_clients_connection_with_it(kind: str) -> None:
    answer, expected = DYING[kind]
    seen = asyncio.Event()

    async def script(reader: Reader, writer: Writer) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        await seen.wait()

    async with backend(script) as up, gateway(up) as gw, client(gw.port) as (reader, writer):
        writer.write(GET)
        await head_of(reader)
        assert await within(reader.readexactly(len(expected))) == expected
        seen.set()
        assert await within(reader.read()) == b""  # the end, without the last chunk
        assert gw.failures("cut") == 1


async def test_http_1_0_client_sees_a_reset_where_an_orderly_end_would_look_complete() -> None:
    seen = asyncio.Event()

    async def script(reader: Reader, writer: Writer) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(CHUNKED + b"9\r\ndata: 1\n\n\r\n")
        await seen.wait()

    async with backend(script) as up, gateway(up) as gw, client(gw.port) as (reader, writer):
        writer.write(b"GET /x HTTP/1.0\r\nHost: g\r\n\r\n")
        await head_of(reader)
        assert await within(reader.readexactly(9)) == b"data: 1\n\n"
        seen.set()
        with pytest.raises(ConnectionResetError):
            await within(reader.read())


async def test_reset_in_a_body_without_a_length_is_not_its_end() -> None:
    seen = asyncio.Event()

    async def script(reader: Reader, writer: Writer) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\n\r\nhalf")
        await seen.wait()
        raw = writer.get_extra_info("socket")
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    async with backend(script) as up, gateway(up) as gw, client(gw.port) as (reader, writer):
        writer.write(GET)
        await head_of(reader)
        assert await within(reader.readexactly(9)) == b"4\r\nhalf\r\n"
        seen.set()
        assert await within(reader.read()) == b""
        assert gw.failures("cut") == 1


async def test_body_without_a_length_ends_with_the_backends_connection() -> None:
    async def script(reader: Reader, writer: Writer) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\n\r\nwhole")

    async with backend(script) as up, gateway(up) as gw:
        assert (await ask(gw.port, GET)).endswith(b"5\r\nwhole\r\n0\r\n\r\n")


async def test_backend_that_falls_silent_in_mid_body_is_cut_off_and_so_is_the_client() -> None:
    let_go = asyncio.Event()

    async def script(reader: Reader, writer: Writer) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(CHUNKED + b"9\r\ndata: 1\n\n\r\n")
        await gone(reader)
        let_go.set()

    async with (
        backend(script) as up,
        gateway(up, upstream={"idle_timeout_s": 0.1}) as gw,
        client(gw.port) as (reader, writer),
    ):
        writer.write(GET)
        await head_of(reader)
        assert await within(reader.read()) == b"9\r\ndata: 1\n\n\r\n"
        await within(let_go.wait(), 1)
        assert gw.failures("timeout") == 1


# A client that goes, or does not read.


@pytest.mark.parametrize(
    "answer", [b"", CHUNKED + b"9\r\ndata: 1\n\n\r\n"], ids=["before the head", "in mid stream"]
)
@pytest.mark.parametrize("reset", [False, True])
async def test_client_that_hangs_up_ends_the_backends_call(answer: bytes, reset: bool) -> None:
    asked, let_go = asyncio.Event(), asyncio.Event()

    async def script(reader: Reader, writer: Writer) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        asked.set()
        await gone(reader)
        let_go.set()

    async with backend(script) as up, gateway(up) as gw:
        async with client(gw.port) as (reader, writer):
            writer.write(GET)
            await within(asked.wait())
            if answer:
                await within(reader.readuntil(b"data: 1\n\n"))
            if reset:
                writer.transport.abort()
        await within(let_go.wait(), 1)


@pytest.mark.parametrize("framing", [b"Content-Length: 1000000", b"Transfer-Encoding: chunked"])
async def test_client_that_hangs_up_in_mid_upload_ends_the_backends_call(framing: bytes) -> None:
    started, let_go = asyncio.Event(), asyncio.Event()
    ending = b""

    async def script(reader: Reader, writer: Writer) -> None:
        nonlocal ending
        await reader.readuntil(b"\r\n\r\n")
        await reader.readuntil(b"hello")
        started.set()
        with suppress(ConnectionError):
            ending = await reader.read()
        let_go.set()

    async with backend(script) as up, gateway(up) as gw:
        async with client(gw.port) as (_, writer):
            writer.write(b"POST /x HTTP/1.1\r\nHost: g\r\n" + framing + b"\r\n\r\n")
            writer.write(b"5\r\nhello\r\n")  # a piece of the body in either framing
            await within(started.wait())
        await within(let_go.wait(), 1)
    assert b"0\r\n\r\n" not in ending  # nothing that would make half an upload look whole


async def test_client_that_stops_reading_is_given_up() -> None:
    let_go = asyncio.Event()

    async def script(reader: Reader, writer: Writer) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(CHUNKED)
        piece = b"10000\r\n" + b"x" * 65536 + b"\r\n"
        try:
            while True:
                writer.write(piece)
                await writer.drain()
        except ConnectionError:
            let_go.set()

    async with (
        backend(script) as up,
        gateway(up, server={"write_stall_timeout_s": 0.2}) as gw,
        client(gw.port) as (reader, writer),
    ):
        writer.write(GET)
        await within(let_go.wait())
        assert gw.failures("timeout") == gw.failures("cut") == 0  # not the backend's fault
        assert not reader.at_eof()


async def test_slow_client_that_takes_some_bytes_is_not_given_up() -> None:
    """One read of the backend takes it longer than the limit, but no limit passes without a byte."""
    total = 3 * 2**19

    async def script(reader: Reader, writer: Writer) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % total + b"x" * total)
        await gone(reader)

    async def handler(through: Passthrough, request: web.BaseRequest) -> web.StreamResponse:
        assert request.transport is not None
        kernel = request.transport.get_extra_info("socket")
        kernel.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 2**15)  # so that little hides in it
        return await _forward(through, request)

    limits = {"server": {"write_stall_timeout_s": 0.3}, "upstream": {"idle_timeout_s": 0.2}}
    with socket.socket() as raw:
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2**15)
        raw.setblocking(False)
        loop = asyncio.get_running_loop()
        async with backend(script) as up, gateway(up, handler=handler, **limits) as gw:
            await loop.sock_connect(raw, ("127.0.0.1", gw.port))
            await loop.sock_sendall(raw, GET)
            got = bytearray()
            while not got.endswith(b"x" * 100) or len(got) < total:
                piece = await within(loop.sock_recv(raw, 2**15))
                assert piece
                got += piece
                await asyncio.sleep(0.03)  # its pace


# Asking the backend about what is not ours.


async def _probe(through: Passthrough, request: web.BaseRequest) -> web.StreamResponse:
    found = await through.probe(request, BACKEND.get(), request_id="req_ours", missing=MISSING)
    return web.Response(status=299, text="own answer") if found is None else found


@pytest.mark.parametrize("status", sorted(MISSING))
async def test_probe_leaves_the_answer_to_the_caller_where_the_backend_has_none(status: int) -> None:
    answer = b"HTTP/1.1 %d No\r\nContent-Length: 6\r\n\r\ntheirs" % status
    async with backend(replying(answer)) as up, gateway(up, handler=_probe) as gw:
        got = await ask(gw.port, GET)
    assert got.startswith(b"HTTP/1.1 299 ")
    assert b"theirs" not in got


@pytest.mark.parametrize("status", [200, 400, 401, 500])
async def test_probe_passes_every_other_answer_on(status: int) -> None:
    answer = b"HTTP/1.1 %d So\r\nContent-Length: 6\r\n\r\ntheirs" % status
    async with backend(replying(answer)) as up, gateway(up, handler=_probe) as gw:
        got = await ask(gw.port, GET)
    assert got.startswith(b"HTTP/1.1 %d So\r\n" % status)
    assert got.endswith(b"theirs")


async def test_probe_of_a_backend_that_is_down_or_does_not_answer_in_time_is_none() -> None:
    async def script(reader: Reader, writer: Writer) -> None:
        await gone(reader)

    async with gateway(_free_port(), handler=_probe) as gw:
        assert (await ask(gw.port, GET)).startswith(b"HTTP/1.1 299 ")
        assert gw.failures("unreachable", "lookup") == 2
    async with backend(script) as up, gateway(up, handler=_probe, upstream={"lookup_timeout_s": 0.1}) as gw:
        assert (await ask(gw.port, GET)).startswith(b"HTTP/1.1 299 ")
        assert gw.failures("timeout", "lookup") == 1


async def _knows(through: Passthrough, request: web.BaseRequest) -> web.StreamResponse:
    status = await status_at("/v1/responses/resp_a%2Fb", request, BACKEND.get(), "req_ours")
    return web.Response(text=f"known={status == 200}")


@pytest.mark.parametrize(
    ("status", "known"), [(200, True), (201, False), (302, False), (404, False), (500, False)]
)
async def test_backend_knows_what_it_answers_with_200(status: int, known: bool) -> None:
    seen: list[bytes] = []
    answer = b"HTTP/1.1 %d So\r\nContent-Length: 2\r\n\r\n{}" % status
    request = b"POST /v1/x HTTP/1.1\r\nHost: g\r\nAuthorization: Bearer x\r\nContent-Length: 2\r\n\r\n{}"
    async with backend(replying(answer, seen=seen)) as up, gateway(up, handler=_knows) as gw:
        assert (await ask(gw.port, request)).endswith(b"known=%s" % str(known).encode())
    assert seen[0].startswith(b"GET /v1/responses/resp_a%2Fb HTTP/1.1\r\n")
    sent = dict(fields(seen[0]))
    assert sent["authorization"] == "Bearer x"
    assert "content-length" not in sent


async def test_backend_that_is_down_knows_nothing() -> None:
    async with gateway(_free_port(), handler=_knows) as gw:
        assert (await ask(gw.port, GET)).endswith(b"known=False")
