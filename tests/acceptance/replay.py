"""A model server that says what real ones were recorded to say, and can be held at any event.

It knows what it was asked, byte for byte, and when its client left: that is how the tests see what reached
the backend and when the gateway let go of it.
"""

from __future__ import annotations

import asyncio
import socket
import struct
import time
from collections import deque
from dataclasses import dataclass, field
from enum import Enum, auto
from functools import cache
from pathlib import Path
from typing import Any

import orjson
from aiohttp import web

from tests.acceptance.harness import WAIT_S, frames, within

TRANSCRIPTS = Path(__file__).resolve().parents[1] / "transcripts"
_CUT = "…"
"""A recording has it where it was shortened."""
_OF_ONE_CONNECTION = frozenset({"connection", "content-length", "date", "keep-alive", "transfer-encoding"})

_QUESTION = b"{}"
"""By this the gateway finds out, once, whether a model server has the Responses API."""


class End(Enum):
    """How an answer ends."""

    PROPER = auto()
    FIN = auto()
    RESET = auto()


@dataclass(frozen=True, slots=True)
class Recording:
    """One exchange with a real server.

    Attributes:
        asked: The request's body; None if it was shortened.
        body: The answer's body, verbatim.
    """

    name: str
    asked: bytes | None
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def is_stream(self) -> bool:
        return self.headers.get("content-type", "").startswith("text/event-stream")

    @property
    def is_whole(self) -> bool:
        return _CUT.encode() not in self.body


@cache
def recording(name: str) -> Recording:
    """Read a transcript, e.g. `vllm/responses-stream`."""
    raw = (TRANSCRIPTS / f"{name}.txt").read_bytes()
    request, _, answer = raw.partition(b"\n\n< ")
    head, _, body = answer.partition(b"\n\n")
    asked = request.decode().split("\n> ", 1)[1:]
    status, *headers = head.decode().split("\n< ")
    pairs = (line.partition(":") for line in headers)
    return Recording(
        name,
        asked[0].encode() if asked and _CUT not in asked[0] else None,
        int(status),
        {key.lower(): value.strip() for key, _, value in pairs if key.lower() not in _OF_ONE_CONNECTION},
        body,
    )


def recorded(server: str, *, is_stream: bool, is_error: bool = False) -> list[str]:
    """Names of all whole recordings of /responses that are (or are not) streams, or errors."""
    names = sorted(f"{server}/{path.stem}" for path in (TRANSCRIPTS / server).glob("responses-*.txt"))
    found = [recording(name) for name in names]
    return [
        one.name
        for one in found
        if one.is_whole and one.is_stream is is_stream and (one.status >= 400) is is_error
    ]


@dataclass(slots=True)
class Answer:
    """What to say to one request.

    Attributes:
        blocks: Written one at a time.
        hold_after: With this many blocks written, stop until `release` is set; -1: before the head.
        held: Set when it has stopped there.
    """

    blocks: list[bytes]
    status: int = 200
    headers: dict[str, str] = field(default_factory=lambda: {"Content-Type": "text/event-stream"})
    hold_after: int | None = None
    end: End = End.PROPER
    held: asyncio.Event = field(default_factory=asyncio.Event)
    release: asyncio.Event = field(default_factory=asyncio.Event)


def replay(name: str, *, hold_after: int | None = None) -> Answer:
    """The answer that was recorded."""
    found = recording(name)
    blocks = frames(found.body) if found.is_stream else [found.body]
    return Answer(blocks, found.status, dict(found.headers), hold_after)


def json_answer(body: Any, status: int = 200) -> Answer:
    return Answer([orjson.dumps(body)], status, {"Content-Type": "application/json"})


@dataclass(slots=True)
class Call:
    """One request as it arrived, and when, and whether whoever sent it has hung up since."""

    method: str
    target: str
    headers: list[tuple[str, str]]
    body: bytes
    at: float = field(default_factory=time.monotonic)
    gone: asyncio.Event = field(default_factory=asyncio.Event)
    over: asyncio.Event = field(default_factory=asyncio.Event)

    def json(self) -> Any:
        return orjson.loads(self.body)

    def header(self, name: str) -> str | None:
        return next((value for key, value in self.headers if key.lower() == name), None)


_TURNS_TO_ACCEPT = 3
"""Of the loop, from an accepted connection to its transport."""


