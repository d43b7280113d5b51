"""Receivers that are down while a great many events wait for them: nobody else notices, and none is lost."""

from __future__ import annotations

import asyncio
import socket
import sqlite3
import time
from collections.abc import Awaitable, Callable
from typing import Any

import aiohttp

from tests.acceptance.receivers import Receiver
from tests.torture.gateway import Gateway
from tests.torture.model import create_body
from tests.torture.told import SECRETS
from tests.torture.trial import Bench, trial
from tests.torture.watch import metrics

_ENDPOINTS = 20
_RESPONSES = 100
"""Of one round: two thousand events."""
_AT_ONCE = 16
_SAMPLES = 100
_LOOK_S = 0.020
_CREATES_RATIO = 2.0
_SLACK_S = 0.005
"""Below which nobody tells two waits for a disk from each other."""
_ENDED_S = 60.0
_TOLD_S = 30.0
"""For the events of one round, by the receiver that comes back."""
_FIRST_ATTEMPTS = 16
"""At one endpoint in one life of the gateway, until it is known to be down: those that tell, and as many as
are under way at once then."""


@trial(
    "T57",
    f"{_ENDPOINTS} endpoints are down for {_RESPONSES} responses in each round, with a kill -9 in the middle "
    "of one; then one of them comes back",
    pass_mark=f"/readyz and /metrics p99 at most {_LOOK_S * 1000:g} ms; creates (p50) take at most "
    f"{_CREATES_RATIO:g} times as long as without endpoints; at most one attempt a second at each, and a few "
    "lines; what waits is counted right, after the kill too; the one that comes back is told of every end",
    runs=100,
    short_runs=3,
    quick_runs=1,
    round_s=30,
)
async def hear_nothing(bench: Bench) -> None:
    model = await bench.model()
    is_timed = bench.runs > 1  # in the quick one nothing is: it runs beside other tests
    usual_s = await _usual(bench, model.url) if is_timed else 0.0
    back, dead = _free_port(), _free_port()
    gateway = await bench.prepared(
        model.url, webhooks__retry_delays_s="1,2", background__queue_per_tenant_max=10_000
    )
    for number in range(_ENDPOINTS):
        prefix = f"webhooks__endpoints__e{number}__"
        url = f"http://127.0.0.1:{dead if number else back}/hook"
        gateway.set(**{f"{prefix}url": url, f"{prefix}secrets": SECRETS[0]})
    await gateway.start()
    started, ended = time.monotonic(), 0
    told: set[str] = set()
    lines: list[dict[str, Any]] = []
    for number in bench.rounds():
        told |= await _fill(gateway, _RESPONSES, is_killed=number == bench.runs // 2)
        if not gateway.is_running:
            lines += gateway.lines
            await _look_into(bench, gateway)
            await gateway.restart()
        ended = await _all_ended(gateway)
        await _compare(bench, gateway, ended)
    bench.figure("events waiting", int((await metrics(gateway)).total("backburner_webhook_waiting")))
    if is_timed:
        await _look_on(bench, gateway, usual_s)
    await _all_down(bench, gateway, lines)
    await _judge_effort(bench, gateway, [*lines, *gateway.lines], time.monotonic() - started)
    async with Receiver(port=back) as receiver:
        await _come_back(bench, gateway, receiver, told, ended)


async def _usual(bench: Bench, model_url: str) -> float:
    """How long a create takes that nobody is told of, p50."""
    alone = await bench.gateway(model_url)
    await _fill(alone, _RESPONSES)
    usual_s = await _creates(alone)
    await alone.kill9()
    return usual_s


async def _fill(gateway: Gateway, count: int, *, is_killed: bool = False) -> set[str]:
    """Ids of what was accepted; if the gateway is killed meanwhile, as far as that is known."""
    ids: set[str] = set()
    numbers = iter(range(count))

    async def create() -> None:
        for number in numbers:
            body = create_body(f"deaf.{number}", stream=False, deltas=1, pace_ms=0)
            try:
                answer = await gateway.call("POST", "/responses", body)
            except aiohttp.ClientError:
                return
            if answer.status == 200:
                ids.add(answer.json()["id"])
            if is_killed and gateway.is_running and len(ids) >= count // 2:
                await gateway.kill9()

    await asyncio.gather(*(create() for _ in range(_AT_ONCE)))
    return ids


async def _all_ended(gateway: Gateway) -> int:
    """How many responses there are."""
    deadline = time.monotonic() + _ENDED_S
    while True:
        now = await metrics(gateway)
        live = [now.of(f'backburner_jobs{{status="{status}"}}') for status in ("queued", "in_progress")]
        if not any(live) or time.monotonic() > deadline:
            return int(now.total("backburner_jobs"))
        await asyncio.sleep(0.1)


async def _look_into(bench: Bench, gateway: Gateway) -> None:
    """What is counted in the file, against what is there."""

    def read(raw: sqlite3.Connection) -> tuple[list[tuple[str, int]], list[tuple[str, int]]]:
        return (
            raw.execute("SELECT name, waiting FROM lane ORDER BY name").fetchall(),
            raw.execute("SELECT lane, count(*) FROM delivery GROUP BY lane ORDER BY lane").fetchall(),
        )

    counted, there = gateway.look(read)
    bench.add("kills")
    bench.require(counted == there, f"after a kill {counted[:3]} are counted, and {there[:3]} are there")


async def _compare(bench: Bench, gateway: Gateway, ended: int) -> None:
    now = await metrics(gateway)
    wrong = {
        name: count
        for name in (f"e{number}" for number in range(_ENDPOINTS))
        if (count := now.of(f'backburner_webhook_waiting{{endpoint="{name}"}}')) != ended
    }
    bench.add("counts wrong", len(wrong))
    bench.require(not wrong, f"{ended} have ended, and for some wait {wrong}")


async def _look_on(bench: Bench, gateway: Gateway, usual_s: float) -> None:
    async def look(page: str) -> None:
        async with gateway.http.get(f"{gateway.admin}{page}") as answer:
            await answer.read()

    for page in ("/readyz", "/metrics"):
        spans = await _spans(lambda page=page: look(page))  # type: ignore[misc]
        worst_s = spans[int(_SAMPLES * 0.99) - 1]
        bench.figure(f"{page} p99 s", round(worst_s, 4))
        bench.require(worst_s <= _LOOK_S, f"{page} takes {worst_s:.3f} s (p99)")
    create_s = await _creates(gateway)
    bench.figure("create p50 s without", round(usual_s, 4))
    bench.figure("create p50 s", round(create_s, 4))
    limit_s = max(_CREATES_RATIO * usual_s, _SLACK_S)
    bench.require(
        create_s <= limit_s, f"a create takes {create_s:.4f} s, and without endpoints {usual_s:.4f} s"
    )


async def _creates(gateway: Gateway) -> float:
    """How long one takes, p50."""
    body = create_body("deaf.look", stream=False, deltas=1, pace_ms=0)
    return (await _spans(lambda: gateway.call("POST", "/responses", body)))[_SAMPLES // 2]


async def _spans(work: Callable[[], Awaitable[object]]) -> list[float]:
    spans = []
    for _ in range(_SAMPLES):
        started = time.perf_counter()
        await work()
        spans.append(time.perf_counter() - started)
    return sorted(spans)


async def _all_down(bench: Bench, gateway: Gateway, earlier: list[dict[str, Any]]) -> None:
    """Waits until it was said of every endpoint that it is down, in this life or in an earlier one."""
    deadline = time.monotonic() + _TOLD_S
    while True:
        lines = [line for line in [*earlier, *gateway.lines] if line["event"] == "webhook_endpoint"]
        down = {line["endpoint"] for line in lines if line["to"] == "down"}
        if len(down) == _ENDPOINTS or time.monotonic() > deadline:
            break
        await asyncio.sleep(0.1)
    bench.require(len(down) == _ENDPOINTS, f"only of {sorted(down)} was it said that they are down")


async def _judge_effort(bench: Bench, gateway: Gateway, lines: list[dict[str, Any]], seconds: float) -> None:
    now = await metrics(gateway)
    attempts = now.total("backburner_webhook_attempts_total")
    bench.figure("attempts since the kill", int(attempts))
    most = _ENDPOINTS * (_FIRST_ATTEMPTS + seconds)
    bench.require(attempts <= most, f"{attempts:g} attempts in {seconds:.0f} s")
    lives = 2
    about = [line for line in lines if line["event"] in ("webhook", "webhook_endpoint")]
    bench.figure("lines about webhooks", len(about))
    bench.require(len(about) <= lives * _ENDPOINTS * _FIRST_ATTEMPTS, f"{len(about)} lines about webhooks")


async def _come_back(bench: Bench, gateway: Gateway, receiver: Receiver, told: set[str], ended: int) -> None:
    deadline = time.monotonic() + _TOLD_S * (1 + bench.runs)
    waiting = 'backburner_webhook_waiting{endpoint="e0"}'
    while await gateway.metric(waiting) and time.monotonic() < deadline:
        await asyncio.sleep(0.2)
    await gateway.line(event="webhook_endpoint", endpoint="e0", to="up")
    got = {each.response_id for each in receiver.received}
    bench.figure("told", len(got))
    bench.add("lost", len(told - got))
    bench.require(not told - got, f"{len(told - got)} of {len(told)} were not told of")
    bench.require(len(got) >= ended, f"{len(got)} of {ended} were told of")
    bench.figure("told twice", len(receiver.received) - len(got))


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])
