"""A chat-completions stream as the item events of a response.

Says only what chat says: which item begins, its deltas, its end. Parts, done events, indexes and ids are the
normaliser's work, as for every backend. The ending waits for the end of the stream, since usage comes after
the finish reason.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import orjson

from gateway.wire.chat.fields import logprobs_of, object_of, objects_of, text_of, usage_of
from gateway.wire.chat.tools import CUSTOM_TOOL_ARGUMENT, Tools
from gateway.wire.events import Event

_INCOMPLETE = {
    "length": "max_output_tokens",
    "max_tokens": "max_output_tokens",  # names of other APIs, which some gateways let through
    "model_length": "max_output_tokens",
    "content_filter": "content_filter",
}
_TIERS = ("default", "flex", "scale", "priority", "fast", "ultrafast", "auto")
"""Some servers have tiers of their own, for which a response has no name."""

_BROKEN = frozenset({"abort", "error"})
"""Reasons that servers have of their own: the answer is not whole, through no limit of the request."""


@dataclass(slots=True)
class _Call:
    """A tool call that is being streamed; announced once its name is known."""

    item_id: str | None = None
    call_id: str | None = None
    name: str = ""
    arguments: list[str] = field(default_factory=list)
    is_custom: bool = False

    def is_whole(self) -> bool:
        try:
            return isinstance(orjson.loads("".join(self.arguments)), dict)
        except orjson.JSONDecodeError:
            return False


@dataclass(slots=True)
class _Message:
    """A message that is being streamed.

    Attributes:
        text, logprobs: Of the text part that is open.
    """

    item_id: str
    text: list[str] = field(default_factory=list)
    logprobs: list[Any] = field(default_factory=list)


class ChatStream:
    """Turns chunks into events.

    Args:
        tools: Those of the request, by the names that the backend was given.
    """

    def __init__(self, response_id: str, tools: Tools) -> None:
        self._seed = response_id.removeprefix("resp_")[:40]
        self._tools = tools
        self._count = 0
        self._reasoning: str | None = None
        self._message: _Message | None = None
        self._calls: dict[int, _Call] = {}
        self._finish_reason: str | None = None
        self._answer: dict[str, Any] = {}

    def feed(self, chunk: dict[str, Any]) -> list[Event]:
        """The events of one chunk."""
        for name, kind in (("model", str), ("usage", dict)):
            if isinstance(chunk.get(name), kind):
                self._answer[name] = chunk[name]
        if chunk.get("service_tier") in _TIERS:
            self._answer["service_tier"] = chunk["service_tier"]
        # Of several choices a response can show one.
        choice = next((c for c in objects_of(chunk.get("choices")) if not c.get("index")), None)
        if choice is None:
            return []
        if isinstance(choice.get("usage"), dict):
            self._answer["usage"] = choice["usage"]
        if isinstance(reason := choice.get("finish_reason"), str) and reason:
            self._finish_reason = reason
        delta = object_of(choice.get("delta") or choice.get("message"))
        events: list[Event] = []
        if thought := text_of(delta, "reasoning_content") or text_of(delta, "reasoning"):
            events += self._think(thought)
        events += self._say(text_of(delta, "content"), logprobs_of(choice))
        if refusal := text_of(delta, "refusal"):
            events += self._refuse(refusal)
        calls = objects_of(delta.get("tool_calls"))
        if not calls and isinstance(delta.get("function_call"), dict):  # before there were several
            calls = [{"index": 0, "function": delta["function_call"]}]
        for position, call in enumerate(calls):
            events += self._call(call, position)
        return events

    def end(self, *, default: str | None = None) -> list[Event]:
        """The last events, at the end of the stream; none if the backend never said why it stopped.

        Args:
            default: The finish reason of a backend that has said none.
        """
        finish, self._finish_reason = self._finish_reason or default, None
        if finish is None:
            return []
        if finish in _BROKEN:
            return [{"type": "error", "message": f"The backend gave up on the answer ({finish})."}]
        reason = _INCOMPLETE.get(finish)
        status = "incomplete" if reason else "completed"
        events = self._close_reasoning() + self._close_message(status)
        for call in self._calls.values():
            events += self._close_call(call, status)
        self._calls = {}
        answer = {**self._answer, "status": status, "usage": usage_of(self._answer.get("usage"))}
        if reason:
            answer["incomplete_details"] = {"reason": reason}
        return [*events, {"type": f"response.{status}", "response": answer}]

    def _open(self, prefix: str, item: dict[str, Any]) -> tuple[str, Event]:
        # Made up as the normaliser does it: the n-th item is n in both, so no two get the same id.
        item_id = f"{prefix}_{self._seed}{self._count:08x}"
        self._count += 1
        return item_id, {"type": "response.output_item.added", "item": {"id": item_id, **item}}

    # -- reasoning

    def _think(self, thought: str) -> list[Event]:
        events: list[Event] = []
        if self._reasoning is None:
            events += self._close_message("completed")
            self._reasoning, added = self._open("rs", {"type": "reasoning", "summary": [], "content": []})
            events.append(added)
        events.append({"type": "response.reasoning_text.delta", "item_id": self._reasoning, "delta": thought})
        return events

    def _close_reasoning(self) -> list[Event]:
        if self._reasoning is None:
            return []
        item = {"id": self._reasoning, "type": "reasoning"}
        self._reasoning = None
        return [{"type": "response.output_item.done", "item": item}]

    # -- message

    def _say(self, text: str, logprobs: list[Any]) -> list[Event]:
        if not text:
            if self._message is not None:  # half a character: its text comes with the next token
                self._message.logprobs += logprobs
            return []
        message, events = self._open_message()
        message.text.append(text)
        message.logprobs += logprobs
        event = {"type": "response.output_text.delta", "item_id": message.item_id, "delta": text}
        return [*events, {**event, "logprobs": logprobs}]

    def _refuse(self, refusal: str) -> list[Event]:
        message, events = self._open_message()
        events += self._close_text(message)
        event = {"type": "response.refusal.delta", "item_id": message.item_id, "delta": refusal}
        return [*events, event]

    def _open_message(self) -> tuple[_Message, list[Event]]:
        events = self._close_reasoning()
        if self._message is None:
            item_id, added = self._open("msg", {"type": "message", "role": "assistant", "content": []})
            self._message = _Message(item_id)
            events.append(added)
        return self._message, events

    def _close_text(self, message: _Message) -> list[Event]:
        """The end of a text part, said only where there is something to say: the logprobs of all of it."""
        text, logprobs = "".join(message.text), message.logprobs
        message.text, message.logprobs = [], []
        if not text or not logprobs:
            return []
        part = {"type": "output_text", "text": text, "logprobs": logprobs}
        place = {"item_id": message.item_id}
        return [
            {"type": "response.output_text.done", **place, "text": text, "logprobs": logprobs},
            {"type": "response.content_part.done", **place, "part": part},
        ]

    def _close_message(self, status: str) -> list[Event]:
        message, self._message = self._message, None
        if message is None:
            return []
        item = {"id": message.item_id, "type": "message", "status": status}
        return [*self._close_text(message), {"type": "response.output_item.done", "item": item}]

    # -- calls

    def _call(self, fragment: dict[str, Any], position: int) -> list[Event]:
        function = object_of(fragment.get("function"))
        given_id, name = text_of(fragment, "id"), text_of(function, "name")
        slot = self._slot(fragment.get("index"), given_id, name, position)
        call = self._calls.get(slot)
        events: list[Event] = []
        if call is not None and _is_another(call, given_id, name):
            events += self._close_call(self._calls.pop(slot), "completed")
            call = None
        if call is None:
            events += self._close_reasoning() + self._close_message("completed")
            call = self._calls[slot] = _Call()
        call.call_id = call.call_id or given_id or None
        call.name = call.name or name
        arguments = _arguments_of(function)
        if arguments:
            call.arguments.append(arguments)
        if not call.name:
            return events
        if call.item_id is None:
            events += self._open_call(call)
            arguments = "".join(call.arguments)
        if arguments and not call.is_custom:
            kind = "response.function_call_arguments.delta"
            events.append({"type": kind, "item_id": call.item_id, "delta": arguments})
        return events

    def _slot(self, index: Any, given_id: str, name: str, position: int) -> int:
        """Which call a fragment is about: by index, else by id, else by its place in the chunk."""
        if isinstance(index, int):
            return index
        if not name:
            for slot, call in self._calls.items():
                if given_id and call.call_id == given_id:
                    return slot
        return position

    def _open_call(self, call: _Call) -> list[Event]:
        item = self._tools.item_of(call.name)
        call.is_custom = item["type"] == "custom_tool_call"
        prefix = "ctc" if call.is_custom else "fc"
        if call.call_id:
            item["call_id"] = call.call_id
        call.item_id, added = self._open(prefix, item)
        return [added]

    def _close_call(self, call: _Call, status: str) -> list[Event]:
        events: list[Event] = []
        arguments = "".join(call.arguments)
        if call.item_id is None:
            if not arguments and not call.call_id:
                return []
            events += self._open_call(call)  # it never got a name; the client is shown what there is
        if call.is_whole():
            status = "completed"  # whatever was cut, it was not this call
        elif not arguments and status == "completed":
            arguments = "{}"
        text = {"input": _custom_input(arguments)} if call.is_custom else {"arguments": arguments}
        kind = "custom_tool_call" if call.is_custom else "function_call"
        item = {"id": call.item_id, "type": kind, "status": status, **text}
        return [*events, {"type": "response.output_item.done", "item": item}]


def _is_another(call: _Call, given_id: str, name: str) -> bool:
    """Whether a fragment begins another call. Some servers give every call the index 0, or none."""
    if not call.name or not (name or given_id):
        return False
    if given_id and call.call_id:
        return given_id != call.call_id and (bool(name) or call.is_whole())
    return bool(name) and (call.is_whole() or (name != call.name and not call.arguments))


def _arguments_of(function: dict[str, Any]) -> str:
    value = function.get("arguments")
    if value is None or isinstance(value, str):
        return value or ""
    return orjson.dumps(value).decode()  # an object, where the API says a string


def _custom_input(arguments: str) -> str:
    try:
        value = orjson.loads(arguments)
    except orjson.JSONDecodeError:
        return arguments
    text = value.get(CUSTOM_TOOL_ARGUMENT) if isinstance(value, dict) else None
    return text if isinstance(text, str) else arguments
