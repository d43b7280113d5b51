"""The Response object: as accepted, while running, and at its end.

Every state shows the full set of keys, since clients (and the Open Responses schema) require them.
What we own (id, created_at, background, store, previous_response_id, metadata) is written here only;
what the backend knows better (model, sampled parameters, usage) is taken from its answer at the end.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import orjson

from gateway.wire.answers import endings
from gateway.wire.events import is_writable
from gateway.wire.usage import usage_of

Response = dict[str, Any]

# Echoed as the client sent it, or shown with the API's default. Source: a recorded queued body.
_DEFAULTS: Response = {
    "frequency_penalty": 0.0,
    "instructions": None,
    "max_output_tokens": None,
    "max_tool_calls": None,
    "parallel_tool_calls": True,
    "presence_penalty": 0.0,
    "previous_response_id": None,
    "prompt_cache_key": None,
    "prompt_cache_retention": None,
    "safety_identifier": None,
    "service_tier": "auto",
    "store": True,
    "temperature": 1.0,
    "tool_choice": "auto",
    "top_logprobs": 0,
    "top_p": 1.0,
    "truncation": "disabled",
    "user": None,
    "metadata": {},
}
_ECHOED_IF_SENT = ("prompt", "prompt_cache_options", "context_management", "moderation")

# Where the backend's answer says what was really used.
_FROM_BACKEND = (
    "model",
    "temperature",
    "top_p",
    "top_logprobs",
    "frequency_penalty",
    "presence_penalty",
    "service_tier",
)
# Never taken from the backend's object: ours, or set by the ending itself.
_OURS = frozenset(
    {"id", "object", "created_at", "completed_at", "status", "background", "output", "error", "usage"}
)


def accepted(
    request: dict[str, Any],
    *,
    response_id: str,
    created_at: int,
    background: bool = True,
    tools: Sequence[dict[str, Any]] | None = None,
) -> Response:
    """The Response for a validated create request: queued, or in progress at once if it is a plain one.

    Args:
        created_at: Unix seconds.
        tools: Those that the backend is told of, if it is not told of all.
    """
    response: Response = {
        "id": response_id,
        "object": "response",
        "created_at": created_at,
        "status": "queued" if background else "in_progress",
        "background": background,
        "completed_at": None,
        "error": None,
        "incomplete_details": None,
        "model": request.get("model"),
        "output": [],
        "usage": None,
    }
    for name, default in _DEFAULTS.items():
        value = request.get(name)
        response[name] = default if value is None else value
    for name in _ECHOED_IF_SENT:
        if request.get(name) is not None:
            response[name] = request[name]
    conversation = request.get("conversation")
    if conversation is not None:
        response["conversation"] = {"id": conversation} if isinstance(conversation, str) else conversation
    response["reasoning"] = {"effort": None, "summary": None, **(request.get("reasoning") or {})}
    response["text"] = {"format": {"type": "text"}, "verbosity": "medium", **_set(request.get("text"))}
    response["tools"] = _tools(tools if tools is not None else request.get("tools") or [])
    return response


def with_tools(response: bytes, tools: Sequence[dict[str, Any]]) -> bytes:
    """An accepted Response that shows these tools."""
    return orjson.dumps({**orjson.loads(response), "tools": _tools(tools)})


def _tools(tools: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    return [_tool(tool) for tool in tools]


def _set(value: dict[str, Any] | None) -> dict[str, Any]:
    return {name: item for name, item in (value or {}).items() if item is not None}


def _tool(tool: dict[str, Any]) -> dict[str, Any]:
    """A tool with the keys that the SDKs' types require; one that we do not know as it came."""
    match tool.get("type"):
        case "function":
            return {"description": None, "parameters": None, "strict": None, **tool}
        case "namespace":
            return {**tool, "description": tool.get("description") or ""}
    return tool


def is_turn(response: Response) -> bool:
    """True if a backend's own Response can be gone on from: it has a name, and items, and can be stored."""
    output = response.get("output")
    is_list = isinstance(output, list) and all(isinstance(item, dict) for item in output)
    return is_list and isinstance(response.get("id"), str) and is_writable(response)


def unfinished(response: bytes, status: str, output: list[Any] | None = None) -> bytes:
    """The stored Response as a client sees it before its end.

    Args:
        response: JSON of the accepted Response.
        output: The items so far, where partial output is shown.
    """
    value: Response = orjson.loads(response)
    value["status"] = status
    if output is not None:
        value["output"] = output
    return orjson.dumps(value)


def ended(
    response: Response,
    *,
    status: str,
    output: list[Any],
    now_s: int,
    answer: Response | None = None,
    error: dict[str, Any] | None = None,
) -> Response:
    """The Response in a terminal state.

    Args:
        response: As accepted.
        answer: The backend's own final (or last known) object, if it sent one.
        error: `{"code", "message"}` for `failed`.
        now_s: Unix seconds; shown as `completed_at` for `completed` only.
    """
    answer = answer or {}
    final = dict(response)
    for name in _FROM_BACKEND:
        if answer.get(name) is not None:
            final[name] = answer[name]
    for name, value in answer.items():  # vendor fields survive; what we echo or own is not touched
        if name not in final and name not in _OURS:
            final[name] = value
    final["status"] = status
    final["output"] = output
    final["error"] = error
    final["usage"] = usage_of(answer.get("usage"))
    final["completed_at"] = now_s if status == "completed" else None
    if status == "incomplete":
        final["incomplete_details"] = endings.incomplete_details(answer)
    return final


def not_stored(response: Response) -> Response:
    """The Response, saying that it is not there any more once it has been shown."""
    return {**response, "store": False}


def goes_on(response: bytes) -> bool:
    """True if a Response names a previous one."""
    return orjson.loads(response).get("previous_response_id") is not None


def deleted(response_id: str) -> bytes:
    """The answer to DELETE."""
    return orjson.dumps({"id": response_id, "object": "response", "deleted": True})
