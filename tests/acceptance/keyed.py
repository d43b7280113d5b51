"""A model server that has callers of its own: it knows their keys, and keeps what it answered for each."""

from __future__ import annotations

import asyncio
import hashlib
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import orjson
from aiohttp import web


def echo_of(key: str) -> str:
    """What it says to whoever brings this key: nobody else's answer has it."""
    return hashlib.sha256(key.encode()).hexdigest()


class KeyedServer:
    """Answers each key with its hash.

    Attributes:
        keys: Those that it takes; None: any, and none.
        kept: Ids of its own stored responses, by the key that made them.
        seen: Method and path of every request, with the headers that came.
        status: What it answers to `/models` in place of what it should.
        gate: Cleared, `/models` waits.
    """

    def __init__(self, *keys: str) -> None:
        self.keys: set[str] | None = set(keys) or None
        self.kept: dict[str, str] = {}
        self.seen: list[tuple[str, str, dict[str, str]]] = []
        self.asked: Counter[str] = Counter()
        self.status: int | None = None
        self.gate = asyncio.Event()
        self.gate.set()
        self.url = ""

    def headers(self, method: str, path: str) -> list[dict[str, str]]:
        """Of every request of that method and path."""
        return [headers for *what, headers in self.seen if what == [method, path]]

    @asynccontextmanager
    async def running(self) -> AsyncIterator[KeyedServer]:
        app = web.Application(client_max_size=2**26)
        app.router.add_get("/v1/models", self._models)
        app.router.add_post("/v1/responses", self._create)
        app.router.add_post("/v1/responses/{path:input_tokens|compact}", self._other)
        app.router.add_route("*", "/v1/responses/{id}{rest:.*}", self._one)
        app.router.add_get("/v1/realtime", self._socket)
        app.router.add_route("*", "/{path:.*}", self._other)
        app.middlewares.append(self._note)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
        try:
            yield self
        finally:
            self.gate.set()
            await runner.cleanup()

    @property
    def _note(self) -> Any:
        @web.middleware
        async def note(request: web.Request, handler: Any) -> web.StreamResponse:
            path = request.raw_path.partition("?")[0]
            self.asked[path] += 1
            headers = {name.lower(): value for name, value in request.headers.items()}
            self.seen.append((request.method, path, headers))
            response: web.StreamResponse = await handler(request)
            return response

        return note

    def _key(self, request: web.Request) -> str:
        bearer = request.headers.get("Authorization", "").removeprefix("Bearer ")
        key = bearer or request.headers.get("api-key") or request.headers.get("x-api-key") or ""
        if self.keys is not None and key not in self.keys:
            raise web.HTTPUnauthorized(
                text=orjson.dumps({"error": {"message": f"Bad key {key}"}}).decode(),
                content_type="application/json",
            )
        return key

    async def _models(self, request: web.Request) -> web.Response:
        await self.gate.wait()
        if self.status is not None:
            return web.Response(status=self.status)
        self._key(request)
        return web.json_response({"object": "list", "data": [{"id": "tiny", "object": "model"}]})

    async def _create(self, request: web.Request) -> web.StreamResponse:
        key = self._key(request)
        body = orjson.loads(await request.read())
        previous = body.get("previous_response_id")
        if previous is not None and self.kept.get(previous) != key:
            error = {"message": f"Previous response with id '{previous}' not found.", "type": "x"}
            return web.json_response({"error": error}, status=400)
        answer_id = f"resp_{len(self.kept):032x}"
        if body.get("store", True):
            self.kept[answer_id] = key
        part = {"type": "output_text", "text": echo_of(key), "annotations": []}
        item = {
            "id": "msg_1",
            "type": "message",
            "role": "assistant",
            "status": "completed",
            "content": [part],
        }
        answer = {
            "id": answer_id,
            "object": "response",
            "status": "completed",
            "model": "tiny",
            "output": [item],
        }
        headers = {"Set-Cookie": f"session={echo_of(key)}"}
        return web.json_response(answer, headers=headers)

    async def _one(self, request: web.Request) -> web.Response:
        key = self._key(request)
        found = request.match_info["id"]
        if self.kept.get(found) != key:
            return web.json_response({"error": {"message": "not in the backend's store"}}, status=404)
        return web.json_response(
            {"id": found, "object": "response", "status": "completed", "of": echo_of(key)}
        )

    async def _socket(self, request: web.Request) -> web.StreamResponse:
        self._key(request)
        socket = web.WebSocketResponse(protocols=("realtime",))
        await socket.prepare(request)
        async for message in socket:
            await socket.send_str(message.data)
        return socket

    async def _other(self, request: web.Request) -> web.Response:
        return web.json_response({"path": request.path, "of": echo_of(self._key(request))})
