"""A tunnel between two real sockets: what goes in on one side comes out on the other."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, TypeAlias, TypeVar

import aiohttp
import orjson
import pytest
from aiohttp import WSMsgType, web
from yarl import URL

from gateway.api.http.heads import head_of
from gateway.api.http.server import Server
from gateway.api.websocket import tunnel
from gateway.config import Settings
from gateway.observe import Observer
from gateway.outbound.backend import HttpBackend
from gateway.outbound.client import make_session
from gateway.wire.http.admission import is_websocket

Handler: TypeAlias = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]
Client: TypeAlias = aiohttp.ClientWebSocketResponse[bool]
T = TypeVar("T")

WAIT_S = 5
HANDSHAKE = (
    b"GET /v1/realtime HTTP/1.1\r\nHost: g\r\nUpgrade: websocket\r\nConnection: keep-alive, Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
)


@pytest.fixture(autouse=True)
def _nothing_is_logged(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Neither errors nor what a client offered, which may be its key."""
    yield
    records = [r.getMessage() for r in caplog.get_records("call") if r.levelno >= logging.WARNING]
    assert records == []


@dataclass
class Gateway:
    port: int
    observer: Observer
    session: aiohttp.ClientSession

    def connect(self, path: str = "/v1/realtime", **options: Any) -> Any:
        retry_policy = aiohttp.ClientWSTimeout(ws_close=0.2)  # for backends of tests that never say goodbye
        given: dict[str, Any] = {
            "autoclose": False,
            "autoping": False,
            "max_msg_size": 2**30,
            "timeout": retry_policy,
        }
        options = given | options
        return self.session.ws_connect(URL(f"http://127.0.0.1:{self.port}{path}", encoded=True), **options)


async def within(awaitable: Awaitable[T], seconds: float = WAIT_S) -> T:
    async with asyncio.timeout(seconds):
        return await awaitable


@asynccontextmanager
async def serving(
    handler: Handler, *, cancelling: bool = False, server: web.Server | None = None
) -> AsyncIterator[int]:
    server = server or web.Server(handler, handler_cancellation=cancelling)
    listener = await asyncio.get_running_loop().create_server(server, "127.0.0.1", 0)
    try:
        yield listener.sockets[0].getsockname()[1]
    finally:
        listener.close()
        await server.shutdown(1)


@asynccontextmanager
async def gateway(
    backend_port: int, *, may_post: bool = False, **sections: dict[str, Any]
) -> AsyncIterator[Gateway]:
    upstream = {"url": f"http://127.0.0.1:{backend_port}/v1"} | sections.pop("upstream", {})
    settings = Settings.model_validate({"upstream": upstream, **sections})
    observer = Observer()
    assert settings.upstream is not None
    async with make_session(settings.upstream) as session, aiohttp.ClientSession() as clients:
        target = HttpBackend(
            "only", session, session, settings.upstream, event_bytes_max=2**20, observer=observer
        )

        async def handle(request: web.BaseRequest) -> web.StreamResponse:
            if not is_websocket(head_of(request)):
                return web.Response(text="not an upgrade")
            return await tunnel(
                request,
                backend=target,
                settings=settings.server,
                request_id="req_ours",
                observer=observer,
                may_post=may_post,
            )

        async with serving(handle, server=Server(handle, settings.server, observer)) as port:
            yield Gateway(port, observer, clients)


class Backend:
    """Accepts one socket after the other, and hands them to the test."""

    def __init__(self, **options: Any) -> None:
        self.options = {"autoclose": False, "autoping": False, "max_msg_size": 2**30} | options
        self.sockets: asyncio.Queue[web.WebSocketResponse] = asyncio.Queue()
        self.requests: list[web.BaseRequest] = []

    async def __call__(self, request: web.BaseRequest) -> web.StreamResponse:
        self.requests.append(request)
        accepted = web.WebSocketResponse(**self.options)
        await accepted.prepare(request)
        self.sockets.put_nowait(accepted)
        await asyncio.Event().wait()  # until the test ends: its server cancels handlers
        return accepted

    async def socket(self) -> web.WebSocketResponse:
        return await within(self.sockets.get())


