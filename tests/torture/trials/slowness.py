"""Connections that take their time, beside a client that does not."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable
from dataclasses import dataclass

import aiohttp

from tests.torture.flood import percentile
from tests.torture.gateway import HEADERS, Gateway
from tests.torture.model import create_body
from tests.torture.slowloris import KINDS, End, slowloris
from tests.torture.trial import Bench, trial
from tests.torture.watch import Watch, loop_busy_s

_LATE_S = 2
_EARLY_S = 0.5
_SLOWER_MAX = 1.2
_NOISE_S = 0.010
"""What two quiet stretches of some seconds differ by on a shared machine."""
_TRIES = 3
_EVERY_S = 0.01
_GONE_S = 5
_OTHER_FILES = 100
"""The database, the log, listeners, and idle connections to the model server."""


@dataclass(frozen=True, slots=True)
class Size:
    """Of a round. Times are the limits of the gateway; `open_s` is how long opening all takes."""

    count: int
    open_s: float
    calm_s: float
    head_s: float
    body_idle_s: float
    body_s: float
    keepalive_s: float

    def limit_s(self, kind: str) -> float:
        if kind == "head":
            return self.head_s
        if kind == "body that stops":
            return self.body_idle_s
        return self.keepalive_s if kind.startswith("idle") else self.body_s


_FULL = Size(5000, open_s=40, calm_s=10, head_s=45, body_idle_s=45, body_s=45, keepalive_s=46)
_SMALL = Size(500, open_s=0.5, calm_s=1, head_s=1.5, body_idle_s=1.5, body_s=2, keepalive_s=2)


@trial(
    "T33",
    f"{_FULL.count} connections that send a head or a body by the byte, stop in the middle of one, or say "
    "nothing, beside a client that asks a hundred times a second",
    pass_mark=f"all closed within {_LATE_S} s of their limit, with the answer for it; the client waits for "
    f"the gateway (p99) at most {_SLOWER_MAX:g} times as long as without them, or {_NOISE_S * 1000:g} ms "
    f"longer; the best of {_TRIES}",
    runs=3,
    short_runs=1,
    round_s=300,
)
async def take_time(bench: Bench) -> None:
    size = _FULL if bench.runs > 1 else _SMALL
    model = await bench.model()
    for number in bench.rounds():
        gateway = await bench.gateway(
            model.url,
            server__head_timeout_s=size.head_s,
            server__body_idle_timeout_s=size.body_idle_s,
            server__body_timeout_s=size.body_s,
            server__keepalive_timeout_s=size.keepalive_s,
        )
        for left in reversed(range(_TRIES)):
            calm, beside = await _once(bench, gateway, size)
            is_good = beside.waited_s <= max(_SLOWER_MAX * calm.waited_s, calm.waited_s + _NOISE_S)
            if is_good or not left:
                bench.most("p99 s before", calm.waited_s)
                bench.most("p99 s beside", beside.waited_s)
                bench.most("p99 s before, with the machine's", calm.took_s)
                bench.most("p99 s beside, with the machine's", beside.took_s)
                bench.require(is_good, f"round {number}: {beside} in place of {calm}")
                break
        await gateway.kill9()


@dataclass(frozen=True, slots=True)
class Answered:
    """How long a client's answers took, p99; and how much of each time the gateway was busy."""

    took_s: float
    waited_s: float


async def _once(bench: Bench, gateway: Gateway, size: Size) -> tuple[Answered, Answered]:
    """What the healthy client has, without the slow ones and beside them."""
    calm = await _ask(gateway, asyncio.sleep(size.calm_s))
    ends: list[End] = []

    async def be_slow() -> None:
        limit_s = max(map(size.limit_s, KINDS))
        ends.extend(await slowloris(gateway.url, count=size.count, open_s=size.open_s, limit_s=limit_s))

    async with Watch(gateway) as watch:
        beside = await _ask(gateway, be_slow())
    most = max(sample.files for sample in watch.samples)
    bench.most("files at once", most)
    bench.require(most > size.count, f"only {most} files were open at once")
    _judge(bench, size, ends)
    await _all_let_go(bench, gateway)
    return calm, beside


def _judge(bench: Bench, size: Size, ends: list[End]) -> None:
    for end in ends:
        limit_s = size.limit_s(end.kind)
        if not bench.require(end.closed_s is not None, f"{end.kind}: was not closed") or end.closed_s is None:
            continue
        late_s = end.closed_s - limit_s
        bench.most("closed late by s", late_s)
        bench.require(late_s <= _LATE_S, f"{end.kind}: closed {late_s:.1f} s after its limit")
        bench.require(late_s >= -_EARLY_S, f"{end.kind}: closed {-late_s:.1f} s before its limit")
        bench.require(end.status == KINDS[end.kind].status, f"{end.kind}: was answered {end.status}")


async def _all_let_go(bench: Bench, gateway: Gateway) -> None:
    """The gateway's side of each is closed as well, and what was done for it has ended."""
    deadline = time.monotonic() + _GONE_S
    while (files := await gateway.metric("process_open_fds")) > _OTHER_FILES and time.monotonic() < deadline:
        await asyncio.sleep(0.2)
    bench.require(files <= _OTHER_FILES, f"{files:g} files are still open")


async def _ask(gateway: Gateway, meanwhile: Awaitable[None]) -> Answered:
    """One question after the other, as long as something else goes on."""
    took_s: list[float] = []
    waited_s: list[float] = []
    body = create_body("healthy", stream=False, background=False, deltas=1)
    async with aiohttp.ClientSession(headers=HEADERS) as session:
        task = asyncio.ensure_future(meanwhile)
        while not task.done():
            started, busy_s = time.monotonic(), loop_busy_s(gateway)
            async with session.post(f"{gateway.url}/responses", json=body) as answer:
                await answer.read()
                assert answer.status == 200, answer.status
            took_s.append(time.monotonic() - started)
            waited_s.append(min(took_s[-1], loop_busy_s(gateway) - busy_s))
            await asyncio.sleep(_EVERY_S)
        await task
    return Answered(percentile(took_s, 0.99), percentile(waited_s, 0.99))
