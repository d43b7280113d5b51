"""The output of one response while it grows: items, their parts, and texts that come in pieces."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

Item = dict[str, Any]


@dataclass(frozen=True, slots=True)
class TextKind:
    """How the text of one kind of part is streamed.

    Attributes:
        holder: The item's list that the part is in, and the name of its index in events.
        key: Where the part, and the done event, carry the text.
    """

    type: str
    events: str
    item: str
    holder: str
    index: str
    part_events: str
    key: str = "text"


KINDS = {
    kind.type: kind
    for kind in (
        TextKind(
            "output_text",
            "response.output_text",
            "message",
            "content",
            "content_index",
            "response.content_part",
        ),
        TextKind(
            "refusal",
            "response.refusal",
            "message",
            "content",
            "content_index",
            "response.content_part",
            "refusal",
        ),
        TextKind(
            "reasoning_text",
            "response.reasoning_text",
            "reasoning",
            "content",
            "content_index",
            "response.content_part",
        ),
        TextKind(
            "summary_text",
            "response.reasoning_summary_text",
            "reasoning",
            "summary",
            "summary_index",
            "response.reasoning_summary_part",
        ),
    )
}
# Items whose one text is a field of the item itself.
ARGUMENTS = {
    "function_call": ("arguments", "response.function_call_arguments"),
    "custom_tool_call": ("input", "response.custom_tool_call_input"),
}


_NEVER_INCOMPLETE = frozenset({"web_search_call", "image_generation_call"})
"""Items whose status has no such value: what was cut off has failed."""


@dataclass(slots=True)
class Text:
    """A text that grows by deltas and is then done."""

    pieces: list[str] = field(default_factory=list)
    is_done: bool = False

    def value(self) -> str:
        if len(self.pieces) > 1:
            self.pieces = ["".join(self.pieces)]
        return self.pieces[0] if self.pieces else ""

    def missing(self, full: str) -> str:
        """What must still be sent as a delta so that the deltas add up to `full`."""
        value = self.value()
        rest = full[len(value) :] if full.startswith(value) else ""
        self.pieces = [full]
        return rest


@dataclass(slots=True)
class Part:
    kind: TextKind
    index: int
    fields: dict[str, Any]
    text: Text = field(default_factory=Text)
    is_closed: bool = False

    def shown(self) -> dict[str, Any]:
        return {**self.fields, self.kind.key: self.text.value()}


@dataclass(slots=True)
class OutputItem:
    """An item that we have announced.

    Attributes:
        given_id, given_index: What the backend calls it, where it has said so.
    """

    index: int
    id: str
    fields: Item
    parts: dict[str, list[Part]] = field(default_factory=lambda: {"content": [], "summary": []})
    part_by_number: dict[tuple[str, int], Part] = field(default_factory=dict)
    arguments: Text = field(default_factory=Text)
    is_done: bool = False
    given_id: str | None = None
    given_index: int | None = None

    @property
    def type(self) -> str:
        return str(self.fields.get("type"))

    def may_be_meant(self, event: dict[str, Any]) -> bool:
        """Whether an event by an id or index that we do not know may be about this item.

        A backend whose ids change between the opening of an item and its text is given the benefit of the
        doubt once: an item that has text already is told from another by its id.
        """
        number, name = event.get("output_index"), event.get("item_id")
        if isinstance(number, int) and self.given_index is not None:
            return number == self.given_index
        is_empty = not (self.arguments.pieces or self.parts["content"] or self.parts["summary"])
        return is_empty or not name or self.given_id in (None, name)

    def shown(self, status: str) -> Item:
        """The item as it stands; `status` if it is not done."""
        if self.is_done:
            return self.fields
        item = dict(self.fields)
        if self.type in ARGUMENTS:
            item[ARGUMENTS[self.type][0]] = self.arguments.value()
        for holder, parts in self.parts.items():
            if parts:
                item[holder] = [part.shown() for part in parts]
        if "status" in item or self.type in ("message", "function_call"):
            is_cut = status == "incomplete" and self.type in _NEVER_INCOMPLETE
            item["status"] = "failed" if is_cut else status
        return item
