"""Clients that do not take what is written to them: how little they may cost, and for how long."""

from __future__ import annotations

import asyncio
import socket
import struct

from aiohttp import web

from gateway import loop

_UNSENT_BYTES_MAX = 16 * 2**10
_LOOKS = 10
"""At a client that takes nothing, in the time it has: it goes at most so much of it late, and a halt of ours
counts for one look."""


def hold_little(request: web.BaseRequest) -> None:
    """Take no more for a client than it takes itself: a piece here, and a little in the kernel.

    Else the kernel takes up to some megabytes for each connection, and reports no room until a third of that
    is free: a client on a slow line, which takes something all the time, would look like one that takes
    nothing.
    """
    if (transport := _open(request)) is not None:
        transport.set_write_buffer_limits(high=0)
        keep_little_unsent(request)


def keep_little_unsent(request: web.BaseRequest) -> None:
    """The kernel's part of it."""
    option = getattr(socket, "TCP_NOTSENT_LOWAT", None)  # Linux and macOS
    if option is not None and (transport := _open(request)) is not None:
        connection = transport.get_extra_info("socket")
        connection.setsockopt(socket.IPPROTO_TCP, option, _UNSENT_BYTES_MAX)


def hold_as_usual(request: web.BaseRequest) -> None:
    """The connection may be used again, for something else."""
    if (transport := _open(request)) is not None:
        transport.set_write_buffer_limits()


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
    left, looks = _unsent(request), 0
    try:
        while not await loop.are_done([draining], stall_s / _LOOKS):
            looks += 1
            if (now_left := _unsent(request)) < left:
                left, looks = now_left, 0
            elif looks >= _LOOKS:
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


def _unsent(request: web.BaseRequest) -> int:
    return request.transport.get_write_buffer_size() if request.transport is not None else 0
