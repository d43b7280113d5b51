"""WebSocket connections, passed through message by message.

Texts stay bytes, pings, pongs and close codes go across, and compression is off: an 8 KiB frame may
inflate to gigabytes. Whatever ends one side ends the other.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Final, TypeAlias

import aiohttp
from aiohttp import WSCloseCode, WSMsgType, hdrs, web

from gateway import loop
from gateway.api.errors import STATUS, error_response
from gateway.api.ports import Backend
from gateway.config import ServerSettings
from gateway.core.call import PlainCall
from gateway.observe import Observer
from gateway.wire.errors import Fault, Refusal, invalid, no_websocket
from gateway.wire.headers import set_own

_CLOSE_REPLY_S: Final = 0.5
"""How long we wait for the peer's half of the closing handshake, before the socket closes anyway."""

_NO_STATUS: Final = 0
"""aiohttp's code for a close frame without one (RFC 6455 §7.1.5 calls it 1005)."""

_MAY_PASS = frozenset({401, 402, 408, 425, 429, 500, 502, 503, 504})
"""Answers to a handshake that do not say that there is no WebSocket. 403 does: uvicorn gives it for every
path without one. A caller who really may not come in hears so when it posts, in the backend's words."""

_RELAYED = frozenset({WSMsgType.TEXT, WSMsgType.BINARY, WSMsgType.PING, WSMsgType.PONG})

_Socket: TypeAlias = web.WebSocketResponse[bool] | aiohttp.ClientWebSocketResponse[bool]


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
    offered = _offered(request)
    if request.method != "GET" or not web.WebSocketResponse(protocols=offered).can_prepare(request):
        return error_response(invalid("Not a WebSocket handshake of version 13."))

    limit_s = backend.settings.plain_head_timeout_s
    call = PlainCall(request_id, "GET", request.raw_path, request.headers, limit_s)
    options = {
        "autoclose": False,
        "autoping": False,
        "compress": 0,
        "max_msg_size": settings.body_bytes_max,
        "decode_text": False,
        "timeout": aiohttp.ClientWSTimeout(ws_receive=None, ws_close=_CLOSE_REPLY_S),
    }
    try:
        async with backend.plain.connect(call, offered, options) as peer:
            if isinstance(peer, int):
                return _not_upgraded(peer, may_post=may_post)
            observer.passed_through(request.method, 101)
            try:
                return await _join(request, peer, settings, request_id)
            finally:
                await _hang_up(peer, WSCloseCode.GOING_AWAY, b"")  # where there has been no tunnel
    except Refusal as refusal:
        return error_response(refusal)


async def _join(
    request: web.BaseRequest,
    backend: aiohttp.ClientWebSocketResponse[bool],
    settings: ServerSettings,
    request_id: str,
) -> web.StreamResponse:
    chosen = backend.protocol
    if chosen is None:
        # aiohttp would log what the client offered, and some clients offer their key there.
        headers = request.headers.copy()
        headers.popall(hdrs.SEC_WEBSOCKET_PROTOCOL, None)
        request = request.clone(headers=headers)
    client = web.WebSocketResponse(
        protocols=() if chosen is None else (chosen,),
        autoclose=False,
        autoping=False,
        compress=False,
        max_msg_size=settings.body_bytes_max,
        decode_text=False,
        timeout=_CLOSE_REPLY_S,
    )
    set_own(client.headers, request_id)
    try:
        await client.prepare(request)
        await _Tunnel(client, backend, settings.write_stall_timeout_s).run()
    except* (ConnectionError, TimeoutError):
        # One side is gone or stopped reading. The client's end is broken off here, the backend's by
        # the caller.
        if request.transport is not None:
            request.transport.abort()
    return client


class _Tunnel:
    """Two open sockets, joined until the first of them ends; that one's ending is told to the other."""

    def __init__(
        self,
        client: web.WebSocketResponse[bool],
        backend: aiohttp.ClientWebSocketResponse[bool],
        stall_s: float,
    ) -> None:
        self._client = client
        self._backend = backend
        self._stall_s = stall_s
        self._is_ending = False
        self._code: int = WSCloseCode.GOING_AWAY
        self._reason = b""

    async def run(self) -> None:
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._pump(self._client, self._backend, WSCloseCode.GOING_AWAY))
                tasks.create_task(self._pump(self._backend, self._client, WSCloseCode.BAD_GATEWAY))
        finally:
            # A client's end of any kind cancels its handler, perhaps before the backend was told.
            await _hang_up(self._backend, self._code, self._reason)

    async def _pump(self, source: _Socket, sink: _Socket, lost: WSCloseCode) -> None:
        """Everything from one side to the other.

        Args:
            lost: What the sink is told where the source is gone without a word; 1006, which the RFC
                has for that, must not be sent (RFC 6455 §7.4.1).
        """
        while (message := await source.receive()).type in _RELAYED:
            async with loop.timeout(self._stall_s):
                await sink.send_frame(message.data, message.type)
        if self._is_ending:
            return  # by the other pump, whose close has woken us
        self._is_ending = True
        self._code = lost
        if message.type is WSMsgType.CLOSE:
            self._code = WSCloseCode.OK if message.data == _NO_STATUS else message.data
            self._reason = (message.extra or "").encode()
        elif isinstance(message.data, aiohttp.WebSocketError):  # too large, or not a frame at all
            self._code = message.data.code
        await self._close(sink)
        await self._close(source)  # its own close frame, returned (RFC 6455 §5.5.1)

    async def _close(self, end: _Socket) -> None:
        if end is self._backend:
            await _hang_up(self._backend, self._code, self._reason)
        else:
            async with loop.timeout(self._stall_s):  # behind what the client has yet to read
                await self._client.close(code=self._code, message=self._reason)


async def _hang_up(backend: aiohttp.ClientWebSocketResponse[bool], code: int, reason: bytes) -> None:
    """Close in good order if that is quick; aiohttp's own limit starts again with each message."""
    with suppress(TimeoutError):
        async with asyncio.timeout(_CLOSE_REPLY_S):
            await backend.close(code=code, message=reason)


def _offered(request: web.BaseRequest) -> tuple[str, ...]:
    listed = ",".join(request.headers.getall(hdrs.SEC_WEBSOCKET_PROTOCOL, ()))
    return tuple(name for name in (part.strip() for part in listed.split(",")) if name)


def _not_upgraded(status: int, *, may_post: bool) -> web.Response:
    """The backend's own status; where that is no refusal, it did not speak WebSocket."""
    if may_post and status not in _MAY_PASS:
        return error_response(no_websocket())
    if status < 400:
        status = STATUS[Fault.BACKEND_UNREACHABLE]
    fault = Fault.INVALID if status < 500 else Fault.BACKEND_UNREACHABLE
    return _answer(status, Refusal(fault, "The backend refused the WebSocket.", code="upgrade_refused"))


def _answer(status: int, refusal: Refusal) -> web.Response:
    """An error with a status that the one table does not have: it is not ours, or has no other use."""
    return web.Response(status=status, body=refusal.body(), content_type="application/json")
