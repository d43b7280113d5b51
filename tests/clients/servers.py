"""Two strict model servers for whole sessions of real clients.

One knows chat completions only, one the Responses API without a store. Both follow one script, and refuse
what strict servers were seen to refuse.
"""

from __future__ import annotations

import asyncio
import re
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import orjson
from aiohttp import web

from demo.model_server import listening

THOUGHT = "Let me look outside."
SECRET = "marmalade"
"""What the shell of a coding agent is made to print: the model can only know it from the tool's output."""

_CHAT_FIELDS = frozenset(
    {
        *("model", "messages", "stream", "stream_options", "n", "seed", "stop", "user", "metadata"),
        *("tools", "tool_choice", "parallel_tool_calls", "response_format", "reasoning_effort", "verbosity"),
        *("temperature", "top_p", "max_tokens", "max_completion_tokens", "logprobs", "top_logprobs"),
        *("frequency_penalty", "presence_penalty", "service_tier", "safety_identifier"),
        *("prompt_cache_key", "prompt_cache_retention"),
    }
)
"""Strict servers (transformers, several hosted ones) refuse all others."""

_RESPONSES_ITEMS = frozenset({"message", "reasoning", "function_call", "function_call_output"})


class Refused(Exception):
    """A 400, in the server's words."""


@dataclass(slots=True)
class Turn:
    """What a request comes to, whichever API it was made in.

    Attributes:
        said: All texts of users so far; `outputs`: those of tools since the last of them.
        tools: Names of the functions that may be called.
    """

    said: list[str]
    outputs: list[str]
    tools: list[str]
    is_json: bool = False


@dataclass(slots=True)
class Answer:
    """What the model says: a thought, then calls or a text."""

    text: str = ""
    calls: list[tuple[str, dict[str, Any]]] = field(default_factory=list)

    @property
    def thought(self) -> str:
        return THOUGHT if self.calls else ""


def answer_of(turn: Turn) -> Answer:
    """The script. The last thing said by a user decides."""
    last = turn.said[-1] if turn.said else ""
    name = next((m[1] for text in turn.said if (m := re.search(r"my name is (\w+)", text))), None)
    if turn.outputs:
        return Answer(text="Report: " + " ".join(turn.outputs).strip())
    if "weather" in last and (sky := _named(turn.tools, "sky")):
        cities = ["Oslo", "Rome"] if "both" in last else ["Oslo"]
        return Answer(calls=[(sky, {"city": city}) for city in cities])
    if "shell" in last and (shell := _named(turn.tools, "exec_command") or _named(turn.tools, "shell")):
        command = f"echo {SECRET}"
        is_list = shell == "shell"
        return Answer(calls=[(shell, {"command": ["bash", "-c", command]} if is_list else {"cmd": command})])
    if turn.is_json:
        return Answer(text='{"city":"Oslo","is_wet":true}')
    if "what is my name" in last:
        return Answer(text=f"Your name is {name}." if name else "I do not know your name.")
    return Answer(text=f"Hello {name or 'there'}.")


def _named(tools: list[str], name: str) -> str | None:
    """A tool of this name, or of one to which its client put a prefix."""
    return next((tool for tool in tools if re.split(r"__|-", tool)[-1] == name), None)


class ModelServer(ABC):
    """The common half.

    Attributes:
        wants_thoughts: False for clients that do not send thoughts back: no gateway can, then.
        asked, refused: The bodies of all requests; in which words some were refused.
        calls: How many were answered.
    """

    api = ""
    path = ""

    def __init__(self) -> None:
        self.url = ""
        self.wants_thoughts = True
        self.asked: list[dict[str, Any]] = []
        self.refused: list[str] = []
        self.calls = 0

    @asynccontextmanager
    async def running(self) -> AsyncIterator[str]:
        """Its base URL, while it listens."""
        app = web.Application(client_max_size=64 * 2**20)
        app.router.add_post(f"/v1/{self.path}", self._handle)
        app.router.add_get("/v1/models", self._models)
        async with listening(app, "127.0.0.1", 0) as root:
            yield f"{root}/v1"

    async def _models(self, _request: web.Request) -> web.Response:
        return web.json_response({"object": "list", "data": [{"id": "m-1", "object": "model"}]})

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        body = await request.json(loads=orjson.loads)
        if body:  # an empty object is the question which API there is
            self.asked.append(body)
        try:
            answer = answer_of(self._understood(body))
        except Refused as why:
            if body:
                self.refused.append(str(why))
            error = {"message": str(why), "type": "invalid_request_error", "param": None, "code": 400}
            return web.json_response({"error": error}, status=400)
        self.calls += 1
        if not body.get("stream"):
            return web.json_response(self._whole(answer), dumps=lambda value: orjson.dumps(value).decode())
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        for block in self._streamed(answer):
            await response.write(block)
            await asyncio.sleep(0)
        return response

    @abstractmethod
    def _understood(self, body: dict[str, Any]) -> Turn:
        """What a request asks for. Raises: Refused."""

    @abstractmethod
    def _whole(self, answer: Answer) -> dict[str, Any]:
        """An answer as one object."""

    @abstractmethod
    def _streamed(self, answer: Answer) -> Iterator[bytes]:
        """An answer as events."""


