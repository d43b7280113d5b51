"""From a backend's item events to events that every client library accepts.

Servers leave out indexes, item ids, opening or closing events, reuse an index for two items, or number
content parts across items (docs/backends.md says which). The official Node client rejects a stream for any
of these. So each event is tied to an item and a part that we keep, gets their ids and indexes, and whatever
should have come before it and did not is made up first. What a client is shown adds up: the deltas of a part
are its text, the done items are the output. Only where a backend ends a text with another one than it sent
in pieces is its last word taken.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from gateway.wire.events import AUDIO_EVENTS, ITEM_EVENTS, Event
from gateway.wire.output import ARGUMENTS, KINDS, Item, OutputItem, Part, Shelf, TextKind

_TEXT_EVENTS = {f"{kind.events}.{verb}": kind for kind in KINDS.values() for verb in ("delta", "done")}
_PART_EVENTS = {
    f"{base}.{verb}": verb
    for base in ("response.content_part", "response.reasoning_summary_part", "response.reasoning_part")
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

_ID_PREFIX = {"message": "msg", "reasoning": "rs", "function_call": "fc", "custom_tool_call": "ctc"}


class Normaliser:
    """Keeps the items of one response and makes its item events whole.

    Args:
        response_id: Source of the ids that have to be made up.
    """

    def __init__(self, response_id: str) -> None:
        self._seed = response_id.removeprefix("resp_")[:40]
        self._items: list[OutputItem] = []
        self._by_id: dict[str, OutputItem] = {}
        self._by_number: dict[int, OutputItem] = {}
        self._ids: set[str] = set()
        self._call_ids: set[str] = set()

    def feed(self, event: Event) -> list[Event]:
        """The events that a client is shown for one of the backend's; none for what is not known."""
        kind = event["type"]
        event.pop("obfuscation", None)
        if kind in _TEXT_EVENTS:
            return list(self._text(event, _TEXT_EVENTS[kind], is_delta=kind.endswith(".delta")))
        if kind in _ARGUMENT_EVENTS:
            return list(self._argument(event, _ARGUMENT_EVENTS[kind], is_delta=kind.endswith(".delta")))
        if kind in _PART_EVENTS:
            return list(self._part(event, is_added=_PART_EVENTS[kind] == "added"))
        if kind == "response.output_item.added":
            item = event.get("item")
            return list(self._add(item, event)) if isinstance(item, dict) else []
        if kind == "response.output_item.done":
            item = event.get("item")
            return list(self._finish_item(item, event)) if isinstance(item, dict) else []
        if kind == "response.output_text.annotation.added":
            return list(self._annotation(event))
        if kind in ITEM_EVENTS:
            return list(self._other(event))
        return [event] if kind in AUDIO_EVENTS else []

    def settle(self, output: Any, open_status: str) -> list[Event]:
        """Make the stream add up to the backend's final output, at its successful end.

        Args:
            output: The `output` of the backend's final object. Items that were never streamed are streamed
                now; items that are still open are closed with what it says of them.
            open_status: Of items that are still open and that it does not mention.
        """
        final = [item for item in output if isinstance(item, dict)] if isinstance(output, list) else []
        named: list[OutputItem | None] = []
        for item in final:
            known = self._by_id.get(str(item.get("id")))
            named.append(known if known and known.type == _type_of(item) and known not in named else None)
        unnamed = [known for known in self._items if known not in named]
        events: list[Event] = []
        for item, known in zip(final, named, strict=True):
            known = known or _take(unnamed, _type_of(item))
            if known is None:
                events += self._add(item, {})
                known = self._items[-1]
            if not known.is_done:
                events += self._finish(known, item)
        for known in self._items:
            if not known.is_done:
                events += self._finish(known, known.shown(open_status))
        return events

    def output(self, open_status: str = "incomplete") -> list[Item]:
        """All items so far, in the order in which they were announced."""
        return [item.shown(open_status) for item in self._items]

    def shelve(self, shelf: Shelf) -> int:
        """Put what is not done yet and is long where it takes no memory. Returns bytes saved."""
        open_items = (item for item in self._items if not item.is_done)
        return sum(text.shelve(shelf) for item in open_items for text in item.texts() if not text.is_done)

    # -- items

    def _add(self, item: Item, event: Event) -> Iterable[Event]:
        opened = self._announce(item, event)
        yield self._item_event("response.output_item.added", opened, dict(opened.fields))

    def _announce(self, item: Item, event: Event) -> OutputItem:
        kind = _type_of(item)
        given_id = item.get("id")
        own_id = given_id if isinstance(given_id, str) and given_id and given_id not in self._ids else None
        fields: Item = {**item, "type": kind}
        fields["id"] = own_id or self._made_up(_ID_PREFIX.get(kind, "item"))
        if kind == "message":
            fields |= {"role": "assistant", "status": "in_progress", "content": []}
        elif kind == "reasoning":
            fields["summary"] = []
            if fields.get("content") is not None:
                fields["content"] = []
        elif kind in ARGUMENTS:
            call_id = item.get("call_id")
            if not isinstance(call_id, str) or not call_id or call_id in self._call_ids:
                call_id = self._made_up("call")
            self._call_ids.add(call_id)
            fields |= {"call_id": call_id, "name": item.get("name") or "", ARGUMENTS[kind][0]: ""}
            fields["status"] = "in_progress"
        opened = OutputItem(len(self._items), fields["id"], fields)
        self._items.append(opened)
        self._ids.add(opened.id)
        self._by_id[opened.id] = opened
        for key in (event.get("item_id"), given_id):
            if isinstance(key, str) and key:
                self._by_id[key] = opened
                opened.given_id = key
        if own_id is None and isinstance(given_id, str):
            self._by_id.pop(given_id, None)  # the id of several items names none of them
        if isinstance(number := event.get("output_index"), int):
            self._by_number[number] = opened
            opened.given_index = number
        return opened

    def _made_up(self, prefix: str) -> str:
        return f"{prefix}_{self._seed}{len(self._items):08x}"

    def _find(self, event: Event, item_type: str) -> OutputItem | None:
        """The open item that an event is about: by id, else by the backend's index, else the newest."""
        number = event.get("output_index")
        named = self._by_id.get(str(event.get("item_id")))
        numbered = self._by_number.get(number) if isinstance(number, int) else None
        for known in (named, numbered):
            if known is not None and not known.is_done and known.type == item_type:
                return known
        for newest in reversed(self._items):
            if not newest.is_done and newest.type == item_type and newest.may_be_meant(event):
                return newest
        return None

    def _find_or_add(self, event: Event, item_type: str) -> tuple[OutputItem, list[Event]]:
        known = self._find(event, item_type)
        if known is not None:
            return known, []
        made = {"type": item_type, "id": event.get("item_id"), "name": event.get("name")}
        events = list(self._add({k: v for k, v in made.items() if v is not None}, event))
        return self._items[-1], events

    def _finish_item(self, item: Item, event: Event) -> Iterable[Event]:
        reference = {**event, "item_id": item.get("id")}
        known = self._find(reference, _type_of(item))
        if known is None:
            yield from self._add(item, {**event, "item_id": None})
            known = self._items[-1]
        yield from self._finish(known, item)

    def _finish(self, known: OutputItem, item: Item) -> Iterable[Event]:
        """Close an item: its parts first, each with whatever was not yet streamed of it."""
        final: Item = {**known.fields, **{name: value for name, value in item.items() if value is not None}}
        final["id"] = known.id
        final["type"] = known.type
        if known.type in ARGUMENTS:
            key, _ = ARGUMENTS[known.type]
            final["call_id"] = known.fields["call_id"]
            full = item.get(key)
            yield from self._finish_arguments(
                known, full if isinstance(full, str) else None, {"name": final["name"]}
            )
            final[key] = known.arguments.value()
        for holder in ("content", "summary"):
            for position, part in enumerate(_parts_of(item, holder)):
                if isinstance(part, dict) and str(part.get("type")) in KINDS:
                    yield from self._finish_part_at(known, holder, position, part)
            for open_part in known.parts[holder]:
                yield from self._close_part(known, open_part, None)
            if known.parts[holder] or not isinstance(final.get(holder, []), list):
                final[holder] = [part.shown() for part in known.parts[holder]]
        if known.type in ("message", *ARGUMENTS) or final.get("status") == "in_progress":
            status = item.get("status")
            final["status"] = status if status in ("completed", "incomplete") else "completed"
        if known.type == "message":
            final["role"] = "assistant"
        known.fields = final
        known.is_done = True
        yield self._item_event("response.output_item.done", known, final)

    def _item_event(self, kind: str, known: OutputItem, item: Item) -> Event:
        return {"type": kind, "output_index": known.index, "item": item}

    # -- parts and their text

    def _part(self, event: Event, *, is_added: bool) -> Iterable[Event]:
        part = event.get("part")
        part = part if isinstance(part, dict) else {}
        default = "summary_text" if "summary" in event["type"] else "output_text"
        if event["type"].startswith("response.reasoning_part"):  # vLLM's own name for it
            default = "reasoning_text"
        kind = KINDS.get(str(part.get("type")), KINDS[default])
        known, events = self._find_or_add(event, kind.item)
        yield from events
        number = event.get(kind.index)
        if is_added:
            yield from self._open_part(known, kind, part, number)
            return
        found, events = self._part_for(known, kind, number)
        yield from events
        yield from self._close_part(known, found, part)

    def _open_part(
        self, known: OutputItem, kind: TextKind, part: dict[str, Any], number: Any
    ) -> Iterable[Event]:
        fields = dict(part)
        if kind.type == "output_text":
            fields["annotations"] = fields.get("annotations") or []
            fields["logprobs"] = fields.get("logprobs") or []
        fields |= {"type": kind.type, kind.key: ""}
        siblings = known.parts[kind.holder]
        opened = Part(kind, len(siblings), fields)
        siblings.append(opened)
        if isinstance(number, int):
            known.part_by_number[kind.holder, number] = opened
        yield self._part_event(f"{kind.part_events}.added", known, opened, part=dict(fields))

    def _part_for(self, known: OutputItem, kind: TextKind, number: Any) -> tuple[Part, list[Event]]:
        """The open part of this kind that an event is about, opened now if it was never announced."""
        siblings = known.parts[kind.holder]
        numbered = known.part_by_number.get((kind.holder, number)) if isinstance(number, int) else None
        for found in (numbered, *siblings[-1:]):
            if found is not None and found.kind is kind and not found.is_closed:
                return found, []
        events = list(self._open_part(known, kind, {}, number))
        return siblings[-1], events

    def _text(self, event: Event, kind: TextKind, *, is_delta: bool) -> Iterable[Event]:
        known, events = self._find_or_add(event, kind.item)
        yield from events
        part, events = self._part_for(known, kind, event.get(kind.index))
        yield from events
        if is_delta and part.text.is_done:  # the next part, unannounced
            yield from self._close_part(known, part, None)
            part, events = self._part_for(known, kind, event.get(kind.index))
            yield from events
        if is_delta:
            delta = event.get("delta")
            if isinstance(delta, str):
                part.text.pieces.append(delta)
                yield self._located(event, known, part)
            return
        full = event.get(kind.key)
        yield from self._finish_text(known, part, full if isinstance(full, str) else None, event)

    def _located(self, event: Event, known: OutputItem, part: Part) -> Event:
        """A backend's own event, with our ids and indexes."""
        event["item_id"] = known.id
        event["output_index"] = known.index
        event[part.kind.index] = part.index
        if part.kind.type == "output_text" and not isinstance(event.get("logprobs"), list):
            event["logprobs"] = []
        return event

    def _part_event(self, kind: str, known: OutputItem, of: Part, **fields: Any) -> Event:
        place = {"item_id": known.id, "output_index": known.index, of.kind.index: of.index}
        return {"type": kind, **place, **fields}

    def _finish_text(
        self, known: OutputItem, part: Part, full: str | None, event: Event | None
    ) -> Iterable[Event]:
        if part.text.is_done:
            return
        kind = part.kind
        if full is not None and (rest := part.text.missing(full)):
            delta = self._part_event(f"{kind.events}.delta", known, part, delta=rest)
            yield self._located(delta, known, part)
        part.text.is_done = True
        done = event or {"type": f"{kind.events}.done"}
        yield self._located({**done, kind.key: part.text.value()}, known, part)

    def _close_part(self, known: OutputItem, part: Part, final: dict[str, Any] | None) -> Iterable[Event]:
        if part.is_closed:
            return
        kind = part.kind
        full = (final or {}).get(kind.key)
        yield from self._finish_text(known, part, full if isinstance(full, str) else None, None)
        part.fields |= {name: value for name, value in (final or {}).items() if value is not None}
        part.fields["type"] = kind.type
        part.is_closed = True
        yield self._part_event(f"{kind.part_events}.done", known, part, part=part.shown())

    def _finish_part_at(
        self, known: OutputItem, holder: str, position: int, final: dict[str, Any]
    ) -> Iterable[Event]:
        """Bring the part at a position of the final item to its end, whether or not it was streamed."""
        kind = KINDS[str(final["type"])]
        siblings = known.parts[holder]
        if position < len(siblings):
            if siblings[position].kind is kind:
                yield from self._close_part(known, siblings[position], final)
            return
        yield from self._open_part(known, kind, final, None)
        yield from self._close_part(known, siblings[-1], final)

    def _annotation(self, event: Event) -> Iterable[Event]:
        known, events = self._find_or_add(event, "message")
        yield from events
        part, events = self._part_for(known, KINDS["output_text"], event.get("content_index"))
        yield from events
        part.fields["annotations"] = [*part.fields["annotations"], event.get("annotation")]
        event["annotation_index"] = len(part.fields["annotations"]) - 1
        yield {**event, "item_id": known.id, "output_index": known.index, "content_index": part.index}

    # -- arguments of calls

    def _argument(self, event: Event, item_type: str, *, is_delta: bool) -> Iterable[Event]:
        known, events = self._find_or_add(event, item_type)
        yield from events
        place = {"item_id": known.id, "output_index": known.index}
        if is_delta:
            delta = event.get("delta")
            if isinstance(delta, str) and not known.arguments.is_done:
                known.arguments.pieces.append(delta)
                yield {**event, **place}
            return
        full = event.get(ARGUMENTS[item_type][0])
        yield from self._finish_arguments(known, full if isinstance(full, str) else None, event)

    def _finish_arguments(
        self, known: OutputItem, full: str | None, extra: dict[str, Any]
    ) -> Iterable[Event]:
        if known.arguments.is_done:
            return
        key, base = ARGUMENTS[known.type]
        place = {"item_id": known.id, "output_index": known.index}
        if full is not None and (rest := known.arguments.missing(full)):
            yield {"type": f"{base}.delta", **place, "delta": rest}
        known.arguments.is_done = True
        done = {**extra, "type": f"{base}.done", **place, key: known.arguments.value()}
        if known.type == "function_call":
            done["name"] = extra.get("name") or known.fields["name"]
        else:
            done.pop("name", None)
        yield done

    def _other(self, event: Event) -> Iterable[Event]:
        known = self._find(event, ITEM_EVENTS[event["type"]])
        if known is not None:
            yield {**event, "item_id": known.id, "output_index": known.index}


def _type_of(item: Item) -> str:
    return str(item.get("type") or "message")


def _parts_of(item: Item, holder: str) -> list[Any]:
    """A finished item's parts; some servers have a plain string for content, as in an input message."""
    given = item.get(holder)
    if isinstance(given, str) and holder == "content" and _type_of(item) == "message":
        return [{"type": "output_text", "text": given}]
    return given if isinstance(given, list) else []


def _take(items: list[OutputItem], item_type: str) -> OutputItem | None:
    """The first of this type, removed: what a final output means that names its items anew."""
    for known in items:
        if known.type == item_type:
            items.remove(known)
            return known
    return None
