"""Server-sent events: bytes of a backend into frames, our events into bytes.

Reads what servers really send (CR, LF and CRLF line ends, `data:`-only events, comments, a final `[DONE]`,
JSON without any framing); writes one form only: `event:` line, one `data:` line, blank line. Never `id:` or
`retry:`: the official Python client dispatches an empty event after a comment once it has seen an id.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

KEEP_ALIVE = b": keep-alive\n\n"
"""A comment: no event, no sequence number, but bytes on the wire."""

_BOM = b"\xef\xbb\xbf"
_JSON = (b"{", b"[")
_KNOWN = (b"event", b"data", b"error", *_JSON)
"""What a line begins with that may mean something, comments and the standard's `id` and `retry` being
nothing."""
_NOTHING = frozenset((b"{}", b'{"type":"ping"}', b'{"type": "ping"}', b'{"choices":[]}', b'{"choices": []}'))
"""Data that is as good as none, in every API. What keeps a connection alive costs no parse."""
_FIELDS = (*_KNOWN, b"id", b"retry", b":")
_FIELD_BYTES_MAX = max(map(len, _FIELDS))
_CR = ord("\r")  # it is found sooner than b"\r"
_USUAL = re.compile(rb"(?:event: ?+(.*)\n)?data: ?+(.+)\n\n")
"""An event as nearly all servers write it, where no CR is in it."""


class FrameTooLarge(Exception):
    """A backend sent more than the configured bytes without ending an event.

    Attributes:
        before: The frames that the same bytes completed before it.
    """

    def __init__(self, before: list[Frame] | None = None) -> None:
        super().__init__("an event is too large")
        self.before = before or []


@dataclass(slots=True)
class Frame:
    """One event as it was sent: its `event:` name ("" if it had none) and its joined data.

    Nobody changes one. It is not frozen, since one is made for each event, and that would take three times
    as long.
    """

    event: str
    data: bytes


class SseDecoder:
    """Cuts a byte stream into frames; any split of the bytes gives the same frames.

    Line by line, each line once: no bytes cost more than those of an ordinary event, however they are cut.
    Beside the standard's fields it knows, each from a server that does so:

    - `error: {…}` as a field (llama.cpp until 2025): an event of that name.
    - `event: error` without data (NestJS leaves the line out where there is no message): an event all the
      same.
    - JSON without a field name, on a line (hackclub/ai streams such lines; Gemini ends a stream so when its
      filter strikes) or over several, to the next blank line: the data of an event.

    Args:
        frame_bytes_max: Upper bound on one event, against a backend that never ends a line.
    """

    def __init__(self, frame_bytes_max: int) -> None:
        self._frame_bytes_max = frame_bytes_max
        self._buffer = bytearray()  # the line that has not ended
        self._scanned = 0
        self._is_first = True
        self._event = b""
        self._data: list[bytes] = []
        self._size = 0
        self._is_json = False  # its lines are JSON without a field name

    def feed(self, chunk: bytes) -> list[Frame]:
        """The frames that `chunk` completes.

        Raises:
            FrameTooLarge: No blank line within `frame_bytes_max` bytes.
        """
        buffer = self._buffer
        if not (buffer or self._size or self._is_first) and (found := self._whole(chunk)) is not None:
            return found
        buffer += chunk
        if self._is_first and not _BOM.startswith(bytes(buffer[:3])):
            self._is_first = False
        elif self._is_first and len(buffer) >= 3:
            del buffer[:3]
            self._is_first = False
        # A trailing CR may be half of a CRLF: leave it for the next chunk to tell.
        limit = len(buffer) - 1 if buffer.endswith(b"\r") else len(buffer)
        end = buffer.rfind(b"\n", self._scanned, limit) + 1
        end = max(end, buffer.rfind(b"\r", max(end, self._scanned), limit) + 1)
        frames: list[Frame] = []
        if end:
            lines = bytes(buffer[:end]).splitlines()
            del buffer[:end]
            self._take(lines, frames)
        self._scanned = limit - end
        if self._scanned and self._size + self._scanned > self._frame_bytes_max:
            raise FrameTooLarge(frames)
        return frames

    def _whole(self, chunk: bytes) -> list[Frame] | None:
        """The frames of a chunk that is nothing but whole events of the usual form: no line is looked at
        alone."""
        if _CR in chunk:
            return None
        frames: list[Frame] = []
        start, size = 0, len(chunk)
        while start < size:
            found = _USUAL.match(chunk, start)
            if found is None or (end := found.end()) - start > self._frame_bytes_max:
                return None
            start = end
            event, data = found.groups()
            if event or data not in _NOTHING:
                frames.append(Frame(event.decode("utf-8", "replace") if event else "", data))
        return frames

    def close(self) -> list[Frame]:
        """The last frame, where the stream ended without its blank line.

        The HTML standard drops it; a backend that ends with its terminal event and no blank line
        has still said how the response ended, and losing that would turn a success into a failure.
        """
        frames: list[Frame] = []
        self._take([*bytes(self._buffer).splitlines(), b""], frames)
        self._buffer.clear()
        self._scanned = 0
        return frames

    def _take(self, lines: list[bytes], frames: list[Frame]) -> None:
        """Whole lines, without their ends."""
        for line in lines:
            if not line:
                if self._size:
                    self._end(frames)
            elif line.startswith(_KNOWN) or self._is_json:
                self._size += len(line)
                if self._size > self._frame_bytes_max:
                    raise FrameTooLarge(frames)
                self._size += 1  # its end
                if self._is_json or line.startswith(_JSON):
                    self._take_json(line, frames)
                elif line.startswith(b"data:"):
                    self._data.append(line[6:] if line.startswith(b"data: ") else line[5:])
                else:
                    self._take_field(line)

    def _take_field(self, line: bytes) -> None:
        name, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        match name:
            case b"event":
                self._event = value
            case b"data":
                self._data.append(value)
            case b"error":
                self._event = name
                self._data.append(value)

    def _take_json(self, line: bytes, frames: list[Frame]) -> None:
        if not self._is_json:
            if self._data:
                self._end(frames)
            self._is_json, self._size = True, len(line)
        self._data.append(line)
        if len(self._data) == 1 and line.endswith((b"}", b"]")):
            self._end(frames)

    def _end(self, frames: list[Frame]) -> None:
        data = b"\n".join(self._data)
        if data in _NOTHING and not (self._event or self._is_json):
            data = b""
        if data or self._event == b"error":
            frames.append(Frame(self._event.decode("utf-8", "replace"), data))
        self._event, self._data = b"", []
        self._size, self._is_json = 0, False


def begins_stream(start: bytes) -> bool | None:
    """True if bytes are the beginning of something that the decoder can read; None if they are too few to
    say."""
    start = start.removeprefix(_BOM)
    if start.startswith(_FIELDS):
        return True
    return False if len(start) >= _FIELD_BYTES_MAX else None


def begins_json(start: bytes) -> bool:
    """True if it is JSON without any framing."""
    return start.removeprefix(_BOM).startswith(_JSON)


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
