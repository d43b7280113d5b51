"""A Responses request as a chat-completions request, for backends that speak only that.

What has a counterpart is mapped. What only permits or advises, and has none, is left out; what demands, and
has none, is refused with the field's name. Fields that the Responses API does not know (`top_k`,
`chat_template_kwargs`, …) go along as they are.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import orjson

from gateway.wire.chat.choice import offer
from gateway.wire.chat.message_parts import expect, unsupported
from gateway.wire.chat.messages import messages_of
from gateway.wire.chat.tools import TOOLS_MAX, Tools, too_many_tools, tools_of
from gateway.wire.chat.ways import Ways
from gateway.wire.errors import Refusal, invalid
from gateway.wire.shapes import judge_settings
from gateway.wire.tools import declared

Body = dict[str, Any]

_DEMANDS = ("conversation", "prompt", "previous_response_id", "messages")
"""Without these the answer would be to another question. `messages` is what we make of `input`."""

_MAPPED = frozenset(
    {
        *("input", "instructions"),  # messages
        *("tools", "tool_choice"),
        *("include", "top_logprobs"),  # logprobs
        "text",  # response_format, verbosity
        "reasoning",  # reasoning_effort
        "max_output_tokens",  # max_tokens, or what the backend calls it
        *("stream", "stream_options"),
        "n",  # one answer is what a response can show
        *("background", "store"),  # the gateway runs it, and is the store
    }
)
"""Request fields that are translated into other fields, or another form."""

_ADVICE = {
    "truncation": "permits a backend to leave out items; what it does about too many is its own affair",
    "context_management": "permits it to compact them",
    "max_tool_calls": "bounds calls of built-in tools, of which a chat backend has none",
    "access_programs": "OpenAI's programmes for some uses",
    "background_options": "when a background response should be done, at OpenAI",
    "image": "how OpenAI may shrink images",
    "multi_agent": "OpenAI's beta of that name",
    "client_metadata": "Codex: its session and installation",
    "generate": "Codex, over WebSockets",
    "structured_inputs": "Azure's agents",
    "agent_reference": "Azure's agents",
    "enable_response_messages": "vLLM's Responses API alone",
    "previous_input_messages": "vLLM's Responses API alone",
}
"""Fields of the Responses API, and of its clients and servers, that only permit or advise, and that no chat
API knows: a server that refuses unknown fields would fail for them. Each with its owner or its use."""


@dataclass(frozen=True, slots=True)
class ChatOptions:
    """Differences of one backend's chat API from others.

    Attributes:
        max_tokens_field: Its name for the limit on generated tokens.
        refuses_tools: A request with tools that it cannot run is refused; else it is served without them.
        think_tags: Its answers have their thoughts in the text, between tags.
        ways: How it wants the messages.
    """

    max_tokens_field: str = "max_tokens"
    refuses_tools: bool = False
    think_tags: bool = False
    ways: Ways = field(default_factory=Ways)


def offered_tools(body: Body, *, input: Any, options: ChatOptions) -> tuple[Tools, Body]:
    """The tools of a request, and what of them stands in the chat request.

    Raises:
        Refusal: They are malformed, or demanded and not to be had.
    """
    judge_settings(body, input)
    if next(islice(declared(body, input), TOOLS_MAX, None), None) is not None:
        raise too_many_tools("tools")
    tools = tools_of(body, input)
    if options.refuses_tools:
        _refuse_omitted(tools)
    return tools, offer(tools, body.get("tool_choice"))


def chat_body(body: Body, *, input: Any, options: ChatOptions) -> bytes:
    """The chat request for a Responses request, streamed.

    Args:
        body: The request. A `previous_response_id` in it is one that was not expanded into `input`.
        input: The items, those of earlier turns included.

    Raises:
        Refusal: A field or an item is malformed, or has no counterpart in chat completions.
    """
    tools, offered = offered_tools(body, input=input, options=options)
    _refuse_demands(body)
    unsaid = _MAPPED | _ADVICE.keys() | set(_DEMANDS)
    call: Body = {name: value for name, value in body.items() if name not in unsaid and value is not None}
    call["messages"] = messages_of(
        body.get("instructions"), _without_tools(input), tools=tools, ways=options.ways
    )
    call |= offered | _text(body) | _reasoning(body) | _logprobs(body)
    if not offered:  # some servers refuse it where there is nothing to call
        call.pop("parallel_tool_calls", None)
    if body.get("max_output_tokens") is not None:
        call[options.max_tokens_field] = body["max_output_tokens"]
    call["stream"] = True
    call["stream_options"] = _stream_options(body)
    try:
        return orjson.dumps(call)
    except orjson.JSONEncodeError:
        raise invalid("The request is nested too deeply, or not JSON.", code="invalid_json") from None


def _refuse_demands(body: Body) -> None:
    for name in _DEMANDS:
        if body.get(name) is not None:
            raise _unsupported(name)
    if body.get("n") not in (None, 1):
        raise _unsupported("n")


def _refuse_omitted(tools: Tools) -> None:
    for tool in tools.omitted:
        what = f"tools of type '{tool.kind}' are (setting `unsupported_tools`: refuse)"
        raise unsupported(tool.param, what)


def _unsupported(param: str) -> Refusal:
    return invalid(
        f"'{param}' is not supported: this model is served by a chat-completions backend.",
        param=param,
        code="unsupported_parameter",
    )


def _without_tools(input: Any) -> Any:
    """The items to be said. In place of one that only brings tools stands an empty thought, which says
    nothing: so those after it keep their places, by which a refusal names them."""
    if not isinstance(input, list):
        return input
    return [_NOTHING if _brings_tools(item) else item for item in input]


_NOTHING: Body = {"type": "reasoning", "summary": []}


def _brings_tools(item: Any) -> bool:
    return isinstance(item, dict) and item.get("type") == "additional_tools"


def _stream_options(body: Body) -> Body:
    # Obfuscation never gets into stored events; the usage must.
    given = expect(dict, body.get("stream_options") or {}, "stream_options")
    return {k: v for k, v in given.items() if k != "include_obfuscation"} | {"include_usage": True}


def _reasoning(body: Body) -> Body:
    """The effort. All else is advice: a summary is a digest of what the client may not see, and here it sees
    all; which thoughts the model is shown again is for its template to say."""
    effort = expect(dict, body.get("reasoning") or {}, "reasoning").get("effort")
    return {} if effort is None else {"reasoning_effort": effort}


def _logprobs(body: Body) -> Body:
    include = expect(list, body.get("include") or [], "include")  # all others ask for more than there is
    count = body.get("top_logprobs")
    if not count and "message.output_text.logprobs" not in include:
        return {}
    return {"logprobs": True} | ({"top_logprobs": count} if count else {})


def _text(body: Body) -> Body:
    text = expect(dict, body.get("text") or {}, "text")
    for key in text.keys() - {"format", "verbosity"}:
        if text[key] is not None:
            raise _unsupported(f"text.{key}")
    mapped: Body = {}
    if text.get("verbosity") is not None:
        mapped["verbosity"] = text["verbosity"]
    form = text.get("format") or {}
    match form.get("type"):
        case "json_object":
            mapped["response_format"] = {"type": "json_object"}
        case "json_schema":
            inner = form.get("json_schema")  # as chat completions have it
            given = inner if isinstance(inner, dict) else form
            schema = {name: given[name] for name in _SCHEMA_FIELDS if given.get(name) is not None}
            mapped["response_format"] = {"type": "json_schema", "json_schema": schema}
    return mapped


_SCHEMA_FIELDS = ("name", "description", "schema", "strict")
