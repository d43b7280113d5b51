"""Connections to the model server that it closes when they have been idle: the keep-alive race."""

from __future__ import annotations

import asyncio
import random

import aiohttp

from tests.acceptance.harness import within
from tests.torture.gateway import HEADERS, Gateway
from tests.torture.model import create_body
from tests.torture.trial import Bench, trial

_CLIENTS = 500
_CLOSED_AFTER_S = 5
"""As uvicorn does, and with it vLLM."""

_GAPS_S = (4.0, 6.0)
_SPREAD_S = 0.15
_WAY_MS = 100
"""For so long the gateway cannot know yet that a connection was closed."""

_HEAD_MS = 500
"""So that the requests of a round need a connection each."""


@trial(
    "T38",
    f"{_CLIENTS} requests at once, then silence for {_GAPS_S[0]:g} to {_GAPS_S[1]:g} s, again and again; the "
    f"model server closes connections that were idle for {_CLOSED_AFTER_S} s",
    pass_mark="0 answered 502",
    runs=20,
    short_runs=1,
    round_s=30,
)
async def race_with_the_idle_close(bench: Bench) -> None:
    model = await bench.model("--keepalive-s", f"{_CLOSED_AFTER_S}")
    proxy = await bench.proxy("127.0.0.1", model.port)
    await proxy.infect({"kind": "latency", "stream": "down", "ms": _WAY_MS})
    gateway = await bench.gateway(f"http://127.0.0.1:{proxy.port}/v1")
    bench.figure("requests", 0)
    bench.figure("answered 502", 0)
    shortest, longest = _GAPS_S
    gaps = [shortest + (longest - shortest) * (each + 0.5) / bench.runs for each in range(bench.runs)]
    random.shuffle(gaps)
    connector = aiohttp.TCPConnector(limit=0)  # its own connections stay open: only those behind it are meant
    async with aiohttp.ClientSession(connector=connector, headers=HEADERS) as session:
        await _all_at_once(bench, gateway, session, "first", 0)
        for number in bench.rounds():
            await _all_at_once(bench, gateway, session, f"{number}", gaps[number])
    told = await proxy.tell()
    bench.figure("connections", told["accepted"])


async def _all_at_once(
    bench: Bench, gateway: Gateway, session: aiohttp.ClientSession, name: str, gap_s: float
) -> None:
    async def one(number: int) -> None:
        await asyncio.sleep(max(0, gap_s + random.uniform(-_SPREAD_S, _SPREAD_S)))
        body = create_body(f"{name}.{number}", stream=False, background=False, deltas=1, head_ms=_HEAD_MS)
        async with session.post(f"{gateway.url}/responses", json=body) as answer:
            content = await answer.read()
        bench.add("requests")
        if answer.status != 200:
            bench.add(f"answered {answer.status}")
            bench.require(False, f"{answer.status} after {gap_s:.2f} s: {content[:200]!r}")

    await within(asyncio.gather(*(one(number) for number in range(_CLIENTS))), 60)
