"""The output of one response while it grows: items, their parts, and texts that come in pieces."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol

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


class Shelf(Protocol):
    """Keeps texts elsewhere than in memory."""

    def put(self, text: str) -> Callable[[], str] | None:
        """Take a text. Returns what gives it back; None if it cannot be kept."""


SHELVED_CHARS_MIN = 256 * 2**10
"""A shorter text stays in memory, in one piece."""


@dataclass(slots=True)
class Text:
    """A text that grows by deltas and is then done.

    Attributes:
        shelved: Its beginning, if that is on a shelf: functions that give the pieces.
        pieces: The rest, in memory; empty only if there is no text.
    """

    pieces: list[str] = field(default_factory=list)
    is_done: bool = False
    shelved: list[Callable[[], str]] = field(default_factory=list)

    def value(self) -> str:
        if self.shelved or len(self.pieces) > 1:
            self._becomes("".join(self._all()))
        return self.pieces[0] if self.pieces else ""

    def missing(self, full: str) -> str:
        """What must still be sent as a delta so that the deltas add up to `full`."""
        end = 0
        for piece in self._all():
            if not full.startswith(piece, end):
                end = len(full)
                break
            end += len(piece)
        self._becomes(full)
        return full[end:]

    def shelve(self, shelf: Shelf) -> int:
        """Take less memory: many pieces make one, and a long one goes on the shelf. Returns bytes saved."""
        if len(self.pieces) < 2:
            return 0
        *most, last = self.pieces
        taken, text = sum(map(memory_of, most)), "".join(most)
        if len(text) < SHELVED_CHARS_MIN or (read := shelf.put(text)) is None:
            self.pieces = [text, last]
            return taken - memory_of(text)
        self.pieces = [last]
        self.shelved.append(read)
        return taken

    def _all(self) -> Iterator[str]:
        for read in self.shelved:
            yield read()
        yield from self.pieces

    def _becomes(self, text: str) -> None:
        self.pieces, self.shelved = [text], []


def memory_of(text: str) -> int:
    """Bytes that it takes in a list: one of a few letters takes fifty more than these."""
    return text.__sizeof__() + 8


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

    def texts(self) -> Iterator[Text]:
        """All that it is made of."""
        yield self.arguments
        for parts in self.parts.values():
            yield from (part.text for part in parts)

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
