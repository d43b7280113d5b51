"""A model server that has callers of its own: it knows their keys, and keeps what it answered for each."""

from __future__ import annotations

import asyncio
import hashlib
import random
from collections import Counter, deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import orjson
from aiohttp import web

OF_BACKEND = "X-Of-Backend"
"""A header of all its answers: so they can be told from the gateway's own."""


def echo_of(key: str) -> str:
    """What it says to whoever brings this key: nobody else's answer has it."""
    return hashlib.sha256(key.encode()).hexdigest()


class KeyedServer:
    """Answers each key with its hash.

    Attributes:
        keys: Those that it takes; None: any, and none.
        kept: Ids of its own stored responses, by the key that made them.
        seen: Method and path of the last requests, with the headers that came.
        cookies: How many requests came with a cookie, which it has given to every one of its answers.
        status: What it answers to `/models` in place of what it should.
        shows_models: To anybody, as llama.cpp does.
        gate: Cleared, `/models` waits.
        elsewhere: Where it redirects those who ask for it.
    """

    def __init__(self, *keys: str) -> None:
        self.keys: set[str] | None = set(keys) or None
        self.kept: dict[str, str] = {}
        self.seen: deque[tuple[str, str, dict[str, str]]] = deque(maxlen=10_000)
        self.asked: Counter[str] = Counter()
        self.cookies = 0
        self.status: int | None = None
        self.shows_models = False
        self.gate = asyncio.Event()
        self.gate.set()
        self.url = ""
        self.elsewhere = ""

    @asynccontextmanager
    async def running(self) -> AsyncIterator[KeyedServer]:
        app = web.Application(client_max_size=2**26)
        app.router.add_get("/v1/models", self._models)
        app.router.add_post("/v1/responses", self._create)
        app.router.add_post("/v1/responses/{path:input_tokens|compact}", self._other)
        app.router.add_route("*", "/v1/responses/{id:[^/]+}{rest:.*}", self._one)
        app.router.add_get("/v1/realtime", self._socket)
        app.router.add_route("*", "/v1/echo/{count}", self._echo)
        app.router.add_route("*", "/v1/elsewhere", self._redirect)
        app.router.add_route("*", "/{path:.*}", self._other)
        app.middlewares.append(self._note)
        app.on_response_prepare.append(self._mark)
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
            if request.headers.get("User-Agent") == "backburner-healthcheck":
                return await handler(request)  # type: ignore[no-any-return]
            self.asked[path] += 1
            self.cookies += "Cookie" in request.headers
            headers = {name.lower(): value for name, value in request.headers.items()}
            self.seen.append((request.method, path, headers))
            try:
                response: web.StreamResponse = await handler(request)
            except ConnectionError:
                return web.Response()  # whoever asked has gone
            return response

        return note

    async def _mark(self, request: web.Request, response: web.StreamResponse) -> None:
        response.headers[OF_BACKEND] = "yes"
        response.headers["Set-Cookie"] = f"session={echo_of(_presented(request))}"

    def _key(self, request: web.Request) -> str:
        key = _presented(request)
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
        if not self.shows_models:
            self._key(request)
        return web.json_response({"object": "list", "data": [{"id": "tiny", "object": "model"}]})

    async def _create(self, request: web.Request) -> web.StreamResponse:
        """`metadata.fault` of the request says what goes wrong: see below."""
        key = self._key(request)
        try:
            body = orjson.loads(await request.read())
        except orjson.JSONDecodeError:
            return web.json_response({"error": {"message": "That is not JSON."}}, status=400)
        previous = body.get("previous_response_id")
        if previous is not None and self.kept.get(previous) != key:
            error = {"message": f"Previous response with id '{previous}' not found.", "type": "x"}
            return web.json_response({"error": error}, status=400)
        fault = (body.get("metadata") or {}).get("fault", "")
        if fault.startswith("quote:"):  # an error that quotes what it was asked with
            quoted = {"message": f"Bad key {request.headers}", "code": key, "type": key}
            return web.json_response({"error": quoted}, status=int(fault.removeprefix("quote:")))
        if fault == "redirect":
            return await self._redirect(request)
        if fault == "event":
            answer = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
            await answer.prepare(request)
            event = {"type": "error", "code": key, "message": f"Bad key {request.headers}", "param": None}
            await answer.write(b"event: error\ndata: " + orjson.dumps(event) + b"\n\n")
            return answer
        await asyncio.sleep(float((body.get("metadata") or {}).get("sleep", 0)))
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
        response = {"id": answer_id, "object": "response", "status": "completed", "model": "tiny"}
        return web.json_response({**response, "output": [item]})

    async def _one(self, request: web.Request) -> web.Response:
        key = self._key(request)
        found = request.match_info["id"]
        if self.kept.get(found) != key:
            return web.json_response({"error": {"message": "not in the backend's store"}}, status=404)
        return web.json_response(
            {"id": found, "object": "response", "status": "completed", "of": echo_of(key)}
        )

    async def _socket(self, request: web.Request) -> web.StreamResponse:
        of = echo_of(self._key(request))
        socket = web.WebSocketResponse(protocols=("realtime",))
        await socket.prepare(request)
        async for message in socket:
            await socket.send_str(f"{of} {message.data}")
        return socket

    async def _echo(self, request: web.Request) -> web.StreamResponse:
        """Its hash, so many times over, in pieces; `?reset` breaks off in the middle."""
        of = echo_of(self._key(request)).encode()
        count = int(request.match_info["count"])
        await request.read()
        answer = web.StreamResponse()
        await answer.prepare(request)
        for number in range(count):
            if "reset" in request.query and number == count // 2:
                if request.transport is not None:
                    request.transport.abort()
                break
            await answer.write(of)
            if random.random() < 0.1:
                await asyncio.sleep(0.001)
        return answer

    async def _redirect(self, _request: web.Request) -> web.StreamResponse:
        return web.Response(status=307, headers={"Location": self.elsewhere})

    async def _other(self, request: web.Request) -> web.Response:
        return web.json_response({"path": request.path, "of": echo_of(self._key(request))})


def _presented(request: web.Request) -> str:
    bearer = request.headers.get("Authorization", "").removeprefix("Bearer ")
    return bearer or request.headers.get("api-key") or request.headers.get("x-api-key") or ""
