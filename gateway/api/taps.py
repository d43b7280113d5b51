"""What sees a plain answer on its way: it is passed on byte for byte and kept as a turn of a conversation, or
told which response it goes on from.

The record is committed before the client can have seen the end of the answer, so that it can go on from it
at once.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import aclosing
from typing import Any, Final, Protocol

import aiohttp

from gateway import loop
from gateway.wire import events as wire_events
from gateway.wire.bodies import previous_ids
from gateway.wire.events import TERMINAL
from gateway.wire.sse import Frame, FrameTooLarge, SseDecoder

_TERMINAL_NAMES: Final = tuple(name.encode() for name in TERMINAL)

Keep = Callable[[dict[str, Any]], Awaitable[None]]


class Tap(Protocol):
    """Sees an answer on its way to the client."""

    @property
    def may_change(self) -> bool:
        """Whether the answer's bytes may change, so that its length is not known before."""

    async def saw(self, chunk: bytes) -> bytes:
        """The bytes to pass on now."""

    async def ended(self) -> bytes:
        """The bytes that were held back."""


TapFactory = Callable[[aiohttp.ClientResponse], Tap]


class Both:
    """One tap behind the other."""

    def __init__(self, first: Tap, second: Tap) -> None:
        self._first = first
        self._second = second

    @property
    def may_change(self) -> bool:
        return self._first.may_change or self._second.may_change

    async def saw(self, chunk: bytes) -> bytes:
        return await self._second.saw(await self._first.saw(chunk))

    async def ended(self) -> bytes:
        return await self._second.saw(await self._first.ended()) + await self._second.ended()


class EchoTap:
    """Writes into an answer which of our responses it goes on from.

    Args:
        bytes_max: A longer answer, or line of a stream, is passed on as it is.
    """

    def __init__(self, answer: aiohttp.ClientResponse, previous_id: str, *, bytes_max: int) -> None:
        self.may_change = _is_readable(answer)
        self._is_off = not self.may_change
        self._stream = (
            previous_ids.EchoInStream(previous_id, line_bytes_max=bytes_max) if _is_stream(answer) else None
        )
        self._previous_id = previous_id
        self._bytes_max = bytes_max
        self._held = bytearray()

    async def saw(self, chunk: bytes) -> bytes:
        if self._is_off:
            return chunk
        if self._stream is not None:
            async with aclosing(loop.pieces(chunk)) as pieces:
                return b"".join([self._stream.feed(piece) async for piece in pieces])
        self._held += chunk
        if len(self._held) <= self._bytes_max:
            return b""
        self._is_off = True
        return bytes(self._held)

    async def ended(self) -> bytes:
        if self._is_off:
            return b""
        return (
            self._stream.close()
            if self._stream is not None
            else previous_ids.in_answer(bytes(self._held), self._previous_id)
        )


class ResponseTap:
    """Finds the final Response in a plain answer.

    Args:
        keep: Called with it, once.
        bytes_max: A longer answer is passed on without being kept.
    """

    may_change = False

    def __init__(self, answer: aiohttp.ClientResponse, keep: Keep, *, bytes_max: int) -> None:
        self._is_readable = _is_readable(answer)
        self._decoder = SseDecoder(bytes_max) if _is_stream(answer) else None
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
        elif self._is_readable and self._decoder is not None:
            await self._look_at(self._decoder.close())
        return self._release()

    async def _look(self, decoder: SseDecoder, chunk: bytes) -> None:
        try:
            async with aclosing(loop.pieces(chunk)) as pieces:
                async for piece in pieces:
                    if self._is_readable and (frames := decoder.feed(piece)):
                        await self._look_at(frames)
        except FrameTooLarge:
            self._is_readable = False

    async def _look_at(self, frames: list[Frame]) -> None:
        for frame in frames:
            if self._is_readable and _may_be_terminal(frame):
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


def _is_readable(answer: aiohttp.ClientResponse) -> bool:
    is_encoded = answer.headers.get("Content-Encoding", "identity") != "identity"
    return answer.status == 200 and not is_encoded


def _is_stream(answer: aiohttp.ClientResponse) -> bool:
    return answer.content_type == "text/event-stream"


def _may_be_terminal(frame: Frame) -> bool:
    """Without parsing every delta."""
    return frame.event in TERMINAL or (
        not frame.event and any(name in frame.data for name in _TERMINAL_NAMES)
    )
