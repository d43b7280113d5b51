"""A plain answer to a request whose `previous_response_id` was ours: it names that response again.

The backend was sent the turns themselves and knows no earlier response, so its answer says null. Only this
one key is written; all other events and lines go on as the very bytes that came.
"""

from __future__ import annotations

from typing import Any

from gateway.wire import events
from gateway.wire.events import LIFECYCLE, TERMINAL

_KEY = "previous_response_id"
_EMBEDS = b'"response"'


def in_answer(body: bytes, previous_id: str) -> bytes:
    """One JSON object with the id in it; as it came, if it is no Response."""
    response = events.parse(body)
    if response is None or response.get("object") != "response" or not events.is_writable(response):
        return body
    return events.to_json({**response, _KEY: previous_id})


class EchoInStream:
    """Puts the id into the Responses that an event stream embeds.

    Args:
        line_bytes_max: A stream with a longer line, or one whose lines end in a lone CR as no server's are
            known to, goes on as it comes from there.
    """

    def __init__(self, previous_id: str, *, line_bytes_max: int) -> None:
        self._previous_id = previous_id
        self._line_bytes_max = line_bytes_max
        self._line = bytearray()
        self._is_off = False

    def feed(self, chunk: bytes) -> bytes:
        """The whole lines so far, which may be sent on."""
        seen = len(self._line)
        self._line += chunk
        if not self._is_off and b"\n" in chunk:
            end = self._line.rfind(b"\n") + 1
            whole = bytes(self._line[:end])
            del self._line[:end]
            if _EMBEDS not in whole:  # most events, and all lines that say nothing
                return whole
            return b"".join(self._echoed(line) + b"\n" for line in whole.split(b"\n")[:-1])
        has_lone_cr = self._line.find(b"\r", max(0, seen - 1), len(self._line) - 1) >= 0
        if has_lone_cr or len(self._line) > self._line_bytes_max:
            self._is_off = True
        return self.close() if self._is_off else b""

    def close(self) -> bytes:
        """The bytes that were held back."""
        held = bytes(self._line)
        self._line.clear()
        return held

    def _echoed(self, line: bytes) -> bytes:
        data = line.removeprefix(b"data:")
        if data == line or _EMBEDS not in data:
            return line
        event = events.parse(data)
        if event is None or event.get("type") not in LIFECYCLE | TERMINAL:
            return line
        response: Any = event.get("response")
        if not isinstance(response, dict) or not events.is_writable(event):
            return line
        echoed = events.to_json({**event, "response": {**response, _KEY: self._previous_id}})
        return b"data: " + echoed + (b"\r" if line.endswith(b"\r") else b"")
