"""One caller who sends more than there is room for, and one who sends a job now and then."""

from __future__ import annotations

import asyncio
import random
from contextlib import suppress
from datetime import datetime
from typing import Any

import orjson

from tests.torture.flood import percentile
from tests.torture.gateway import Gateway
from tests.torture.model import create_body
from tests.torture.trial import Bench, trial

_SLOTS = 32
_LONG = (2, 5)
_LONG_PACE_MS = 2000
"""Long jobs with few events: it is the line that is looked at here, not the disk."""
_SHORT: dict[str, Any] = {"deltas": 2, "pace_ms": 50}
_JOBS = 20
"""One a second."""

_QUEUED = 500
_FLOODERS = 4
_FLOOR_S = 0.02
"""Waits shorter than this are those of one commit: twice of that is no sign of standing in line."""


@trial(
    "T42",
    f"one caller keeps {_QUEUED} jobs in the queue of {_SLOTS} slots, another sends one a second",
    pass_mark="the other's wait in the queue, p99, at most twice what it is when the gateway is idle "
    f"(and {_FLOOR_S * 2000:g} ms are no wait)",
    runs=8,
    round_s=2 * _JOBS + 60,
)
async def flood_and_trickle(bench: Bench) -> None:
    model = await bench.model()
    idle_s: list[float] = []
    flooded_s: list[float] = []
    for _ in bench.rounds():
        gateway = await bench.gateway(
            model.url, upstream__concurrency_max=_SLOTS, background__queue_per_tenant_max=_QUEUED
        )
        idle_s += await _trickle(gateway, "idle")
        floods = [asyncio.create_task(_flood(gateway, number)) for number in range(_FLOODERS)]
        while await gateway.metric('backburner_jobs{status="queued"}') < _QUEUED * 0.9:
            await asyncio.sleep(0.2)
        flooded_s += await _trickle(gateway, "flooded")
        for flood in floods:
            flood.cancel()
        await asyncio.wait(floods)
        queued = await gateway.metric('backburner_jobs{status="queued"}')
        bench.require(queued > 0, "there was no flood: the queue is empty")
        await gateway.kill9()
    idle, flooded = percentile(idle_s, 0.99), percentile(flooded_s, 0.99)
    bench.figure("jobs", len(flooded_s))
    bench.figure("idle p99 s", round(idle, 3))
    bench.figure("flooded p99 s", round(flooded, 3))
    bench.require(
        flooded <= 2 * max(idle, _FLOOR_S), f"waited {flooded:.3f} s in a flood, {idle:.3f} s without (p99)"
    )


async def _flood(gateway: Gateway, number: int) -> None:
    """As many jobs as the queue takes, and one more whenever it takes one."""
    sent = 0
    while True:
        with suppress(TimeoutError):
            deltas = random.randint(*_LONG)  # or all of them would end at the same moment, again and again
            tag = f"flood.{number}.{sent}"
            body = create_body(tag, stream=False, deltas=deltas, pace_ms=_LONG_PACE_MS)
            answer = await gateway.call("POST", "/responses", orjson.dumps(body), key="sk-flood")
            sent += 1
            if answer.status == 429:
                await asyncio.sleep(0.5)


async def _trickle(gateway: Gateway, name: str) -> list[float]:
    """One job a second; how long each waited in the queue, from its commit to its claim, by the log."""
    waits = []
    for number in range(_JOBS):
        body = create_body(f"{name}.{number}", stream=False, **_SHORT)
        answer = await gateway.call("POST", "/responses", orjson.dumps(body), key="sk-trickle")
        response_id = answer.json()["id"]
        accepted, started = [
            datetime.fromisoformat((await gateway.line(event="job", id=response_id, to=status))["ts"])
            for status in ("queued", "in_progress")
        ]
        waits.append((started - accepted).total_seconds())
        await asyncio.sleep(1)
    return waits
