"""Plain answers that are kept as turns of a conversation: passed on byte for byte, and read beside it.

The record is committed before the client can have seen the end of the answer, so that it can go on from it
at once.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Protocol

import aiohttp

from gateway.wire import events as wire_events
from gateway.wire.events import TERMINAL
from gateway.wire.sse import Frame, FrameTooLarge, SseDecoder

Keep = Callable[[dict[str, Any]], Awaitable[None]]


class Tap(Protocol):
    """Sees an answer on its way to the client."""

    async def saw(self, chunk: bytes) -> bytes:
        """What of it may go on now."""

    async def ended(self) -> bytes:
        """What was held back."""


class ResponseTap:
    """Finds the final Response in a plain answer.

    Args:
        keep: Called with it, once.
        bytes_max: A longer answer is passed on without being kept.
    """

    def __init__(self, answer: aiohttp.ClientResponse, keep: Keep, *, bytes_max: int) -> None:
        encoded = answer.headers.get("Content-Encoding", "identity") != "identity"
        self._is_readable = answer.status == 200 and not encoded
        self._decoder = SseDecoder(bytes_max) if answer.content_type == "text/event-stream" else None
        self._keep = keep
        self._bytes_max = bytes_max
        self._held = bytearray()

    async def saw(self, chunk: bytes) -> bytes:
        if not self._is_readable:
            return chunk
        if self._decoder is not None:
            await self._look(self._decoder, chunk)
            return chunk
        self._held += chunk
        if len(self._held) <= self._bytes_max:
            return b""
        self._is_readable = False
        return self._release()

    async def ended(self) -> bytes:
        if self._is_readable and self._decoder is None:
            await self._found(wire_events.parse(bytes(self._held)))
        return self._release()

    async def _look(self, decoder: SseDecoder, chunk: bytes) -> None:
        try:
            frames = decoder.feed(chunk)
        except FrameTooLarge:
            self._is_readable = False
            return
        for frame in frames:
            if _may_be_terminal(frame):
                event = wire_events.parse(frame.data)
                if event is not None and event.get("type") in TERMINAL:
                    await self._found(event.get("response"))

    async def _found(self, response: Any) -> None:
        self._is_readable = False
        if isinstance(response, dict) and response.get("status") in ("completed", "incomplete"):
            await self._keep(response)

    def _release(self) -> bytes:
        held = bytes(self._held)
        self._held.clear()
        return held


def _may_be_terminal(frame: Frame) -> bool:
    """Without parsing every delta."""
    return frame.event in TERMINAL or (
        not frame.event and any(name.encode() in frame.data for name in TERMINAL)
    )
