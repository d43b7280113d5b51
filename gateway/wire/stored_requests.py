"""What is stored of a create request: there, and back to the call that it becomes."""

from __future__ import annotations

from typing import Any

import orjson

from gateway.wire.conversation.items import Turn, context
from gateway.wire.speech import Speech


def request_bytes(body: dict[str, Any]) -> bytes:
    """To be stored of a client's body, without its input."""
    return orjson.dumps({name: value for name, value in body.items() if name != "input"})


def input_bytes(body: dict[str, Any]) -> bytes:
    """The rest of it."""
    return orjson.dumps(body.get("input"))


def request_of(stored: bytes) -> dict[str, Any]:
    """The inverse of `request_bytes`."""
    request: dict[str, Any] = orjson.loads(stored)
    return request


def body_of(request: bytes, told: bytes) -> dict[str, Any]:
    """All of the client's body."""
    return {**request_of(request), "input": orjson.loads(told)}


def input_of(stored: bytes, turns: list[Turn], to: Speech) -> Any:
    """A stored input after its earlier turns; not parsed where it goes to the backend as it is."""
    if not to.is_translated and not turns:
        return None if stored == b"null" else orjson.Fragment(stored)
    new_input = orjson.loads(stored)
    return context(turns, new_input, to.replay_target) if turns else new_input


def headers_bytes(headers: dict[str, str]) -> bytes:
    """The caller's headers, as far as they may be stored."""
    return orjson.dumps(headers)


def headers_of(stored: bytes) -> dict[str, str]:
    """The inverse of `headers_bytes`."""
    headers: dict[str, str] = orjson.loads(stored)
    return headers


def private_bytes(credential: tuple[str, str] | None, headers: dict[str, str]) -> bytes:
    """A caller's credential and private headers, to be sealed."""
    return orjson.dumps([credential, headers])


def private_of(text: bytes) -> tuple[tuple[str, str] | None, dict[str, str]]:
    """The inverse of `private_bytes`."""
    credential, headers = orjson.loads(text)
    return (None if credential is None else tuple(credential)), headers
