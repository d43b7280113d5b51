"""Input items: what the client sent, as a list with ids, and as context for a later turn."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import orjson

from gateway.wire.errors import invalid
from gateway.wire.replay import Receiver, carried

Item = dict[str, Any]

_ID_PREFIX = {
    "message": "msg",
    "reasoning": "rs",
    "function_call": "fc",
    "function_call_output": "fco",
    "custom_tool_call": "ctc",
    "custom_tool_call_output": "ctco",
}


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


def context(turns: list[Turn], new_input: Any, to: Receiver) -> list[Any]:
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
        items += carried(_as_list(orjson.loads(turn.input)), turn.backend, to)
        items += carried(orjson.loads(turn.final)["output"], turn.backend, to)
    return items + _as_list(new_input)


def _as_list(value: Any) -> list[Any]:
    if value is None:
        return []
    return [{"role": "user", "content": value}] if isinstance(value, str) else list(value)


def listed(turns: list[Turn], current_id: str, current_input: bytes) -> list[Item]:
    """All input items of a response, oldest first: the earlier turns' items and its own.

    Each has an id: pagers send the last one back as `after`. A made-up id is derived from the
    response and the position, so that it is the same in every listing.
    """
    items: list[Item] = []
    for turn in turns:
        items += _identified(turn.response_id, orjson.loads(turn.input))
        items += _identified(f"{turn.response_id}/output", orjson.loads(turn.final)["output"])
    items += _identified(current_id, orjson.loads(current_input))
    # A client may have sent an earlier item once more. The later one stands for both: a pager that met an id
    # twice would go in circles.
    last = {item["id"]: n for n, item in enumerate(items)}
    return [item for n, item in enumerate(items) if last[item["id"]] == n]


def _identified(response_id: str, value: Any) -> list[Item]:
    return [_identify(response_id, n, item) for n, item in enumerate(_as_list(value))]


def _identify(response_id: str, position: int, item: Item) -> Item:
    kind = item.get("type") or "message"
    full: Item = {"type": kind, **{name: value for name, value in item.items() if name != "type"}}
    if not isinstance(full.get("id"), str) or not full["id"]:
        digest = hashlib.sha256(f"{response_id}/{position}".encode()).hexdigest()[:48]
        full["id"] = f"{_ID_PREFIX.get(kind, 'item')}_{digest}"
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
