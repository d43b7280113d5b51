"""Fields that the official clients require of items, parts and citations, as tables.

What a backend leaves out is filled in by the emptiest value there is: nothing is made up that says something.
Sources: the required fields of the Python client's types, what the Node client's accumulator and Vercel's AI
SDK refuse, and the schemas of Open Responses.
"""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any

import orjson

Item = dict[str, Any]

_THREE_STATES = ("in_progress", "completed", "incomplete")
_HOSTED = (*_THREE_STATES, "failed")


@dataclass(frozen=True, slots=True)
class ItemShape:
    """One type of item.

    Attributes:
        prefix: Of the ids that have to be made up.
        statuses: Those that it can have; none for items without a status.
        fields: What clients require, beside `id`, `type` and `status`.
        cut: Its status when the answer ended before it did.
        has_call_id: Whether a client answers to its `call_id`.
        needs_status: Whether one is made up where the backend says none.
    """

    prefix: str
    statuses: tuple[str, ...] = _THREE_STATES
    fields: Item = field(default_factory=dict)
    cut: str = "incomplete"
    has_call_id: bool = False
    needs_status: bool = True


# `web_search_call` requires an `action`, but OpenAI itself announces searches without one.
SHAPES = {
    "message": ItemShape("msg", fields={"role": "assistant", "content": []}),
    "reasoning": ItemShape("rs", fields={"summary": []}, needs_status=False),
    "function_call": ItemShape("fc", fields={"arguments": ""}, has_call_id=True),
    "custom_tool_call": ItemShape("ctc", fields={"input": ""}, has_call_id=True),
    "mcp_call": ItemShape("mcp", _HOSTED, {"arguments": "", "name": "", "server_label": ""}),
    "mcp_list_tools": ItemShape("mcpl", (), {"server_label": "", "tools": []}, needs_status=False),
    "mcp_approval_request": ItemShape(
        "mcpr", (), {"arguments": "", "name": "", "server_label": ""}, needs_status=False
    ),
    "web_search_call": ItemShape("ws", ("in_progress", "searching", "completed", "failed"), cut="failed"),
    "file_search_call": ItemShape("fs", (*_HOSTED, "searching"), {"queries": []}),
    "code_interpreter_call": ItemShape(
        "ci", (*_HOSTED, "interpreting"), {"code": None, "container_id": "", "outputs": None}
    ),
    "image_generation_call": ItemShape(
        "ig", ("in_progress", "generating", "completed", "failed"), {"result": None}, cut="failed"
    ),
    "computer_call": ItemShape("cu", fields={"pending_safety_checks": []}, has_call_id=True),
    "local_shell_call": ItemShape(
        "lsh", fields={"action": {"type": "exec", "command": [], "env": {}}}, has_call_id=True
    ),
    "shell_call": ItemShape("sh", fields={"action": {"commands": []}}, has_call_id=True),
    "shell_call_output": ItemShape("sho", fields={"output": []}, has_call_id=True),
    "apply_patch_call": ItemShape("apc", ("in_progress", "completed"), cut="in_progress", has_call_id=True),
    "tool_search_call": ItemShape("tsc", fields={"arguments": {}, "call_id": None, "execution": "server"}),
    "tool_search_output": ItemShape("tso", fields={"call_id": None, "execution": "server", "tools": []}),
    "compaction": ItemShape("cmp", (), {"encrypted_content": ""}, needs_status=False),
}
PREFIXES = frozenset(shape.prefix for shape in SHAPES.values())
_UNKNOWN = ItemShape("item", (), needs_status=False)

ENDED = frozenset({"completed", "failed"})
"""Statuses of an item that nothing more will happen to."""

_NULLS_MEAN_NOTHING = frozenset({"message", "reasoning", "function_call", "custom_tool_call"})
"""Items in which no schema allows a null that says something (vLLM: `phase`, `status`, `content`)."""

_SHARED_FIELDS = frozenset({"item_id", "output_index", "sequence_number"})
"""Fields that vLLM with a tool server leaves in items, although the event has them."""

_ONGOING = frozenset({"in_progress", "searching", "generating", "interpreting", "calling"})
_FAILING = frozenset({"failed", "error", "errored", "cancelled", "canceled", "expired"})


def shape_of(item_type: str) -> ItemShape:
    """The shape of a type of item; of one that no client knows, the least."""
    return SHAPES.get(item_type, _UNKNOWN)


def type_of(item: Item) -> str:
    """The type that an item states."""
    kind = item.get("type")
    return kind if isinstance(kind, str) and kind else "message"


