"""Slow clients: how long one may take to send a request that it has begun, and to take what it is sent.

Without a limit a client holds a connection by sending a byte now and then, and a few thousand of them hold
all there are (slowloris).
"""

from __future__ import annotations

import asyncio
import socket
import struct
from typing import Final, Protocol

from aiohttp import web
from aiohttp.streams import StreamReader

from gateway import loop
from gateway.config import ServerSettings
from gateway.wire.errors import Fault, Refusal
from gateway.wire.http.admission import head_too_large

_TICK_S: Final = 1.0
"""Longest time, in seconds, between two checks of a body's limits: they are enforced at most that late. One
timer serves a whole body. Ticks are counted, not time, so a halt of the gateway costs the client one tick."""

_TCP_INFO: Final = getattr(socket, "TCP_INFO", None)  # Linux; its first byte is the state
_ESTABLISHED: Final = 1

_UNSENT_BYTES_MAX = 16 * 2**10
_CHECKS = 10
"""Checks per stall timeout: a stalled client is cut off at most 10 % late. A halt of ours counts as one."""


class UploadingClient(Protocol):
    """The connection of a client that sends."""

    @property
    def is_held(self) -> bool:
        """Whether nothing is read from it, since nobody takes what came."""

    @property
    def transport(self) -> asyncio.Transport | None: ...

    def refuse(self, refusal: Refusal) -> None:
        """End the connection, with this answer if it owes no other."""

    def give_up(self) -> None:
        """Break the connection off, and end all that is done for it."""


class SlowClientWatch:
    """Watches one connection, which tells it after each read what the client is in the middle of."""

    __slots__ = (
        "_alarm",
        "_body",
        "_client",
        "_has_moved",
        "_head_bytes",
        "_left_s",
        "_settings",
        "_still_s",
    )

    def __init__(self, sender: UploadingClient, settings: ServerSettings) -> None:
        self._client = sender
        self._settings = settings
        self._alarm: loop.Alarm | None = None
        self._body: StreamReader | None = None
        self._head_bytes = 0
        self._has_moved = False
        self._still_s = self._left_s = 0.0

    def wait_for_head(self, arrived_bytes: int) -> None:
        """A piece of a head has come, and its end has not."""
        if self._alarm is None:
            self._head_bytes = 0
            self._alarm = loop.Alarm(self._settings.head_timeout_s, self._head_is_late)
        self._head_bytes += arrived_bytes
        if self._head_bytes > self._settings.head_bytes_max:
            self.end()
            self._client.refuse(head_too_large())

    def wait_for_body(self, body: StreamReader) -> None:
        """A head or a piece of a body has come, and the body's end has not."""
        self._has_moved = True
        if self._body is not body:
            self.end()
            self._body = body
            self._still_s, self._left_s = 0.0, self._settings.body_timeout_s
            self._alarm = loop.Alarm(self._tick_s, self._tick)

    def end(self) -> None:
        """All that was begun has come; or nothing more will."""
        if self._alarm is not None:
            self._alarm.stop()
            self._alarm = self._body = None

    @property
    def _tick_s(self) -> float:
        return min(_TICK_S, self._settings.body_idle_timeout_s)

    def _head_is_late(self) -> None:
        self.end()
        self._client.refuse(_too_slow("The request's head took too long."))

    def _tick(self) -> None:
        assert self._body is not None
        assert self._alarm is not None
        if self._client.is_held:  # not the client is slow but the backend: the client's clock stands
            self._still_s = 0.0
            if _has_hung_up(self._client.transport):
                self._client.give_up()
                return
        else:
            self._still_s = 0.0 if self._has_moved else self._still_s + self._tick_s
            self._left_s -= self._tick_s
        self._has_moved = False
        if self._still_s >= self._settings.body_idle_timeout_s or self._left_s <= 0:
            body = self._body
            self.end()
            body.set_exception(_too_slow("The request's body took too long."))
        else:
            self._alarm.restart()


