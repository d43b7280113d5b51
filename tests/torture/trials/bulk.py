"""Responses as large as they may be, many at once: what they cost in memory, and what is left of it."""

from __future__ import annotations

import asyncio
import random
import time
from typing import Any

import orjson

from tests.torture.gateway import Gateway
from tests.torture.model import create_body
from tests.torture.trial import Bench, trial

_MIB = 2**20
_RESPONSES = 20
_PIECES, _PIECE_CHARS = 1900, 30_000
_BYTES = _PIECES * _PIECE_CHARS
_RSS_MIB_MAX = 250
_LEFT_MIB_MAX = 150
_LEFT_S = 90.0
_TOOK_S = 420.0
_RUNNING, _QUEUED = 'backburner_jobs{status="in_progress"}', 'backburner_jobs{status="queued"}'
_WAYS = ("completed", "killed")


@trial(
    "T56",
    f"{_RESPONSES} responses of {_BYTES // 10**6} MB at once; all of them complete, or, when they have it "
    "all, are interrupted by a kill -9",
    pass_mark=f"RSS at most {_RSS_MIB_MAX} MiB at any time, {_RSS_MIB_MAX + _BYTES // _MIB} where partial "
    f"outputs are kept, and {_LEFT_MIB_MAX} afterwards; all end as they should, with all that was stored",
    runs=2,
    round_s=2 * _TOOK_S,
)
async def many_large_ones(bench: Bench) -> None:
    model = await bench.model()
    for number in bench.rounds():
        way = _WAYS[number % len(_WAYS)]
        gateway = await bench.gateway(
            model.url, background__recovery="never", upstream__concurrency_max=_RESPONSES
        )
        watch = _Watch(gateway)
        watching = asyncio.create_task(watch.run())
        ids = [await _create(gateway, f"bulk.{number}.{part}", way) for part in range(_RESPONSES)]
        if way == "completed":
            await _until(gateway, running=0)
        else:
            await _until_stored(gateway)
            await gateway.kill9()
            await gateway.restart()
            await _until(gateway, running=0)
        watching.cancel()
        limit = _RSS_MIB_MAX + (0 if way == "completed" else _BYTES // _MIB)
        bench.most(f"RSS MiB, {way}", watch.most)
        bench.require(watch.most <= limit, f"{way}: {watch.most:.0f} MiB")
        left = await _left(gateway)
        bench.most(f"RSS MiB left, {way}", left)
        bench.require(left <= _LEFT_MIB_MAX, f"{way}: {left:.0f} MiB are left")
        await _look(bench, gateway, random.choice(ids), way)
        await gateway.kill9()


class _Watch:
    """The most that a gateway's process has had, whichever it is at the time."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self.most = 0.0

    async def run(self) -> None:
        while True:
            if self._gateway.is_running:
                self.most = max(self.most, _rss_mib(self._gateway))
            await asyncio.sleep(0.1)


def _rss_mib(gateway: Gateway) -> float:
    try:
        with open(f"/proc/{gateway.pid}/status") as status:
            return next((int(line.split()[1]) / 1024 for line in status if line.startswith("VmRSS")), 0.0)
    except (OSError, AssertionError):  # it is being killed
        return 0.0


async def _create(gateway: Gateway, tag: str, way: str) -> str:
    after: dict[str, Any] = {} if way == "completed" else {"fault": "hang", "after": _PIECES - 1}
    bulk: dict[str, Any] = {
        "deltas": _PIECES,
        "piece_chars": _PIECE_CHARS,
        "pace_ms": 0,
        "last_word": "short",
    }
    body = create_body(tag, stream=False, **bulk, **after)
    answer = await gateway.call("POST", "/responses", orjson.dumps(body))
    response_id: str = answer.json()["id"]
    return response_id


async def _until(gateway: Gateway, *, running: int) -> None:
    async with asyncio.timeout(_TOOK_S):
        while await gateway.metric(_RUNNING) + await gateway.metric(_QUEUED) > running:
            await asyncio.sleep(0.5)


async def _until_stored(gateway: Gateway) -> None:
    """Nearly all that the model server sends before it hangs."""
    async with asyncio.timeout(_TOOK_S):
        while await gateway.metric('backburner_database_bytes{file="db"}') < 0.95 * _RESPONSES * _BYTES:
            await asyncio.sleep(0.5)


async def _left(gateway: Gateway) -> float:
    """RSS, when there was time to give back what is free."""
    deadline = time.monotonic() + _LEFT_S
    while (left := _rss_mib(gateway)) > _LEFT_MIB_MAX and time.monotonic() < deadline:
        await asyncio.sleep(1)
    return left


async def _look(bench: Bench, gateway: Gateway, response_id: str, way: str) -> None:
    final = (await gateway.call("GET", f"/responses/{response_id}")).json()
    status = {"completed": "completed", "killed": "failed"}[way]
    text = final["output"][0]["content"][0]["text"]
    bench.require(final["status"] == status, f"{way}: it is {final['status']}")
    least = 0.9 * _BYTES
    is_whole = text == "short" if way == "completed" else len(text) >= least
    bench.require(is_whole, f"{way}: it has {len(text)} characters of text")
