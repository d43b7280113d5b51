"""The Response object: as accepted, while running, and at its end.

Every state shows the full set of keys, since clients (and the Open Responses schema) require them.
What we own (id, created_at, background, store, previous_response_id, metadata) is written here only;
what the backend knows better (model, sampled parameters, usage) is taken from its answer at the end.
"""

from __future__ import annotations

import re
from typing import Any

import orjson

from gateway.wire import endings
from gateway.wire.events import is_writable

Response = dict[str, Any]

OUR_ID = re.compile(r"resp_[0-9a-f]{48}\Z")
"""Ids as this gateway makes them: 192 bits from a CSPRNG, with nothing encoded in them."""

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
    request: dict[str, Any], *, response_id: str, created_at: int, background: bool = True
) -> Response:
    """The Response for a validated create request: queued, or in progress at once if it is a plain one.

    Args:
        created_at: Unix seconds.
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
    response["tools"] = [_tool(tool) for tool in request.get("tools") or []]
    return response


def _set(value: dict[str, Any] | None) -> dict[str, Any]:
    return {name: item for name, item in (value or {}).items() if item is not None}


def _tool(tool: dict[str, Any]) -> dict[str, Any]:
    """A function tool with the keys that the SDKs' types require; any other tool as it came."""
    if tool.get("type") != "function":
        return tool
    return {"description": None, "parameters": None, "strict": None, **tool}


def is_turn(response: Response) -> bool:
    """Whether a backend's own Response can be gone on from: it has a name, and items, and can be stored."""
    output = response.get("output")
    is_list = isinstance(output, list) and all(isinstance(item, dict) for item in output)
    return is_list and isinstance(response.get("id"), str) and is_writable(response)


def running(response: bytes, status: str, output: list[Any] | None = None) -> bytes:
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
    final["usage"] = usage(answer.get("usage"))
    final["completed_at"] = now_s if status == "completed" else None
    if status == "incomplete":
        final["incomplete_details"] = endings.incomplete_details(answer)
    return final


_COUNTS = frozenset({"input_tokens", "output_tokens", "total_tokens"})


def usage(value: Any) -> dict[str, Any] | None:
    """A backend's usage with every key that the SDKs' types require; None if it sent none."""
    if not isinstance(value, dict):
        return None
    given = {
        name: item
        for name, item in value.items()
        if item is not None and (name not in _COUNTS or isinstance(item, int))
    }
    counts = {"input_tokens": 0, "output_tokens": 0, **given}
    return {
        "total_tokens": counts["input_tokens"] + counts["output_tokens"],
        **counts,
        "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0, **_dict(given, "input")},
        "output_tokens_details": {"reasoning_tokens": 0, **_dict(given, "output")},
    }


def _dict(given: dict[str, Any], side: str) -> dict[str, Any]:
    details = given.get(f"{side}_tokens_details")
    return _set(details) if isinstance(details, dict) else {}


def goes_on(response: bytes) -> bool:
    """Whether a Response names a previous one."""
    return orjson.loads(response).get("previous_response_id") is not None


def deleted(response_id: str) -> bytes:
    """The answer to DELETE."""
    return orjson.dumps({"id": response_id, "object": "response", "deleted": True})
