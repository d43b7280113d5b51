"""Model servers that fail with words about their machines and somebody's keys: nobody gets to read these."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
from aiohttp import web

from demo.model_server import listening
from tests.acceptance.harness import frames, payload
from tests.torture.gateway import Gateway
from tests.torture.trial import Bench, trial

_JSON, _EVENTS = "application/json", "text/event-stream"
_STATUSES = (400, 401, 429, 500)


def _words(mark: str) -> list[str]:
    """As servers say it; each has the mark in what must not be seen."""
    return [
        f"upstream http://10.{mark[:2]}.9.8:8000/v1/{mark} refused key sk-{mark}-abcdef1234567890",
        f"Cannot connect to host vllm-{mark}:8000 ssl:default [Connect call failed ('gpu-{mark}', 8000)]",
        f"dial tcp: lookup svc-{mark}.llm.svc.cluster.local: no such host",
        f"Incorrect API key provided: sk-{mark}****wxyz. See https://{mark}.example.com/keys.",
        f'{{\\"api_key\\": \\"{mark}Ab12\\", \\"url\\": \\"http:\\/\\/{mark}\\/v1\\"}}',
        f"Authorization: Bearer {mark}Cd34 was sent to {mark}-router:443",
    ]


_BODIES: dict[str, Callable[[str], Any]] = {
    "nested": lambda words: {"error": {"message": words, "code": words, "type": words, "param": words}},
    "text": lambda words: {"error": words},
    "flat": lambda words: {"object": "error", "message": words, "code": 400},
    "detail": lambda words: {"detail": words},
    "problems": lambda words: {"detail": [{"loc": ["body"], "msg": words, "input": words}]},
    "quoted": lambda words: {"error": {"message": orjson.dumps({"error": {"message": words}}).decode()}},
}
_FRAMES: dict[str, Callable[[str], Any]] = {
    **_BODIES,
    "event": lambda words: {"type": "error", "code": words, "message": words, "param": words},
    "failed": lambda words: {
        "type": "response.failed",
        "response": {"id": "resp_1", "status": "failed", "output": [], "error": {"message": words}},
    },
    "choice": lambda words: {"choices": [{"index": 0, "delta": {}, "error": {"message": words}}]},
}
_WAYS: dict[str, dict[str, Any]] = {
    "polled": {"background": True},
    "streamed": {"background": True, "stream": True},
    "plain": {},
    "plain, streamed": {"stream": True},
}


@trial(
    "T53",
    f"errors of {len(_BODIES)} shapes with {len(_STATUSES)} statuses, and of {len(_FRAMES)} shapes within "
    "streams, that name addresses and somebody's keys; on Responses and chat backends",
    pass_mark="0 of these in any answer, event, replay, log line or file; the other words are there",
    runs=12,
    short_runs=2,
    quick_runs=1,
)
async def complain_of_addresses_and_keys(bench: Bench) -> None:
    for number in bench.rounds():
        mark = f"{number % 90 + 10}{secrets.token_hex(4)}"
        backend = _Complainer(_words(mark))
        async with listening(backend.app(), "127.0.0.1", 0) as root:
            for api in ("responses", "chat"):
                gateway = await bench.gateway(
                    f"{root}/v1",
                    upstream__api=api,
                    background__attempts_max=1,
                    upstream__retry_after_times_max=0,
                    upstream__breaker_failures=1_000_000,
                    upstream__breaker_percent=100,
                )
                await _ask_for_all(bench, gateway, backend, api, mark)
                await gateway.kill9()
                wal, log = Path(f"{gateway.database}-wal"), gateway.place / "gateway.log"
                for file in (gateway.database, wal, log):
                    is_there = file.exists() and mark.encode() in file.read_bytes()
                    bench.require(not is_there, f"{api}: {file.name} has them")
                await gateway.end()


class _Complainer:
    """A model server that fails as it is told."""

    def __init__(self, words: list[str]) -> None:
        self.words = words
        self.status = 0
        self.shape = ""
        self.told = ""

    def app(self) -> web.Application:
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self._answer)
        return app

    def complain(self, number: int, status: int, shape: str) -> None:
        self.told, self.status, self.shape = self.words[number % len(self.words)], status, shape

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        await request.read()
        if self.status:
            body = orjson.dumps(_BODIES[self.shape](self.told))
            return web.Response(status=self.status, body=body, content_type=_JSON)
        data = orjson.dumps(_FRAMES[self.shape](self.told))
        event = b"event: error\n" if self.shape == "event" else b""
        return web.Response(body=b"%bdata: %b\n\n" % (event, data), content_type=_EVENTS)


async def _ask_for_all(bench: Bench, gateway: Gateway, backend: _Complainer, api: str, mark: str) -> None:
    cases = [(status, shape) for status in _STATUSES for shape in _BODIES]
    cases += [(0, shape) for shape in _FRAMES]
    for number, (status, shape) in enumerate(cases):
        backend.complain(number, status, shape)
        for way, more in _WAYS.items():
            if api == "responses" and not more.get("background"):
                continue  # passed on as it is
            what = f"{api}, {way}, {status or 'within a stream'}, {shape}"
            for told in await _told(gateway, {"model": "tiny", "input": "x", **more}):
                bench.add("answers")
                place = told.find(mark)
                bench.require(place < 0, f"{what}: {told[max(0, place - 80) : place + 80]}")
            bench.require("***" in told or not status, f"{what}: nothing was taken out")


async def _told(gateway: Gateway, body: dict[str, Any]) -> list[str]:
    """All that a client can be told of a response that fails; the last is the last word."""
    answer = await gateway.call("POST", "/responses", body)
    told = [answer.body.decode()]
    if body.get("background"):
        is_stream = bool(body.get("stream"))
        response_id = (payload(frames(answer.body)[0])["response"] if is_stream else answer.json())["id"]
        told.append(orjson.dumps(await gateway.ended(response_id)).decode())
        if is_stream:
            told.append((await gateway.replay(response_id)).decode())
    return told
