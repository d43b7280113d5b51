"""Receivers of webhooks, on real sockets: they keep what they are sent, and answer as a script says."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Self

import orjson
from aiohttp import web
from openai import OpenAI

from tests.acceptance.harness import within


@dataclass(frozen=True, slots=True)
class Received:
    """One attempt, as it came; names of headers in lower case."""

    path: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def webhook_id(self) -> str:
        return self.headers["webhook-id"]

    @property
    def response_id(self) -> str:
        found: str = orjson.loads(self.body)["data"]["id"]
        return found

    def unwrapped(self, secret: str) -> Any:
        """The event, if the official client accepts it; else its exception."""
        client = OpenAI(api_key="none", webhook_secret=secret)
        return client.webhooks.unwrap(self.body, dict(self.headers))


@dataclass(slots=True)
class Answer:
    """What a receiver does about one attempt.

    Attributes:
        hold: It says nothing until this is set.
    """

    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    hold: asyncio.Event | None = None


class Receiver:
    """One, on a port of its own.

    Attributes:
        answers: For the next attempts; `default` when there are no more.
        connections: How many there were.
        on_attempt: Called as one comes, before it is answered.
    """

    def __init__(self, *, host: str = "127.0.0.1", port: int = 0, tls: ssl.SSLContext | None = None) -> None:
        self.received: list[Received] = []
        self.answers: list[Answer] = []
        self.default = Answer()
        self.connections = 0
        self.on_attempt: Callable[[], None] = lambda: None
        self.url = ""
        self._place = host, port, tls
        self._news = asyncio.Event()
        self._runner = web.ServerRunner(web.Server(self._answer, access_log=None), shutdown_timeout=0)
        self._peers: set[Any] = set()
        self.holds: list[asyncio.Event] = []

    async def __aenter__(self) -> Self:
        host, port, tls = self._place
        await self._runner.setup()
        site = web.TCPSite(self._runner, host, port, ssl_context=tls)
        await site.start()
        self.url = f"{'https' if tls else 'http'}://{host}:{self._runner.addresses[0][1]}/hook"
        return self

    async def __aexit__(self, *_: object) -> None:
        for hold in self.holds:
            hold.set()
        await self._runner.cleanup()

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        self._peers.add(request.transport and request.transport.get_extra_info("peername"))
        self.connections = len(self._peers)
        headers = {name.lower(): value for name, value in request.headers.items()}
        self.received.append(Received(request.raw_path, headers, await request.read()))
        self._news.set()
        self.on_attempt()
        answer = self.answers.pop(0) if self.answers else self.default
        if answer.hold is not None:
            self.holds.append(answer.hold)
            await answer.hold.wait()
        return web.Response(status=answer.status, headers=answer.headers, body=answer.body)

    async def attempts(self, count: int = 1) -> list[Received]:
        """What came, as soon as there are so many."""
        while len(self.received) < count:
            self._news.clear()
            await within(self._news.wait())
        return self.received
