"""A Responses request as a chat-completions request, for backends that speak only that.

What has a counterpart is mapped; what has none is refused with the field's name, never dropped in silence.
Fields that this API does not know (`top_k`, `chat_template_kwargs`, …) go along as they are.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import orjson

from gateway.wire.chat.messages import expect, messages_of, unsupported
from gateway.wire.chat.tools import CUSTOM_TOOL_ARGUMENT
from gateway.wire.errors import Refusal, invalid

Body = dict[str, Any]

# `messages` is what we make of `input`; of several choices (`n`) a response could show only one.
_UNSUPPORTED = ("conversation", "prompt", "context_management", "previous_response_id", "messages")
_MAPPED = frozenset(
    {
        "background",
        "include",
        "input",
        "instructions",
        "max_output_tokens",
        "max_tool_calls",  # of built-in tools only, of which a chat backend has none
        "n",
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
        body: The request. A `previous_response_id` in it is one that was not expanded into `input`.
        input: The items, those of earlier turns included.

    Raises:
        Refusal: A field or an item is malformed, or has no counterpart in chat completions.
    """
    _refuse_unsupported(body)
    call: Body = {name: value for name, value in body.items() if name not in _MAPPED and value is not None}
    call["messages"] = messages_of(
        body.get("instructions"),
        input,
        has_developer_role=options.has_developer_role,
        reasoning_field=options.reasoning_field,
    )
    call |= _tools(body) | _text(body) | _reasoning(body) | _logprobs(body)
    if body.get("max_output_tokens") is not None:
        call[options.max_tokens_field] = body["max_output_tokens"]
    call["stream"] = True
    call["stream_options"] = _stream_options(body)
    try:
        return orjson.dumps(call)
    except orjson.JSONEncodeError:
        raise invalid("The request is nested too deeply, or not JSON.", code="invalid_json") from None


def _refuse_unsupported(body: Body) -> None:
    for name in _UNSUPPORTED:
        if body.get(name) is not None:
            raise _unsupported(name)
    if body.get("truncation") not in (None, "disabled"):
        raise _unsupported("truncation")
    if body.get("n") not in (None, 1):
        raise _unsupported("n")


def _unsupported(param: str) -> Refusal:
    return invalid(
        f"'{param}' is not supported: this model is served by a chat-completions backend.",
        param=param,
        code="unsupported_parameter",
    )


def _object(body: Body, name: str, known: tuple[str, ...]) -> Body:
    """A field that is an object, with nothing in it that would be lost."""
    value = expect(dict, body.get(name) or {}, name)
    for key in value.keys() - set(known):
        if value[key] is not None:
            raise _unsupported(f"{name}.{key}")
    return value


def _stream_options(body: Body) -> Body:
    # Obfuscation never gets into stored events; the usage must.
    given = expect(dict, body.get("stream_options") or {}, "stream_options")
    return {k: v for k, v in given.items() if k != "include_obfuscation"} | {"include_usage": True}


def _reasoning(body: Body) -> Body:
    # A summary is a digest of what the client may not see; here it sees all of it.
    effort = _object(body, "reasoning", ("effort", "summary", "generate_summary")).get("effort")
    return {} if effort is None else {"reasoning_effort": effort}


def _logprobs(body: Body) -> Body:
    include = expect(list, body.get("include") or [], "include")
    count = body.get("top_logprobs")
    if not count and "message.output_text.logprobs" not in include:
        return {}
    return {"logprobs": True} | ({"top_logprobs": count} if count else {})


def _text(body: Body) -> Body:
    text = _object(body, "text", ("format", "verbosity"))
    mapped: Body = {}
    if text.get("verbosity") is not None:
        mapped["verbosity"] = text["verbosity"]
    form = expect(dict, text.get("format") or {"type": "text"}, "text.format")
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


def _tools(body: Body) -> Body:
    given = expect(list, body.get("tools") or [], "tools")
    tools = [_tool(tool, f"tools.{position}") for position, tool in enumerate(given)]
    choice = body.get("tool_choice")
    if isinstance(choice, dict):
        if choice.get("type") == "allowed_tools":
            tools = _allowed(tools, choice)
            choice = choice.get("mode") or "auto"
        elif choice.get("type") in ("function", "custom"):
            choice = {"type": "function", "function": {"name": _name(choice, "tool_choice")}}
        else:
            raise _unsupported("tool_choice")
    elif choice is not None:
        expect(str, choice, "tool_choice")
    mapped: Body = {"tools": tools} if tools else {}
    # Some servers refuse any choice where there is nothing to choose from.
    if choice is not None and (tools or choice not in ("auto", "none")):
        mapped["tool_choice"] = choice
    return mapped


def _allowed(tools: list[Body], choice: Body) -> list[Body]:
    """Chat has no choice among some tools: the backend is only told of these."""
    if choice.get("mode") not in (None, "auto", "required"):
        raise invalid("Invalid value for 'tool_choice.mode'.", param="tool_choice.mode")
    offered = {tool["function"]["name"] for tool in tools}
    allowed = set()
    for position, tool in enumerate(expect(list, choice.get("tools"), "tool_choice.tools")):
        param = f"tool_choice.tools.{position}"
        name = _name(expect(dict, tool, param), param)
        if name not in offered:
            raise invalid(f"Invalid value for '{param}': no such tool in 'tools'.", param=param)
        allowed.add(name)
    return [tool for tool in tools if tool["function"]["name"] in allowed]


def _tool(tool: Any, param: str) -> Body:
    tool = expect(dict, tool, param)
    match tool.get("type"):
        case "function":
            fields: tuple[str, ...] = ("name", "description", "parameters", "strict")
            function = {name: tool[name] for name in fields if tool.get(name) is not None}
        case "custom":
            fields = ("name", "description", "format")
            form = expect(dict, tool.get("format") or {"type": "text"}, f"{param}.format")
            if form.get("type") != "text":
                raise unsupported(f"{param}.format", "grammars of custom tools are")
            argument = {CUSTOM_TOOL_ARGUMENT: {"type": "string"}}
            schema = {"type": "object", "properties": argument, "required": [CUSTOM_TOOL_ARGUMENT]}
            function = {"name": tool.get("name"), "parameters": schema}
            if tool.get("description") is not None:
                function["description"] = tool["description"]
        case kind:
            raise unsupported(param, f"tools of type '{kind}' are")
    function["name"] = _name(tool, param)
    for name in ("defer_loading", "allowed_callers"):  # of tool search and of programmatic calling
        if tool.get(name):
            raise _unsupported(f"{param}.{name}")
    extra = {name: value for name, value in tool.items() if name not in fields and value is not None}
    return {**extra, "type": "function", "function": function}


def _name(value: Body, param: str) -> str:
    name = expect(str, value.get("name"), f"{param}.name")
    if not name:
        raise invalid(f"Invalid value for '{param}.name': it is empty.", param=f"{param}.name")
    return name