class ChatServer(ModelServer):
    """Chat completions with a strict template.

    A system message may stand at the front only, each call has exactly one output, and the thoughts of
    a running tool turn come back with its calls, as DeepSeek and Kimi have it.
    """

    api = "chat"
    path = "chat/completions"

    def _understood(self, body: dict[str, Any]) -> Turn:
        if unknown := body.keys() - _CHAT_FIELDS:
            raise Refused(f"unknown fields: {sorted(unknown)}")
        messages = body.get("messages")
        if not isinstance(messages, list) or not messages:
            raise Refused("messages is empty")
        said: list[str] = []
        outputs: list[str] = []
        waiting: list[str] = []
        for number, message in enumerate(messages):
            role = message.get("role")
            if waiting and role != "tool":
                raise Refused(f"calls {waiting} have no output")
            match role:
                case "system" if number > 0:
                    raise Refused("System message must be at the beginning.")
                case "system":
                    pass
                case "user":
                    said.append(_text_of(message.get("content")))
                    outputs = []
                case "assistant":
                    waiting = [call["id"] for call in message.get("tool_calls") or []]
                case "tool":
                    if message.get("tool_call_id") not in waiting:
                        raise Refused(f"output {message.get('tool_call_id')} has no call")
                    waiting.remove(message["tool_call_id"])
                    outputs.append(_text_of(message.get("content")))
                case _:
                    raise Refused(f"unknown role {role!r}")
        self._check_thoughts(messages)
        tools = [tool["function"]["name"] for tool in body.get("tools") or []]
        return Turn(said, outputs, tools, is_json=bool(body.get("response_format")))

    def _check_thoughts(self, messages: list[dict[str, Any]]) -> None:
        if not self.wants_thoughts:
            return
        last_user = max((n for n, message in enumerate(messages) if message["role"] == "user"), default=0)
        for message in messages[last_user:]:
            if message.get("tool_calls") and message.get("reasoning_content") != THOUGHT:
                raise Refused("The `reasoning_content` in the thinking mode must be passed back to the API.")

    def _whole(self, answer: Answer) -> dict[str, Any]:
        message: dict[str, Any] = {"role": "assistant", "content": answer.text or None}
        if answer.thought:
            message["reasoning_content"] = answer.thought
        if answer.calls:
            message["tool_calls"] = self._tool_calls(answer)
        choice = {"index": 0, "message": message, "finish_reason": "tool_calls" if answer.calls else "stop"}
        return {**self._head("chat.completion"), "choices": [choice], "usage": _CHAT_USAGE}

    def _streamed(self, answer: Answer) -> Iterator[bytes]:
        deltas: list[dict[str, Any]] = [{"role": "assistant", "content": ""}]
        if answer.thought:
            deltas += [{"reasoning_content": piece} for piece in _pieces(answer.thought)]
        deltas += [{"content": piece} for piece in _pieces(answer.text)]
        for call in self._tool_calls(answer):
            function = call.pop("function")
            head = {"name": function["name"], "arguments": ""}
            deltas.append({"tool_calls": [{**call, "function": head}]})
            for piece in _pieces(function["arguments"]):
                deltas.append({"tool_calls": [{"index": call["index"], "function": {"arguments": piece}}]})
        for delta in deltas:
            yield self._chunk([{"index": 0, "delta": delta, "finish_reason": None}])
        reason = "tool_calls" if answer.calls else "stop"
        yield self._chunk([{"index": 0, "delta": {}, "finish_reason": reason}])
        yield self._chunk([], usage=_CHAT_USAGE)
        yield b"data: [DONE]\n\n"

    def _tool_calls(self, answer: Answer) -> list[dict[str, Any]]:
        return [
            {
                "index": number,
                "id": f"call_{self.calls}_{number}",
                "type": "function",
                "function": {"name": name, "arguments": orjson.dumps(arguments).decode()},
            }
            for number, (name, arguments) in enumerate(answer.calls)
        ]

    def _head(self, kind: str) -> dict[str, Any]:
        return {"id": f"chatcmpl-{self.calls}", "object": kind, "created": 1, "model": "m-1"}

    def _chunk(self, choices: list[dict[str, Any]], **more: Any) -> bytes:
        chunk = {**self._head("chat.completion.chunk"), "choices": choices, **more}
        return b"data: " + orjson.dumps(chunk) + b"\n\n"


