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
_DELTA = b'"delta"'
_TELLS_ERROR = re.compile(
    rb'"error"\s*:\s*[^\sn]|"(type|object)"\s*:\s*"(error|response\.error)"|"(detail|errors|msg)"\s*:|"message"\s*:\s*"'
)
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
        self._secret_bytes = [secret.encode() for secret in self._secrets]

    def item(self, item: Input) -> Input:
        """The same, without secrets."""
        if isinstance(item, UpstreamFrames):
            for frame in item.frames:  # for each piece of text: no more than a look
                if _ERROR in frame.data or _DELTA not in frame.data or frame.event == "error":
                    return UpstreamFrames([self._frame(frame) for frame in item.frames])
        elif isinstance(item, UpstreamAnswer):
            return UpstreamAnswer(self._json(item.body))
        elif isinstance(item, UpstreamFailed):
            failure = {**item.failure, "message": self._text(item.failure["message"])}
            return replace(item, failure=failure)
        return item

    def _frame(self, frame: Frame) -> Frame:
        data = self._blotted(frame.data) if frame.event == "error" else self._json(frame.data)
        return Frame(frame.event, data)

    def _json(self, data: bytes) -> bytes:
        blotted = self._blotted(data)  # nearly always the same: only else is there anything to search for
        return blotted if blotted != data and _TELLS_ERROR.search(data) else data

    def _blotted(self, data: bytes) -> bytes:
        for secret in self._secret_bytes:
            data = data.replace(secret, b"***")
        return data

    def _text(self, message: str) -> str:
        for secret in self._secrets:
            message = message.replace(secret, "***")
        for secret in self._secrets:  # a long message was cut off, perhaps within one
            for length in range(len(secret) - 1, _SECRET_CHARS_MIN - 1, -1):
                if message.endswith(secret[:length]):
                    return f"{message[:-length]}***"
        return message