def _too_slow(message: str) -> Refusal:
    return Refusal(Fault.TOO_SLOW, message, code="request_timeout")


def _has_hung_up(transport: asyncio.Transport | None) -> bool:
    """Whether the client has closed its side, which a socket that is not read from does not tell."""
    if transport is None or _TCP_INFO is None:
        return False
    try:
        info = transport.get_extra_info("socket").getsockopt(socket.IPPROTO_TCP, _TCP_INFO, 1)
    except OSError:
        return False
    return bool(info[0] != _ESTABLISHED)


def hold_little(request: web.BaseRequest) -> None:
    """Buffer little for a slow client: one piece here, and 16 KiB in the kernel.

    Otherwise the kernel buffers some megabytes for each connection, and reports room only when a third of
    that is free: a client on a slow line, which reads all the time, would look like one that reads nothing.
    """
    if (transport := _open(request)) is not None:
        transport.set_write_buffer_limits(high=0)
        keep_little_unsent(transport)


def keep_little_unsent(transport: asyncio.Transport | None) -> None:
    """The kernel's part of it."""
    option = getattr(socket, "TCP_NOTSENT_LOWAT", None)  # Linux and macOS
    if option is not None and transport is not None and not transport.is_closing():
        connection = transport.get_extra_info("socket")
        connection.setsockopt(socket.IPPROTO_TCP, option, _UNSENT_BYTES_MAX)


def hold_as_usual(request: web.BaseRequest) -> None:
    """The connection may be used again, for something else."""
    if (transport := _open(request)) is not None:
        transport.set_write_buffer_limits()


class _Looks:
    """At what a client has not taken yet: it has stalled after so many at which that was not less."""

    __slots__ = ("_left", "_since")

    def __init__(self, left: int) -> None:
        self._left = left
        self._since = 0

    def are_over(self, left: int) -> bool:
        self._since = 0 if left < self._left else self._since + 1
        self._left = min(self._left, left)
        return self._since >= _CHECKS


class Stall:
    """As `drained`, without anybody who waits: breaks the connection of a client off that has stalled."""

    __slots__ = ("_alarm", "_looks", "_transport")

    def __init__(self, transport: asyncio.Transport, stall_s: float) -> None:
        self._transport = transport
        self._looks = _Looks(_unsent(transport))
        self._alarm = loop.Alarm(stall_s / _CHECKS, self._look)

    def stop(self) -> None:
        self._alarm.stop()

    def _look(self) -> None:
        if self._looks.are_over(_unsent(self._transport)):
            self._transport.abort()
        else:
            self._alarm.restart()


async def drained(request: web.BaseRequest, stall_s: float) -> None:
    """Wait until the client has taken enough of what was written.

    The kernel reports room in pieces of half of what it may hold, so that a client which takes less than
    that in `stall_s` has stalled, too: nobody can hold a connection by taking a byte now and then.

    Raises:
        ConnectionError: It is gone.
        TimeoutError: It has stalled.
    """
    # A task, as aiohttp cannot wait for the same thing again once a timeout has cancelled it.
    draining = asyncio.ensure_future(request.writer.drain())
    looks = _Looks(_unsent(request.transport))
    try:
        while not await loop.are_done([draining], stall_s / _CHECKS):
            if looks.are_over(_unsent(request.transport)):
                raise TimeoutError
        draining.result()
    finally:
        draining.cancel()


def reset(request: web.BaseRequest) -> None:
    """Break the connection off, and throw away what the kernel still holds for it."""
    if (transport := _open(request)) is not None:
        connection = transport.get_extra_info("socket")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        transport.abort()


def _open(request: web.BaseRequest) -> asyncio.Transport | None:
    """None if the client has gone: then there is no socket to ask anything of."""
    transport = request.transport
    return None if transport is None or transport.is_closing() else transport


def _unsent(transport: asyncio.Transport | None) -> int:
    return transport.get_write_buffer_size() if transport is not None else 0
