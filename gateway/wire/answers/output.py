"""The output of one response while it grows: its items and their parts."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from gateway.wire.answers import item_shapes
from gateway.wire.answers.text import Text

Item = dict[str, Any]


@dataclass(frozen=True, slots=True)
class TextKind:
    """How the text of one kind of part is streamed.

    Attributes:
        item: The type of the items that have such parts.
        holder: The item's list that the part is in.
        index: The name that events have for its place there.
        key: Where the part, and the done event, carry the text; "" for a part whose text is not streamed.
    """

    type: str
    item: str
    holder: str
    index: str
    part_events: str
    events: str
    key: str = "text"


_CONTENT = ("content", "content_index", "response.content_part")
_SUMMARY = ("summary", "summary_index", "response.reasoning_summary_part")

OUTPUT_TEXT = TextKind("output_text", "message", *_CONTENT, "response.output_text")
REFUSAL = TextKind("refusal", "message", *_CONTENT, "response.refusal", "refusal")
REASONING_TEXT = TextKind("reasoning_text", "reasoning", *_CONTENT, "response.reasoning_text")
SUMMARY_TEXT = TextKind("summary_text", "reasoning", *_SUMMARY, "response.reasoning_summary_text")
OTHER = TextKind("", "message", *_CONTENT, "", "")
"""Audio, images: they come whole, in the events of the part."""

KINDS = (OUTPUT_TEXT, REFUSAL, REASONING_TEXT, SUMMARY_TEXT)

_THOUGHTS = frozenset({"reasoning_text", "reasoning", "thinking"})


def is_thought(part: dict[str, Any]) -> bool:
    """True if a part is none of an answer, whatever item it is found in."""
    return str(part.get("type")) in _THOUGHTS


HOLDERS = {"message": ("content",), "reasoning": ("content", "summary")}
"""Types of items that have parts, and the lists that these are in."""

_ANSWER = {"output_text": OUTPUT_TEXT, "text": OUTPUT_TEXT, "refusal": REFUSAL}


def kind_of(part: dict[str, Any], item_type: str, holder: str) -> TextKind:
    """The kind of a part. Its item and its list decide before its own type does."""
    if item_type == "reasoning":
        return SUMMARY_TEXT if holder == "summary" else REASONING_TEXT
    own = part.get("type")
    return _ANSWER.get(own if isinstance(own, str) and own else "output_text", OTHER)


ARGUMENTS = {
    "function_call": ("arguments", "response.function_call_arguments"),
    "custom_tool_call": ("input", "response.custom_tool_call_input"),
    "mcp_call": ("arguments", "response.mcp_call_arguments"),
    "code_interpreter_call": ("code", "response.code_interpreter_call_code"),
}
"""Items whose one text is a field of the item itself."""

CALLS = frozenset({"function_call", "custom_tool_call"})
"""Calls that the client runs. The backend runs the others, and may not show their text."""


@dataclass(slots=True, eq=False)
class OutputPart:
    """A part of an item.

    Attributes:
        logprobs: Those of its deltas.
    """

    kind: TextKind
    index: int
    fields: dict[str, Any]
    text: Text = field(default_factory=Text)
    logprobs: list[Any] = field(default_factory=list)
    is_closed: bool = False

    def shown(self) -> dict[str, Any]:
        return {**self.fields, self.kind.key: self.text.value()} if self.kind.key else dict(self.fields)


@dataclass(slots=True, eq=False)
class OutputItem:
    """An item of the output, or what may become one.

    Attributes:
        index: Its place in the output; None until it is shown to clients.
        first: The item as the backend announced it, which may hold what is never said again; empty if its
            events came without an announcement.
        given_id, given_index: What the backend calls it, where it has said so.
        is_guess: It is made of the text of an item that no one has announced yet.
        twin: The call that this one may be, told again.
    """

    type: str
    fields: Item
    first: Item = field(default_factory=dict)
    index: int | None = None
    id: str = ""
    parts: dict[str, list[OutputPart]] = field(init=False)
    part_by_number: dict[tuple[str, int], OutputPart] = field(default_factory=dict)
    arguments: Text = field(default_factory=Text)
    is_done: bool = False
    given_id: str | None = None
    given_index: int | None = None
    is_guess: bool = False
    twin: OutputItem | None = None

    def __post_init__(self) -> None:
        self.parts = {holder: [] for holder in HOLDERS.get(self.type, ())}

    def texts(self) -> Iterator[Text]:
        """All that it is made of."""
        yield self.arguments
        for parts in self.parts.values():
            yield from (part.text for part in parts)

    def is_begun(self) -> bool:
        """True if anything of its text was streamed, be it an empty part."""
        return bool(self.arguments.pieces) or any(self.parts.values())

    def said(self) -> str:
        """All of its text so far."""
        if self.type in ARGUMENTS:
            return self.arguments.value()
        return "".join(part.text.value() for holder in self.parts.values() for part in holder)

    def is_cut_call(self) -> bool:
        """True if it is a call whose arguments can never be read: whatever made it, it was not whole."""
        return self.type == "function_call" and not _is_json(self.arguments.value())

    def shown(self, status: str) -> Item:
        """The item as it stands; `status` if it is not done."""
        if self.is_done:
            return self.fields
        item = self.with_texts()
        if "status" in item and item["status"] not in item_shapes.ENDED:
            item["status"] = item_shapes.cut_status(self.type, status)
        return item

    def with_texts(self) -> Item:
        """Its fields, with what was streamed of it so far."""
        item = dict(self.fields)
        if self.type in ARGUMENTS and (self.type in CALLS or self.arguments.pieces):
            item[ARGUMENTS[self.type][0]] = self.arguments.value()
        for holder, parts in self.parts.items():
            if parts:
                item[holder] = [part.shown() for part in parts]
        return item


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


def parts_of(item: Item, holder: str) -> list[dict[str, Any]]:
    """An item's parts, from the shapes that servers use: a list, a plain string, one part."""
    given = item.get(holder)
    parts = given if isinstance(given, list) else [given]
    return [
        part if isinstance(part, dict) else {"text": part}
        for part in parts
        if part and isinstance(part, dict | str)
    ]


