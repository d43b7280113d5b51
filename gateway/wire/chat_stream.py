"""A chat-completions stream as the item events of a response.

Says only what chat says: which item begins, its deltas, its end. Parts, done events, indexes and ids are the
normaliser's work, as for every backend. The ending waits for the end of the stream, since usage comes after
the finish reason.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import orjson

from gateway.wire.chat_request import CUSTOM_TOOL_ARGUMENT
from gateway.wire.events import Event

_INCOMPLETE = {"length": "max_output_tokens", "content_filter": "content_filter"}


@dataclass(slots=True)
class _Call:
    """A tool call that is being streamed; announced once its name is known."""

    item_id: str
    call_id: str | None = None
    name: str = ""
    arguments: list[str] = field(default_factory=list)
    is_custom: bool = False
    is_open: bool = False


class ChatStream:
    """Turns chunks into events.

    Args:
        custom_tools: Names of custom tools, which the backend was given as functions.
    """

    def __init__(self, response_id: str, custom_tools: frozenset[str]) -> None:
        self._seed = response_id.removeprefix("resp_")[:40]
        self._custom_tools = custom_tools
        self._count = 0
        self._reasoning: str | None = None
        self._message: str | None = None
        self._logprobs: list[Any] = []
        self._text: list[str] = []
        self._calls: dict[int, _Call] = {}
        self._finish_reason: str | None = None
        self._answer: dict[str, Any] = {}

    def feed(self, chunk: dict[str, Any]) -> list[Event]:
        """The events of one chunk."""
        for name in ("model", "service_tier", "usage"):
            if chunk.get(name) is not None:
                self._answer[name] = chunk[name]
        choices = chunk.get("choices")
        choice = next((c for c in choices or [] if isinstance(c, dict) and not c.get("index")), None)
        if choice is None:
            return []
        events: list[Event] = []
        delta = choice.get("delta") or choice.get("message") or {}
        if thought := _text_of(delta, "reasoning_content") or _text_of(delta, "reasoning"):
            events += self._think(thought)
        if text := _text_of(delta, "content"):
            events += self._speak("response.output_text.delta", text, choice.get("logprobs"))
        if refusal := _text_of(delta, "refusal"):
            events += self._speak("response.refusal.delta", refusal, None)
        calls = delta.get("tool_calls")
        if not calls and delta.get("function_call"):  # before there were several
            calls = [{"index": 0, "function": delta["function_call"]}]
        for position, call in enumerate(calls or []):
            events += self._call(call, position)
        self._finish_reason = choice.get("finish_reason") or self._finish_reason
        return events

    def end(self) -> list[Event]:
        """The last events, at the end of the stream; none if the backend never said why it stopped."""
        if self._finish_reason is None:
            return []
        reason = _INCOMPLETE.get(self._finish_reason)
        status = "incomplete" if reason else "completed"
        events = self._close_reasoning()
        events += self._close_message(status)
        for call in self._calls.values():
            events += self._close_call(call, status)
        answer: dict[str, Any] = {
            **self._answer,
            "status": status,
            "usage": _usage(self._answer.get("usage")),
        }
        if reason:
            answer["incomplete_details"] = {"reason": reason}
        self._finish_reason = None
        return [*events, {"type": f"response.{status}", "response": answer}]

    def _new_id(self, prefix: str) -> str:
        self._count += 1
        return f"{prefix}_{self._seed}{self._count - 1:08x}"

    def _think(self, thought: str) -> list[Event]:
        events: list[Event] = []
        if self._reasoning is None:
            events += self._close_message("completed")
            self._reasoning = self._new_id("rs")
            item = {"id": self._reasoning, "type": "reasoning", "summary": [], "content": []}
            events.append({"type": "response.output_item.added", "item": item})
        events.append({"type": "response.reasoning_text.delta", "item_id": self._reasoning, "delta": thought})
        return events

    def _speak(self, kind: str, text: str, logprobs: Any) -> list[Event]:
        events = self._close_reasoning()
        if self._message is None:
            self._message = self._new_id("msg")
            item = {"id": self._message, "type": "message", "role": "assistant", "content": []}
            events.append({"type": "response.output_item.added", "item": item})
        event: Event = {"type": kind, "item_id": self._message, "delta": text}
        if isinstance(logprobs, dict) and logprobs.get("content"):
            event["logprobs"] = [_logprob(entry) for entry in logprobs["content"]]
            self._logprobs += event["logprobs"]
        self._text.append(text)
        return [*events, event]

    def _call(self, fragment: dict[str, Any], position: int) -> list[Event]:
        index = fragment.get("index")
        index = index if isinstance(index, int) else position
        function = fragment.get("function") or {}
        call = self._calls.get(index)
        events: list[Event] = []
        if (
            call is not None
            and fragment.get("id")
            and function.get("name")
            and fragment["id"] != call.call_id
        ):
            # Some servers give every call the index 0: a new id with a new name is a new call.
            events += self._close_call(self._calls.pop(index), "completed")
            call = None
        if call is None:
            events += self._close_reasoning() + self._close_message("completed")
            call = self._calls[index] = _Call(self._new_id("fc"))
        call.call_id = call.call_id or fragment.get("id")
        call.name = call.name or function.get("name") or ""
        arguments = function.get("arguments")
        if isinstance(arguments, dict):  # an object, where the API says a string
            arguments = orjson.dumps(arguments).decode()
        if arguments:
            call.arguments.append(arguments)
        if not call.name:
            return events
        if not call.is_open:
            events += self._open_call(call)
            arguments = "".join(call.arguments)
        if arguments and not call.is_custom:
            events.append(
                {
                    "type": "response.function_call_arguments.delta",
                    "item_id": call.item_id,
                    "delta": arguments,
                }
            )
        return events

    def _open_call(self, call: _Call) -> list[Event]:
        call.is_open = True
        call.is_custom = call.name in self._custom_tools
        kind = "custom_tool_call" if call.is_custom else "function_call"
        call_id = call.call_id or f"call_{call.item_id.removeprefix('fc_')}"
        item = {"id": call.item_id, "type": kind, "call_id": call_id, "name": call.name}
        return [{"type": "response.output_item.added", "item": item}]

    def _close_call(self, call: _Call, status: str) -> list[Event]:
        if not call.is_open:
            return []
        item: dict[str, Any] = {"id": call.item_id, "type": "function_call", "status": status}
        if call.is_custom:
            item |= {"type": "custom_tool_call", "input": _custom_input("".join(call.arguments))}
        elif not call.arguments:
            item["arguments"] = "{}"
        call.is_open = False
        return [{"type": "response.output_item.done", "item": item}]

    def _close_reasoning(self) -> list[Event]:
        if self._reasoning is None:
            return []
        item = {"id": self._reasoning, "type": "reasoning"}
        self._reasoning = None
        return [{"type": "response.output_item.done", "item": item}]

    def _close_message(self, status: str) -> list[Event]:
        if self._message is None:
            return []
        item: dict[str, Any] = {"id": self._message, "type": "message", "status": status}
        if self._logprobs:
            text = "".join(self._text)
            item["content"] = [{"type": "output_text", "text": text, "logprobs": self._logprobs}]
        self._message, self._logprobs, self._text = None, [], []
        return [{"type": "response.output_item.done", "item": item}]


def _text_of(delta: dict[str, Any], name: str) -> str | None:
    value = delta.get(name)
    return value if isinstance(value, str) and value else None


def _custom_input(arguments: str) -> str:
    try:
        value = orjson.loads(arguments)
    except orjson.JSONDecodeError:
        return arguments
    text = value.get(CUSTOM_TOOL_ARGUMENT) if isinstance(value, dict) else None
    return text if isinstance(text, str) else arguments


def _logprob(entry: dict[str, Any]) -> dict[str, Any]:
    return {
        "token": entry.get("token", ""),
        "bytes": entry.get("bytes") or [],
        "logprob": entry.get("logprob", 0.0),
        "top_logprobs": [
            {
                "token": top.get("token", ""),
                "bytes": top.get("bytes") or [],
                "logprob": top.get("logprob", 0.0),
            }
            for top in entry.get("top_logprobs") or []
        ],
    }


def _usage(usage: Any) -> dict[str, Any] | None:
    if not isinstance(usage, dict):
        return None
    prompt = usage.get("prompt_tokens_details") or {}
    completion = usage.get("completion_tokens_details") or {}
    return {
        "input_tokens": usage.get("prompt_tokens") or 0,
        "output_tokens": usage.get("completion_tokens") or 0,
        "total_tokens": usage.get("total_tokens"),
        "input_tokens_details": {"cached_tokens": prompt.get("cached_tokens") or 0},
        "output_tokens_details": {"reasoning_tokens": completion.get("reasoning_tokens") or 0},
    }
