"""The event types of the Responses API, and how we write an event of ours.

Source of the list: OpenAI's published specification, `ResponseStreamEvent` (2026-08). The official Node
client throws on a type that it does not know, so nothing outside this list is ever stored.
"""

from __future__ import annotations

import json
from typing import Any

import orjson

from gateway.wire.answers.halves import Halves
from gateway.wire.sse import encode

LIFECYCLE = frozenset({"response.created", "response.queued", "response.in_progress"})
"""Sent by the gateway itself; a backend's own are read for what they say, and not passed on."""

ENDINGS = frozenset({"response.completed", "response.failed", "response.incomplete"})
"""The last event of a stream, as the specification has it."""

TERMINAL = ENDINGS | {"response.cancelled", "response.done", "response.requires_action"}
"""Last events of backends' streams; `answers.endings` has their meaning."""

ITEM_EVENTS = {
    f"response.{item_type}{ending}": item_type
    for item_type, endings in {
        "web_search_call": (".in_progress", ".searching", ".completed"),
        "file_search_call": (".in_progress", ".searching", ".completed"),
        "code_interpreter_call": (".in_progress", ".interpreting", ".completed"),
        "image_generation_call": (".in_progress", ".generating", ".partial_image", ".completed"),
        "mcp_call": (".in_progress", ".completed", ".failed"),
        "mcp_list_tools": (".in_progress", ".completed", ".failed"),
    }.items()
    for ending in endings
}
"""Events about what an item is doing, with its type: passed on with the right index."""

AUDIO_EVENTS = frozenset(
    {
        "response.audio.delta",
        "response.audio.done",
        "response.audio.transcript.delta",
        "response.audio.transcript.done",
    }
)
"""Events that belong to no item."""

Event = dict[str, Any]

# Line ends to Python's str.splitlines (and so to some event-stream readers), but not to the standard.
_LINE_SEPARATORS = (
    ("\u2028".encode(), b"\\u2028"),
    ("\u2029".encode(), b"\\u2029"),
    ("\u0085".encode(), b"\\u0085"),
)


def frame(event: Event, sequence_number: int) -> bytes:
    """The event as it goes to disk and to every reader: these bytes, never made again."""
    event["sequence_number"] = sequence_number
    json = to_json({"type": event["type"], "sequence_number": sequence_number, **event})
    return encode(event["type"], json)


def to_json(value: dict[str, Any]) -> bytes:
    """One line, for whatever a reader takes for the end of one."""
    json = orjson.dumps(value)
    if not json.isascii():
        for raw, escaped in _LINE_SEPARATORS:
            json = json.replace(raw, escaped)
    return json


def has_line_separator(json: bytes) -> bool:
    """Whether something in it is written in another way than orjson does."""
    return not json.isascii() and any(raw in json for raw, _ in _LINE_SEPARATORS)


def is_writable(value: Any) -> bool:
    """True if what was read can be written again: it may be nested too deeply for that."""
    try:
        orjson.dumps(value)
    except TypeError:
        return False
    return True


def parse(data: bytes, halves: Halves | None = None) -> Event | None:
    """The event in a frame's data, or None if it is no JSON object.

    Invalid UTF-8 is repaired with U+FFFD, as the HTML standard asks of an event-stream reader.

    Args:
        halves: Of the same answer, where a character may be cut over two events.
    """
    try:
        event = orjson.loads(data)
        is_damaged = False
    except orjson.JSONDecodeError:
        try:
            event = json.loads(data.decode("utf-8", "replace"), parse_constant=lambda _: None)
        except (ValueError, RecursionError):
            return None
        is_damaged = True  # what servers write that JSON does not have: Python's NaN, half a surrogate pair
    if not isinstance(event, dict):
        return None
    if is_damaged or (halves is not None and halves.are_waiting):
        try:
            event = (halves or Halves(waits=False)).join(event)
        except RecursionError:
            return None
        return event if is_writable(event) else None  # how deep Python itself reads differs by its version
    return event
