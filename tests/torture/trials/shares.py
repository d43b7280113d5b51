"""One caller who sends more than there is room for, and one who sends a job now and then."""

from __future__ import annotations

import asyncio
import random
from contextlib import suppress
from datetime import datetime
from typing import Any

import orjson

from gateway.core.tiers import TIERS, weight
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
    _judge(bench, idle_s, flooded_s)


def _judge(bench: Bench, idle_s: list[float], flooded_s: list[float]) -> None:
    idle, flooded = percentile(idle_s, 0.99), percentile(flooded_s, 0.99)
    bench.figure("jobs", len(flooded_s))
    bench.figure("idle p99 s", round(idle, 3))
    bench.figure("flooded p99 s", round(flooded, 3))
    bench.require(
        flooded <= 2 * max(idle, _FLOOR_S), f"waited {flooded:.3f} s in a flood, {idle:.3f} s without (p99)"
    )


@trial(
    "T54",
    f"every mixture of service tiers: one or two callers keep the queue of {_SLOTS} slots full, another, of "
    "whom nothing was ever started, sends one job, and then one a second",
    pass_mark="before the first one starts, each other caller starts at most one, and as many more as its "
    "tier weighs over this one's; then the wait in the queue, p99, at most twice what it is when the gateway "
    f"is idle (and {_FLOOR_S * 2000:g} ms are no wait)",
    runs=18,
    round_s=60,
)
async def tiers_beside_each_other(bench: Bench) -> None:
    model = await bench.model()
    mixtures = [(one, other) for one in TIERS for other in TIERS]
    offset = random.randrange(len(mixtures))  # a short run takes some of them
    idle_s = await _trickle(await bench.gateway(model.url), "idle")
    flooded_s: list[float] = []
    for number in bench.rounds():
        flooded_by, tier = mixtures[(number + offset) % len(mixtures)]
        floods_by = {"sk-flood": flooded_by} | ({"sk-other": random.choice(TIERS)} if number % 2 else {})
        gateway = await bench.gateway(
            model.url, upstream__concurrency_max=_SLOTS, background__queue_per_tenant_max=_QUEUED
        )
        floods = [
            asyncio.create_task(_flood(gateway, part, key, flood_tier))
            for key, flood_tier in floods_by.items()
            for part in range(_FLOODERS)
        ]
        while await gateway.metric('backburner_jobs{status="queued"}') < _QUEUED * 0.9 * len(floods_by):
            await asyncio.sleep(0.2)
        passed_by, first_s = await _first(gateway, tier)
        most = sum(1 + _weights_over(each, tier) for each in floods_by.values())
        bench.most("jobs started before the first", passed_by)
        bench.most("longest wait of the first s", first_s)
        bench.require(
            passed_by <= most, f"{tier} beside {sorted(floods_by.values())}: {passed_by} went before it"
        )
        flooded_s += await _trickle(gateway, "flooded", tier, jobs=_JOBS // 2)
        queued = await gateway.metric('backburner_jobs{status="queued"}')
        bench.require(queued > 0, "there was no flood: the queue is empty")
        for flood in floods:
            flood.cancel()
        await asyncio.wait(floods)
        await gateway.kill9()
    _judge(bench, idle_s, flooded_s)


def _weights_over(tier: str, other: str) -> int:
    """How many turns one tier takes in one of the other's."""
    return weight(TIERS.index(tier)) // weight(TIERS.index(other))


async def _first(gateway: Gateway, tier: str) -> tuple[int, float]:
    """How many jobs of others are started between the acceptance and the start of one, and how long it takes,
    by the log."""
    body = create_body("first", stream=False, **_SHORT) | {"service_tier": tier}
    answer = await gateway.call("POST", "/responses", orjson.dumps(body), key="sk-trickle")
    accepted, started = [
        await gateway.line(event="job", id=answer.json()["id"], to=status)
        for status in ("queued", "in_progress")
    ]
    between = gateway.lines[gateway.lines.index(accepted) : gateway.lines.index(started)]
    waited = datetime.fromisoformat(started["ts"]) - datetime.fromisoformat(accepted["ts"])
    return sum(line.get("to") == "in_progress" for line in between), waited.total_seconds()


async def _flood(gateway: Gateway, number: int, key: str = "sk-flood", tier: str = "default") -> None:
    """As many jobs as the queue takes, and one more whenever it takes one."""
    sent = 0
    while True:
        with suppress(TimeoutError):
            deltas = random.randint(*_LONG)  # or all of them would end at the same moment, again and again
            tag = f"flood.{number}.{sent}"
            body = create_body(tag, stream=False, deltas=deltas, pace_ms=_LONG_PACE_MS)
            answer = await gateway.call(
                "POST", "/responses", orjson.dumps(body | {"service_tier": tier}), key=key
            )
            sent += 1
            if answer.status == 429:
                await asyncio.sleep(0.5)


async def _trickle(gateway: Gateway, name: str, tier: str = "default", jobs: int = _JOBS) -> list[float]:
    """One job a second; how long each waited in the queue, from its commit to its claim, by the log."""
    waits = []
    for number in range(jobs):
        body = create_body(f"{name}.{number}", stream=False, **_SHORT) | {"service_tier": tier}
        answer = await gateway.call("POST", "/responses", orjson.dumps(body), key="sk-trickle")
        response_id = answer.json()["id"]
        accepted, started = [
            datetime.fromisoformat((await gateway.line(event="job", id=response_id, to=status))["ts"])
            for status in ("queued", "in_progress")
        ]
        waits.append((started - accepted).total_seconds())
        await asyncio.sleep(1)
    return waits
