"""Deltas that are like the one before them but for their text: read and written without JSON.

Nearly all that a backend sends are such. The reader and the normaliser make an event of the first one, and
from what came and what was told of it a pattern is learned: constant bytes around a text and a number or two.
What matches it can mean nothing else, in the same place of the same answer; whatever does not goes the long
way, which stays the reference (tests/core/test_echo.py holds the two to be equal).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import orjson

from gateway.wire.answers.text import Sinks, Text
from gateway.wire.chat.chunks import TEXT_FIELDS
from gateway.wire.events import Event, frame, has_line_separator
from gateway.wire.sse import Frame, data_of

_TEXT = rb'[^"\\\x00-\x1f]*(?:\\["\\bfnrt][^"\\\x00-\x1f]*)*'
"""Of a JSON string: what orjson writes as it came."""
_NUMBER = rb"(?:0|[1-9][0-9]{0,15})"
_TOKEN = re.compile(
    rb'"(delta|content|reasoning_content|reasoning|obfuscation)":[ ]?"(%b)"'
    rb'|"(sequence_number|created)":[ ]?(%b)(?=[,}])' % (_TEXT, _NUMBER)
)
"""A key cannot be found within a string: there its quotes would be escaped."""
_Match = Callable[[bytes, int], re.Match[bytes] | None]
_MATCH_TEXT: _Match = re.compile(_TEXT).match
_MATCH_NUMBER: _Match = re.compile(_NUMBER).match
_Step = tuple[bytes, _Match, bool]
_BACKSLASH = ord("\\")  # it is found sooner than b"\\"

_PROBE = "~any text~"
_ANY_NUMBER = 9_007_199_254_740_881
_TRIES_MAX = 8
"""Patterns in a row that may match nothing; then no more are learned."""
_PASSED_OVER = {"obfuscation": _PROBE, "sequence_number": _ANY_NUMBER, "created": _ANY_NUMBER}
"""Fields that differ from event to event, and that nobody is told of."""


class Echo:
    """What all deltas of one text have in common.

    Args:
        name: Of the frame.
        steps: Constant bytes, and what stands behind each: the text, or what is passed over.
        written: The event as it is stored, around its number and its text.
        may_be_empty: A delta without text is told, too: so it is in the Responses API, not in chat.
        sinks: Whoever keeps the text.
    """

    def __init__(
        self,
        name: str,
        steps: list[_Step],
        last: bytes,
        written: tuple[bytes, bytes, bytes],
        sinks: Sinks,
        *,
        may_be_empty: bool,
    ) -> None:
        self._name = name
        self._steps = steps
        self._last = last
        self._written = written
        self._sinks = sinks
        self._may_be_empty = may_be_empty

    def take(self, frame: Frame, sequence_number: int) -> tuple[bytes, str] | None:
        """The event that a frame means, as it is stored, and its text; None if it is not like the others."""
        data, at, raw = frame.data, 0, b""
        for constant, match, is_text in self._steps:
            if not data.startswith(constant, at):
                return None
            at += len(constant)
            found = match(data, at)
            if found is None:
                return None
            if is_text:
                raw = found[0]
            at = found.end()
        if data[at:] != self._last or frame.event != self._name or not (raw or self._may_be_empty):
            return None
        if (text := _decoded(raw)) is None:
            return None
        for sink in self._sinks:
            sink(text)
        before, between, after = self._written
        return b"".join((before, b"%d" % sequence_number, between, raw, after)), text


class Echoes:
    """The pattern of an answer's last delta, while it is of use, and the last frame that said nothing."""

    def __init__(self) -> None:
        self._last: Echo | None = None
        self._silent: Frame | None = None
        self._tries_left = _TRIES_MAX

    def take(self, frame: Frame, sequence_number: int) -> tuple[bytes, str] | None:
        """As `Echo.take`; no bytes of a frame that says nothing."""
        if self._silent is not None and frame == self._silent:
            return b"", ""
        taken = self._last.take(frame, sequence_number) if self._last is not None else None
        if taken is not None:
            self._tries_left = _TRIES_MAX
        return taken

    def learn(self, came: Frame, told: Event, text: Text, sinks: Sinks) -> None:
        """As `learned`. The patterns of a backend whose deltas never match are not learned for ever."""
        if self._tries_left:
            self._tries_left -= 1
            self._last = learned(came, told, text, sinks)

    def learn_silence(self, came: Frame) -> None:
        """It said nothing, and will say nothing again."""
        self._silent = came

    def forget(self) -> None:
        """Something else has come."""
        self._last = None


def learned(came: Frame, told: Event, text: Text, sinks: Sinks) -> Echo | None:
    """The pattern of a delta; None if it is not certain what in it is the text.

    Args:
        told: The one event that was made of it.
        text: That of which it is a piece.
        sinks: Who keeps it besides, in its reader.
    """
    if told.get("logprobs"):
        return None
    steps, last = _steps(came.data)
    if sum(is_text for _, _, is_text in steps) != 1:
        return None
    try:
        event = orjson.loads(came.data)
        probed = _probed(event, told["delta"])
        if probed is None or orjson.loads(_filled(steps, last)) != probed:
            return None
    except orjson.JSONDecodeError:
        return None
    written = frame({**told, "delta": _PROBE}, _ANY_NUMBER)
    before, *others = written.split(b"%d" % _ANY_NUMBER)
    between, *after = others[0].split(_PROBE.encode()) if len(others) == 1 else (b"", b"")
    if len(after) != 1 or orjson.loads(data_of(written))["delta"] != _PROBE:
        return None
    sinks, may_be_empty = (*sinks, text.add), event.get("delta") == _PROBE
    return Echo(came.event, steps, last, (before, between, after[0]), sinks, may_be_empty=may_be_empty)


def _steps(data: bytes) -> tuple[list[_Step], bytes]:
    """What of a frame's data is constant, and what stands between; then the rest."""
    steps, at = [], 0
    for found in _TOKEN.finditer(data):
        group = 2 if found[1] else 4
        start, end = found.span(group)
        is_text = found[1] is not None and found[1] != b"obfuscation"
        if is_text and start == end and found[1] != b"delta":  # `"reasoning_content":""` beside the content
            continue
        steps.append((data[at:start], _MATCH_TEXT if found[1] else _MATCH_NUMBER, is_text))
        at = end
    return steps, data[at:]


def _filled(steps: list[_Step], last: bytes) -> bytes:
    probes = {_MATCH_TEXT: _PROBE.encode(), _MATCH_NUMBER: b"%d" % _ANY_NUMBER}
    return b"".join(constant + probes[match] for constant, match, _ in steps) + last


def _probed(event: dict[str, Any], text: str) -> dict[str, Any] | None:
    """The same event with other values where an answer's text, and what is passed over, can stand."""
    place = event
    match event:
        case {"choices": [{"delta": dict(found)}]}:
            place = found
    names = [name for name in ("delta", *TEXT_FIELDS) if place.get(name) == text]
    if len(names) != 1:
        return None
    place[names[0]] = _PROBE
    for name, probe in _PASSED_OVER.items():
        if name in event:
            event[name] = probe
    return event


def _decoded(raw: bytes) -> str | None:
    """The text that JSON has; None if it is none, or would be written in another way."""
    if raw.isascii():
        return raw.decode() if _BACKSLASH not in raw else str(orjson.loads(b'"%b"' % raw))
    try:
        text = str(orjson.loads(b'"%b"' % raw))
    except orjson.JSONDecodeError:
        return None
    return None if has_line_separator(raw) else text
