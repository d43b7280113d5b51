"""A SIMULATED model server: it speaks the OpenAI API like a plain vLLM, but there is no model inside.

It answers by the rules in `demo/words.py`, at a set pace, so that the gateway can be tried without a GPU
and without a download. Like most model servers it is synchronous and stateless: no background mode, no
stored responses, and it stops working the moment its client leaves.

To see how failures look, send `"metadata": {"demo_error": …}` with one of

    "500"          an HTTP 500 instead of an answer
    "cut"          the connection is cut after three words
    "error_event"  an `error` event after three words, then the end (without stream: an HTTP 500)
    "garbage"      200 OK with a page of HTML

With `--slots N` it works on N requests at a time; the others wait in its own queue, as in a real server.

Run it: python -m demo.model_server --host 127.0.0.1 --port 8000 --words-per-second 8
"""

from __future__ import annotations

import argparse
import asyncio
import hmac
import secrets
import signal
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Any

import orjson
from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from demo import asks, chat_shapes, shapes
from demo.asks import MODEL, Ask, Refused

FAULT_AFTER_WORDS = 3
BODY_BYTES_MAX = 64 * 2**20


@dataclass(slots=True)
class Meter:
    """What /metrics shows."""

    requests: int = 0
    waiting: int = 0
    waiting_max: int = 0
    running: int = 0
    running_max: int = 0
    tokens_generated: int = 0

    @contextmanager
    def one_waiting(self) -> Iterator[None]:
        self.requests += 1
        self.waiting += 1
        self.waiting_max = max(self.waiting, self.waiting_max)
        try:
            yield
        finally:
            self.waiting -= 1

    @contextmanager
    def one_running(self) -> Iterator[None]:
        self.running += 1
        self.running_max = max(self.running, self.running_max)
        try:
            yield
        finally:
            self.running -= 1


class Pace:
    """Makes each word of one answer wait until it is due; a late word does not delay the ones after it."""

    def __init__(self, meter: Meter, seconds_per_word: float) -> None:
        self.spoken = 0
        self._meter = meter
        self._seconds_per_word = seconds_per_word
        self._started = asyncio.get_running_loop().time()

    async def word(self) -> None:
        due = self._started + (self.spoken + 1) * self._seconds_per_word
        await asyncio.sleep(max(0.0, due - asyncio.get_running_loop().time()))
        self.spoken += 1
        self._meter.tokens_generated += 1


@dataclass(frozen=True, slots=True)
class Dialect:
    """One of the two APIs: how to read a request, and how to answer it at once or as a stream."""

    read: Callable[[dict[str, Any]], Ask]
    whole: Callable[[shapes.Answer], shapes.JSON]
    frames: Callable[[shapes.Answer], Iterator[shapes.Frame]]
    error_frame: Callable[[int], bytes]


RESPONSES = Dialect(
    asks.read_responses,
    lambda answer: shapes.response(answer, is_over=True),
    shapes.frames,
    shapes.error_frame,
)
CHAT = Dialect(asks.read_chat, chat_shapes.completion, chat_shapes.frames, chat_shapes.error_frame)


class ModelServer:
    """The handlers. Nothing is kept between requests but the numbers for /metrics.

    Args:
        slots: Requests worked on at a time; None is no limit.
    """

    def __init__(self, *, words_per_second: float, slots: int | None = None) -> None:
        self.meter = Meter()
        self._seconds_per_word = 1 / words_per_second
        self._slots = None if slots is None else asyncio.Semaphore(slots)

    async def responses(self, request: web.Request) -> web.StreamResponse:
        return await self._generate(request, RESPONSES)

    async def chat(self, request: web.Request) -> web.StreamResponse:
        return await self._generate(request, CHAT)

    async def unknown_response(self, request: web.Request) -> web.Response:
        raise asks.unknown_response(request.match_info["response_id"])

    async def models(self, _request: web.Request) -> web.Response:
        return _json(chat_shapes.models(int(time.time())))

    async def embeddings(self, request: web.Request) -> web.Response:
        return _json(chat_shapes.embeddings(asks.read_json(await request.read())))

    async def health(self, _request: web.Request) -> web.Response:
        return web.Response()

    async def metrics(self, _request: web.Request) -> web.Response:
        gauges = {
            "vllm:num_requests_running": self.meter.running,
            "vllm:num_requests_waiting": self.meter.waiting,
            "demo:num_requests_running": self.meter.running,
            "demo:num_requests_running_max": self.meter.running_max,
            "demo:num_requests_waiting_max": self.meter.waiting_max,
            "demo:requests_total": self.meter.requests,
            "demo:tokens_generated_total": self.meter.tokens_generated,
        }
        lines = (f"# TYPE {name} gauge\n{name} {value}\n" for name, value in gauges.items())
        return web.Response(text="".join(lines))

    async def _generate(self, request: web.Request, dialect: Dialect) -> web.StreamResponse:
        """Answer at the set pace. aiohttp cancels us when the client leaves, and that stops the work."""
        ask = dialect.read(asks.read_json(await request.read()))
        if ask.fault == "500" or (ask.fault == "error_event" and not ask.is_stream):
            raise Refused(500, "The demo was asked to fail here.", "InternalServerError", None)
        if ask.fault == "garbage":
            return web.Response(
                text="<html><body>Not what you asked for.</body></html>", content_type="text/html"
            )
        answer = shapes.answer(ask, nonce=secrets.token_hex(8), created_s=int(time.time()))
        async with self._slot():
            pace = Pace(self.meter, self._seconds_per_word)
            if ask.is_stream:
                return await self._stream(request, dialect, answer, pace)
            for _ in answer.pieces:
                if ask.fault == "cut" and pace.spoken == _words_before_fault(answer):
                    return _hang_up(request, web.Response())
                await pace.word()
            return _json(dialect.whole(answer))

    @asynccontextmanager
    async def _slot(self) -> AsyncIterator[None]:
        """A place among those that are worked on; who came first gets the next."""
        async with AsyncExitStack() as held:
            with self.meter.one_waiting():
                if self._slots is not None:
                    await held.enter_async_context(self._slots)
            with self.meter.one_running():
                yield

    async def _stream(
        self, request: web.Request, dialect: Dialect, answer: shapes.Answer, pace: Pace
    ) -> web.StreamResponse:
        out = web.StreamResponse(headers={"Content-Type": "text/event-stream; charset=utf-8"})
        await out.prepare(request)
        fault = answer.ask.fault
        for number, frame in enumerate(dialect.frames(answer)):
            if frame.is_word:
                if fault and pace.spoken == _words_before_fault(answer):
                    return await self._break_down(request, out, dialect, fault, number)
                await pace.word()
            await out.write(frame.data)
        await out.write_eof()
        return out

    async def _break_down(
        self, request: web.Request, out: web.StreamResponse, dialect: Dialect, fault: str, number: int
    ) -> web.StreamResponse:
        if fault == "error_event":
            await out.write(dialect.error_frame(number))
            await out.write_eof()
            return out
        return _hang_up(request, out)


