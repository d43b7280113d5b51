"""Reads the bodies of requests, and refuses the ones a vLLM without a response store refuses.

Only what the simulation uses is looked at; other fields are accepted and ignored. Pure.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import orjson

from demo.words import Tool, Turn

MODEL = "demo-model"
FAULTS = ("500", "cut", "error_event", "garbage")

_NO_STORE = (
    "This model server does not support `store=True` and therefore does not support the background mode."
    " (It is a simulation; put the gateway in front of it.)"
)


class Refused(Exception):
    """The request gets this error; `code` is the HTTP status too, as in vLLM."""

    def __init__(self, code: int, message: str, kind: str, param: str | None) -> None:
        super().__init__(message)
        self.code = code
        self.body = {"error": {"message": message, "type": kind, "param": param, "code": code}}


@dataclass(frozen=True, slots=True)
class Ask:
    """What a request wants, whichever of the two APIs it came by."""

    body: dict[str, Any]
    turns: tuple[Turn, ...]
    tools: tuple[Tool, ...]
    tool_choice: str
    tokens_max: int | None
    is_stream: bool
    fault: str | None


def read_json(raw: bytes) -> dict[str, Any]:
    try:
        body = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        detail = f"{{'type': 'json_invalid', 'loc': 'body.{error.pos}', 'msg': 'JSON decode error'}}"
        raise _invalid(f"body.{error.pos}", detail) from error
    if not isinstance(body, dict):
        raise _wrong("body", "a valid dictionary")
    return body


def read_responses(body: dict[str, Any]) -> Ask:
    """Read a body of POST /v1/responses."""
    _check_model(body)
    if "input" not in body:
        raise _invalid("body.input", "{'type': 'missing', 'loc': 'body.input', 'msg': 'Field required'}")
    turns = _input_turns(body["input"])
    if body.get("background"):
        raise Refused(400, _NO_STORE, "invalid_request_error", "background")
    if (previous := body.get("previous_response_id")) is not None:
        raise unknown_response(str(previous))
    if instructions := body.get("instructions"):
        turns = (Turn("system", str(instructions)), *turns)
    return _ask(body, turns, limit_key="max_output_tokens")


def read_chat(body: dict[str, Any]) -> Ask:
    """Read a body of POST /v1/chat/completions."""
    _check_model(body)
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages:
        raise _wrong("body.messages", "a non-empty list")
    turns = tuple(_message(message, f"body.messages.{index}") for index, message in enumerate(messages))
    key = "max_completion_tokens" if body.get("max_completion_tokens") is not None else "max_tokens"
    return _ask(body, turns, limit_key=key)


def unknown_response(response_id: str) -> Refused:
    """Nothing is stored, so every id is unknown."""
    message = f"Response with id '{response_id}' not found."
    return Refused(404, message, "invalid_request_error", "response_id")


def _ask(body: dict[str, Any], turns: tuple[Turn, ...], *, limit_key: str) -> Ask:
    limit = body.get(limit_key)
    if limit is not None and (not isinstance(limit, int) or isinstance(limit, bool) or limit < 1):
        raise _wrong(f"body.{limit_key}", "a valid integer of at least 1")
    if not isinstance(body.get("stream", False), bool | None):
        raise _wrong("body.stream", "a valid boolean")
    tools = body.get("tools") or []
    if not isinstance(tools, list):
        raise _wrong("body.tools", "a valid list")
    metadata = body.get("metadata")
    fault = metadata.get("demo_error") if isinstance(metadata, dict) else None
    return Ask(
        body=body,
        turns=turns,
        tools=tuple(
            _tool(tool) for tool in tools if isinstance(tool, dict) and tool.get("type") == "function"
        ),
        tool_choice=_tool_choice(body.get("tool_choice")),
        tokens_max=limit,
        is_stream=bool(body.get("stream")),
        fault=fault if fault in FAULTS else None,
    )


def _check_model(body: dict[str, Any]) -> None:
    """Like vLLM, take a request without a model for our only one."""
    model = body.get("model") or MODEL
    if model != MODEL:
        message = f"The model `{model}` does not exist. Valid aliases: {MODEL}."
        raise Refused(404, message, "NotFoundError", "model")


def _input_turns(given: Any) -> tuple[Turn, ...]:
    if isinstance(given, str):
        return (Turn("user", given),)
    if not isinstance(given, list) or not given:
        raise _wrong("body.input", "a valid string or a non-empty list")
    turns = (_item(item, f"body.input.{index}") for index, item in enumerate(given))
    return tuple(turn for turn in turns if turn is not None)


def _item(item: Any, where: str) -> Turn | None:
    """Read one input item; None for a kind that says nothing to this model (reasoning, earlier calls)."""
    if not isinstance(item, dict):
        raise _wrong(where, "a valid dictionary")
    match item.get("type", "message"):
        case "message":
            return _message(item, where)
        case "function_call_output":
            return Turn("tool", _text(item.get("output"), f"{where}.output"))
        case _:
            return None


def _message(message: Any, where: str) -> Turn:
    if not isinstance(message, dict) or not isinstance(message.get("role"), str):
        raise _wrong(where, "a message with a role")
    return Turn(message["role"], _text(message.get("content"), f"{where}.content"))


def _text(content: Any, where: str) -> str:
    """Join the text of a content; parts are {"type": "input_text" | "output_text" | "text", "text": …}."""
    if content is None or isinstance(content, str):
        return content or ""
    if not isinstance(content, list) or not all(isinstance(part, dict) for part in content):
        raise _wrong(where, "a valid string or a list of parts")
    if any("image" in str(part.get("type")) for part in content):
        raise Refused(400, f"{MODEL} is not a multimodal model", "BadRequestError", None)
    return "".join(str(part.get("text") or part.get("refusal") or "") for part in content)


def _tool(tool: dict[str, Any]) -> Tool:
    """Read a tool: flat in Responses, under `function` in chat."""
    function = tool["function"] if isinstance(tool.get("function"), dict) else tool
    if not isinstance(name := function.get("name"), str):
        raise _wrong("body.tools", "functions with a name")
    parameters = function.get("parameters")
    return Tool(
        name, str(function.get("description") or ""), parameters if isinstance(parameters, dict) else {}
    )


def _tool_choice(choice: Any) -> str:
    if isinstance(choice, dict):
        function = choice.get("function")
        name = function.get("name") if isinstance(function, dict) else choice.get("name")
        return str(name) if name else "auto"
    return choice if choice in ("none", "required") else "auto"


def _wrong(where: str, wanted: str) -> Refused:
    return _invalid(where, f"{{'type': 'value_error', 'loc': '{where}', 'msg': 'Input should be {wanted}'}}")


def _invalid(where: str, detail: str) -> Refused:
    return Refused(400, f"1 validation error:\n  {detail}", "Bad Request", where)
