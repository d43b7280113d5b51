"""One client's connection in the fast lane. It is handed over to the other lane, with every byte that has not
been answered, as soon as something comes for which there is more to do."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final, cast

from aiohttp.tcp_helpers import tcp_keepalive

from gateway import loop
from gateway.api.http.slow_clients import Stall, keep_little_unsent
from gateway.api.lane.heads import KnownHead
from gateway.core.call import Begun
from gateway.core.quick import AnswerHead, QuickCall
from gateway.core.reason import Reason

if TYPE_CHECKING:
    from gateway.api.lane.lane import Lane

_AHEAD_BYTES_MAX: Final = 64 * 2**10
"""Bytes of pipelined requests above which the client is not read until it has an earlier answer."""


class FastConnection(asyncio.Protocol):
    """Relays one request at a time."""

    __slots__ = (
        "_call",
        "_closes",
        "_ended",
        "_held",
        "_is_chunked",
        "_is_held_up",
        "_is_over",
        "_is_paused",
        "_known",
        "_lane",
        "_request",
        "_request_id",
        "_stall",
        "_ticks",
        "_transport",
    )

    def __init__(self, lane: Lane) -> None:
        self._lane = lane
        self._transport: asyncio.Transport | None = None
        self._held = b""  # what has come and is not being answered
        self._known: KnownHead | None = None  # of the request that is being answered
        self._request = b""
        self._request_id = ""
        self._call: QuickCall | None = None
        self._is_chunked = False
        self._closes = False  # the present answer is the last one
        self._is_over = False  # nothing is read any more
        self._is_paused = False  # nothing is read for now
        self._is_held_up = False  # the client takes no more for now
        self._stall: Stall | None = None
        self._ended: asyncio.Future[None] | None = None  # for whoever waits for the end of the answer
        self._ticks = 0  # since a request began or ended

    # -- for the event loop

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        if self._lane.turns_away(self._transport):
            self._is_over = True
        else:
            tcp_keepalive(self._transport)
            self._lane.joined(self, self._transport)

    def data_received(self, data: bytes) -> None:
        if self._is_over:
            return
        if self._known is None:
            if not self._held:
                self._ticks = 0
            self._next(self._held + data if self._held else data)
            return
        self._held += data
        if len(self._held) > _AHEAD_BYTES_MAX and not self._is_paused and self._transport is not None:
            self._is_paused = True
            self._transport.pause_reading()

    def pause_writing(self) -> None:
        self._is_held_up = True
        if self._transport is None or self._transport.is_closing():
            return
        if self._call is not None:
            self._call.pause()
        keep_little_unsent(self._transport)
        self._stall = Stall(self._transport, self._lane.stall_s)

    def resume_writing(self) -> None:
        self._is_held_up = False
        self._unstall()
        if self._call is not None:
            self._call.resume()
        elif self._known is not None:
            self._answer_ended()

    def connection_lost(self, exc: Exception | None) -> None:
        self._unstall()
        self._transport, self._is_over = None, True
        if self._call is not None:
            self._call.drop()
            self._call = None
        if self._known is not None:
            self._request_ended()
        self._lane.left(self)

    # -- for the server

    def close(self) -> None:
        """After the present answer."""
        self._closes = True
        if self._known is None and self._transport is not None:
            self._transport.close()

    async def shutdown(self, timeout: float | None = None) -> None:  # noqa: ASYNC109  as aiohttp's
        """Close the connection, at once after that time."""
        self.close()
        if self._known is not None:
            self._ended = asyncio.get_running_loop().create_future()
            await loop.are_done([self._ended], timeout)
        if self._transport is not None:
            self._transport.abort()

    def tick(self) -> None:
        """Some time has passed."""
        if self._known is not None:
            return
        self._ticks += 1
        if self._held and self._ticks > 1:
            self._hand_over(self._held)  # a body that is slow in coming
        elif self._ticks >= self._lane.keepalive_ticks and self._transport is not None:
            self._transport.close()

    # -- requests

    def _next(self, data: bytes) -> None:
        known, end = self._lane.head(data)
        if known is None:
            self._hand_over(data)
            return
        missing = end + known.length - len(data)
        if missing > 0:
            self._held = data
            return
        if missing < 0:
            # What follows in one piece may be no request, and then the other lane refuses them both.
            self._hand_over(data)
            return
        assert self._transport is not None
        self._request, self._held = data, b""
        self._request_id = self._lane.new_id()
        call = self._lane.call(known, data[end:], self._request_id, self, self._transport)
        if call is None:
            self._hand_over(data)
            return
        self._known, self._call = known, call
        self._closes = self._closes or known.closes
        self._lane.requests.begin()

    def _hand_over(self, data: bytes, begun: Begun | None = None) -> None:
        transport, self._transport, self._is_over = self._transport, None, True
        if transport is None or transport.is_closing():
            return
        if self._is_paused:
            transport.resume_reading()
        self._lane.left(self)
        self._lane.hand_over(transport, data, begun)

    # -- what comes of it: a listener

    def answered(self, head: AnswerHead, body: bytes, is_end: bool) -> None:
        known = self._known
        assert known is not None
        lane = self._lane
        self._closes = self._closes or lane.is_leaving
        shown = lane.shows.shown(known.head, head, is_settled=known.is_settled)
        lane.observer.passed_through(known.head.method, head.status)
        self._is_chunked = shown.is_chunked
        self._write(shown.told(self._request_id, closes=self._closes), body, is_end)

    def received(self, body: bytes, is_end: bool) -> None:
        self._write(b"", body, is_end)

    def failed(self, begun: Begun | None) -> None:
        self._call = None
        self._request_ended()
        self._hand_over(self._request + self._held, begun)

    def cut(self, reason: Reason) -> None:
        self._lane.observer.upstream_failed("passthrough", reason.short)
        self._call, self._is_over = None, True
        self._request_ended()
        # What was received goes out first; then the client cannot take it for the whole.
        asyncio.get_running_loop().call_soon(self._abort)

    def _abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def _write(self, head: bytes, body: bytes, is_end: bool) -> None:
        if self._is_chunked:
            body = b"%x\r\n%b\r\n" % (len(body), body) if body else b""
            if is_end:
                body += b"0\r\n\r\n"
        if is_end:
            self._call = None
        if (out := head + body if head else body) and self._transport is not None:
            self._transport.write(out)
        if is_end and not self._is_held_up:
            self._answer_ended()

    def _answer_ended(self) -> None:
        """All of it is on its way; the next request may be there already."""
        self._request_ended()
        if self._transport is None:
            return
        if self._closes:
            self._is_over = True
            self._transport.close()
            return
        self._ticks = 0
        if self._is_paused:
            self._is_paused = False
            self._transport.resume_reading()
        if self._held:
            held, self._held = self._held, b""
            self._next(held)

    def _request_ended(self) -> None:
        self._known = None
        self._lane.requests.end()
        if self._ended is not None and not self._ended.done():
            self._ended.set_result(None)

    def _unstall(self) -> None:
        if self._stall is not None:
            self._stall.stop()
            self._stall = None
