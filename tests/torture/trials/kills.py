"""`kill -9`: whatever clients were told before it holds after it."""

from __future__ import annotations

import asyncio
import random
import time

from tests.torture import journal, oracle
from tests.torture.clients import Crowd, Mix
from tests.torture.gateway import Gateway
from tests.torture.journal import Journal, Story
from tests.torture.oracle import Verdict
from tests.torture.trial import Bench, trial

_CLIENTS = 24
_RECOVERY_S = 5.0
_BEFORE_READY = 0.15
"""Share of the kills that strike while the gateway starts."""


@trial(
    "T1",
    "kill -9 at random moments while clients create, stream, poll, cancel and delete",
    pass_mark="0 accepted lost; 0 unfinished after 60 s; 0 seen events missing, doubled or changed; "
    "quick_check ok each time; interrupted ones ended within 5 s",
    runs=200,
    short_runs=12,
    quick_runs=2,
    round_s=30,
)
async def kill_at_random_moments(bench: Bench) -> None:
    model = await bench.model()
    gateway = await bench.gateway(model.url)
    lives = [gateway.ready_at]
    kills = []
    async with Journal(bench.directory / "journal") as notes, Crowd(gateway, notes, _CLIENTS):
        for number in bench.rounds():
            await asyncio.sleep(random.uniform(0.3, 2.5))
            await gateway.kill9()
            kills.append(time.monotonic())
            _require_whole(bench, gateway, number)
            if random.random() < _BEFORE_READY:
                await gateway.spawn()
                await asyncio.sleep(random.uniform(0, 1.0))
                await gateway.kill9()
                bench.add("killed while starting")
                _require_whole(bench, gateway, number)
            await gateway.restart()
            lives.append(gateway.ready_at)
    told = journal.read(notes.path)
    verdict = await oracle.audit(gateway, told.stories.values())
    note_verdict(bench, verdict)
    recovery_s = _slowest_recovery_s(list(told.stories.values()), kills, lives)
    bench.figure("slowest recovery s", round(recovery_s, 2))
    bench.require(recovery_s <= _RECOVERY_S, f"an interrupted response ended after {recovery_s:.1f} s")
    for problem in oracle.overcalled(await model.calls(), told.stories.values(), calls_max=2):
        bench.require(False, problem)


def _require_whole(bench: Bench, gateway: Gateway, number: int) -> None:
    damage = gateway.damage()
    bench.require(damage is None, f"after kill {number}: {damage}")


def note_verdict(bench: Bench, verdict: Verdict) -> None:
    """The figures of an audit, and a failure for each thing that is wrong."""
    bench.add("accepted", verdict.responses)
    bench.add("lost", len(verdict.missing))
    bench.add("unfinished", len(verdict.unfinished))
    bench.add("events seen", verdict.events)
    bench.add("wrong", len(verdict.wrong))
    for problem in verdict.problems:
        bench.require(False, problem)


def _slowest_recovery_s(stories: list[Story], kills: list[float], lives: list[float]) -> float:
    """From ready to the end of the responses whose shown output was interrupted by a kill; of those whose end
    came in the life that followed."""
    slowest = 0.0
    for killed_at, ready_at, over_at in zip(kills, lives[1:], [*kills[1:], time.monotonic()], strict=True):
        for story in stories:
            if story.first_output_at is None or story.ended_at is None:
                continue
            if story.first_output_at < killed_at and ready_at < story.ended_at < over_at:
                slowest = max(slowest, story.ended_at - ready_at)
    return slowest


MIX_OF_POLLS = Mix(streamed=0.2, acts=("wait", "wait", "wait", "cancel"))
