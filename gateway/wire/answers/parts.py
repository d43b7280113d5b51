"""The events of an item's parts and of their texts.

Each part is opened before its text and closed after it, its deltas add up to its text, and what is said of
it only in the end (citations, logprobs, audio) is still said. The events are the backend's own where it sent
them.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from gateway.wire.answers import item_shapes
from gateway.wire.answers.output import (
    OTHER,
    OUTPUT_TEXT,
    Item,
    OutputItem,
    OutputPart,
    TextKind,
    kind_of,
    parts_of,
)
from gateway.wire.events import Event


def begin(known: OutputItem, kind: TextKind, given: dict[str, Any], number: Any) -> Iterable[Event]:
    """The backend's own opening of a part."""
    numbered = _numbered(known, kind, number)
    if numbered is None or numbered.is_closed or numbered.text.pieces:  # else it is announced again
        yield from open_part(known, kind, given, number)


def end(known: OutputItem, kind: TextKind, final: dict[str, Any], number: Any) -> Iterable[Event]:
    """The backend's own end of a part, be it told late or again."""
    numbered = _numbered(known, kind, number)
    text = final.get(kind.key)
    if numbered is not None and (numbered.text.value() == text or not numbered.is_closed):
        yield from close_part(known, numbered, final)
    elif not known.is_done:
        part, events = part_for(known, kind, number)
        yield from events
        yield from close_part(known, part, final)
    elif kind is OTHER or (isinstance(text, str) and text not in known.said()):
        yield from open_part(known, kind, final, number)
        yield from close_part(known, known.parts[kind.holder][-1], final)


def cite(known: OutputItem, citation: Item, number: Any) -> Iterable[Event]:
    """A citation in an event of its own, wherever the text is by then."""
    texts = [part for part in known.parts["content"] if part.kind is OUTPUT_TEXT]
    part = _numbered(known, OUTPUT_TEXT, number) or next(reversed(texts), None)
    if part is None and not known.is_done:
        part, events = part_for(known, OUTPUT_TEXT, number)
        yield from events
    if part is not None:
        yield from annotate(known, part, citation)


def open_part(known: OutputItem, kind: TextKind, given: dict[str, Any], number: Any) -> Iterable[Event]:
    """A new part.

    Args:
        given: The part as the backend opened it; its text comes in deltas.
        number: The backend's index for it.
    """
    fields = dict(given)
    if kind is not OTHER:
        fields |= {"type": kind.type, kind.key: ""}
    if kind is OUTPUT_TEXT:
        fields |= {"annotations": [], "logprobs": []}
    siblings = known.parts[kind.holder]
    part = OutputPart(kind, len(siblings), fields)
    siblings.append(part)
    if isinstance(number, int):
        known.part_by_number[kind.holder, number] = part
    yield _event(f"{kind.part_events}.added", known, part, part=dict(fields))


def part_for(known: OutputItem, kind: TextKind, number: Any) -> tuple[OutputPart, list[Event]]:
    """The open part of this kind that an event is about, opened now if it was never announced."""
    siblings = known.parts[kind.holder]
    for found in (_numbered(known, kind, number), *siblings[-1:]):
        if found is not None and found.kind is kind and not found.is_closed:
            return found, []
    events = list(open_part(known, kind, {}, number))
    return siblings[-1], events


def add_text(known: OutputItem, kind: TextKind, event: Event) -> Iterable[Event]:
    """A delta."""
    delta = event.get("delta")
    if not isinstance(delta, str):
        return
    part, events = part_for(known, kind, event.get(kind.index))
    yield from events
    while part.text.is_done:  # the next part, unannounced
        yield from close_part(known, part, {})
        part, events = part_for(known, kind, event.get(kind.index))
        yield from events
    part.text.pieces.append(delta)
    event["type"] = f"{kind.events}.delta"
    located = _located(event, known, part)
    if kind is OUTPUT_TEXT:
        part.logprobs += located["logprobs"]
    yield located


def end_text(known: OutputItem, kind: TextKind, full: Any, event: Event) -> Iterable[Event]:
    """The backend's own end of a text, unless it is told again after the end of the part."""
    numbered = _numbered(known, kind, event.get(kind.index))
    if numbered is not None and numbered.is_closed and numbered.text.value() == full:
        return
    part, events = part_for(known, kind, event.get(kind.index))
    yield from events
    yield from finish_text(known, part, full, event)


