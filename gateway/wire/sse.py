"""Server-sent events: bytes of a backend into frames, our events into bytes.

Reads what servers really send (CR, LF and CRLF line ends, `data:`-only events, comments, a final
`[DONE]`); writes one form only: `event:` line, one `data:` line, blank line. Never `id:` or `retry:`:
the official Python client dispatches an empty event after a comment once it has seen an id.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

KEEP_ALIVE = b": keep-alive\n\n"
"""A comment: no event, no sequence number, but bytes on the wire."""

_BLANK_LINE = re.compile(rb"(?:\r\n|\n|\r(?!\n)){2}")
_BLANK_LINE_BYTES_MAX = 4
_LINE_END = re.compile(rb"\r\n|\n|\r")
_BOM = b"\xef\xbb\xbf"


class FrameTooLarge(Exception):
    """A backend sent more than the configured bytes without ending an event.

    Attributes:
        before: The frames that the same bytes completed before it.
    """

    def __init__(self, before: list[Frame] | None = None) -> None:
        super().__init__("an event is too large")
        self.before = before or []


@dataclass(frozen=True, slots=True)
class Frame:
    """One event as it was sent: its `event:` name ("" if it had none) and its joined data."""

    event: str
    data: bytes


class SseDecoder:
    """Cuts a byte stream into frames; any split of the bytes gives the same frames.

    Args:
        frame_bytes_max: Upper bound on one event, against a backend that never ends a line.
    """

    def __init__(self, frame_bytes_max: int) -> None:
        self._frame_bytes_max = frame_bytes_max
        self._buffer = bytearray()
        self._scanned = 0
        self._is_first = True
        self._has_cr = False

    def feed(self, chunk: bytes) -> list[Frame]:
        """The frames that `chunk` completes.

        Raises:
            FrameTooLarge: No blank line within `frame_bytes_max` bytes.
        """
        buffer = self._buffer
        buffer += chunk
        if self._is_first and not _BOM.startswith(bytes(buffer[:3])):
            self._is_first = False
        elif self._is_first and len(buffer) >= 3:
            del buffer[:3]
            self._is_first = False
        # A trailing CR may be half of a CRLF: leave it for the next chunk to tell.
        limit = len(buffer) - 1 if buffer.endswith(b"\r") else len(buffer)
        frames: list[Frame] = []
        start = 0
        position = max(0, self._scanned - _BLANK_LINE_BYTES_MAX + 1)  # it may have begun earlier
        self._has_cr = self._has_cr or b"\r" in chunk
        find = _find_any if self._has_cr else _find_lf
        while (blank := find(buffer, position, limit)) is not None:
            end, next_start = blank
            if end - start > self._frame_bytes_max:
                raise FrameTooLarge(frames)
            if frame := _parse(bytes(buffer[start:end])):
                frames.append(frame)
            start = position = next_start
        del buffer[:start]
        self._scanned = limit - start
        if len(buffer) >= self._frame_bytes_max + _BLANK_LINE_BYTES_MAX:  # its end may be a blank line's
            raise FrameTooLarge(frames)
        return frames

    def close(self) -> list[Frame]:
        """The last frame, where the stream ended without its blank line.

        The HTML standard drops it; a backend that ends with its terminal event and no blank line
        has still said how the response ended, and losing that would turn a success into a failure.
        """
        frame = _parse(bytes(self._buffer))
        self._buffer.clear()
        return [frame] if frame else []


def _find_any(buffer: bytearray, start: int, end: int) -> tuple[int, int] | None:
    """The next blank line: where it begins and where it ends."""
    match = _BLANK_LINE.search(buffer, start, end)
    return match.span() if match else None


def _find_lf(buffer: bytearray, start: int, end: int) -> tuple[int, int] | None:
    """The same where no CR has been seen, which is nearly always, at a tenth of the cost."""
    found = buffer.find(b"\n\n", start, end)
    return (found, found + 2) if found >= 0 else None


def _parse(block: bytes) -> Frame | None:
    event = ""
    data: list[bytes] = []
    for line in _LINE_END.split(block) if b"\r" in block else block.split(b"\n"):
        name, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if name == b"data":
            data.append(value)
        elif name == b"event":
            event = value.decode("utf-8", "replace")
    return Frame(event, b"\n".join(data)) if data else None


def encode(event_type: str, json: bytes) -> bytes:
    """One event on the wire. `json` must be one line, which orjson's output always is."""
    return b"event: %b\ndata: %b\n\n" % (event_type.encode(), json)


def split_frames(block: bytes) -> list[bytes]:
    """The single events in bytes made by `encode`, each with its blank line."""
    return [part + b"\n\n" for part in block.split(b"\n\n")[:-1]]


def each_frame(block: bytes) -> Iterator[bytes]:
    """The same, of a large block: never all of them at once."""
    start = 0
    while (end := block.find(b"\n\n", start)) >= 0:
        yield block[start : end + 2]
        start = end + 2


def data_of(frame: bytes) -> bytes:
    """The JSON in one event made by `encode`."""
    return frame[frame.index(b"\ndata: ") + 7 : -2]