def make_app(server: ModelServer, *, api_key: str | None = None) -> web.Application:
    app = web.Application(middlewares=[_errors, _guard(api_key)], client_max_size=BODY_BYTES_MAX)
    app.add_routes(
        [
            web.post("/v1/responses", server.responses),
            web.get("/v1/responses/{response_id}", server.unknown_response),
            web.post("/v1/responses/{response_id}/cancel", server.unknown_response),
            web.post("/v1/chat/completions", server.chat),
            web.post("/v1/embeddings", server.embeddings),
            web.get("/v1/models", server.models),
            web.get("/health", server.health),
            web.get("/metrics", server.metrics),
        ]
    )
    return app


@asynccontextmanager
async def listening(app: web.Application, host: str, port: int) -> AsyncIterator[str]:
    """Serve `app` while the block runs; yields the server's root URL, with the real port."""
    # handler_cancellation: without it aiohttp lets a handler finish its words for a client long gone.
    runner = web.AppRunner(app, handler_cancellation=True, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.TCPSite(runner, host, port).start()
        bound_host, bound_port, *_ = runner.addresses[0]
        yield (
            f"http://[{bound_host}]:{bound_port}"
            if ":" in bound_host
            else f"http://{bound_host}:{bound_port}"
        )
    finally:
        await runner.cleanup()


@web.middleware
async def _errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except Refused as refused:
        return _json(refused.body, refused.code)
    except web.HTTPException as error:
        answer = _json({"detail": error.reason}, error.status)
        if "Allow" in error.headers:
            answer.headers["Allow"] = error.headers["Allow"]
        return answer


def _guard(api_key: str | None) -> Middleware:
    """Ask for the key on /v1 only, as vLLM does: probes and metrics stay open."""

    @web.middleware
    async def guard(request: web.Request, handler: Handler) -> web.StreamResponse:
        given = request.headers.get("Authorization", "").removeprefix("Bearer ")
        is_known = api_key is None or hmac.compare_digest(given.encode(), api_key.encode())
        if request.path.startswith("/v1") and not is_known:
            return _json({"error": "Unauthorized"}, 401)
        return await handler(request)

    return guard


def _words_before_fault(answer: shapes.Answer) -> int:
    """Short answers break off before their last word: a fault that was asked for must show."""
    return min(FAULT_AFTER_WORDS, len(answer.pieces) - 1)


def _hang_up(request: web.Request, out: web.StreamResponse) -> web.StreamResponse:
    """Close the connection under an unfinished answer; what was written still goes out first."""
    if request.transport is not None:
        request.transport.close()
    return out


def _json(body: shapes.JSON, status: int = 200) -> web.Response:
    return web.Response(body=orjson.dumps(body), status=status, content_type="application/json")


async def _run(host: str, port: int, words_per_second: float, slots: int | None, api_key: str | None) -> None:
    over = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, over.set)
    app = make_app(ModelServer(words_per_second=words_per_second, slots=slots), api_key=api_key)
    async with listening(app, host, port) as url:
        print(f"{MODEL}, a simulation without a model inside, listens at {url}/v1", flush=True)
        await over.wait()


def positive(text: str) -> float:
    value = float(text)
    if not value > 0:
        raise argparse.ArgumentTypeError("must be above 0")
    return value


def count(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return value


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m demo.model_server", description="A simulated model server."
    )
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8000, help="0 takes a free one (default: %(default)s)")
    parser.add_argument("--words-per-second", type=positive, default=8.0, help="default: %(default)s")
    parser.add_argument("--slots", type=count, help="requests worked on at a time (default: no limit)")
    parser.add_argument("--api-key", help="refuse callers under /v1 that do not send this key")
    args = parser.parse_args()
    asyncio.run(_run(args.host, args.port, args.words_per_second, args.slots, args.api_key))


if __name__ == "__main__":
    main()
