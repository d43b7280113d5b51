"""WebSocket connections: after the handshake, bytes through in both directions.

Nothing here reads a frame, so that extensions, pings and close codes are between the client and the backend.
Whatever ends one side ends the other.
"""

from __future__ import annotations

import asyncio
from typing import Any, Final

import aiohttp
from aiohttp import web
from aiohttp.base_protocol import BaseProtocol
from aiohttp.http import StreamWriter
from aiohttp.streams import StreamReader

from gateway import loop
from gateway.api.http.errors import STATUS, error_response
from gateway.api.http.heads import head_of
from gateway.api.passthrough import Relayed
from gateway.api.ports import Backend
from gateway.config import ServerSettings
from gateway.core.call import PlainCall
from gateway.observe import Observer
from gateway.wire.errors import Fault, Refusal, invalid, no_websocket
from gateway.wire.http.admission import is_handshake
from gateway.wire.http.headers import to_client

_HELD_BYTES: Final = 64 * 2**10
"""Bytes buffered per direction while the other side reads nothing: up to twice that."""

_MAY_PASS = frozenset({401, 402, 408, 425, 429, 500, 502, 503, 504})
"""Answers to a handshake that do not say that there is no WebSocket. 403 does: uvicorn gives it for every
path without one. A caller who really may not come in hears so when it posts, in the backend's words."""


async def tunnel(
    request: web.BaseRequest,
    *,
    backend: Backend,
    settings: ServerSettings,
    request_id: str,
    observer: Observer,
    may_post: bool,
) -> web.StreamResponse:
    """Connect the client to the backend's WebSocket of the same path, until either side closes.

    Args:
        may_post: The same can be asked for by a POST, which is what the client is told to do if the backend
            has no WebSocket there.
    """
    head = head_of(request)
    if not is_handshake(head):
        return error_response(invalid("Not a WebSocket handshake of version 13."))
    limit_s = backend.settings.plain_head_timeout_s
    call = PlainCall(request_id, "GET", head.target, head.headers, limit_s, is_upgrade=True)
    try:
        async with backend.plain.open(call) as answer:
            if answer.status != 101:
                return _not_upgraded(answer.status, may_post=may_post)
            observer.passed_through(request.method, 101)
            return await _joined(request, answer, request_id, settings.write_stall_timeout_s)
    except Refusal as refusal:
        return error_response(refusal)


async def _joined(
    request: web.BaseRequest, answer: aiohttp.ClientResponse, request_id: str, stall_s: float
) -> web.StreamResponse:
    """Two open connections, joined until the first of them ends."""
    response = Relayed(status=101, headers=to_client(answer.headers.items(), request_id=request_id))
    response.headers["Connection"], response.headers["Upgrade"] = "Upgrade", "websocket"
    client = await response.prepare(request)
    connection = answer.connection
    if connection is None or connection.protocol is None:
        raise Refusal(Fault.BACKEND_UNREACHABLE, "The backend broke the connection off.")
    assert isinstance(client, StreamWriter)
    await client.write(b"")  # aiohttp would hold the head back until there is more
    backend = StreamWriter(connection.protocol, asyncio.get_running_loop())
    from_client, from_backend = _Bytes(request.protocol), _Bytes(connection.protocol)
    parser: Any = from_client  # aiohttp's types know its own readers of frames only
    request.protocol.set_parser(parser)
    connection.protocol.set_parser(from_backend, from_backend.stream)
    pumps = [
        asyncio.create_task(_pump(from_client.stream, backend, stall_s)),
        asyncio.create_task(_pump(from_backend.stream, client, stall_s)),
    ]
    try:
        await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for pump in pumps:
            pump.cancel()
        await asyncio.wait(pumps)
        if backend.transport is not None:
            # A client's end cancels its handler, perhaps while its last bytes are still here.
            backend.transport.write(from_client.stream.read_nowait())
    is_broken = any(not pump.cancelled() and pump.exception() is not None for pump in pumps)
    if is_broken and request.transport is not None:
        request.transport.abort()  # one side is gone or stopped reading
    return response


class _Bytes:
    """Stands in for aiohttp's parser: feeds all bytes to a stream."""

    def __init__(self, protocol: BaseProtocol) -> None:
        self.stream = StreamReader(protocol, _HELD_BYTES, loop=asyncio.get_running_loop())

    def feed_data(self, data: bytes) -> tuple[bool, bytes]:
        self.stream.feed_data(data)
        return False, b""

    def feed_eof(self) -> None:
        self.stream.feed_eof()


async def _pump(source: StreamReader, sink: StreamWriter, stall_s: float) -> None:
    """All that comes from one side, to the other. Raises: as they end."""
    while (data := await source.readany()) and sink.transport is not None:
        sink.transport.write(data)
        async with loop.timeout(stall_s):
            await sink.drain()


def _not_upgraded(status: int, *, may_post: bool) -> web.Response:
    """The backend's own status; where that is no refusal, it did not speak WebSocket."""
    if may_post and status not in _MAY_PASS:
        return error_response(no_websocket())
    if status < 400:
        status = STATUS[Fault.BACKEND_UNREACHABLE]
    fault = Fault.INVALID if status < 500 else Fault.BACKEND_UNREACHABLE
    refusal = Refusal(fault, "The backend refused the WebSocket.", code="upgrade_refused")
    # A status that the one table does not have: it is not ours, or has no other use.
    return web.Response(status=status, body=refusal.body(), content_type="application/json")
