"""Items that an input names in place of saying them: which, and what is put in their places.

The gateway knows the items of its own responses. Any other id is a backend's own, or nobody's.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Generator, Iterable, Mapping
from typing import Any, Final

import orjson

from gateway.wire.bodies.json_scan import Keys
from gateway.wire.conversation.items import Turn, as_list
from gateway.wire.conversation.thoughts import MARK
from gateway.wire.errors import Fault, Refusal
from gateway.wire.item_ids import FIRST_INPUT, FIRST_OUTPUT, Item, id_of, is_reference

_TYPED = Keys("item_reference")
_UNTYPED = re.compile(
    rb"""
    \{ [ \t\r\n]*+
    (?: (?: "(?:i|\\u0069)(?:d|\\u0064)" [ \t\r\n]*+ : [ \t\r\n]*+ "(?:[^"\\]|\\.){0,4096}+"
          | "type" [ \t\r\n]*+ : [ \t\r\n]*+ null )
        [ \t\r\n]*+ ,? [ \t\r\n]*+ ){1,4}+
    \}""",
    re.VERBOSE,
)
"""An object that has an id and nothing else, in whichever way some server might read it so."""

_MARK: Final = f'"{MARK}'.encode()
_STEP_BYTES: Final = 2**20
_OVERLAP_BYTES: Final = 32 * 2**10
"""Fields of an object at the place where a step ends."""


def may_be_in(body: bytes) -> Generator[None, None, bool]:
    """True if a body may name items, or have thoughts that were sealed here. The pauses are for others."""
    if (yield from _TYPED.mentioned_in(body)):
        return True
    for start in range(0, len(body), _STEP_BYTES):
        end = start + _STEP_BYTES + _OVERLAP_BYTES
        if body.find(_MARK, start, end) >= 0 or _UNTYPED.search(body, start, end):
            return True
        if end < len(body):
            yield
    return False


def named_in(input: Any) -> list[str]:
    """The ids of the items that an input names, each once."""
    items = input if isinstance(input, list) else []
    return list(dict.fromkeys(filter(None, map(_named_by, items))))


def found_in(turns: Iterable[Turn], wanted: Collection[str]) -> dict[str, Item]:
    """The items of these ids, each with its id. Of several with one id, the newest.

    Args:
        turns: Newest first.
    """
    found: dict[str, Item] = {}
    for turn in turns:
        output = orjson.loads(turn.final)["output"] if turn.final else []
        for items, first in (
            (output, FIRST_OUTPUT),
            (as_list(orjson.loads(turn.input or b"null")), FIRST_INPUT),
        ):
            for number, item in reversed(list(enumerate(items, first))):
                item_id = id_of(item, turn.response_id, number)
                if item_id in wanted and item_id not in found and not is_reference(item):
                    found[item_id] = {**item, "id": item_id}
    return found


def put_in(input: list[Any], found: Mapping[str, Item]) -> list[Any]:
    """The input with these items where it names them; what is not among them is left as it is."""
    return [found.get(_named_by(item) or "", item) for item in input]


def not_found(item_id: str) -> Refusal:
    """The refusal of unknown, expired, deleted and foreign items alike, in the API's own words."""
    return Refusal(
        Fault.NOT_FOUND,
        f"Item with id '{item_id}' not found. Items are not persisted when `store` is set to false. "
        "Try again with `store` set to true, or remove this item from your input.",
        param="input",
    )


def _named_by(item: Any) -> str | None:
    if not isinstance(item, dict) or not is_reference(item):
        return None
    item_id = item.get("id")
    return item_id if isinstance(item_id, str) and item_id else None
