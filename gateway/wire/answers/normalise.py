"""From a backend's item events to events that every client library accepts.

Servers leave out indexes, item ids, opening or closing events, tell one item twice, or say in the end what
they did not say before (docs/backends.md says which). The official clients reject a stream for any of these.
So each event is tied to an item (`lookup` finds it) and a part, gets their ids and indexes, and whatever
should have come before it and did not is made up first. What a client is shown adds up: the deltas of a part
are its text, the done items, with what is told late of them, are the output. Only where a backend ends a text
with another one than it sent in pieces is its last word taken.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from gateway.wire.answers import arguments, item_shapes, lookup, parts, silent
from gateway.wire.answers.lifecycle import Lifecycle, is_empty
from gateway.wire.answers.lookup import Reference
from gateway.wire.answers.output import (
    ARGUMENTS,
    KINDS,
    REASONING_TEXT,
    Item,
    Items,
    OutputItem,
    TextKind,
    is_thought,
    kind_of,
)
from gateway.wire.answers.text import Shelf, Text
from gateway.wire.events import AUDIO_EVENTS, ITEM_EVENTS, Event

_TEXT_EVENTS = {f"{kind.events}.{verb}": kind for kind in KINDS for verb in ("delta", "done")}
_PART_EVENTS = {
    f"{base}.{verb}": holder
    for base, holder in (
        ("response.content_part", "content"),
        ("response.reasoning_part", "content"),  # vLLM's own name for it
        ("response.reasoning_summary_part", "summary"),
    )
    for verb in ("added", "done")
}
_ARGUMENT_EVENTS = {
    f"{events}.{verb}": item_type
    for item_type, (_, events) in ARGUMENTS.items()
    for verb in ("delta", "done")
}
SHOWN = frozenset(
    {
        *(name for name in _PART_EVENTS if not name.startswith("response.reasoning_part")),
        *_TEXT_EVENTS,
        *_ARGUMENT_EVENTS,
        *ITEM_EVENTS,
        *AUDIO_EVENTS,
        "response.output_item.added",
        "response.output_item.done",
        "response.output_text.annotation.added",
    }
)
"""The types of all output events that a reader can meet."""

_PRIVATE_FIELDS = ("obfuscation", "response_id")
"""Fields of events: padding of deltas, and (OGX) the response's id at the backend."""


