"""A Responses request as a chat-completions request, for backends that speak only that.

What has a counterpart is mapped; what has none is refused with the field's name, never dropped in silence.
Fields that neither API knows (`top_k`, `chat_template_kwargs`, …) go along as they are.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import orjson

from gateway.wire.chat_messages import messages_of
from gateway.wire.errors import Refusal, invalid

Body = dict[str, Any]

CUSTOM_TOOL_ARGUMENT = "input"
"""A custom tool takes one text; as a function it takes an object with this one string."""

_UNSUPPORTED = ("conversation", "prompt", "context_management")
_MAPPED = frozenset(
    {
        "background",
        "include",
        "input",
        "instructions",
        "max_output_tokens",
        "max_tool_calls",  # of built-in tools only, of which a chat backend has none
        "previous_response_id",
        "reasoning",
        "store",  # the gateway is the store
        "stream",
        "stream_options",
        "text",
        "tool_choice",
        "tools",
        "top_logprobs",
        "truncation",
        *_UNSUPPORTED,
    }
)


@dataclass(frozen=True, slots=True)
class ChatOptions:
    """How one backend's chat API differs from the next one's.

    Attributes:
        has_developer_role: It knows the role `developer`; else such messages go as `system`.
        max_tokens_field: Its name for the limit on generated tokens.
        reasoning_field: Where earlier reasoning goes in an assistant message; None: nowhere.
    """

    has_developer_role: bool = False
    max_tokens_field: str = "max_tokens"
    reasoning_field: str | None = None


def chat_body(body: Body, *, input: Any, options: ChatOptions) -> bytes:
    """The chat request for a Responses request, streamed.

    Args:
        input: The items, those of earlier turns included.

    Raises:
        Refusal: A field or an item has no counterpart in chat completions.
    """
    _refuse_unsupported(body)
    call: Body = {name: value for name, value in body.items() if name not in _MAPPED and value is not None}
    call["messages"] = messages_of(
        body.get("instructions"),
        input,
        has_developer_role=options.has_developer_role,
        reasoning_field=options.reasoning_field,
    )
    call |= _tools(body)
    call |= _text(body.get("text") or {})
    if effort := (body.get("reasoning") or {}).get("effort"):
        call["reasoning_effort"] = effort
    if body.get("max_output_tokens") is not None:
        call[options.max_tokens_field] = body["max_output_tokens"]
    if body.get("top_logprobs") or "message.output_text.logprobs" in (body.get("include") or []):
        call["logprobs"] = True
        if body.get("top_logprobs"):
            call["top_logprobs"] = body["top_logprobs"]
    call["stream"] = True
    call["stream_options"] = {"include_usage": True}
    return orjson.dumps(call)


def custom_tools(body: Body) -> frozenset[str]:
    """The names of the custom tools of a request: a call of one comes back as a function call."""
    return frozenset(tool["name"] for tool in body.get("tools") or [] if tool.get("type") == "custom")


def _refuse_unsupported(body: Body) -> None:
    for name in _UNSUPPORTED:
        if body.get(name) is not None:
            raise _unsupported(name)
    if body.get("truncation") not in (None, "disabled"):
        raise _unsupported("truncation")
    if body.get("previous_response_id") is not None:  # one of ours has been expanded already
        raise _unsupported("previous_response_id")


def _unsupported(param: str) -> Refusal:
    return invalid(
        f"'{param}' is not supported: this model is served by a chat-completions backend.",
        param=param,
        code="unsupported_parameter",
    )


def _tools(body: Body) -> Body:
    tools = body.get("tools") or []
    choice = body.get("tool_choice")
    if isinstance(choice, dict) and choice.get("type") == "allowed_tools":
        allowed = {tool.get("name") for tool in choice.get("tools") or []}
        tools = [tool for tool in tools if tool.get("name") in allowed]
        choice = choice.get("mode", "auto")
    elif isinstance(choice, dict):
        if choice.get("type") not in ("function", "custom"):
            raise _unsupported("tool_choice")
        choice = {"type": "function", "function": {"name": choice.get("name")}}
    mapped: Body = {}
    if tools:
        mapped["tools"] = [_tool(tool, position) for position, tool in enumerate(tools)]
    if choice is not None and (tools or choice != "auto"):
        mapped["tool_choice"] = choice
    return mapped


def _tool(tool: Body, position: int) -> Body:
    if tool.get("type") == "function":
        function = {name: tool[name] for name in _FUNCTION_FIELDS if tool.get(name) is not None}
    elif tool.get("type") == "custom":
        text = {CUSTOM_TOOL_ARGUMENT: {"type": "string"}}
        parameters = {"type": "object", "properties": text, "required": [CUSTOM_TOOL_ARGUMENT]}
        function = {"name": tool.get("name"), "parameters": parameters}
        if tool.get("description") is not None:
            function["description"] = tool["description"]
    else:
        raise _unsupported(f"tools.{position}")
    return {"type": "function", "function": function}


_FUNCTION_FIELDS = ("name", "description", "parameters", "strict")


def _text(text: Body) -> Body:
    mapped: Body = {}
    if text.get("verbosity") is not None:
        mapped["verbosity"] = text["verbosity"]
    form = text.get("format") or {"type": "text"}
    match form.get("type"):
        case "text":
            pass
        case "json_object":
            mapped["response_format"] = {"type": "json_object"}
        case "json_schema":
            schema = {name: form[name] for name in _SCHEMA_FIELDS if form.get(name) is not None}
            mapped["response_format"] = {"type": "json_schema", "json_schema": schema}
        case _:
            raise _unsupported("text.format")
    return mapped


_SCHEMA_FIELDS = ("name", "description", "schema", "strict")
