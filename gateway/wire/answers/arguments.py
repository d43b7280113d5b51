"""The events of a text that is a field of its item: a call's arguments, a tool's code."""

from __future__ import annotations

from collections.abc import Iterable

from gateway.wire.answers.output import ARGUMENTS, CALLS, OutputItem
from gateway.wire.events import Event


def delta(known: OutputItem, text: str, event: Event) -> Event:
    """A piece of it.

    Args:
        event: The backend's own event, or an empty one.
    """
    return _located(known, "delta", {**event, "delta": text})


def finish(known: OutputItem, full: str | None, event: Event) -> Iterable[Event]:
    """Its end, with whatever of it was not yet sent. A tool that the backend runs may have none.

    Args:
        full: All of it, if the backend says that.
        event: The backend's own closing event, or an empty one.
    """
    if known.arguments.is_done or not (full or event or known.type in CALLS):
        return
    if full is not None and (rest := known.arguments.missing(full)):
        yield delta(known, rest, {})
    known.arguments.is_done = True
    yield done(known, event)


def done(known: OutputItem, event: Event) -> Event:
    """The event that says that it is done."""
    key, _ = ARGUMENTS[known.type]
    closing = _located(known, "done", {**event, key: known.arguments.value()})
    closing.pop("name", None)
    return {**closing, "name": known.fields["name"]} if known.type == "function_call" else closing


def _located(known: OutputItem, verb: str, event: Event) -> Event:
    _, base = ARGUMENTS[known.type]
    return {**event, "type": f"{base}.{verb}", "item_id": known.id, "output_index": known.index}