class Normaliser:
    """Keeps the items of one response and makes its item events whole.

    Args:
        response_id: Source of the ids that have to be made up.
    """

    def __init__(self, response_id: str) -> None:
        self._items = Items(response_id.removeprefix("resp_")[:40])
        self._life = Lifecycle(self._items)

    def feed(self, event: Event) -> list[Event]:
        """The events that a client is shown for one of the backend's; none for what is not known."""
        for name in _PRIVATE_FIELDS:
            event.pop(name, None)
        if None in event.values():
            event = {name: value for name, value in event.items() if value is not None}
        return list(self._read(event))

    def settle(self, output: Any, open_status: str | None) -> list[Event]:
        """Make the stream add up to the backend's final output, at its end.

        Args:
            output: The `output` of the backend's final object. Items that were never streamed are streamed
                now; items that are still open are closed with what it says of them.
            open_status: Of items that are still open and that it does not mention; None leaves them open.
        """
        final = [item for item in output if isinstance(item, dict)] if isinstance(output, list) else []
        events: list[Event] = []
        for item, known in zip(final, lookup.match(self._items, final), strict=True):
            if known is not None:
                events += self._life.finish(known, item)
            elif not is_empty(item) or not (self._items.shown or len(final) > 1):
                events += self._life.tell(item, {})
        if open_status is None:
            return events
        for known in [*self._items.all()]:
            if not known.is_done and not known.is_guess:
                events += self._life.finish(known, known.shown(open_status))
        return events

    def output(self, open_status: str = "incomplete") -> list[Item]:
        """All items so far, in the order in which they were announced."""
        return [item.shown(open_status) for item in self._items.shown]

    def text_of(self, event: Event) -> Text | None:
        """The text of a part to which an event, as clients are shown it, adds a piece; None if to none."""
        kind = _TEXT_EVENTS.get(event["type"])
        if kind is None or "delta" not in event:
            return None
        return self._items.shown[event["output_index"]].parts[kind.holder][event[kind.index]].text

    def shelve(self, shelf: Shelf) -> int:
        """Put what is not done yet and is long where it takes no memory. Returns bytes saved."""
        open_items = (item for item in self._items.all() if not item.is_done)
        return sum(text.shelve(shelf) for item in open_items for text in item.texts() if not text.is_done)

    def has_cut_call(self) -> bool:
        """True if some call is not whole, whatever the backend says."""
        return any(known.is_done and known.is_cut_call() for known in self._items.shown)

    def _read(self, event: Event) -> Iterable[Event]:
        kind = event["type"]
        if kind in _TEXT_EVENTS:
            return self._text(event, _TEXT_EVENTS[kind])
        if kind in _ARGUMENT_EVENTS:
            return self._arguments(event, _ARGUMENT_EVENTS[kind])
        if kind in _PART_EVENTS:
            return self._part(event, _PART_EVENTS[kind])
        if kind in ITEM_EVENTS:
            return self._state(event, ITEM_EVENTS[kind])
        if kind in AUDIO_EVENTS:
            return [item_shapes.whole_event(event)]
        if kind in silent.EVENTS:
            return self._silent(event, silent.EVENTS[kind])
        if kind == "response.output_text.annotation.added":
            return self._annotation(event)
        item = event.get("item")
        if kind == "response.output_item.added" and isinstance(item, dict):
            return self._life.added(item, event)
        if kind == "response.output_item.done" and isinstance(item, dict):
            return self._life.done(item, event)
        return []

    def _find(self, event: Event, item_type: str, text: str | None = None) -> OutputItem | None:
        """The item that an event is about; None if it is about none that is known.

        Args:
            text: All of a text, if the event closes one.
        """
        named = self._items.named(lookup.name_of(event.get("item_id")))
        if len(named) == 1 and named[0].type == item_type and not named[0].is_done:
            return named[0]  # as nearly always
        return lookup.find(lookup.EVENT, self._items, Reference.of_event(event, item_type, text))

    def _text(self, event: Event, kind: TextKind) -> Iterable[Event]:
        is_delta = event["type"].endswith(".delta")
        text = event.get("delta" if is_delta else kind.key)
        if not isinstance(text, str):
            return
        known = self._find(event, kind.item, None if is_delta else text)
        if known is None and text:
            yield from self._life.made(event, kind.item)
            known = self._items.shown[-1]
        if known is None or known.is_done:  # a done item has said all of its text
            return
        if known.type != kind.item:
            kind = REASONING_TEXT
        yield from (
            parts.add_text(known, kind, event) if is_delta else parts.end_text(known, kind, text, event)
        )

    def _part(self, event: Event, holder: str) -> Iterable[Event]:
        part = event.get("part")
        part = part if isinstance(part, dict) else {}
        is_of_thoughts = holder == "summary" or "reasoning" in event["type"] or is_thought(part)
        item_type = "reasoning" if is_of_thoughts else "message"
        is_added = event["type"].endswith(".added")
        text = part.get("text")
        known = self._find(event, item_type, text if isinstance(text, str) and not is_added else None)
        if known is None:
            yield from self._life.made(event, item_type)
            known = self._items.shown[-1]
        kind = kind_of(part, known.type, holder)
        if not is_added:
            yield from parts.end(known, kind, part, event.get(kind.index))
        elif not known.is_done:
            yield from parts.begin(known, kind, part, event.get(kind.index))
        if known.is_done:
            known.fields = known.with_texts()

    def _annotation(self, event: Event) -> Iterable[Event]:
        citation = event.get("annotation")
        if not isinstance(citation, dict):
            return
        known = self._find(event, "message") or self._items.last("message", event.get("output_index"))
        if known is None:
            yield from self._life.made(event, "message")
            known = self._items.shown[-1]
        if known.type == "message":
            yield from parts.cite(known, item_shapes.annotation(citation), event.get("content_index"))
        if known.is_done:
            known.fields = known.with_texts()

    def _arguments(self, event: Event, item_type: str) -> Iterable[Event]:
        is_delta = event["type"].endswith(".delta")
        text = item_shapes.as_text(event.get("delta" if is_delta else ARGUMENTS[item_type][0]))
        ref = Reference.of_event(event, item_type, None if is_delta else text)
        if lookup.is_of_another(self._items, ref):
            return
        known = self._find(event, item_type, ref.text)
        if known is None or (known.is_guess and known.arguments.is_done):
            known = self._life.unannounced(event, item_type)
            known.is_guess = True
            self._items.unshown.append(known)
        if known.is_done or known.arguments.is_done:
            return
        if not is_delta:
            yield from self._end_arguments(known, text, event)
        elif text is not None:
            known.arguments.pieces.append(text)
            if known.index is not None:
                yield arguments.delta(known, text, event)

    def _end_arguments(self, known: OutputItem, text: str | None, event: Event) -> Iterable[Event]:
        if not known.fields.get("name") and isinstance(event.get("name"), str):
            known.fields["name"] = event["name"]
        if known.index is not None:
            yield from arguments.finish(known, text, event)
            return
        if text is not None:
            known.arguments.missing(text)
        known.arguments.is_done = True
        if not known.is_guess:
            yield from self._life.show_or_wait(known)

    def _state(self, event: Event, item_type: str) -> Iterable[Event]:
        known = self._find(event, item_type)
        if known is None or known.is_done or known.index is None or known.type != item_type:
            return
        state = event["type"].rpartition(".")[2]
        if state in item_shapes.ENDED and state in item_shapes.shape_of(item_type).statuses:
            known.fields = {**known.fields, "status": state}
        yield {**item_shapes.whole_event(event), "item_id": known.id, "output_index": known.index}

    def _silent(self, event: Event, item_type: str) -> Iterable[Event]:
        known = self._find(event, item_type)
        if known is not None and not known.is_done and known.type == item_type:
            known.fields = silent.grown(known.fields, event)
        return []
