"""What a backend's refusal teaches about how it wants earlier turns.

There is a table for each API, `gateway.wire.chat.lessons` and `item_lessons` here. A row says by
which words a refusal is known, what to do otherwise from then on, and who refuses so. The first row that
changes the call is the lesson; a refusal that fits none teaches nothing, and stands. A new quirk is a row,
and its words in `tests/wire/test_lessons.py`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Generic, TypeVar

import orjson

from gateway.wire.chat.ways import System, Ways
from gateway.wire.conversation.portable_items import Item
from gateway.wire.conversation.replay import Forms

_WORDS_CHARS_MAX = 20_000
"""Characters of a refusal that are searched. vLLM names a hundred types for each item that fits none."""

_DEPTH_MAX = 12

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class RefusedCall:
    """A call that a backend would not take.

    Attributes:
        words: All that it said, path and codes included.
        found: What the pattern of the row found there.
        items: The messages, or the items, that it was sent.
        call: All of the call.
    """

    words: str
    found: re.Match[str]
    items: list[Item]
    call: dict[str, Any]


@dataclass(frozen=True, slots=True)
class LessonRule(Generic[T]):
    """One way of refusing.

    Attributes:
        name: For the log.
        words: How it is known, whatever the case of the letters.
        change: What to do otherwise; the same again where that is done already.
        source: Who says so.
        is_lasting: It is true of the backend, and not only of this conversation.
    """

    name: str
    words: str
    change: Callable[[T, RefusedCall], T]
    source: str
    is_lasting: bool = True


@dataclass(frozen=True, slots=True)
class Lesson(Generic[T]):
    """A change of the call, and the row that teaches it."""

    name: str
    known: T
    is_lasting: bool


def lessons(rows: tuple[LessonRule[T], ...], known: T, said: bytes, sent: bytes) -> Iterator[Lesson[T]]:
    """New lessons of a refusal, the likeliest first.

    Args:
        said: The backend's error, as it came.
        sent: The call that it refused.
    """
    words = _words_of(said)
    call: dict[str, Any] | None = None
    for row in rows:
        found = re.search(row.words, words, re.IGNORECASE)
        if found is None:
            continue
        call = orjson.loads(sent) if call is None else call
        items = objects_in(call.get("messages", call.get("input")))
        changed = row.change(known, RefusedCall(words, found, items, call))
        if changed != known:
            yield Lesson(row.name, changed, row.is_lasting)


def _words_of(said: bytes) -> str:
    """All words of an error, one string of it a line. A path of keys and numbers is one string."""
    try:
        text = "\n".join(_strings(orjson.loads(said), _DEPTH_MAX))
    except orjson.JSONDecodeError:
        text = said.decode("utf-8", "replace")
    return text[:_WORDS_CHARS_MAX].replace("\\", "")


def _strings(value: Any, depth: int) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, list) and value and all(isinstance(inner, str | int) for inner in value):
        yield ".".join(str(inner) for inner in value)
    elif isinstance(value, dict | list) and depth:
        for inner in value.values() if isinstance(value, dict) else value:
            yield from _strings(inner, depth - 1)


def objects_in(value: Any) -> list[Item]:
    """The objects in an array; none in anything else."""
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


# -- what both APIs are refused

LATE_SYSTEM = (
    r"system (?:message|prompt|role)s?\b[^.\n]{0,60}\b(?:beginning|start|first|single|only one)\b"
    r"|\b(?:only one|multiple|more than one|a single) system (?:message|prompt)"
    r"|unexpected role '?system'? after"
)


W = TypeVar("W", Ways, Forms)


def system_first(known: W, refusal: RefusedCall) -> W:
    """Unless the settings say where they go."""
    return replace(known, system=System.FIRST) if known.system is System.AUTO else known
