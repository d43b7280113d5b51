"""What clients are told of an item: its announcement, its end, and what comes after that.

An item is shown when it is known to be one, closed with all that was not yet streamed of it, and told once,
however often the backend tells it. What is said of it after its end is told by events of its parts, since a
second end of an item is a second item to some clients (Vercel's AI SDK, Codex).
"""

from __future__ import annotations

from collections.abc import Iterable

from gateway.wire.answers import arguments, item_shapes, lookup, parts
from gateway.wire.answers.lookup import Reference
from gateway.wire.answers.output import (
    ARGUMENTS,
    CALLS,
    HOLDERS,
    OUTPUT_TEXT,
    Item,
    Items,
    OutputItem,
    is_thought,
    kind_of,
    parts_of,
    text_of,
)
from gateway.wire.events import Event

_LATE_TYPES = frozenset({"tool_search_call"})
"""Items that are announced only when they are done. OpenAI: another `call_id` in the end, which is the one
that counts, and which the Python client refuses."""

_KEPT = frozenset({"id", "type", "call_id"})
"""Fields of an item that stay as they were announced; clients refuse another in the end."""


class Lifecycle:
    """Shows and closes the items of one response.

    Args:
        items: Those that are known, to which what is new is added.
    """

    def __init__(self, items: Items) -> None:
        self._items = items

    # -- the beginning

    def added(self, item: Item, event: Event) -> Iterable[Event]:
        """The backend announces an item."""
        ref = Reference.of_item(item, event)
        known = lookup.find(lookup.ADDED, self._items, ref)
        if known is None:
            yield from self.show_or_wait(self._new(item, ref))
            return
        self._items.learn(known, ref.id, ref.index)
        if not known.first and not known.is_done:
            known.first = item
            known.fields = {**item_shapes.fields_of(item), **known.fields}

    def made(self, event: Event, item_type: str) -> Iterable[Event]:
        """Events are about an item that the backend has not announced."""
        yield from self._show(self.unannounced(event, item_type))

    def unannounced(self, event: Event, item_type: str) -> OutputItem:
        """A new item that an event is about, not yet shown."""
        known = OutputItem(item_type, _opened({"type": item_type}))
        ref = Reference.of_event(event, item_type)
        self._items.learn(known, ref.id, ref.index)
        return known

    def show_or_wait(self, known: OutputItem) -> Iterable[Event]:
        """Show an item, unless it has no name yet, or may be one that is known."""
        is_named = known.type not in CALLS or known.fields.get("name")
        if is_named and known.twin is None and known.type not in _LATE_TYPES:
            yield from self._show(known)
        elif known not in self._items.unshown:
            self._items.unshown.append(known)

    def _new(self, item: Item, ref: Reference) -> OutputItem:
        new = OutputItem(ref.type, _opened(item), first=item, twin=self._items.call(ref.type, ref.call_id))
        self._items.learn(new, ref.id, ref.index)
        if (guess := lookup.guess(self._items, ref)) is not None:
            self._items.drop(guess)
            if lookup.takes_text(new.type, guess.type):
                new.arguments = guess.arguments
                new.fields = {**guess.fields, **new.fields}
        return new

    def _show(self, known: OutputItem) -> Iterable[Event]:
        """Announce an item to clients, with the text that was told before."""
        self._items.show(known)
        yield _event("response.output_item.added", known)
        if known.type in ARGUMENTS and (text := known.arguments.value()):
            yield arguments.delta(known, text, {})
            if known.arguments.is_done:
                yield arguments.done(known, {})

    # -- the end

    def done(self, item: Item, event: Event) -> Iterable[Event]:
        """The backend says that an item is done."""
        ref = Reference.of_item(item, event)
        known = lookup.find(lookup.DONE, self._items, ref)
        if known is not None:
            self._items.learn(known, ref.id, ref.index)
            yield from self.finish(known, item)
        elif not is_empty(item):
            yield from self.tell(item, event)

    def tell(self, item: Item, event: Event) -> Iterable[Event]:
        """An item of which only its end tells."""
        new = self._new(item, Reference.of_item(item, event))
        self._items.unshown.append(new)
        yield from self.finish(new, item)

    def finish(self, known: OutputItem, item: Item) -> Iterable[Event]:
        """Close an item: its parts first, each with whatever was not yet streamed of it.

        Args:
            item: What the backend says of it in the end.
        """
        if known.type == "message":
            item, thoughts = _apart(item)
            yield from self._tell_thoughts(thoughts)
        if known.is_done:
            yield from self._tell_late(known, item)
        elif known.index is None:
            yield from self._finish_waiting(known, item)
        else:
            yield from self._finish_shown(known, _with_opening(known, item))

    def _finish_shown(self, known: OutputItem, item: Item) -> Iterable[Event]:
        kept = (*_KEPT, *known.parts)
        given = {name: value for name, value in item.items() if value is not None and name not in kept}
        known.fields = item_shapes.fields_of({**known.fields, **given})
        status = item_shapes.done_status(known.type, known.fields.get("status"))
        if known.type in ARGUMENTS:
            text = item_shapes.as_text(item.get(ARGUMENTS[known.type][0])) or known.said()
            if known.type == "function_call" and not text and status == "completed":
                text = "{}"
            yield from arguments.finish(known, text, {})
            status = "incomplete" if known.is_cut_call() else status
        if known.type == "message":
            known.fields["role"] = "assistant"
        yield from parts.close_parts(known, item)
        known.fields = known.with_texts() | ({"status": status} if status else {})
        known.is_done = True
        yield _event("response.output_item.done", known)

    def _finish_waiting(self, known: OutputItem, item: Item) -> Iterable[Event]:
        """Close an item that clients do not know: now it is clear whether it is one."""
        if known.type in ARGUMENTS and (text := item_shapes.as_text(item.get(ARGUMENTS[known.type][0]))):
            known.arguments.missing(text)
        known.fields = {**known.fields, **_opened({**known.fields, **item})}
        twin, known.twin = known.twin, None
        if twin is not None and _is_same_call(known, twin):
            self._items.drop(known)
            if not twin.is_done:
                yield from self.finish(twin, {**item, ARGUMENTS[twin.type][0]: known.said()})
        elif known.type not in CALLS or known.fields.get("name"):
            yield from self._show(known)
            yield from self.finish(known, item)

    def _tell_late(self, known: OutputItem, item: Item) -> Iterable[Event]:
        """The events that complete an item: its citations, further parts, and fields that it lacked."""
        if known.index is None:  # given up
            return
        yield from parts.close_parts(known, item)
        kept = (*_KEPT, *known.parts, "status")
        more = {
            name: value
            for name, value in item.items()
            if value and not known.fields.get(name) and name not in kept
        }
        known.fields = {**known.with_texts(), **more}

    def _tell_thoughts(self, thoughts: list[Item]) -> Iterable[Event]:
        """Thoughts that were in an answer, as what they are."""
        item: Item = {"type": "reasoning", "content": thoughts}
        known = [known.said() for known in self._items.all() if known.type == "reasoning"]
        if thoughts and text_of(item) not in known:
            yield from self.tell(item, {})


