"""Whose request a body is: ours only if it says `"background": true`, and says it once. What is neither true,
false nor null is refused: some servers take it for false, and would run in the foreground.

A body is looked over before any of it is parsed: parsed, 64 MiB of `[],[],…` are a gigabyte of lists, and
nobody else is served meanwhile. The look keeps nothing but keys, and pauses now and then.
"""

from __future__ import annotations

import re
from collections.abc import Generator
from dataclasses import dataclass
from typing import Any

import orjson

from gateway.wire.bodies.json_scan import (
    DEPTH_MAX,
    VALUES_MAX,
    Keys,
    Outline,
    check_values,
    look_over,
    too_many_values,
)
from gateway.wire.conversation import references
from gateway.wire.errors import Refusal, invalid

_KEYS = Keys("background", "previous_response_id")
_NOT_A_NUMBER = re.compile(r"-?(?:NaN|Infinity)")


@dataclass(frozen=True, slots=True)
class Standalone:
    """A request that goes to the backend byte for byte."""


@dataclass(frozen=True, slots=True)
class Chained:
    """A plain request that names a previous response, or seems to name items: perhaps ours."""

    body: dict[str, Any]
    previous_id: str | None


@dataclass(frozen=True, slots=True)
class Background:
    """A background create request, not yet validated."""

    body: dict[str, Any]


RequestKind = Standalone | Chained | Background


def classify(body: bytes) -> Generator[None, None, RequestKind]:
    """Whose request is it? Whoever runs this does something else at each pause.

    A body that is no JSON object is the backend's to refuse, in its own words, and a plain one that is odd is
    the backend's to understand. A background one can be understood in one way only.

    Raises:
        Refusal: With what is wrong with a background request, or with its `background`, and where.
    """
    if b"\0" in body[:4]:
        # UTF-16 or UTF-32, which Python reads as JSON: there would be a `background` that is not seen here.
        raise invalid("The body of your request must be UTF-8.", code="invalid_json")
    is_chained = False
    if (yield from _KEYS.mentioned_in(body)):
        outline = yield from look_over(body)
        if outline.values > VALUES_MAX:
            raise too_many_values(VALUES_MAX)
        if outline.backgrounds > 1:
            raise _given_twice(b"background", is_top=True)
        if outline.odd_background is not None:
            got = outline.odd_background
            message = f"Invalid type for 'background': expected a boolean, but got {got} instead."
            raise invalid(message, param="background", code="invalid_type")
        if outline.is_background:
            return Background(_parsed_strictly(body, outline))
        is_chained = outline.is_chained
    names_items = yield from references.may_be_in(body)
    if not (is_chained or names_items):
        return Standalone()
    yield from check_values(body)
    try:
        parsed = orjson.loads(body)
    except orjson.JSONDecodeError:
        return Standalone()
    if not isinstance(parsed, dict):
        return Standalone()
    previous = parsed.get("previous_response_id")
    previous_id = previous if isinstance(previous, str) and previous else None
    return Chained(parsed, previous_id) if names_items or previous_id else Standalone()


def may_name_previous(body: bytes) -> Generator[None, None, bool]:
    """True if any server could find a previous response, or an item, named in a plain body that is not taken
    for one that does.

    Of a key given twice one server takes the first, another the last; some read UTF-16, or skip a byte order
    mark. What is not read in one way only counts as named.
    """
    if b"\0" in body[:4]:
        return True
    if not (yield from _KEYS.mentioned_in(body)) and not (yield from references.may_be_in(body)):
        return False
    outline = yield from look_over(body)
    return outline.is_chained or outline.values > VALUES_MAX or not _is_json(body)


def _is_json(body: bytes) -> bool:
    try:
        orjson.loads(body)
    except orjson.JSONDecodeError:
        return False
    return True


def _parsed_strictly(body: bytes, outline: Outline) -> dict[str, Any]:
    if outline.twice is not None:
        raise _given_twice(*outline.twice)
    if outline.is_too_deep:
        raise invalid(f"The request is nested too deeply: at most {DEPTH_MAX} levels.", code="too_deep")
    try:
        parsed: dict[str, Any] = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        said = str(error)
        if any(_NOT_A_NUMBER.match(error.doc, place) for place in (error.pos, max(error.pos - 1, 0))):
            said = f"NaN and Infinity are no numbers in JSON: line {error.lineno} column {error.colno}"
        message = f"We could not parse the JSON body of your request: {said}"
        raise invalid(message, code="invalid_json") from None
    return parsed


def _given_twice(key: bytes, is_top: bool) -> Refusal:
    """Refuses a key that is given twice: one server takes the first value, another one the last."""
    name = key.decode(errors="replace")
    is_word = name.isidentifier() and len(name) <= 64
    return invalid(
        f"{f'The key {name!r}' if is_word else 'A key'} is given twice in one object.",
        param=name if is_word and is_top else None,
        code="duplicate_key",
    )
