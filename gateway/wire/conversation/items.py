"""Input items: what the client sent, as a list with ids, and as context for a later turn."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import orjson

from gateway.wire.conversation.replay import ReplayTarget, carried
from gateway.wire.errors import invalid
from gateway.wire.item_ids import FIRST_INPUT, FIRST_OUTPUT, id_of

Item = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Turn:
    """One response of a conversation.

    Attributes:
        input: JSON of the request's `input`, as the client sent it: a string or a list of items.
        final: JSON of the Response at its end.
        backend: Name of the one that it was with.
    """

    response_id: str
    input: bytes
    final: bytes
    backend: str = ""


def context(turns: list[Turn], new_input: Any, to: ReplayTarget) -> list[Any]:
    """The earlier turns and the new input, as one `input` list for a backend.

    The new items go as the client made them, the earlier ones without what that backend could not take. A
    string becomes the shortest user message there is, which every backend accepts.

    Raises:
        Refusal: The new input is neither a string nor a list.
    """
    if not isinstance(new_input, str | list | None):
        raise invalid(
            "Invalid type for 'input': expected a string or an array.", param="input", code="invalid_type"
        )
    items: list[Any] = []
    for turn in turns:
        items += carried(as_list(orjson.loads(turn.input)), turn.backend, to)
        items += carried(orjson.loads(turn.final)["output"], turn.backend, to)
    return items + as_list(new_input)


def as_list(value: Any) -> list[Any]:
    """The items of an `input`."""
    if value is None:
        return []
    return [{"role": "user", "content": value}] if isinstance(value, str) else list(value)


def listed(turns: list[Turn], current_id: str, current_input: bytes) -> list[Item]:
    """All input items of a response, oldest first: the earlier turns' items and its own.

    Each has an id: pagers send the last one back as `after`, and clients name an item by it.
    """
    items: list[Item] = []
    for turn in turns:
        items += _identified(turn.response_id, as_list(orjson.loads(turn.input)), FIRST_INPUT)
        items += _identified(turn.response_id, orjson.loads(turn.final)["output"], FIRST_OUTPUT)
    items += _identified(current_id, as_list(orjson.loads(current_input)), FIRST_INPUT)
    # A client may have sent an earlier item once more. The later one stands for both: a pager that met an id
    # twice would go in circles.
    last = {item["id"]: n for n, item in enumerate(items)}
    return [item for n, item in enumerate(items) if last[item["id"]] == n]


def _identified(response_id: str, items: list[Item], first: int) -> list[Item]:
    return [_shown(item, id_of(item, response_id, number)) for number, item in enumerate(items, first)]


def _shown(item: Item, item_id: str) -> Item:
    kind = item.get("type") or "message"
    full: Item = {"type": kind, **{name: value for name, value in item.items() if name != "type"}}
    full["id"] = item_id
    if kind == "message":
        full.setdefault("status", "completed")
        if isinstance(full.get("content"), str):
            text = "output_text" if full.get("role") == "assistant" else "input_text"
            part: Item = {"type": text, "text": full["content"]}
            full["content"] = [{**part, "annotations": [], "logprobs": []} if text == "output_text" else part]
    return full


def page(items: list[Item], *, limit: int, order: str, after: str | None, before: str | None) -> bytes:
    """One page of items, as the API's list object.

    Args:
        items: Oldest first.
        order: `asc` or `desc`.
        after: Id of the last item of the page before.

    Raises:
        Refusal: `after` or `before` names no item of this list.
    """
    ordered = items if order == "asc" else items[::-1]
    ids = [item["id"] for item in ordered]
    start = _position(ids, after, "after") + 1 if after is not None else 0
    end = _position(ids, before, "before") if before is not None else len(ordered)
    window = ordered[start:end]
    shown = window[:limit]
    return orjson.dumps(
        {
            "object": "list",
            "data": shown,
            "first_id": shown[0]["id"] if shown else None,
            "last_id": shown[-1]["id"] if shown else None,
            "has_more": len(window) > limit,
        }
    )


def _position(ids: list[str], wanted: str, param: str) -> int:
    try:
        return ids.index(wanted)
    except ValueError:
        raise invalid(f"No item with id '{wanted}' in this list.", param=param) from None