def text_of(item: Item) -> str:
    """All of the text of an item as a backend tells it whole."""
    kind = str(item.get("type") or "message")
    if kind in ARGUMENTS:
        return item_shapes.as_text(item.get(ARGUMENTS[kind][0])) or ""
    found = []
    for holder in HOLDERS.get(kind, ()):
        for part in parts_of(item, holder):
            text = part.get(kind_of(part, kind, holder).key)
            found.append(text if isinstance(text, str) else "")
    return "".join(found)


class Items:
    """The items of one response, and the names that the backend has for them.

    Args:
        seed: Source of the ids that have to be made up.

    Attributes:
        shown: Those that clients know, in the order in which they were announced.
        unshown: Items that clients do not know yet, and may never.
    """

    def __init__(self, seed: str) -> None:
        self._seed = seed
        self.shown: list[OutputItem] = []
        self.unshown: list[OutputItem] = []
        self._named: dict[str, list[OutputItem]] = {}
        self._numbered: dict[int, list[OutputItem]] = {}
        self._calls: dict[tuple[bool, str], OutputItem] = {}
        self._ids: set[str] = set()

    def all(self) -> list[OutputItem]:
        """All of them, oldest first."""
        return [*self.shown, *self.unshown] if self.unshown else self.shown

    def named(self, item_id: str | None) -> list[OutputItem]:
        """Those that the backend has called by this id, oldest first."""
        return self._named.get(item_id, []) if item_id is not None else []

    def numbered(self, index: int | None) -> list[OutputItem]:
        """Those that the backend has called by this index."""
        return self._numbered.get(index, []) if index is not None else []

    def call(self, item_type: str, call_id: str | None) -> OutputItem | None:
        """The item of this type that clients answer to by this `call_id`."""
        known = self._calls.get((_is_output(item_type), call_id)) if call_id is not None else None
        return known if known is not None and known.type == item_type else None

    def last(self, item_type: str, index: Any) -> OutputItem | None:
        """The newest of a type that clients know: of this index, if there is one."""
        numbered = self.numbered(index if isinstance(index, int) else None)
        candidates = [known for known in numbered if known.type == item_type] or self.shown
        return next((known for known in reversed(candidates) if known.type == item_type), None)

    def learn(self, known: OutputItem, item_id: str | None, index: int | None) -> None:
        """Remember what the backend calls an item."""
        if item_id is not None:
            known.given_id = item_id
            _append_once(self._named.setdefault(item_id, []), known)
        if index is not None:
            known.given_index = index
            _append_once(self._numbered.setdefault(index, []), known)

    def drop(self, known: OutputItem) -> None:
        """Keep an item from clients for good; events about it go nowhere."""
        self.unshown.remove(known)
        known.is_done = True

    def show(self, known: OutputItem) -> None:
        """Give an item its place in the output, an id and, to a call, its `call_id`: each is unique."""
        if known in self.unshown:
            self.unshown.remove(known)
        known.index = len(self.shown)
        shape = item_shapes.shape_of(known.type)
        is_free = known.given_id not in self._ids and (known.first or not _is_of_another(known))
        known.id = known.given_id if known.given_id and is_free else self._made_up(shape.prefix)
        known.fields["id"] = known.id
        self._ids.add(known.id)
        if shape.has_call_id:
            given = known.fields.get("call_id")
            key = (
                _is_output(known.type),
                given if isinstance(given, str) and given else self._made_up("call"),
            )
            if key in self._calls:
                key = (key[0], self._made_up("call"))
            self._calls[key] = known
            known.fields["call_id"] = key[1]
        self.shown.append(known)

    def _made_up(self, prefix: str) -> str:
        return f"{prefix}_{self._seed}{len(self.shown):08x}"


def _is_of_another(known: OutputItem) -> bool:
    """True if an id is that of another type (OGX: thoughts under the id of the message)."""
    prefix = str(known.given_id).partition("_")[0]
    return prefix != item_shapes.shape_of(known.type).prefix and prefix in item_shapes.PREFIXES


def _is_output(item_type: str) -> bool:
    """True if it is the output of a call, which shares the call's `call_id`."""
    return item_type.endswith("_output")


def _append_once(names: list[OutputItem], known: OutputItem) -> None:
    if known not in names:
        names.append(known)
