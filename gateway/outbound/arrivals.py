"""A backend's connection, whose bytes are taken in with turns for all others in between.

What is read at once may be a hundred thousand HTTP chunks of a byte, each of which costs a call.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from typing import Final

from aiohttp.client_proto import ResponseHandler

from gateway import loop

_PIECE_BYTES: Final = 2**12


class Arrivals(ResponseHandler):
    """As aiohttp's, but for the turns: while some bytes wait for one, no more are read."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop)
        self._pieces: deque[bytes] = deque()
        self._is_in_line = False
        self._is_held = False

    @property
    def should_close(self) -> bool:
        """Also if there is more than the answer: it must not become the beginning of the next one."""
        return bool(self._pieces) or super().should_close

    def data_received(self, data: bytes) -> None:
        if not data or (not self._pieces and len(data) <= _PIECE_BYTES):  # of no bytes it goes on by itself
            super().data_received(data)
            return
        self._pieces.extend(data[at : at + _PIECE_BYTES] for at in range(0, len(data), _PIECE_BYTES))
        if not self._is_in_line:
            self._take()

    def resume_reading(self, resume_parser: bool = True) -> None:
        super().resume_reading(resume_parser)
        if self._pieces and not self._is_in_line:
            self._take()

    def connection_lost(self, exc: BaseException | None) -> None:
        while self._pieces and self.transport is not None:  # None: closed by us
            super().data_received(self._pieces.popleft())
        self._pieces.clear()
        super().connection_lost(exc)

    def _take(self) -> None:
        self._is_in_line = False
        until_s = time.perf_counter() + loop.TURN_S
        while self._pieces and (self._is_switching or not self._reading_paused):
            if time.perf_counter() > until_s and not self._is_switching:
                self._is_in_line = True
                loop.turn().add_done_callback(lambda _: self._take())
                break
            super().data_received(self._pieces.popleft())
            if self.transport is None:
                self._pieces.clear()
        if self._pieces and not self._buffer_paused:
            self._is_held = True
            self._pause_reading_for_buffer()
        elif self._is_held and not self._pieces:
            self._is_held = False
            self._resume_reading_for_buffer()

    @property
    def _is_switching(self) -> bool:
        """Between two protocols, aiohttp keeps what comes; nothing may be behind it."""
        return self._parser is None or (self._upgraded and self._payload_parser is None)
