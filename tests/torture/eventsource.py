"""Event streams as the HTML standard interprets them (section 9.2.6), and as careless readers do.

Written from the standard's text and nothing else, so that it can judge what the gateway writes.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Event:
    """What is dispatched. `type`: "message" where nothing named it."""

    type: str
    data: str


@dataclass(slots=True)
class Reading:
    """What a reader makes of a stream.

    Attributes:
        fields: Names of all fields that were met, unknown ones included.
        left: Whether the stream ended within an event, which is then not dispatched.
    """

    events: list[Event] = field(default_factory=list)
    fields: set[str] = field(default_factory=set)
    left: bool = False


def read(stream: bytes) -> Reading:
    """As the standard has it: a line ends with CR LF, LF or CR."""
    return _interpret(re.split("\r\n|\n|\r", _text(stream)))


def read_carelessly(stream: bytes) -> Reading:
    """With every line's end that Unicode has: U+2028, U+0085, form feed and the rest."""
    return _interpret([*_text(stream).splitlines(), ""])


def _text(stream: bytes) -> str:
    return stream.decode("utf-8", "replace").removeprefix("\ufeff")


def _interpret(lines: list[str]) -> Reading:
    reading = Reading()
    kind, data, has_data = "", "", False
    for line in lines[:-1]:
        if not line:
            if has_data:
                reading.events.append(Event(kind or "message", data.removesuffix("\n")))
            kind, data, has_data = "", "", False
            continue
        if line.startswith(":"):
            continue
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        reading.fields.add(name)
        if name == "event":
            kind = value
        elif name == "data":
            data, has_data = f"{data}{value}\n", True
    reading.left = has_data or bool(kind) or bool(lines[-1])
    return reading
