"""A model server as the doctor meets them: what it can and refuses is said, in the words of real ones."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import orjson
from aiohttp import web

_NO_TOOLS = '"auto" tool choice requires --enable-auto-tool-choice and --tool-call-parser to be set'
_NO_MAX_TOKENS = (
    "Unsupported parameter: 'max_tokens' is not supported with this model. "
    "Use 'max_completion_tokens' instead."
)
_NO_STREAM_OPTIONS = "Extra inputs are not permitted: stream_options"
_SYSTEM_FIRST = "System message must be at the beginning."
_ROLES = "Unexpected message role."
_NO_SCHEMA = (
    "1 validation error: {'type': 'literal_error', 'loc': ('body', 'response_format', 'type'), "
    "'msg': \"Input should be 'text' or 'json_object'\", 'input': 'json_schema'}"
)


@dataclass(slots=True)
class Engine:
    """One, which speaks chat completions.

    Attributes:
        refuses: Some of `tools`, `late system`, `developer`, `max_tokens`, `stream_options`, `key`, `models`,
            `schema, with 500`.
        says: Its answer to whatever is asked but what it knows better.
        metrics: Whose it has; None: none.
        stops: When its client leaves.
        pace_s: Between two words.
        slow_from: From this request on it does not answer.
        loads_s: Before its first answer, which then comes at once.
        bodies: What it was asked.
        running: Requests that it works on.
    """

    refuses: frozenset[str] = frozenset()
    says: str = " ".join(map(str, range(1, 11)))
    metrics: str | None = "vllm"
    streams: bool = True
    at_once: bool = False
    stops: bool = True
    has_usage: bool = True
    continues: str = "asked"
    pace_s: float = 0.001
    date: str | None = None
    names: tuple[str, ...] = ("tiny-embed", "tiny")
    slow_from: int | None = None
    loads_s: float = 0.0
    bodies: list[dict[str, Any]] = field(default_factory=list)
    running: int = 0
    generated: int = 0
    url: str = ""
    _left: set[asyncio.Task[None]] = field(default_factory=set)

    @contextlib.asynccontextmanager
    async def listening(self) -> AsyncIterator[Engine]:
        """Serve while the block runs."""
        app = web.Application()
        app.router.add_get("/v1/models", self._models)
        app.router.add_post("/v1/chat/completions", self._chat)
        app.router.add_get("/metrics", self._metrics)
        app.on_response_prepare.append(self._dated)
        runner = web.AppRunner(app, handler_cancellation=True, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        try:
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            self.url = f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
            yield self
        finally:
            for task in self._left:
                task.cancel()
            await runner.cleanup()

    async def _dated(self, _request: web.Request, response: web.StreamResponse) -> None:
        if self.date is not None:
            response.headers["Date"] = self.date

    async def _models(self, request: web.Request) -> web.Response:
        if "key" in self.refuses and request.headers.get("Authorization") != "Bearer sk-good":
            return _error(401, "Incorrect API key provided: sk-bad-0123456789abcdef.")
        if "models" in self.refuses:
            return _error(404, "Not Found")
        return _json({"object": "list", "data": [{"id": name, "object": "model"} for name in self.names]})

    async def _metrics(self, _request: web.Request) -> web.Response:
        pages = {
            None: "",
            "vllm": f'vllm:num_requests_running{{model_name="tiny"}} {self.running}\n'
            'vllm:num_requests_waiting{model_name="tiny"} 0\n'
            f'vllm:generation_tokens_total{{model_name="tiny"}} {self.generated}\n',
            "sglang": f"sglang:num_running_reqs {self.running}\nsglang:num_queue_reqs 0\n",
            "llamacpp": f"llamacpp:requests_processing {self.running}\nllamacpp:requests_deferred 0\n",
        }
        return web.Response(text=pages[self.metrics], status=200 if self.metrics else 404)

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        body = orjson.loads(await request.read())
        self.bodies.append(body)
        if self.slow_from is not None and len(self.bodies) >= self.slow_from:
            await asyncio.Event().wait()  # until its client leaves
        if "response_format" in body and "schema, with 500" in self.refuses:
            return _error(500, _NO_SCHEMA)
        if len(self.bodies) == 1:
            await asyncio.sleep(self.loads_s)
        if (refusal := self._refusal(body)) is not None:
            return _error(400, refusal)
        if body.get("tools"):
            return await self._say(request, [], body)
        return await self._say(request, self._words(body), body)

    def _refusal(self, body: dict[str, Any]) -> str | None:
        roles = [message["role"] for message in body["messages"]]
        found = {
            "max_tokens": "max_tokens" in body and _NO_MAX_TOKENS,
            "stream_options": "stream_options" in body and _NO_STREAM_OPTIONS,
            "tools": "tools" in body and _NO_TOOLS,
            "late system": "system" in roles[1:] and _SYSTEM_FIRST,
            "developer": "developer" in roles and _ROLES,
        }
        return next((words for name, words in found.items() if words and name in self.refuses), None)

    def _words(self, body: dict[str, Any]) -> list[str]:
        messages = body["messages"]
        if "Count from 1 to 2000" in messages[-1]["content"]:
            return [f"{number}\n" for number in range(1, 2001)]
        if "response_format" in body and "schema" not in self.refuses:
            return ['{"city":"Bergen",', '"rains":true}']
        if messages[-1]["role"] == "assistant":
            goes_on = self.continues == "always" or (
                self.continues == "asked" and body.get("continue_final_message")
            )
            return [" 5,", " 6"] if goes_on else ["Sure: ", "1, 2"]
        return [f"{word} " for word in self.says.split(" ")]

    async def _say(self, request: web.Request, words: list[str], body: dict[str, Any]) -> web.StreamResponse:
        call = {
            "index": 0,
            "id": "c",
            "type": "function",
            "function": {"name": "weather_in", "arguments": "{}"},
        }
        deltas: list[dict[str, Any]] = (
            [{"content": word} for word in words] if words else [{"role": "assistant", "tool_calls": [call]}]
        )
        if not self.streams:
            message = {"role": "assistant", "content": "".join(words), "tool_calls": [] if words else [call]}
            return _json({"object": "chat.completion", "choices": [{"index": 0, "message": message}]})
        out = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await out.prepare(request)
        self.running += 1
        work = asyncio.create_task(self._work(out, deltas, body))
        self._left.add(work)
        try:
            await asyncio.shield(work)
        except asyncio.CancelledError:
            if self.stops:
                work.cancel()
            raise
        return out

    async def _work(
        self, out: web.StreamResponse, deltas: list[dict[str, Any]], body: dict[str, Any]
    ) -> None:
        """Make the answer, whether anybody takes it or not."""
        try:
            deltas = deltas[: body.get("max_tokens") or body["max_completion_tokens"]]
            if self.at_once:
                await asyncio.sleep(self.pace_s * len(deltas))
            for delta in deltas:
                if not self.at_once:
                    await asyncio.sleep(self.pace_s)
                self.generated += 1
                with contextlib.suppress(ConnectionError):
                    await out.write(_chunk([{"index": 0, "delta": delta}]))
            usage = {"prompt_tokens": 3, "completion_tokens": len(deltas), "total_tokens": 3 + len(deltas)}
            with contextlib.suppress(ConnectionError):
                if self.has_usage and "stream_options" in body:
                    await out.write(_chunk([], usage=usage))
                await out.write(b"data: [DONE]\n\n")
        finally:
            self.running -= 1


def _chunk(choices: list[dict[str, Any]], **more: Any) -> bytes:
    body = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "choices": choices, **more}
    return b"data: %b\n\n" % orjson.dumps(body)


def _json(body: Any, status: int = 200) -> web.Response:
    return web.Response(body=orjson.dumps(body), status=status, content_type="application/json")


def _error(status: int, message: str) -> web.Response:
    return _json({"object": "error", "message": message, "type": "BadRequestError", "code": status}, status)