@asynccontextmanager
async def joined(
    backend: Backend | None = None,
    *,
    options: dict[str, Any] | None = None,
    may_post: bool = False,
    **sections: dict[str, Any],
) -> AsyncIterator[tuple[Client, web.WebSocketResponse, Gateway]]:
    backend = Backend() if backend is None else backend
    async with (
        serving(backend, cancelling=True) as port,
        gateway(port, may_post=may_post, **sections) as gw,
        gw.connect(**(options or {})) as client,
    ):
        yield client, await backend.socket(), gw


async def raw(port: int, request: bytes) -> tuple[bytes, dict[str, Any]]:
    """One refused upgrade: the head of the answer, and its error."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(request)
        head = await within(reader.readuntil(b"\r\n\r\n"))
        length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
        return head, orjson.loads(await within(reader.readexactly(length)))["error"]
    finally:
        writer.close()


@pytest.mark.parametrize(
    ("kind", "payload"),
    [
        (WSMsgType.TEXT, "gr\u00fc\u00df dich".encode()),
        (WSMsgType.TEXT, b""),
        (WSMsgType.BINARY, bytes(range(256)) * 4096),
        (WSMsgType.PING, b"are you there"),
        (WSMsgType.PONG, b"i am"),
    ],
)
async def test_message_crosses_in_both_directions(kind: WSMsgType, payload: bytes) -> None:
    async with joined(Backend(decode_text=False), options={"decode_text": False}) as (client, server, _):
        await client.send_frame(payload, kind)
        got = await within(server.receive())
        assert (got.type, got.data) == (kind, payload)
        await server.send_frame(payload, kind)
        back = await within(client.receive())
        assert (back.type, back.data) == (kind, payload)


async def test_handshake_reaches_the_backend_by_the_rules_for_headers() -> None:
    backend = Backend()
    target = "/v1/realtime?model=a%2Fb&q=a+b"
    async with serving(backend, cancelling=True) as port, gateway(port, upstream={"api_key": "k-1"}) as gw:
        headers = {"Authorization": "Bearer x", "Cookie": "a=1", "OpenAI-Beta": "realtime=v1"}
        async with gw.connect(target, headers=headers, compress=15) as client:
            assert client.compress == 15
            assert client._response.headers["X-Request-Id"] == "req_ours"
            assert client._response.headers["Server"] == "backburner"
    (request,) = backend.requests
    assert request.raw_path == target
    assert request.headers["Host"] == f"127.0.0.1:{port}"
    assert request.headers["Authorization"] == "Bearer k-1"
    assert request.headers["OpenAI-Beta"] == "realtime=v1"
    assert request.headers["X-Request-Id"] == "req_ours"
    assert "Cookie" not in request.headers
    assert "permessage-deflate" in request.headers["Sec-WebSocket-Extensions"]
    assert len(request.headers.getall("Sec-WebSocket-Key")) == 1


async def test_backend_chooses_among_the_clients_subprotocols() -> None:
    offered = ("realtime", "openai-insecure-api-key.sk-1")
    backend = Backend(protocols=("realtime",))
    async with joined(backend, options={"protocols": offered}) as (client, _, _gw):
        assert client.protocol == "realtime"
    assert backend.requests[0].headers["Sec-WebSocket-Protocol"] == ",".join(offered)


async def test_a_key_among_the_subprotocols_does_not_reach_a_backend_that_sees_no_callers() -> None:
    offered = ("realtime", "openai-insecure-api-key.sk-1")
    backend = Backend(protocols=("realtime",))
    options = {"protocols": offered}
    async with joined(backend, options=options, upstream={"api_key": "k-1"}) as (client, _, _gw):
        assert client.protocol == "realtime"
    assert backend.requests[0].headers["Sec-WebSocket-Protocol"] == "realtime"


async def test_backend_that_chooses_no_subprotocol_leaves_none() -> None:
    async def handle(request: web.BaseRequest) -> web.StreamResponse:
        plain = request.clone(headers={k: v for k, v in request.headers.items() if "Protocol" not in k})
        accepted = web.WebSocketResponse()
        await accepted.prepare(plain)
        await accepted.receive()
        return accepted

    async with (
        serving(handle) as port,
        gateway(port) as gw,
        gw.connect(protocols=("realtime",)) as client,
    ):
        assert client.protocol is None


@pytest.mark.parametrize(
    ("code", "reason"), [(1000, ""), (1001, "going"), (3000, "mine"), (4999, "gr\u00fc\u00df")]
)
async def test_close_of_the_client_reaches_the_backend(code: int, reason: str) -> None:
    async with joined() as (client, server, _):
        closing = asyncio.create_task(client.close(code=code, message=reason.encode()))
        got = await within(server.receive())
        assert (got.type, got.data, got.extra) == (WSMsgType.CLOSE, code, reason)
        await server.close(code=code)
        await within(closing)
        assert client.close_code == code


@pytest.mark.parametrize(("code", "reason"), [(1000, ""), (1011, "oops"), (4001, "mine")])
async def test_close_of_the_backend_reaches_the_client(code: int, reason: str) -> None:
    async with joined() as (client, server, _):
        closing = asyncio.create_task(server.close(code=code, message=reason.encode()))
        got = await within(client.receive())
        assert (got.type, got.data, got.extra) == (WSMsgType.CLOSE, code, reason)
        await client.close(code=code)
        await within(closing)
        assert server.close_code == code


async def test_close_without_a_code_is_passed_on_as_it_is() -> None:
    async with joined() as (client, server, _):
        await client.send_frame(b"", WSMsgType.CLOSE)
        got = await within(server.receive())
        assert (got.type, got.data) == (WSMsgType.CLOSE, 0)


async def test_client_that_hangs_up_ends_the_backends_socket() -> None:
    async with joined() as (client, server, _):
        await client.send_str("hello")
        await within(server.receive())
        client._response.close()  # no close frame: the line is dead
        got = await within(server.receive(), 1)
        assert got.type in (WSMsgType.CLOSED, WSMsgType.ERROR)


async def test_backend_that_dies_ends_the_clients_socket() -> None:
    backend = Backend()
    async with joined(backend) as (client, _, _gw):
        transport = backend.requests[0].transport
        assert transport is not None
        transport.abort()
        got = await within(client.receive())
        assert got.type in (WSMsgType.CLOSED, WSMsgType.ERROR)


async def test_a_message_may_be_larger_than_what_is_held_of_it() -> None:
    async with joined(server={"body_bytes_max": 1024}, background={"body_bytes_max": 1024}) as (
        client,
        server,
        _,
    ):
        message = bytes(range(256)) * 2**14
        sending = asyncio.create_task(client.send_bytes(message))
        assert (await within(server.receive())).data == message
        await within(sending)


async def flood(end: web.WebSocketResponse) -> None:
    while True:
        await end.send_bytes(b"x" * 2**20)


async def test_client_that_stops_reading_is_given_up() -> None:
    async with joined(server={"write_stall_timeout_s": 0.2}) as (client, server, _):
        connection = client._response.connection
        assert connection is not None
        assert connection.transport is not None
        connection.transport.pause_reading()
        with pytest.raises(ConnectionError):
            await within(flood(server))
        connection.transport.resume_reading()


@pytest.mark.parametrize(("status", "expected"), [(403, 403), (404, 404), (426, 426), (500, 500), (200, 502)])
async def test_refused_upgrade_is_an_error_with_the_backends_status(status: int, expected: int) -> None:
    async def handle(request: web.BaseRequest) -> web.StreamResponse:
        return web.Response(status=status, text="their own words", headers={"Set-Cookie": "a=1"})

    async with serving(handle) as port, gateway(port) as gw:
        head, error = await raw(gw.port, HANDSHAKE + b"\r\n")
    assert head.startswith(b"HTTP/1.1 %d " % expected)
    assert error["code"] == "upgrade_refused"
    assert b"Set-Cookie" not in head


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        *((status, 426) for status in (200, 204, 301, 400, 403, 404, 405, 406, 410, 422, 426, 501, 505)),
        *((status, status) for status in (401, 402, 408, 429, 500, 502, 503, 504)),
    ],
)
async def test_where_a_post_would_do_a_backend_without_websockets_is_a_426(
    status: int, expected: int
) -> None:
    async def handle(request: web.BaseRequest) -> web.StreamResponse:
        return web.Response(status=status, headers={"Location": "/v1/responses/"})

    async with serving(handle) as port, gateway(port, may_post=True) as gw:
        head, error = await raw(gw.port, HANDSHAKE + b"\r\n")
    assert head.startswith(b"HTTP/1.1 %d " % expected)
    assert error["code"] == ("websocket_not_supported" if expected == 426 else "upgrade_refused")
    assert (b"\r\nUpgrade: HTTP/1.1\r\nConnection: Upgrade, close\r\n" in head) is (expected == 426)


async def test_where_a_post_would_do_a_backend_with_websockets_is_connected_all_the_same() -> None:
    async with joined(may_post=True) as (client, server, _):
        await client.send_str("hello")
        assert (await within(server.receive())).data == "hello"


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_redirected_upgrade_takes_no_credential_anywhere(status: int) -> None:
    strangers: list[web.BaseRequest] = []

    async def stranger(request: web.BaseRequest) -> web.StreamResponse:
        strangers.append(request)
        return web.Response()

    async with serving(stranger) as elsewhere:
        location = f"http://127.0.0.1:{elsewhere}/v1/realtime"

        async def handle(request: web.BaseRequest) -> web.StreamResponse:
            return web.Response(status=status, headers={"Location": location})

        async with serving(handle) as port, gateway(port) as gw:
            head, _ = await raw(gw.port, HANDSHAKE + b"api-key: secret\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 502 ")
    assert strangers == []


async def test_backend_that_is_down_is_502() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    async with gateway(port) as gw:
        head, error = await raw(gw.port, HANDSHAKE + b"\r\n")
    assert head.startswith(b"HTTP/1.1 502 ")
    assert error["code"] == "backend_unreachable"


async def test_backend_that_does_not_answer_the_handshake_is_504() -> None:
    async def handle(request: web.BaseRequest) -> web.StreamResponse:
        await asyncio.Event().wait()
        raise AssertionError

    limits = {"plain_head_timeout_s": 0.1}
    async with serving(handle, cancelling=True) as port, gateway(port, upstream=limits) as gw:
        head, error = await raw(gw.port, HANDSHAKE + b"\r\n")
    assert head.startswith(b"HTTP/1.1 504 ")
    assert error["code"] == "backend_timeout"


@pytest.mark.parametrize(
    "framing", [b"Content-Length: 5\r\n\r\nhello", b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n"]
)
async def test_upgrade_with_a_body_is_501_and_reaches_nobody(framing: bytes) -> None:
    backend = Backend()
    async with serving(backend, cancelling=True) as port, gateway(port) as gw:
        head, _ = await raw(gw.port, HANDSHAKE + framing)
    assert head.startswith(b"HTTP/1.1 501 ")
    assert backend.requests == []


@pytest.mark.parametrize(
    ("valid", "broken"),
    [
        (b"GET ", b"POST "),
        (b"Version: 13", b"Version: 1"),
        (b"dGhlIHNhbXBsZSBub25jZQ==", b"short"),
        (b"GET /v1/realtime", b"GET http://evil.example/v1/realtime"),
    ],
)
async def test_invalid_handshake_is_400_and_reaches_nobody(valid: bytes, broken: bytes) -> None:
    backend = Backend()
    assert valid in HANDSHAKE
    async with serving(backend, cancelling=True) as port, gateway(port) as gw:
        head, _ = await raw(gw.port, HANDSHAKE.replace(valid, broken, 1) + b"\r\n")
    assert head.startswith(b"HTTP/1.1 400 ")
    assert backend.requests == []


@pytest.mark.parametrize(
    ("valid", "other"),
    [
        (b"Upgrade: websocket", b"Upgrade: h2c"),
        (b"Connection: keep-alive, Upgrade", b"Connection: keep-alive"),
    ],
)
async def test_what_is_no_websocket_upgrade_is_not_taken_for_one(valid: bytes, other: bytes) -> None:
    async with serving(Backend()) as port, gateway(port) as gw:
        reader, writer = await asyncio.open_connection("127.0.0.1", gw.port)
        writer.write(HANDSHAKE.replace(valid, other, 1) + b"\r\n")
        await within(reader.readuntil(b"not an upgrade"))
        writer.close()


async def test_observer_counts_a_tunnel() -> None:
    async with joined() as (_, _server, gw):
        sample = gw.observer.registry.get_sample_value
        labels = {"method": "GET", "status": "101"}
        assert sample("backburner_passthrough_requests_total", labels) == 1