def finish_text(known: OutputItem, part: OutputPart, full: Any, event: Event) -> Iterable[Event]:
    """The end of a text, with whatever of it was not yet sent.

    Args:
        full: All of it, if the backend says that; "" after deltas says nothing.
        event: The backend's own closing event, or an empty one.
    """
    kind = part.kind
    if part.text.is_done or kind is OTHER:
        return
    if isinstance(full, str) and full and (rest := part.text.missing(full)):
        yield _located({"type": f"{kind.events}.delta", "delta": rest}, known, part)
    part.text.is_done = True
    done = _located({**event, "type": f"{kind.events}.done", kind.key: part.text.value()}, known, part)
    if kind is OUTPUT_TEXT:
        done["logprobs"] = part.fields["logprobs"] = _longest(done["logprobs"], part.logprobs)
    yield done


def close_part(known: OutputItem, part: OutputPart, final: dict[str, Any]) -> Iterable[Event]:
    """The end of a part, with what `final`, the backend's last word of it, says beside its text.

    A part that is closed already can still get citations, which some backends send only in the end."""
    kind = part.kind
    yield from finish_text(known, part, final.get(kind.key), {})
    if kind is OUTPUT_TEXT:
        for citation in item_shapes.annotations_of(final):
            yield from annotate(known, part, citation)
        logprobs = _longest(item_shapes.logprobs_of(final), part.fields["logprobs"])
        final = {**final, "annotations": part.fields["annotations"], "logprobs": logprobs}
    part.fields |= {name: value for name, value in final.items() if value is not None and name != kind.key}
    if kind is not OTHER:
        part.fields["type"] = kind.type
    if not part.is_closed:
        part.is_closed = True
        yield _event(f"{kind.part_events}.done", known, part, part=part.shown())


def annotate(known: OutputItem, part: OutputPart, citation: Item) -> Iterable[Event]:
    """A citation, unless the part has it already."""
    citations = part.fields["annotations"]
    if citation in citations:
        return
    part.fields["annotations"] = [*citations, citation]
    if item_shapes.is_streamed(citation):
        kind = "response.output_text.annotation.added"
        yield _event(kind, known, part, annotation_index=len(citations), annotation=citation)


def close_parts(known: OutputItem, final: Item) -> Iterable[Event]:
    """The ends of all parts of an item, and those parts of which only its end tells.

    Args:
        final: The item as the backend tells it in the end.
    """
    streamed = {holder for holder in known.parts if known.parts[holder]}
    for holder in known.parts:
        left: list[OutputPart | None] = [*known.parts[holder]]
        for position, part in enumerate(parts_of(final, holder)):
            kind = kind_of(part, known.type, holder)
            text = part.get(kind.key)
            found = _told(left, position, kind, text)
            if found is not None:
                left[found.index] = None
                yield from close_part(known, found, part)
            elif not _is_said(known, holder, text, streamed):
                yield from open_part(known, kind, part, None)
                yield from close_part(known, known.parts[holder][-1], part)
        for open_one in known.parts[holder]:
            if not open_one.is_closed:
                yield from close_part(known, open_one, {})


def _numbered(known: OutputItem, kind: TextKind, number: Any) -> OutputPart | None:
    """The part of this kind that the backend has called by this number."""
    found = known.part_by_number.get((kind.holder, number)) if isinstance(number, int) else None
    return found if found is not None and found.kind is kind else None


def _told(siblings: list[OutputPart | None], position: int, kind: TextKind, text: Any) -> OutputPart | None:
    """The part that one in the end is: the one in its place, else one that says the same."""
    here = siblings[position] if position < len(siblings) else None
    if here is not None and here.kind is kind:
        return here
    same = (part for part in siblings if part and part.kind is kind and part.text.value() == text)
    return next(same, None) if kind is not OTHER else None


def _is_said(known: OutputItem, holder: str, text: Any, streamed: set[str]) -> bool:
    """True if a text was streamed already: as a piece of another one, or a thought as what it is not called
    in the end, content or summary."""
    if known.is_done and isinstance(text, str) and text in known.said():
        return True
    if holder in streamed:
        return False
    return any(part.text.value() == text for other in streamed for part in known.parts[other])


def _located(event: Event, known: OutputItem, part: OutputPart) -> Event:
    """An event with our ids and indexes."""
    event["item_id"] = known.id
    event["output_index"] = known.index
    event[part.kind.index] = part.index
    if part.kind is OUTPUT_TEXT:
        event["logprobs"] = item_shapes.logprobs_of(event)
    else:
        event.pop("logprobs", None)
    return event


def _event(kind: str, known: OutputItem, of: OutputPart, **fields: Any) -> Event:
    place = {"item_id": known.id, "output_index": known.index, of.kind.index: of.index}
    return {"type": kind, **place, **fields}


def _longest(*logprobs: list[Item]) -> list[Item]:
    """The longest of several versions: vLLM repeats only the last token's at the end."""
    return max(logprobs, key=len)
