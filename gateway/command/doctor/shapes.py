"""The requests that the doctor makes, and what is read of answers, in both APIs. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson

from gateway.wire.failures import error_in
from gateway.wire.failures.errorbody import readable_words, said_in
from gateway.wire.failures.redaction import blotted
from gateway.wire.speech import Api

ROUTES = {Api.RESPONSES: "/responses", Api.CHAT: "/chat/completions"}

_TOOL = "weather_in"
_PARAMETERS = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
_PROPERTIES = {"city": {"type": "string"}, "rains": {"type": "boolean"}}
_SCHEMA = {
    "type": "object",
    "properties": _PROPERTIES,
    "required": ["city", "rains"],
    "additionalProperties": False,
}
_WORDS_MAX = 200
_NOT_VALID = "validation error"
"""In what llama-cpp-python says, with status 500, of fields and roles that it does not know."""


@dataclass(frozen=True, slots=True)
class ProbeRequest:
    """One request.

    Attributes:
        messages: Roles and texts.
        tokens: Of the answer at most.
        wants_usage: Chat: `stream_options` ask for the usage.
        more: Fields of one engine.
    """

    messages: Sequence[tuple[str, str]]
    tokens: int
    has_tool: bool = False
    has_schema: bool = False
    wants_usage: bool = True
    more: dict[str, Any] = field(default_factory=dict)


def body_of(ask: ProbeRequest, api: Api, model: str, max_tokens_field: str) -> dict[str, Any]:
    """A streamed request for it."""
    turns = [{"role": role, "content": text} for role, text in ask.messages]
    if api is Api.CHAT:
        body: dict[str, Any] = {
            "model": model,
            "messages": turns,
            max_tokens_field: ask.tokens,
            "stream": True,
        }
        if ask.wants_usage:
            body["stream_options"] = {"include_usage": True}
        if ask.has_tool:
            body["tools"] = [{"type": "function", "function": {"name": _TOOL, "parameters": _PARAMETERS}}]
        if ask.has_schema:
            schema = {"name": "answer", "schema": _SCHEMA, "strict": True}
            body["response_format"] = {"type": "json_schema", "json_schema": schema}
        return {**body, **ask.more}
    items = [
        _said(turn["content"], n) if turn["role"] == "assistant" else turn for n, turn in enumerate(turns)
    ]
    body = {"model": model, "input": items, "max_output_tokens": ask.tokens, "stream": True, "store": False}
    if ask.has_tool:
        body["tools"] = [{"type": "function", "name": _TOOL, "parameters": _PARAMETERS, "strict": False}]
    if ask.has_schema:
        body["text"] = {
            "format": {"type": "json_schema", "name": "answer", "schema": _SCHEMA, "strict": True}
        }
    return {**body, **ask.more}


def _said(text: str, number: int) -> dict[str, Any]:
    """An assistant's turn as the item that a response had: llama.cpp takes no other form."""
    part = {"type": "output_text", "text": text, "annotations": []}
    return {
        "type": "message",
        "id": f"msg_{number}",
        "role": "assistant",
        "status": "completed",
        "content": [part],
    }


def fits_schema(text: str) -> bool:
    """Whether a text is what `has_schema` asks for."""
    try:
        said = orjson.loads(text)
    except orjson.JSONDecodeError:
        return False
    return (
        isinstance(said, dict)
        and said.keys() == _PROPERTIES.keys()
        and isinstance(said["city"], str)
        and isinstance(said["rains"], bool)
    )


@dataclass(slots=True)
class ProbeAnswer:
    """What came back.

    Attributes:
        status: None: nothing did, and `words` say why.
        pieces: In how many pieces its text came.
        words: Of an error, without addresses and keys.
        is_broken: They are ours: no answer came, or not to its end.
        first_s, took_s: To the first piece, and to the end.
    """

    status: int | None = None
    is_stream: bool = False
    pieces: int = 0
    text: str = ""
    thoughts: str = ""
    calls: list[str] = field(default_factory=list)
    has_usage: bool = False
    words: str = ""
    is_broken: bool = False
    first_s: float = 0.0
    took_s: float = 0.0

    @property
    def is_good(self) -> bool:
        """It is an answer, and no error."""
        return self.status == 200 and not self.words

    @property
    def is_refusal(self) -> bool:
        """The server does not do what it was asked; it is not only busy, or in trouble."""
        is_busy = self.status is None or self.status in (408, 429) or self.status >= 500
        is_busy = is_busy and not (self.status == 500 and _NOT_VALID in self.words)
        return bool(self.words) and not self.is_broken and not is_busy

    def refused(self, status: int, body: bytes) -> None:
        """Take in an error answer."""
        try:
            words = said_in(orjson.loads(body)).words
        except orjson.JSONDecodeError:
            words = readable_words(body)
        self.status, self.words = status, shown(words or f"status {status} without a word")

    def take(self, value: Any, api: Api) -> bool:
        """Take in a piece of a stream, or a whole answer; whether it had text."""
        if (error := error_in(value)) is not None:
            self.words = shown(said_in(error).words or "an error without a word")
            return False
        if not isinstance(value, dict):
            return False
        return self._take_chat(value) if api is Api.CHAT else self._take_event(value)

    def _take_chat(self, value: dict[str, Any]) -> bool:
        self.has_usage = self.has_usage or bool(value.get("usage"))
        choice = next((each for each in value.get("choices") or () if isinstance(each, dict)), {})
        said = choice.get("delta") or choice.get("message") or {}
        for call in said.get("tool_calls") or ():
            if name := (call.get("function") or {}).get("name"):
                self.calls.append(name)
        thought = said.get("reasoning_content") or said.get("reasoning")
        return self._add(said.get("content"), thought)

    def _take_event(self, value: dict[str, Any]) -> bool:
        kind, delta = value.get("type"), value.get("delta")
        if kind == "response.output_text.delta":
            return self._add(delta, None)
        if kind in ("response.reasoning_text.delta", "response.reasoning_summary_text.delta"):
            return self._add(None, delta)
        whole = value.get("response") if isinstance(value.get("response"), dict) else value
        assert isinstance(whole, dict)
        if kind == "response.failed":
            self.words = shown(said_in(whole.get("error")).words or "it failed without a word")
        if kind in ("response.completed", "response.incomplete") or whole.get("object") == "response":
            self.has_usage = self.has_usage or bool(whole.get("usage"))
            self._take_items(whole.get("output"))
        return False

    def _take_items(self, output: Any) -> None:
        items = [item for item in output or () if isinstance(item, dict)]
        self.calls += [item.get("name", "") for item in items if item.get("type") == "function_call"]
        if not self.text:
            parts = [part for item in items for part in item.get("content") or () if isinstance(part, dict)]
            self.text = "".join(part.get("text") or "" for part in parts if part.get("type") == "output_text")

    def _add(self, text: Any, thought: Any) -> bool:
        self.text += text if isinstance(text, str) else ""
        self.thoughts += thought if isinstance(thought, str) else ""
        has_any = bool((isinstance(text, str) and text) or (isinstance(thought, str) and thought))
        self.pieces += has_any
        return has_any


def shown(words: str) -> str:
    """Words of a backend, on a line, without addresses and keys."""
    clean = " ".join(blotted(words).split())
    return clean if len(clean) <= _WORDS_MAX else f"{clean[:_WORDS_MAX]}…"
