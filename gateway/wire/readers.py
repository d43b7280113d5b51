"""What backends send, in whichever API they speak, as events of the Responses API.

A reader is given the data of each frame, or a whole answer, and says which events it means. They need not be
whole or well-formed: that is the normaliser's work.
"""

from __future__ import annotations

from typing import Any, Protocol

from gateway.wire import events as wire_events
from gateway.wire.chat.stream import ChatStream
from gateway.wire.chat.tools import Tools
from gateway.wire.events import Event
from gateway.wire.halves import Halves
from gateway.wire.sse import Frame

_DONE = b"[DONE]"


class NotAnEvent(Exception):
    """The backend sent something that its API does not have; the message is for the client."""


_NOT_JSON = "The backend sent an event that is not a JSON object."
_NOT_AN_ANSWER = "The backend's answer is neither an event stream nor an object of its API."


class Reader(Protocol):
    """One answer of a backend."""

    def read(self, frame: Frame) -> list[Event]:
        """The events that a frame means. Raises: NotAnEvent."""

    def answer(self, body: bytes) -> list[Event]:
        """The events that an answer which is no stream means. Raises: NotAnEvent."""

    def end(self) -> list[Event]:
        """The events that the end of the stream means."""


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

    def __init__(self) -> None:
        self._halves = Halves()

    def read(self, frame: Frame) -> list[Event]:
        if frame.data.strip() in (b"", _DONE):  # some keep a connection alive by events without data
            return []
        event = wire_events.parse(frame.data, self._halves)
        if event is None:
            raise NotAnEvent(_NOT_JSON)
        kind = event.get("type") or frame.event
        if not isinstance(kind, str):
            return []
        event["type"] = _NAMES.get(kind, kind)
        if isinstance(delta := event.get("delta"), dict) and kind in _NAMES:
            event["delta"] = delta.get("text")
        return [event]

    def answer(self, body: bytes) -> list[Event]:
        answer = wire_events.parse(body)
        if answer is not None and _is_error(answer):
            return [{**answer, "type": "error"}]
        if answer is None or not (
            answer.get("object") == "response" or isinstance(answer.get("output"), list)
        ):
            raise NotAnEvent(_NOT_AN_ANSWER)
        return [{"type": "response.completed", "response": answer}]

    def end(self) -> list[Event]:
        return []


class ChatReader:
    """A backend that speaks chat completions."""

    def __init__(self, response_id: str, tools: Tools | None = None) -> None:
        self._stream = ChatStream(response_id, tools or Tools())

    def read(self, frame: Frame) -> list[Event]:
        if frame.data.strip() == _DONE:
            return self._stream.end()
        if not frame.data.strip():  # some keep a connection alive by events without data
            return []
        chunk = wire_events.parse(frame.data)
        if chunk is None:
            raise NotAnEvent(_NOT_JSON)
        if _is_error(chunk) or frame.event == "error":
            return [{**chunk, "type": "error"}]
        return self._stream.feed(chunk)

    def answer(self, body: bytes) -> list[Event]:
        answer = wire_events.parse(body)
        if answer is not None and _is_error(answer):
            return [{**answer, "type": "error"}]
        if answer is None or not isinstance(answer.get("choices"), list) or not answer["choices"]:
            raise NotAnEvent(_NOT_AN_ANSWER)
        events = self._stream.feed(answer)
        return events + self._stream.end(default="stop")  # it is whole, whether or not it says so

    def end(self) -> list[Event]:
        return self._stream.end()


def _is_error(chunk: dict[str, Any]) -> bool:
    """Whether an object is an error: nested, as OpenAI sends it, or flat, as vLLM once did."""
    return bool(chunk.get("error")) or chunk.get("object") == "error"
