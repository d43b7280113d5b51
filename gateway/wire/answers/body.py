"""The body of a good answer, told apart by what it is and not by what its head says.

Servers send streams as text, as binary, or without any type, and JSON as a stream.
"""

from __future__ import annotations

from gateway.wire.failures.errorbody import readable_words
from gateway.wire.sse import Frame, SseDecoder, begins_json, begins_stream

_BEGINNING_BYTES_MAX = 4 * 2**10
"""Bytes that are read of an answer of another kind: enough for the title of an HTML page."""


class NeitherOne(Exception):
    """The body is neither a stream nor JSON.

    Attributes:
        words: What it says; None if nothing that can be shown.
    """

    def __init__(self, beginning: bytes) -> None:
        super().__init__("neither a stream nor JSON")
        self.words = readable_words(beginning)


class AnswerBody:
    """The bytes of one answer, as frames, or as one JSON object.

    JSON that comes first may be all there is, or the first of several lines (hackclub/ai), or all there is
    and a `[DONE]` (9router): it is held back until that shows.

    Args:
        frame_bytes_max: Of one event, and of an answer that is one object.
    """

    def __init__(self, frame_bytes_max: int) -> None:
        self._decoder = SseDecoder(frame_bytes_max)
        self._beginning = b""
        self._is_told_apart = False
        self._held: list[Frame] | None = None

    def feed(self, piece: bytes) -> list[Frame]:
        """The frames that a piece completes. Raises: FrameTooLarge, NeitherOne."""
        if not self._is_told_apart:
            piece = self._beginning = (self._beginning + piece).lstrip()
            if not self._tell_apart():
                return []
        frames = self._decoder.feed(piece)
        return frames if self._held is None else self._released(self._held, frames)

    def close(self) -> list[Frame] | bytes:
        """The last frames, or the one object. Raises: NeitherOne."""
        if self._beginning and not self._is_told_apart:
            raise NeitherOne(self._beginning)
        frames = self._decoder.close()
        if self._held is not None:
            frames = self._released(self._held, frames)
        return self._held[0].data if self._held else frames

    def _tell_apart(self) -> bool:
        found = begins_stream(self._beginning)
        if found is False and len(self._beginning) >= _BEGINNING_BYTES_MAX:
            raise NeitherOne(self._beginning)
        if found:
            self._is_told_apart = True
            self._held = [] if begins_json(self._beginning) else None
            self._beginning = b""
        return bool(found)

    def _released(self, held: list[Frame], frames: list[Frame]) -> list[Frame]:
        held += (frame for frame in frames if frame.data != b"[DONE]")
        if len(held) < 2:
            return []
        self._held = None
        return held
