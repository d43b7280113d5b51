"""The call that a stored request becomes, in the API that its backend speaks."""

from __future__ import annotations

from typing import Any

import orjson

from gateway.wire.chat.speech import ChatSpeech
from gateway.wire.conversation.items import Turn, context
from gateway.wire.speech import Api, Speech
from gateway.wire.speech_responses import SEALED_THOUGHTS, ResponsesSpeech

__all__ = ["NO_SUCH_ROUTE", "SEALED_THOUGHTS", "Api", "ChatSpeech", "ResponsesSpeech", "Speech"]

NO_SUCH_ROUTE = frozenset({404, 405, 501})
"""Statuses of a server without this route; some say 404 of a model or a response, too."""


def request_of(stored: bytes) -> dict[str, Any]:
    """A stored request."""
    request: dict[str, Any] = orjson.loads(stored)
    return request


def body_of(request: bytes, told: bytes) -> dict[str, Any]:
    """The client's body, of its stored parts."""
    return {**request_of(request), "input": orjson.loads(told)}


def input_of(stored: bytes, turns: list[Turn], to: Speech) -> Any:
    """A stored input after its earlier turns; not parsed where it goes to the backend as it is."""
    if not to.is_translated and not turns:
        return None if stored == b"null" else orjson.Fragment(stored)
    new_input = orjson.loads(stored)
    return context(turns, new_input, to.replay_target) if turns else new_input


def private_bytes(credential: tuple[str, str] | None, headers: dict[str, str]) -> bytes:
    """A caller's credential and private headers, to be sealed."""
    return orjson.dumps([credential, headers])


def private_of(text: bytes) -> tuple[tuple[str, str] | None, dict[str, str]]:
    """The inverse of `private_bytes`."""
    credential, headers = orjson.loads(text)
    return (None if credential is None else tuple(credential)), headers


def headers_of(stored: bytes) -> dict[str, str]:
    """The caller's headers that were stored with a job."""
    headers: dict[str, str] = orjson.loads(stored)
    return headers
