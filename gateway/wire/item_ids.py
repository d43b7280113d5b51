"""Ids of items: those that are made up here tell in which response an item is, others must be looked up."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from enum import Enum, auto
from typing import Any, Final

from gateway.wire.response_ids import is_own

Item = dict[str, Any]

FIRST_OUTPUT: Final = 0
FIRST_INPUT: Final = 0x8000_0000
"""Made-up ids number the items of a response, from here on: the two halves never meet."""

NAMED_MAX: Final = 10_000
"""So many items can be named of one input, the last, and in one. Each costs the store some microseconds."""

_PREFIX = {
    "message": "msg",
    "reasoning": "rs",
    "function_call": "fc",
    "function_call_output": "fco",
    "custom_tool_call": "ctc",
    "custom_tool_call_output": "ctco",
}
_SEED_DIGITS: Final = 40
_MADE_UP = re.compile(rf"[a-z]+_([0-9a-f]{{{_SEED_DIGITS}}})([0-9a-f]{{8}})\Z")


class ItemPosition(Enum):
    """Where in a response an item is."""

    INPUT = auto()
    OUTPUT = auto()


def id_of(item: Item, response_id: str, number: int) -> str:
    """The id that an item has; else the one that it gets, the same every time.

    Args:
        number: Of the item in its response, from `FIRST_OUTPUT` or `FIRST_INPUT`.
    """
    given = item.get("id")
    if isinstance(given, str) and given:
        return given
    prefix = _PREFIX.get(str(item.get("type") or "message"), "item")
    return f"{prefix}_{_seed(response_id)}{number:08x}"


def position_of(item_id: str) -> tuple[str, ItemPosition] | None:
    """The beginning of the id of an item's response, and its place there; None if the id does not tell."""
    found = _MADE_UP.match(item_id)
    if found is None:
        return None
    return f"resp_{found[1]}", ItemPosition.INPUT if int(found[2], 16) >= FIRST_INPUT else ItemPosition.OUTPUT


def is_reference(item: Item) -> bool:
    """True if an input item only names another one. The type of such may be left out."""
    kind = item.get("type")
    return kind == "item_reference" or (kind is None and item.keys() <= {"id", "type"} and "id" in item)


def to_be_looked_up(response_id: str, items: Iterable[Any], first: int) -> tuple[str, ...]:
    """The ids of a response's items that do not tell in which response these are, each once; of very many the
    last."""
    start = response_id[: len("resp_") + _SEED_DIGITS] if is_own(response_id) else None
    found: dict[str, None] = {}
    for number, item in enumerate(items, first):
        if isinstance(item, dict) and not is_reference(item):
            if start is not None and not item.get("id"):
                continue  # the id that it gets tells
            item_id = id_of(item, response_id, number)
            told = position_of(item_id)
            if told is None or told[0] != start:
                found[item_id] = None
    return tuple(found)[-NAMED_MAX:]


def _seed(response_id: str) -> str:
    """As the normaliser has it, for responses of ours; a backend's own have names of every shape."""
    if is_own(response_id):
        return response_id[len("resp_") :][:_SEED_DIGITS]
    return hashlib.sha256(response_id.encode()).hexdigest()[:_SEED_DIGITS]
