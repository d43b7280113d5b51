"""A model server that says, byte for byte and piece by piece, what it was told to say to a request."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import orjson
from aiohttp import web

from demo.model_server import listening

_PAUSE_S = 0.002
"""Between two pieces, so that they are read apart."""


class Hostile:
    """Answers by the `user` field of the request, which names a saying.

    Attributes:
        url: Base URL.
    """

    def __init__(self) -> None:
        self.url = ""
        self._sayings: dict[str, list[bytes]] = {}

    def say(self, name: str, *pieces: bytes) -> None:
        """To requests that name this, answer with these pieces of an event stream."""
        self._sayings[name] = list(pieces)

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[Hostile]:
        app = web.Application(client_max_size=2**26)
        app.router.add_get("/v1/models", self._models)
        app.router.add_post("/v1/{path:.*}", self._answer)
        async with listening(app, "127.0.0.1", 0) as root:
            self.url = f"{root}/v1"
            yield self

    async def _models(self, _request: web.Request) -> web.Response:
        return web.json_response({"object": "list", "data": []})

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        body: dict[str, Any] = orjson.loads(await request.read())
        answer = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await answer.prepare(request)
        try:
            for number, piece in enumerate(self._sayings[body["user"]]):
                if number:
                    await asyncio.sleep(_PAUSE_S)
                await answer.write(piece)
            await answer.write_eof()
        except ConnectionError:
            pass  # more than the gateway cares to read
        return answer
