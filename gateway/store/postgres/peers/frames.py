"""What gateways say to each other. What a reader does not know it leaves out: later releases may say more."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

SUBSCRIBE = b"+"
"""Push the events of a response, whose id is the text, under this number."""
LEAVE = b"-"
EVENTS = b"e"
LAST = b"E"
"""The same, and nothing follows."""
LOOK = b"?"
"""There may be something in the table: at the beginning, or instead of what is too large."""
ALIVE = b"."

_HEAD = struct.Struct("!cIQQI")
EVENTS_BYTES_MAX = 2**19


@dataclass(frozen=True, slots=True)
class Frame:
    """One of them.

    Attributes:
        number: Of a subscription, among those of a link.
        first_seq, last_seq: Of the events.
    """

    kind: bytes
    number: int = 0
    text: bytes = b""
    first_seq: int = 0
    last_seq: int = 0

    def encoded(self) -> bytes:
        return _HEAD.pack(self.kind, self.number, self.first_seq, self.last_seq, len(self.text)) + self.text


def frames_of(record: memoryview) -> Iterator[Frame]:
    """Raises: ValueError, struct.error."""
    at = 0
    while at < len(record):
        kind, number, first_seq, last_seq, size = _HEAD.unpack_from(record, at)
        at += _HEAD.size + size
        if at > len(record):
            raise ValueError("a frame is cut off")
        yield Frame(kind, number, bytes(record[at - size : at]), first_seq, last_seq)
