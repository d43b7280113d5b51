"""Whether an answer has reached the other side, as far as this side can know."""

from __future__ import annotations

import fcntl
import struct
import termios

from aiohttp import web

_COUNT = struct.Struct("i")


class TcpArrival:
    """Looks after one answer, up to the TCP of whoever is connected.

    What a proxy does with it further on, and whether anybody reads it, cannot be seen from here.
    """

    def __init__(self, request: web.BaseRequest) -> None:
        self._request = request
        self._needed: int | None = None

    def handed_over(self) -> None:
        """Called when the first events of a stream have been written."""
        self._needed = self._request.writer.output_size

    def has_happened(self) -> bool:
        """Whether all bytes that matter are acknowledged, and the connection is open."""
        transport, written = self._request.transport, self._request.writer.output_size
        if transport is None or transport.is_closing() or not written:
            return False
        unsent = transport.get_write_buffer_size()
        return written - unsent - _untaken(transport.get_extra_info("socket").fileno()) >= (
            self._needed or written
        )


def _untaken(connection: int) -> int:
    """Bytes in the kernel that the other side's TCP has not acknowledged (Linux: SIOCOUTQ)."""
    try:
        answer = fcntl.ioctl(connection, termios.TIOCOUTQ, bytes(_COUNT.size))
    except OSError:
        return 0  # not known on this system
    return int(_COUNT.unpack(answer)[0])
