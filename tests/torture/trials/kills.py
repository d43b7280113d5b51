"""`kill -9`: whatever clients were told before it holds after it."""

from __future__ import annotations

import asyncio
import random
import signal
import time
from collections import Counter
from datetime import datetime
from typing import Any

from tests.acceptance.harness import payload, within
from tests.torture import journal, oracle
from tests.torture.clients import Crowd, Mix
from tests.torture.gateway import Gateway
from tests.torture.journal import Journal, Story
from tests.torture.killing import POINTS
from tests.torture.model import Model, create_body
from tests.torture.oracle import Verdict
from tests.torture.trial import Bench, trial

_CLIENTS = 24
_RECOVERY_S = 5.0
_BEFORE_READY = 0.15
"""Share of the kills that strike while the gateway starts."""

_PASS_MARK = (
    "0 accepted lost; 0 unfinished after 60 s; 0 seen events missing, doubled or changed; "
    "quick_check ok each time"
)
_SIGKILL, _SIGALRM = -signal.SIGKILL, -signal.SIGALRM


@trial(
    "T1",
    "kill -9 at random moments while clients create, stream, poll, cancel and delete",
    pass_mark=f"{_PASS_MARK}; interrupted ones ended within {_RECOVERY_S:g} s",
    runs=200,
    short_runs=6,
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
            require_whole(bench, gateway, f"kill {number}")
            if random.random() < _BEFORE_READY:
                await gateway.spawn()
                await asyncio.sleep(random.uniform(0, 1.0))
                await gateway.kill9()
                bench.add("killed while starting")
                require_whole(bench, gateway, f"kill {number}")
            await gateway.restart()
            lives.append(gateway.ready_at)
    stories = await judge(bench, gateway, model, notes)
    recovery_s = _slowest_recovery_s(stories, kills, lives)
    bench.figure("slowest recovery s", round(recovery_s, 2))
    bench.require(recovery_s <= _RECOVERY_S, f"an interrupted response ended after {recovery_s:.1f} s")


_MANY = 500


@trial(
    "T1b",
    f"kill -9 with {_MANY} responses under way, half of them streamed and shown",
    pass_mark=f"every shown one has failed {_RECOVERY_S:g} s after the gateway is ready again, "
    "every silent one has been asked for anew",
    runs=5,
    short_runs=1,
    round_s=90,
)
async def kill_with_many_under_way(bench: Bench) -> None:
    model = await bench.model()
    gateway = await bench.gateway(model.url, upstream__concurrency_max=_MANY, stream__readers_max=_MANY)
    for number in bench.rounds():
        shown, silent = await _many_under_way(gateway, number)
        await gateway.kill9()
        await model.forget()
        require_whole(bench, gateway, f"kill {number}")
        await gateway.restart()
        await asyncio.sleep(max(0.0, gateway.ready_at + _RECOVERY_S - time.monotonic()))
        failed = await asyncio.gather(*(_status(gateway, one) for one in shown))
        bench.require(set(failed) == {"failed"}, f"{_RECOVERY_S:g} s after ready: {Counter(failed)}")
        ends = [line for line in gateway.lines if line.get("reason") == "interrupted_by_restart"]
        bench.most("all failed after s", _seconds_between(gateway.lines, ends[-1]) if ends else _RECOVERY_S)
        again = {call.job for call in await model.calls()}
        bench.require(again == set(silent), f"{len(again)} of {len(silent)} silent ones were asked for anew")
        bench.add("shown", len(shown))
        bench.add("silent", len(silent))
        await gateway.kill9()
        await gateway.restart()


async def _many_under_way(gateway: Gateway, number: int) -> tuple[list[str], list[str]]:
    """Ids of streamed ones that a reader has seen output of, and of polled ones."""
    gate = asyncio.Semaphore(32)

    async def shown(each: int) -> str:
        body = create_body(
            f"shown.{number}.{each}", stream=True, fault="hang", after=20, deltas=40, pace_ms=0
        )
        async with gate, gateway.events("/responses", body) as events:
            first = payload(await anext(events))
            async for event in events:
                if payload(event)["type"] == "response.output_text.delta":
                    break
        return str(first["response"]["id"])

    async def silent(each: int) -> str:
        body = create_body(
            f"silent.{number}.{each}", stream=False, fault="hang", after=20, deltas=40, pace_ms=0
        )
        async with gate:
            return str((await gateway.call("POST", "/responses", body)).json()["id"])

    ids = await asyncio.gather(*(shown(n) if n % 2 else silent(n) for n in range(_MANY)))
    return list(ids[1::2]), list(ids[::2])


async def _status(gateway: Gateway, response_id: str) -> str:
    return str((await gateway.call("GET", f"/responses/{response_id}")).json()["status"])


def _seconds_between(lines: list[dict[str, Any]], last: dict[str, Any]) -> float:
    """From the line that says that the gateway listens."""
    first = next(line for line in lines if line["event"] == "listening")
    start, end = (datetime.fromisoformat(line["ts"].replace("Z", "+00:00")) for line in (first, last))
    return max(0.0, (end - start).total_seconds())


_REACHED_WITHIN = {
    "mid-checkpoint": 2,  # after sweeps that found something, one a second
    "mid-sweep": 3,
    "mid-recovery": 1,
    "mid-handover": 3,
    "taken-over": 8,
}
"""How often a point is passed at most before it kills; the others are passed some hundred times a second."""

_OFTEN = 120


@trial(
    "T2",
    f"kill -9 at {len(POINTS)} named points, under the same load",
    pass_mark=f"each point reached; {_PASS_MARK}",
    runs=10 * len(POINTS),
    short_runs=5,
    round_s=30,
)
async def kill_at_named_points(bench: Bench) -> None:
    model = await bench.model()
    gateway = await bench.prepared(model.url, server__drain_timeout_s=0)
    mix = Mix(streamed=0.5, acts=("wait", "hang up", "cancel", "delete"))
    points = random.sample(POINTS, len(POINTS))  # a short run has not the time for all
    await gateway.start()
    async with Journal(bench.directory / "journal") as notes, Crowd(gateway, notes, _CLIENTS, mix):
        for number in bench.rounds():
            point = points[number % len(points)]
            count = random.randint(1, _REACHED_WITHIN.get(point, _OFTEN))
            await gateway.kill9()
            gateway.next_start("--kill-at", f"{point}:{count}")
            await gateway.spawn()
            if point == "mid-handover":
                await gateway.listening()
                await asyncio.sleep(0.5)
                gateway.send(signal.SIGTERM)
            try:
                status = await within(gateway.exit_status(), 30)
            except TimeoutError:
                bench.require(False, f"{point}:{count} was not reached")
                continue
            bench.require(status in (_SIGKILL, _SIGALRM), f"{point}:{count}: exit status {status}")
            require_whole(bench, gateway, f"{point}:{count}")
            await gateway.restart()
            bench.add("kills")
    # One more than else: what is handed over at a SIGTERM has that attempt returned.
    await judge(bench, gateway, model, notes, calls_max=3)


_SILENT = Mix(streamed=0.25, acts=("wait", "wait", "wait", "cancel"), faults=("", "", "", "cut", "reset"))


@trial(
    "T6",
    "calls that jobs cost the backend, over kills and cut connections, with each kind of recovery",
    pass_mark="at most 2 a job, none after its output was shown; at most 1 with recovery: never",
    runs=40,
    short_runs=1,
    round_s=30,
)
async def count_the_calls(bench: Bench) -> None:
    for recovery, calls_max in (("rerun_if_silent", 2), ("never", 1)):
        model = await bench.model()
        gateway = await bench.gateway(model.url, background__recovery=recovery)
        path = bench.directory / f"journal-{recovery}"
        async with Journal(path) as notes, Crowd(gateway, notes, _CLIENTS, _SILENT):
            for _ in bench.rounds() if calls_max == 2 else range(bench.runs):
                await asyncio.sleep(random.uniform(0.3, 1.5))
                await gateway.kill9()
                await gateway.restart()
        await judge(bench, gateway, model, notes, calls_max=calls_max)
        calls = await model.calls()
        bench.figure(f"most calls of a job, {recovery}", max(call.number for call in calls))


# -- what they share


async def judge(
    bench: Bench, gateway: Gateway, model: Model, notes: Journal, *, calls_max: int = 2
) -> list[Story]:
    """Hold the gateway against a journal, note what is wrong, and return what the journal tells."""
    stories = list(journal.read(notes.path).stories.values())
    note_verdict(bench, await oracle.audit(gateway, stories))
    for problem in oracle.overcalled(await model.calls(), stories, calls_max=calls_max):
        bench.require(False, problem)
    return stories


def note_verdict(bench: Bench, verdict: Verdict) -> None:
    """The figures of an audit, and a failure for each thing that is wrong."""
    bench.add("accepted", verdict.responses)
    bench.add("lost", len(verdict.missing))
    bench.add("unfinished", len(verdict.unfinished))
    bench.add("events seen", verdict.events)
    bench.add("wrong", len(verdict.wrong))
    for problem in verdict.problems:
        bench.require(False, problem)


def require_whole(bench: Bench, gateway: Gateway, when: str) -> None:
    """The file is in order, as far as SQLite can tell."""
    damage = gateway.damage()
    bench.require(damage is None, f"after {when}: {damage}")


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