class ResponsesServer(ModelServer):
    """The Responses API as vLLM has it without its store: nothing earlier can be named, and `phase` and
    `logprobs` are null in its items."""

    api = "responses"
    path = "responses"

    def _understood(self, body: dict[str, Any]) -> Turn:
        if body.get("previous_response_id"):
            raise Refused(f"Response with id '{body['previous_response_id']}' not found.")
        if body.get("background"):
            raise Refused("This model does not support background mode")
        given = body.get("input")
        if given is None:
            raise Refused("input is missing")
        items = [{"role": "user", "content": given}] if isinstance(given, str) else given
        said: list[str] = []
        outputs: list[str] = []
        calls: set[str] = set()
        for number, item in enumerate(items):
            kind = item.get("type") or "message"
            if kind not in _RESPONSES_ITEMS:
                raise Refused(f"input[{number}]: unknown item type {kind!r}")
            if kind == "message" and item.get("role") == "user":
                said.append(_text_of(item.get("content")))
                outputs = []
            elif kind == "function_call":
                calls.add(item["call_id"])
            elif kind == "function_call_output":
                if item["call_id"] not in calls:
                    raise Refused(
                        f"No tool call found for function call output with call_id {item['call_id']}."
                    )
                outputs.append(_text_of(item.get("output")))
        tools = [tool["name"] for tool in body.get("tools") or [] if tool.get("type") == "function"]
        form = ((body.get("text") or {}).get("format") or {}).get("type")
        return Turn(said, outputs, tools, is_json=form in ("json_schema", "json_object"))

    def _items(self, answer: Answer) -> list[dict[str, Any]]:
        items: list[dict[str, Any]] = []
        if answer.thought:
            content = [{"type": "reasoning_text", "text": answer.thought}]
            items.append(
                {
                    "id": f"rs_{self.calls}",
                    "type": "reasoning",
                    "summary": [],
                    "content": content,
                    "status": None,
                }
            )
        for number, (name, arguments) in enumerate(answer.calls):
            named = f"{self.calls}_{number}"
            call = {"type": "function_call", "id": f"fc_{named}", "call_id": f"call_{named}", "name": name}
            items.append({**call, "arguments": orjson.dumps(arguments).decode(), "status": "completed"})
        if answer.text:
            text: dict[str, Any] = {
                "type": "output_text",
                "text": answer.text,
                "annotations": [],
                "logprobs": None,
            }
            message = {"id": f"msg_{self.calls}", "type": "message", "role": "assistant", "phase": None}
            items.append({**message, "status": "completed", "content": [text]})
        return items

    def _whole(self, answer: Answer) -> dict[str, Any]:
        return {**self._response("completed"), "output": self._items(answer), "usage": _RESPONSES_USAGE}

    def _response(self, status: str) -> dict[str, Any]:
        return {
            "id": f"resp_{self.calls}",
            "object": "response",
            "created_at": 1,
            "model": "m-1",
            "status": status,
            "output": [],
            "instructions": None,
            "metadata": None,
            "parallel_tool_calls": True,
            "temperature": 1.0,
            "top_p": 1.0,
            "tool_choice": "auto",
            "tools": [],
        }

    def _streamed(self, answer: Answer) -> Iterator[bytes]:
        events = list(self._events(answer))
        for number, event in enumerate(events):
            data = orjson.dumps({**event, "sequence_number": number})
            yield f"event: {event['type']}\ndata: ".encode() + data + b"\n\n"

    def _events(self, answer: Answer) -> Iterator[dict[str, Any]]:
        yield {"type": "response.created", "response": self._response("in_progress")}
        yield {"type": "response.in_progress", "response": self._response("in_progress")}
        for index, item in enumerate(self._items(answer)):
            yield from _events_of(item, index)
        yield {"type": "response.completed", "response": self._whole(answer)}


def _events_of(item: dict[str, Any], index: int) -> Iterator[dict[str, Any]]:
    at = {"item_id": item["id"], "output_index": index}
    begun = {**item, "status": "in_progress"}
    if item["type"] == "function_call":
        yield {
            "type": "response.output_item.added",
            "output_index": index,
            "item": {**begun, "arguments": ""},
        }
        for piece in _pieces(item["arguments"]):
            yield {"type": "response.function_call_arguments.delta", **at, "delta": piece}
        yield {
            "type": "response.function_call_arguments.done",
            **at,
            "arguments": item["arguments"],
            "name": item["name"],
        }
    else:
        part: dict[str, Any] = item["content"][0]
        kind = "reasoning_text" if item["type"] == "reasoning" else "output_text"
        at["content_index"] = 0
        yield {"type": "response.output_item.added", "output_index": index, "item": {**begun, "content": []}}
        yield {"type": "response.content_part.added", **at, "part": {**part, "text": ""}}
        for piece in _pieces(part["text"]):
            yield {"type": f"response.{kind}.delta", **at, "delta": piece, "logprobs": []}
        yield {"type": f"response.{kind}.done", **at, "text": part["text"], "logprobs": []}
        yield {"type": "response.content_part.done", **at, "part": part}
    yield {"type": "response.output_item.done", "output_index": index, "item": item}


def _pieces(text: str) -> list[str]:
    return re.findall(r".{1,7}", text, re.DOTALL)


def _text_of(content: Any) -> str:
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        return " ".join(str(part.get("text", "")) for part in content if isinstance(part, dict))
    return ""


_CHAT_USAGE = {"prompt_tokens": 11, "completion_tokens": 7, "total_tokens": 18}
_RESPONSES_USAGE = {
    "input_tokens": 11,
    "output_tokens": 7,
    "total_tokens": 18,
    "input_tokens_details": {"cached_tokens": 0},
    "output_tokens_details": {"reasoning_tokens": 3},
}
