"""Readers: answers of backends, in any API, as events of the Responses API.

A reader is given the data of each frame, or a whole answer, and says which events it means. They need not be
whole or well-formed: that is the normaliser's work.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Protocol

import orjson

from gateway.wire import events as wire_events
from gateway.wire.answers.halves import Halves
from gateway.wire.answers.notices import Notice
from gateway.wire.answers.text import Sinks
from gateway.wire.chat.stream import ChatStream
from gateway.wire.chat.tools import Tools
from gateway.wire.events import Event
from gateway.wire.failures import error_in
from gateway.wire.sse import Frame

_DONE = b"[DONE]"


class NotAnEvent(Exception):
    """The backend sent something that its API does not have; the message is for the client."""


_NOT_JSON = "The backend sent an event that is not a JSON object."
_NOT_AN_ANSWER = "The backend's answer is neither an event stream nor an object of its API."


class AnswerReader(Protocol):
    """One answer of a backend."""

    @property
    def notices(self) -> Collection[Notice]:
        """Notices for the operator, so far."""

    def read(self, frame: Frame) -> list[Event]:
        """The events that a frame means. Raises: NotAnEvent."""

    def answer(self, body: bytes) -> list[Event]:
        """The events that an answer which is no stream means. Raises: NotAnEvent."""

    def end(self) -> list[Event]:
        """The events that the end of the stream means."""

    def echo(self) -> Sinks | None:
        """Who is told of one more text in a frame that is otherwise like the last one, whose one event was a
        delta, or which said nothing; None if it has to read that frame."""


_NAMES = {
    # OpenAI's own before 2025-06, Volcano Ark
    "response.reasoning.delta": "response.reasoning_text.delta",
    "response.reasoning.done": "response.reasoning_text.done",
    "response.reasoning_summary.delta": "response.reasoning_summary_text.delta",
    "response.reasoning_summary.done": "response.reasoning_summary_text.done",
    # gateways that go by the field of chat completions
    "response.reasoning_content.delta": "response.reasoning_text.delta",
    "response.reasoning_content.done": "response.reasoning_text.done",
    # OpenAI's Realtime API, and who follows it
    "response.output_audio.delta": "response.audio.delta",
    "response.output_audio.done": "response.audio.done",
    "response.output_audio_transcript.delta": "response.audio.transcript.delta",
    "response.output_audio_transcript.done": "response.audio.transcript.done",
}
"""Events by other names than the specification's, with their names there."""


class ResponsesReader:
    """A backend that speaks the Responses API, more or less."""

    notices: Collection[Notice] = ()

    def __init__(self) -> None:
        self._halves = Halves()

    def read(self, frame: Frame) -> list[Event]:
        if frame.event == "error":
            return [_error(frame.data)]
        if frame.data.strip() in (b"", _DONE):  # some keep a connection alive by events without data
            return []
        event = wire_events.parse(frame.data, self._halves)
        if event is None:
            raise NotAnEvent(_NOT_JSON)
        kind = event.get("type") or frame.event
        is_known = isinstance(kind, str) and kind.startswith("response.") and kind != "response.error"
        if not is_known and (error := error_in(event)):
            return [{"type": "error", "error": error}]
        if not isinstance(kind, str):
            return []
        event["type"] = _NAMES.get(kind, kind)
        if isinstance(delta := event.get("delta"), dict) and kind in _NAMES:
            event["delta"] = delta.get("text")
        return [event]

    def answer(self, body: bytes) -> list[Event]:
        answer = wire_events.parse(body)
        if answer is None or not (
            answer.get("object") == "response" or isinstance(answer.get("output"), list)
        ):
            return [_error_or_nothing(body)]
        return [{"type": "response.completed", "response": answer}]

    def end(self) -> list[Event]:
        return []

    def echo(self) -> Sinks | None:
        return None if self._halves.are_waiting else ()


class ChatReader:
    """A backend that speaks chat completions."""

    def __init__(self, response_id: str, tools: Tools | None = None, *, think_tags: bool = False) -> None:
        self._stream = ChatStream(response_id, tools or Tools(), think_tags=think_tags)
        self._halves = Halves()
        self._has_failed = False

    @property
    def notices(self) -> Collection[Notice]:
        return self._stream.notices

    @property
    def reasoning_field(self) -> str | None:
        """Where the backend has its thoughts; None if there were none."""
        return self._stream.reasoning_field

    def read(self, frame: Frame) -> list[Event]:
        if frame.event == "error":
            return self._broken(_error(frame.data))
        if frame.data.strip() == _DONE:
            return self._end(is_done=True)
        if not frame.data.strip():  # some keep a connection alive by events without data
            return []
        chunk = wire_events.parse(frame.data, self._halves)
        if chunk is None:
            raise NotAnEvent(_NOT_JSON)
        if error := error_in(chunk):
            before = self._stream.feed(chunk) if chunk.get("choices") else []  # what was said up to it
            return before + self._broken({"type": "error", "error": error})
        return self._stream.feed(chunk)

    def _broken(self, error: Event) -> list[Event]:
        self._has_failed = True
        return [error]

    def answer(self, body: bytes) -> list[Event]:
        answer = wire_events.parse(body)
        if answer is None or not any(
            isinstance(answer.get(name), list | dict) and answer[name] for name in ("choices", "message")
        ):
            return [_error_or_nothing(body)]
        if error := error_in(answer):
            return [{"type": "error", "error": error}]
        return self._stream.feed(answer) + self._stream.end(is_done=True, is_whole=True)

    def end(self) -> list[Event]:
        return self._end(is_done=False)

    def echo(self) -> Sinks | None:
        return None if self._halves.are_waiting else self._stream.echo()

    def _end(self, *, is_done: bool) -> list[Event]:
        if self._has_failed:
            return []
        events = [event for chunk in self._halves.rest() for event in self._stream.feed(chunk)]
        return events + self._stream.end(is_done=is_done)


def _error(data: bytes) -> Event:
    """The event in a frame of the name `error`, in whatever shape, or without any."""
    try:
        error = orjson.loads(data)
    except orjson.JSONDecodeError:
        error = data.decode("utf-8", "replace")
    return {"type": "error", "error": error}


def _error_or_nothing(body: bytes) -> Event:
    """The event that an answer means which is none. Raises: NotAnEvent."""
    try:
        error = error_in(orjson.loads(body))
    except orjson.JSONDecodeError:
        error = None
    if error is None:
        raise NotAnEvent(_NOT_AN_ANSWER)
    return {"type": "error", "error": error}
