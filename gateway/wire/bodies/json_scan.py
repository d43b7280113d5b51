"""The outline of a JSON object: its keys, how deep it is and how much there is in it, without parsing it.

What is no JSON has some outline, too: a body is parsed before it is believed.
"""

from __future__ import annotations

import re
from collections.abc import Generator
from typing import Final

import orjson

from gateway.wire.errors import Refusal, invalid

DEPTH_MAX: Final = 100
VALUES_MAX: Final = 100_000
"""Most values in all lists and objects of a request: parsed, some 10 MB, and some 50 ms in which nobody else
is served. A conversation has eight of them for a message."""

PLAIN_VALUES_MAX: Final = 1_000_000
"""The same of a plain body of which something must be known, such as its model. More than any engine takes, a
batch of embeddings as numbers included."""

_STEP_BYTES: Final = 2**20
_STEP_TOKENS: Final = 4096
"""Tokens between two pauses, some milliseconds of work."""

_OBJECT = re.compile(rb"(?:\xef\xbb\xbf)?[ \t\r\n]*\{")  # some parsers skip a byte order mark
_TOKEN = re.compile(rb'["\[\]{},]')
_PART_OF_STRING = re.compile(rb'(?:[^"\\]{1,65536}+|\\.){0,64}+', re.DOTALL)
_VALUE = re.compile(rb'[ \t\r\n]*:[ \t\r\n]*(true|false|null|""|NaN|Infinity|["\[{0-9-]|)')
"""A value as far as it matters: a word of JSON, or of what some servers read as JSON, or how it begins."""

_ODD = {b'"': "a string", b"[": "an array", b"{": "an object"} | dict.fromkeys(
    (bytes([sign]) for sign in b"0123456789-NI"), "a number"
)
"""Type of a value that is neither true, false nor null, by its first byte."""


def _however_written(key: str) -> str:
    return "".join(f"(?:{letter}|\\\\u00{ord(letter):02x})" for letter in key)


class Keys:
    """Some keys of JSON, to be found without parsing it, also where their letters are written as escapes."""

    def __init__(self, *names: str) -> None:
        self._key = re.compile(f'"(?:{"|".join(map(_however_written, names))})"'.encode(), re.IGNORECASE)
        # Fixed words are found ten times as fast, and mostly there is none.
        self._parts = (*(name.encode() for name in names), rb"\u00")
        self._key_bytes_max = 6 * max(map(len, names)) + 2

    def mentioned_in(self, body: bytes) -> Generator[None, None, bool]:
        """True if one of them may be among the keys of a body. The pauses are for others."""
        for start in range(0, len(body), _STEP_BYTES):
            end = start + _STEP_BYTES + self._key_bytes_max
            if any(body.find(part, start, end) >= 0 for part in self._parts) and self._key.search(
                body, start, end
            ):
                return True
            if end < len(body):
                yield
        return False


class Outline:
    """What a look at a JSON object has found.

    Attributes:
        backgrounds: How often it has the key `background`; `is_background`: the last time with `true`;
            `odd_background`: with a value of this type, which is none of those that it may have.
        is_chained: It has a `previous_response_id` that is neither null nor empty.
        is_too_deep: It has more levels than `DEPTH_MAX`.
        twice: The first key that one of its objects has two times, and whether that object is the whole.
        values: In all of its lists and objects; with more than so many the look has ended there.
    """

    def __init__(self) -> None:
        self.backgrounds = 0
        self.is_background = False
        self.odd_background: str | None = None
        self.is_chained = False
        self.is_too_deep = False
        self.twice: tuple[bytes, bool] | None = None
        self.values = 0
        self.depth = 0
        self.is_key_next = False
        self._keys: list[set[bytes] | None] = []  # of the objects that we are in; a list has None

    def open(self, *, is_object: bool) -> None:
        self.depth += 1
        if self.depth > DEPTH_MAX:
            self.is_too_deep = True
        else:
            self._keys.append(set() if is_object else None)
        self.value()

    def value(self) -> None:
        """The first of a list or object, or the next after a comma."""
        self.values += 1
        self.is_key_next = self.depth <= DEPTH_MAX and self._keys[-1] is not None

    def close(self) -> None:
        if self.depth <= DEPTH_MAX:
            self._keys.pop()
        self.depth -= 1
        self.is_key_next = False

    def key(self, raw: bytes, value: bytes) -> None:
        self.is_key_next = False
        keys = self._keys[-1]
        assert keys is not None
        key = _unescaped(raw)
        if self.depth == 1 and key == b"background":
            self.backgrounds += 1
            self.is_background = value == b"true"
            self.odd_background = _ODD.get(value[:1])
        elif self.depth == 1 and key == b"previous_response_id":
            self.is_chained = self.is_chained or value not in (b"null", b'""')
        if key in keys and self.twice is None:
            self.twice = key, self.depth == 1
        keys.add(key)


def is_object(body: bytes) -> bool:
    """True if a body begins as a JSON object does."""
    return _OBJECT.match(body) is not None


def check_values(body: bytes) -> Generator[None, None, None]:
    """Refuse a plain body that is too large to be parsed. The generator pauses so that others are served.

    Raises:
        Refusal: It has more than `PLAIN_VALUES_MAX` values.
    """
    values_max = 0
    for start in range(0, len(body), _STEP_BYTES):
        end = start + _STEP_BYTES
        values_max += sum(body.count(sign, start, end) for sign in (b",", b"[", b"{"))
        if end < len(body):
            yield
    if values_max <= PLAIN_VALUES_MAX:
        return
    outline = yield from look_over(body, values_max=PLAIN_VALUES_MAX)  # those in texts do not count
    if outline.values > PLAIN_VALUES_MAX or not is_object(body):
        raise too_many_values(PLAIN_VALUES_MAX)


def too_many_values(values_max: int) -> Refusal:
    """The refusal of a body over a limit."""
    message = f"The lists and objects of the request have more than {values_max} values."
    return invalid(message, code="too_many_values")


def look_over(body: bytes, *, values_max: int = VALUES_MAX) -> Generator[None, None, Outline]:
    """The outline of a body; of what is no object, an empty one. The pauses are for others."""
    outline = Outline()
    if not is_object(body):
        return outline
    position = paused_at = tokens = 0
    while outline.values <= values_max and (token := _TOKEN.search(body, position)):
        position = token.end()
        match token[0]:
            case b'"':
                start = position
                while (part := _PART_OF_STRING.match(body, position)) and part.end() > position:
                    position = part.end()
                    if position - paused_at > _STEP_BYTES:
                        paused_at = position
                        yield
                if outline.is_key_next:
                    value = _VALUE.match(body, position + 1)
                    outline.key(body[start:position], value[1] if value else b"")
                position += 1
            case b"{" | b"[":
                outline.open(is_object=token[0] == b"{")
            case b",":
                outline.value()
            case _:
                outline.close()
                if not outline.depth:
                    break
        tokens += 1
        if tokens % _STEP_TOKENS == 0 or position - paused_at > _STEP_BYTES:
            paused_at = position
            yield
    return outline


def _unescaped(key: bytes) -> bytes:
    if b"\\" not in key:
        return key
    try:
        text: str = orjson.loads(b'"%b"' % key)
    except orjson.JSONDecodeError:
        return key
    return text.encode()
