"""A backend may quote the key that it refuses: nobody else gets to read it, nor does it get to the disk."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace

from gateway.core.machine import Input, UpstreamAnswer, UpstreamFailed, UpstreamFrames
from gateway.wire.sse import Frame

_SECRET_CHARS_MIN = 6
"""Shorter "keys" (`none`, `EMPTY`) are words that stand in ordinary messages."""

_ERROR = b'"error"'
_TELLS_ERROR = re.compile(rb'"error"\s*:\s*[^\sn]|"type"\s*:\s*"error"')
"""An error that is there, and not `"error": null`. In a model's words the quotes would be escaped."""

_SECRET_NAME = re.compile(r"auth|credential|key|password|secret|session|token", re.IGNORECASE)
_SECRET_VALUE = re.compile(r"(\w+ )?[\w.+/=~-]{16,}")
"""Long, and in one piece: what keys and tokens look like."""


class Redactor:
    """Blots out secrets in what a backend says about errors; what a model says passes as it is.

    Args:
        secrets: Values of headers that prove something.
        headers: The caller's others: those that sound or look like it are secret, too.
    """

    def __init__(self, secrets: Iterable[str], headers: dict[str, str]) -> None:
        values = {
            *secrets,
            *(
                value
                for name, value in headers.items()
                if _SECRET_NAME.search(name) or _SECRET_VALUE.fullmatch(value)
            ),
        }
        values |= {value.partition(" ")[2] for value in values}  # without the scheme
        self._secrets = sorted(
            (one for one in values if len(one) >= _SECRET_CHARS_MIN), key=len, reverse=True
        )

    def item(self, item: Input) -> Input:
        """The same, without secrets."""
        if isinstance(item, UpstreamFrames):
            for frame in item.frames:  # for each piece of text: no more than a look
                if _ERROR in frame.data:
                    frames = [Frame(frame.event, self._json(frame.data)) for frame in item.frames]
                    return UpstreamFrames(frames)
        elif isinstance(item, UpstreamAnswer):
            return UpstreamAnswer(self._json(item.body))
        elif isinstance(item, UpstreamFailed):
            failure = {**item.failure, "message": self._text(item.failure["message"])}
            return replace(item, failure=failure)
        return item

    def _json(self, data: bytes) -> bytes:
        if _TELLS_ERROR.search(data):
            for secret in self._secrets:
                data = data.replace(secret.encode(), b"***")
        return data

    def _text(self, message: str) -> str:
        for secret in self._secrets:
            message = message.replace(secret, "***")
        for secret in self._secrets:  # a long message was cut off, perhaps within one
            for length in range(len(secret) - 1, _SECRET_CHARS_MIN - 1, -1):
                if message.endswith(secret[:length]):
                    return f"{message[:-length]}***"
        return message
