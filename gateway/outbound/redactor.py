"""What a backend says of errors goes to a client, to the disk and to readers: without keys and addresses.

The caller's own credentials and the gateway's are known, and blotted out wherever they stand; anybody else's,
and addresses, are found by what they look like.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

import orjson

from gateway.core.call import Taker
from gateway.core.upstream import UpstreamAnswer, UpstreamFailed, UpstreamFrames, UpstreamItem
from gateway.wire.failures.redaction import BLOT, CHARS_MAX, blotted
from gateway.wire.sse import Frame

_SECRET_CHARS_MIN = 6
"""Shorter "keys" (`none`, `EMPTY`) are words that stand in ordinary messages."""

_TELLS_ERROR = re.compile(
    rb'"errors?"\s*:\s*[^\sn]|"(?:type|object|event)"\s*:\s*"(?:response\.)?error"|"(?:detail|message|msg)"\s*:|\\u00[67]'
)
"""An error that is there, and not `"error": null`; or letters as escapes, which may be these words."""
_TOLD_AS = ("error", "errors", "detail", "message", "msg")
_CONTENT = frozenset({"response", "choices", "output", "item", "part", "delta"})
"""What has none of these has nothing of a model's in it."""
_DEEPEST = 20
"""Of the JSON of an error."""

_SECRET_NAME = re.compile(r"auth|credential|key|password|secret|session|token", re.IGNORECASE)
_SECRET_VALUE = re.compile(r"(\w+ )?[\w.+/=~-]{16,}")
"""Long, and in one piece: what keys and tokens look like."""


class _Budget:
    """How much of one error is looked through: its author might want it to take long."""

    def __init__(self) -> None:
        self._chars_left = CHARS_MAX

    def spend(self, chars: int) -> bool:
        """Whether there was anything left; one text may be longer, and is cut then."""
        had_some = self._chars_left > 0
        self._chars_left -= chars + 1
        return had_some


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

    def taker(self, taker: Taker | None) -> Taker | None:
        """One to which everything comes without secrets."""
        return None if taker is None else _RedactedTaker(self, taker)

    def frames(self, item: UpstreamFrames) -> UpstreamFrames:
        """The same, without secrets. A piece of text costs no more than a look: in what a model says the
        quotes would be escaped."""
        for frame in item.frames:
            data = frame.data  # in which `find` looks: `in` first tries whether bytes are a number
            if data.find(b'"error') >= 0 or (data.find(b'"response.') < 0 and data.find(b'"choices"') < 0):
                return UpstreamFrames([self._frame(frame) for frame in item.frames])
        return item

    def item(self, item: UpstreamItem) -> UpstreamItem:
        """The same, without secrets."""
        if isinstance(item, UpstreamFrames):
            return self.frames(item)
        if isinstance(item, UpstreamAnswer):
            return UpstreamAnswer(self._json(item.body))
        if isinstance(item, UpstreamFailed):
            return replace(item, failure={name: self._text(text) for name, text in item.failure.items()})
        return item

    def _frame(self, frame: Frame) -> Frame:
        data = self._json(frame.data)
        if data is frame.data and frame.event == "error" and not data.lstrip().startswith(b"{"):
            data = self._text(data.decode("utf-8", "replace")).encode()  # told in plain words
        return Frame(frame.event, data)

    def _json(self, data: bytes) -> bytes:
        if not _TELLS_ERROR.search(data):
            return data
        try:
            parsed = orjson.loads(data)
        except orjson.JSONDecodeError:
            return data  # nobody reads an error in it
        return orjson.dumps(parsed) if isinstance(parsed, dict) and self._blot_errors(parsed) else data

    def _blot_errors(self, event: dict[str, Any]) -> bool:
        """Whether there was anything to blot out where an event, or an answer, tells of an error."""
        budget, found = _Budget(), False
        for place, name in list(_errors_in(event)):
            told = place[name]
            place[name] = self._value(told, _DEEPEST, budget)
            found = found or place[name] != told
        return found

    def _value(self, value: Any, deepest: int, budget: _Budget) -> Any:
        match value:
            case str():
                return self._text(value) if budget.spend(len(value)) else BLOT
            case dict() | list() if not deepest:
                return BLOT
            case dict():
                return {
                    self._value(name, deepest, budget): self._value(each, deepest - 1, budget)
                    for name, each in value.items()
                }
            case list():
                return [self._value(each, deepest - 1, budget) for each in value]
        return value

    def _text(self, message: str) -> str:
        for secret in self._secrets:
            message = message.replace(secret, BLOT)
        for secret in self._secrets:  # a long message was cut off, perhaps within one
            for length in range(len(secret) - 1, _SECRET_CHARS_MIN - 1, -1):
                if message.endswith(secret[:length]):
                    return blotted(f"{message[:-length]}{BLOT}")
        return blotted(message)


class _RedactedTaker:
    __slots__ = ("_redactor", "_taker", "has_room")

    def __init__(self, redactor: Redactor, taker: Taker) -> None:
        self._redactor = redactor
        self._taker = taker
        self.has_room = taker.has_room

    def take(self, item: UpstreamFrames) -> bool:
        return self._taker.take(self._redactor.frames(item))


def _errors_in(event: dict[str, Any]) -> Iterator[tuple[dict[str, Any], str]]:
    """The places where an event, or an answer, may tell of an error."""
    is_said = isinstance(event.get("message"), dict)  # so some APIs call what a model says
    has_content = is_said or _CONTENT & event.keys()
    for name in _TOLD_AS if has_content else event:
        if name in event and not (is_said and name == "message"):
            yield event, name
    choices = event.get("choices")
    for inner in (event.get("response"), *(choices if isinstance(choices, list) else ())):
        if isinstance(inner, dict) and "error" in inner:
            yield inner, "error"
