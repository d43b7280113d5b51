"""The body of a backend call, from what was stored of a request."""

from __future__ import annotations

import orjson

from gateway.wire.items import Turn, context
from gateway.wire.requests import backend_body


def request_body(request: bytes, input: bytes, turns: list[Turn]) -> bytes:
    """The synchronous, streamed request; earlier turns of this gateway stand before the new input."""
    new_input = orjson.loads(input)
    return backend_body(orjson.loads(request), input=context(turns, new_input) if turns else new_input)


def headers_of(stored: bytes) -> dict[str, str]:
    """The caller's headers that were stored with a job."""
    headers: dict[str, str] = orjson.loads(stored)
    return headers