class ReplayServer:
    """Answers POSTs from its script, and everything else (or without one) by what was asked.

    A request body can name its own recording: `"metadata": {"recording": "vllm/responses-stream"}`, and
    `"hold_after"` beside it; `POST /release` then lets all held answers go on. So tests in other
    languages can script it too.

    Attributes:
        calls: What was asked; left out are health checks, and what asks it, or shows, whether it has the
            Responses API.
        answer_to_question: The recording that says whether it has the Responses API.
        known: What it answers to a GET, by target, in place of a recording.
    """

    def __init__(self) -> None:
        self.answer_to_question = "vllm/responses-error-no-input"
        self.calls: list[Call] = []
        self.known: dict[str, Answer] = {}
        self.url = ""
        self._listener: socket.socket | None = None
        self._script: deque[Answer] = deque()
        self._answers: list[Answer] = []
        self._news = asyncio.Event()
        self._runner = web.AppRunner(
            self._app(), handler_cancellation=True, access_log=None, shutdown_timeout=0.1
        )

    async def start(self, port: int = 0) -> None:
        await self._runner.setup()
        self._listener = socket.create_server(("127.0.0.1", port))
        await web.SockSite(self._runner, self._listener).start()
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}/v1"

    async def stop(self) -> None:
        self.release_all()
        if self._listener is not None:
            # What asyncio has accepted in the turn in which its server is closed, it loses, open.
            asyncio.get_running_loop().remove_reader(self._listener)
            for _ in range(_TURNS_TO_ACCEPT):
                await asyncio.sleep(0)
            self._listener = None
        await self._runner.cleanup()

    def script(self, *answers: Answer) -> Answer:
        """Say these to the next POSTs, in order. Returns the first."""
        self._script.extend(answers)
        return answers[0]

    def release_all(self) -> None:
        for answer in (*self._answers, *self._script):
            answer.release.set()

    @property
    def creates(self) -> list[Call]:
        """The calls that ask for something to be made."""
        return [call for call in self.calls if call.method == "POST"]

    async def create(self, number: int) -> Call:
        """The POST of this number, come already or still to come."""
        async with asyncio.timeout(WAIT_S):
            while len(self.creates) <= number:
                self._news.clear()
                await self._news.wait()
        return self.creates[number]

    # -- answers

    def _app(self) -> web.Application:
        app = web.Application(client_max_size=2**26)
        app.router.add_post("/release", self._release)
        app.router.add_route("*", "/{path:.*}", self._handle)
        return app

    async def _release(self, _request: web.Request) -> web.Response:
        self.release_all()
        return web.Response()

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        headers = [(name.decode(), value.decode()) for name, value in request.raw_headers]
        call = Call(request.method, request.raw_path, headers, await request.read())
        if call.header("user-agent") == "backburner-healthcheck":
            return await self._play(request, replay("vllm/models"))
        has_no_responses = recording(self.answer_to_question).status == 404
        is_create = call.method == "POST" and call.target.partition("?")[0].endswith("/responses")
        if call.body == _QUESTION and not is_create:  # the same of chat completions, which are always there
            return await self._play(request, json_answer({"detail": "messages are missing"}, 422))
        if call.body == _QUESTION or (is_create and has_no_responses):
            return await self._play(request, replay(self.answer_to_question))
        answer = self._answer_to(call)
        self._answers.append(answer)
        self.calls.append(call)
        self._news.set()
        try:
            return await self._play(request, answer)
        except (asyncio.CancelledError, ConnectionError):
            call.gone.set()
            raise
        finally:
            call.over.set()

    def _answer_to(self, call: Call) -> Answer:
        if call.method == "POST" and self._script:
            return self._script.popleft()
        if call.method == "GET" and call.target in self.known:
            return self.known[call.target]
        path = call.target.partition("?")[0].removeprefix("/v1")
        body = orjson.loads(call.body) if call.body[:1] == b"{" else {}
        script = body.get("metadata") or {}
        if "recording" in script:
            hold_after = script.get("hold_after")
            return replay(script["recording"], hold_after=None if hold_after is None else int(hold_after))
        kind = "stream" if body.get("stream") else "sync"
        by_path = {
            "/responses": f"vllm/responses-{kind}",
            "/chat/completions": f"vllm/chat-{kind}",
            "/models": "vllm/models",
            "/embeddings": "llamacpp-python/embeddings",
        }
        return replay(by_path.get(path, "vllm/unknown-path"))

    async def _play(self, request: web.Request, answer: Answer) -> web.StreamResponse:
        if answer.hold_after == -1:
            await _hold(answer)
        response = web.StreamResponse(status=answer.status, headers=answer.headers)
        await response.prepare(request)
        for number, block in enumerate(answer.blocks):
            if answer.hold_after == number:
                await _hold(answer)
            await response.write(block)
        if answer.hold_after == len(answer.blocks):
            await _hold(answer)
        if answer.end is End.PROPER:
            await response.write_eof()
        elif request.transport is not None:
            if answer.end is End.RESET:
                connection = request.transport.get_extra_info("socket")
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                request.transport.abort()
            request.transport.close()
        return response


async def _hold(answer: Answer) -> None:
    answer.held.set()
    await within(answer.release.wait(), 3 * WAIT_S)
