"""Characters that a backend cut in two.

JSON may write an emoji as two halves of a surrogate pair, and a JavaScript proxy that cuts text by its own
idea of length sends one half in one event and the other in the next. UTF-8 has no halves: each would become
U+FFFD. So a half that ends a text waits for the text that goes on in the same place.
"""

from __future__ import annotations

from typing import Any

Event = dict[str, Any]

_EVENT_PLACE = ("type", "item_id", "output_index", "content_index", "summary_index")
_PART_PLACE = ("index",)
"""What tells two texts apart that stand under the same names: of an event of the Responses API, and of a
choice or a tool call within a chunk."""

_Step = tuple[tuple[tuple[str, Any], ...], str] | int | None
_Path = tuple[_Step, ...]


class Halves:
    """The halves that wait, of one answer.

    Args:
        waits: False where nothing comes after: then a first half at an end is U+FFFD as well.
    """

    def __init__(self, *, waits: bool = True) -> None:
        self._waits = waits
        self._waiting: dict[_Path, str] = {}

    @property
    def are_waiting(self) -> bool:
        return bool(self._waiting)

    def join(self, event: Event) -> Event:
        """The event with whole characters only: a first half at an end is kept back, a second half has its
        first put before it, and what has no other half is U+FFFD."""
        joined: Event = self._joined(event, (), _EVENT_PLACE)
        return joined

    def rest(self) -> list[Event]:
        """The halves that still wait when the answer ends, each as an event of its own."""
        events = [_event_with("\ufffd", path) for path in self._waiting]
        self._waiting = {}
        return events

    def _joined(self, value: Any, path: _Path, place: tuple[str, ...] = _PART_PLACE) -> Any:
        if isinstance(value, str):
            return self._text(value, path)
        if isinstance(value, list):
            return [
                self._joined(item, (*path, None if isinstance(item, dict) and "index" in item else position))
                for position, item in enumerate(value)
            ]
        if isinstance(value, dict):
            here = tuple((name, value[name]) for name in place if isinstance(value.get(name), str | int))
            return {whole(name): self._joined(item, (*path, (here, name))) for name, item in value.items()}
        return value

    def _text(self, text: str, path: _Path) -> str:
        first = self._waiting.get(path)
        if first is not None and text:
            del self._waiting[path]
            text = first + text
        if self._waits and text and "\ud800" <= text[-1] <= "\udbff":
            self._waiting[path] = text[-1]
            text = text[:-1]
        return whole(text)


def whole(text: str) -> str:
    """The text with each pair as one character, and U+FFFD for what has no other half."""
    if text.isascii():
        return text
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _event_with(text: str, path: _Path) -> Event:
    value: Any = text
    for step in reversed(path):
        value = {**dict(step[0]), step[1]: value} if isinstance(step, tuple) else [value]
    event: Event = value
    return event