def fields_of(item: Item) -> Item:
    """An item as a backend sent it, with what clients require and without what says nothing."""
    kind = type_of(item)
    keeps_nulls = kind not in _NULLS_MEAN_NOTHING
    given = {
        name: value
        for name, value in item.items()
        if name not in _SHARED_FIELDS
        and (value is not None or (keeps_nulls and name not in ("status", "phase")))
    }
    if not isinstance(given.get("status", ""), str):
        del given["status"]
    needed = {name: _fitted(given.get(name), default) for name, default in shape_of(kind).fields.items()}
    return {**given, "type": kind, **needed}


def _fitted(value: Any, default: Any) -> Any:
    """A value as the type that clients expect, or the default in its place."""
    match default:
        case str():
            return value if isinstance(value, str) else as_text(value) or ""
        case list():
            return value if isinstance(value, list) else [value] if isinstance(value, str) else []
        case dict() if isinstance(value, dict):
            return {**value, **_missing(value, default)}
        case dict():
            return value if value is not None else deepcopy(default)
        case _:
            return value


def _missing(given: Item, required: Item) -> Item:
    """Defaults for fields that are missing or have another type."""
    return {
        name: deepcopy(default)
        for name, default in required.items()
        if not isinstance(given.get(name), type(default))
    }


def as_text(value: Any) -> str | None:
    """A text that a backend sent, be it as the object that it says; None where it says nothing."""
    if isinstance(value, str):
        return value or None
    return orjson.dumps(value).decode() if value else None


def done_status(item_type: str, given: Any) -> str | None:
    """The status of an item that is done; None if its type has none."""
    shape = shape_of(item_type)
    if not isinstance(given, str):
        return "completed" if shape.needs_status else None
    if shape is _UNKNOWN:
        return "completed" if given in _ONGOING else given
    if given in _FAILING and "failed" in shape.statuses:
        return "failed"
    if given in _FAILING or given == "incomplete":
        return shape.cut
    return "completed" if shape.statuses else None


def cut_status(item_type: str, status: str) -> str:
    """The status of an item that is not done, where the response's own is `status`."""
    return shape_of(item_type).cut if status == "incomplete" else status


def whole_part(part: dict[str, Any]) -> dict[str, Any]:
    """A part of text as clients require it."""
    fields = {name: value for name, value in part.items() if value is not None}
    if part.get("type") == "output_text":
        fields["annotations"] = annotations_of(part)
        fields["logprobs"] = logprobs_of(part)
    return fields


# Type of an annotation: its required fields.
_ANNOTATIONS: dict[str, Item] = {
    "url_citation": {"url": "", "title": "", "start_index": 0, "end_index": 0},
    "file_citation": {"file_id": "", "filename": "", "index": 0},
    "container_file_citation": {
        "container_id": "",
        "file_id": "",
        "filename": "",
        "start_index": 0,
        "end_index": 0,
    },
    "file_path": {"file_id": "", "index": 0},
}


def annotations_of(part: dict[str, Any]) -> list[Item]:
    """A part's citations, whole."""
    given = part.get("annotations")
    return [annotation(one) for one in given if isinstance(one, dict)] if isinstance(given, list) else []


def annotation(given: Item) -> Item:
    """A citation with the fields that its type requires."""
    kind = str(given.get("type"))
    required = _ANNOTATIONS.get(kind)
    if required is None:
        return given
    nested = given.get(kind)  # OpenRouter: as in chat completions
    flat = {**nested, "type": kind} if isinstance(nested, dict) else given
    return {**flat, **_missing(flat, required)}


def is_streamed(given: Item) -> bool:
    """True if a citation can be an event: Vercel's AI SDK ends on one of a type that it does not know."""
    return str(given.get("type")) in _ANNOTATIONS


def logprobs_of(holder: dict[str, Any]) -> list[Item]:
    """The logprobs of a part or of an event, whole; vLLM and SGLang send null for none."""
    given = holder.get("logprobs")
    if not isinstance(given, list):
        return []
    return [_logprob(one, {"top_logprobs": _top(one)}) for one in given if _is_logprob(one)]


def _top(logprob: Item) -> list[Item]:
    given = logprob.get("top_logprobs")
    return [_logprob(one, {}) for one in given if _is_logprob(one)] if isinstance(given, list) else []


def _is_logprob(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and isinstance(value.get("token"), str)
        and isinstance(value.get("logprob"), int | float)
    )


def _logprob(given: Item, more: Item) -> Item:
    given_bytes = given.get("bytes")
    found = given_bytes if isinstance(given_bytes, list) else list(given["token"].encode("utf-8", "replace"))
    return {**given, "bytes": found, **more}


_EVENT_FIELDS: dict[str, Item] = {
    "response.image_generation_call.partial_image": {"partial_image_b64": "", "partial_image_index": 0},
    "response.audio.delta": {"delta": ""},
    "response.audio.transcript.delta": {"delta": ""},
}


def whole_event(event: Item) -> Item:
    """An event that is passed on as it came, with the fields that its type requires."""
    return {**event, **_missing(event, _EVENT_FIELDS.get(event["type"], {}))}