def is_empty(item: Item) -> bool:
    """True if it is a message that says nothing (SGLang's router: beside a call)."""
    return item_shapes.type_of(item) == "message" and not any(
        kind_of(part, "message", "content") is not OUTPUT_TEXT or part.get("text")
        for part in parts_of(item, "content")
    )


def _apart(message: Item) -> tuple[Item, list[Item]]:
    """A message without the thoughts in it, and those."""
    found = parts_of(message, "content")
    thoughts = [part for part in found if is_thought(part)]
    return (
        ({**message, "content": [part for part in found if not is_thought(part)]}, thoughts)
        if thoughts
        else (message, [])
    )


def _opened(item: Item) -> Item:
    """The fields of an item when it begins: what is told in pieces is empty."""
    fields = item_shapes.fields_of(item)
    kind = fields["type"]
    if kind == "message":
        fields |= {"role": "assistant", "content": []}
    elif kind == "reasoning":
        fields |= {holder: [] for holder in HOLDERS[kind] if holder in fields}
    elif kind in ARGUMENTS and isinstance(fields[ARGUMENTS[kind][0]], str):
        fields[ARGUMENTS[kind][0]] = ""
    shape = item_shapes.shape_of(kind)
    is_told_in_pieces = kind == "message" or kind in CALLS
    if is_told_in_pieces or (shape.needs_status and fields.get("status") not in shape.statuses):
        fields["status"] = "in_progress"
    return fields


def _with_opening(known: OutputItem, item: Item) -> Item:
    """An item's end, with what only its announcement said."""
    names = [holder for holder, streamed in known.parts.items() if not streamed]
    if known.type in ARGUMENTS and not known.arguments.pieces:
        names.append(ARGUMENTS[known.type][0])
    opening = {name: known.first.get(name) for name in names if not item.get(name)}
    return {**item, **{name: value for name, value in opening.items() if value}}


def _is_same_call(known: OutputItem, twin: OutputItem) -> bool:
    """True if a call with the `call_id` of another is that one told again: the same function, and arguments
    that say the same, nothing, or what the other goes on to say."""
    if known.fields.get("name") not in (twin.fields.get("name"), None, ""):
        return False
    is_whole = not twin.is_done and known.said().startswith(twin.said())
    return is_whole or known.said() in ("", "{}", twin.said())


def _event(kind: str, known: OutputItem) -> Event:
    return {"type": kind, "output_index": known.index, "item": dict(known.fields)}
