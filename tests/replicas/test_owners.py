"""In each round, one of three gateways is killed, stopped or cut off from the database, while clients work
through whichever they come to; whatever they were told holds, at every gateway.

`make replicas RUNS=50` plays fifty rounds, a third of a minute each. `TROUBLES=stopped AWAY_S=30` makes them
those of the fault plan's T11, `TROUBLES="cut off,silenced" AWAY_S=10,20,60` those of T12: each is away for so
long, whatever becomes of its jobs, and comes back without a restart.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path

import pytest

from demo.postgres import Postgres
from tests.support.cutting import Way
from tests.support.replicas import TAKEN_OVER_S, Replica, Replicas
from tests.support.watching import Watched, watched
from tests.torture import journal, oracle
from tests.torture.clients import Crowd, Mix
from tests.torture.journal import Journal, Story

RUNS = int(os.environ.get("RUNS") or 3)
AWAYS_S = [float(each) for each in os.environ.get("AWAY_S", "").split(",") if each]
_CLIENTS = 10
_MIX = Mix(deltas=(20, 150), paces_ms=(5, 20, 50))
_MIXES = {"whole": _MIX, "cut": replace(_MIX, faults=("", "", "", "cut"))}
"""Of answers: all come whole, or the backend breaks a quarter of the first ones off."""
_SHORT_S = 4.0
"""A gateway that comes back sooner than this is not taken for dead."""


class Member:
    """One of the gateways, and its own way to the database.

    Attributes:
        name: What it calls itself in the database; another one for each process.
    """

    def __init__(self, replica: Replica, way: Way) -> None:
        self.replica = replica
        self.way = way
        self.name = ""

    async def kill(self) -> None:
        await self.replica.kill9()

    async def restart(self) -> None:
        await self.replica.start()

    async def stop(self) -> None:
        self.replica.send(signal.SIGSTOP)

    async def go_on(self) -> None:
        self.replica.send(signal.SIGCONT)

    async def cut_off(self) -> None:
        """Its connections break, and new ones are refused."""
        self.way.is_closed = True
        self.way.cut()

    async def let_in(self) -> None:
        self.way.is_closed = False

    async def silence(self) -> None:
        """What it sends does not arrive for now, and it hears nothing."""
        self.way.flows.clear()

    async def hear_again(self) -> None:
        self.way.flows.set()


class Trio:
    """Three gateways, whose address is that of any.

    Attributes:
        known: Names of all processes that there ever were.
    """

    def __init__(self, members: list[Member], database: Watched) -> None:
        self.members = members
        self.database = database
        self.known: set[str] = set()

    @property
    def url(self) -> str:
        return random.choice(self.members).replica.url

    async def learn_name(self, member: Member) -> None:
        """Of one that has just started."""
        while not (new := await self.database.replicas() - self.known):
            await asyncio.sleep(0.05)
        (member.name,) = new
        self.known |= new

    async def an_owner(self) -> tuple[Member, list[int]]:
        """One that runs jobs, by chance, and these."""
        while True:
            member = random.choice(self.members)
            if len(jobs := await self.database.running_at(member.name)) > 1:
                return member, jobs
            await asyncio.sleep(0.02)


@pytest.fixture
async def trio(tmp_path: Path, replicas: Replicas, database_server: Postgres) -> AsyncIterator[Trio]:
    async with AsyncExitStack() as stack:
        members = []
        for _ in range(3):
            way = await stack.enter_async_context(Way(database_server.port))
            url = replicas.url.replace(f":{database_server.port}/", f":{way.port}/")
            kept = {
                "BACKBURNER_BACKGROUND__RETENTION_S": 86_400
            }  # all rounds are judged once more at the end
            members.append(Member(replicas.make(BACKBURNER_STORE__URL=url, **kept), way))
        await members[0].replica.start()
        database = await watched(replicas.url)
        stack.push_async_callback(database.close)
        await database.install()
        made = Trio(members, database)
        await made.learn_name(members[0])
        for member in members[1:]:
            await member.replica.start()
            await made.learn_name(member)
        yield made
        for member in members:  # or it could not leave in good order
            await member.hear_again()
        await replicas.close()


Trouble = tuple[Callable[[Member], Awaitable[None]], Callable[[Member], Awaitable[None]]]
TROUBLES: dict[str, Trouble] = {
    "killed": (Member.kill, Member.restart),
    "stopped": (Member.stop, Member.go_on),
    "cut off": (Member.cut_off, Member.let_in),
    "silenced": (Member.silence, Member.hear_again),
}
PLAYED = [each for each in os.environ.get("TROUBLES", "").split(",") if each] or list(TROUBLES)


@pytest.mark.timeout(120 + (45 + max(AWAYS_S, default=0)) * RUNS)
@pytest.mark.parametrize("answers", _MIXES)
async def test_whatever_becomes_of_an_owner_nothing_that_was_told_is_taken_back(
    trio: Trio,
    replicas: Replicas,
    tmp_path: Path,
    record_property: Callable[[str, object], None],
    answers: str,
) -> None:
    stories: list[Story] = []
    counts: Counter[str] = Counter()
    mix = _MIXES[answers]
    taken_over_s: list[tuple[float, str]] = []
    for number in range(RUNS):
        name = PLAYED[number % len(PLAYED)]
        is_short = not AWAYS_S and name != "killed" and random.random() < 0.4
        async with Journal(tmp_path / f"journal-{number}") as notes, Crowd(trio, notes, _CLIENTS, mix):
            await asyncio.sleep(random.uniform(0.5, 2))
            member, jobs = await trio.an_owner()
            began_s = time.monotonic()
            await TROUBLES[name][0](member)
            if is_short:
                await asyncio.sleep(random.uniform(0.2, _SHORT_S))
            else:
                taken_s = await asyncio.wait_for(trio.database.until_elsewhere(jobs, member.name), 30)
                taken_over_s.append((round(taken_s - began_s, 1), name))
                counts["jobs taken over"] += len(jobs)
                if AWAYS_S:
                    away_s = AWAYS_S[number // len(PLAYED) % len(AWAYS_S)]
                    await asyncio.sleep(began_s + away_s - time.monotonic())
            await TROUBLES[name][1](member)
            if name == "killed":
                await trio.learn_name(member)
        counts[f"{name}, and soon back" if is_short else name] += 1
        told = list(journal.read(notes.path).stories.values())
        assert told, "somebody got through"
        for each in trio.members:
            verdict = await oracle.audit(each.replica, told)
            assert verdict.problems == [], f"round {number} ({name}), asked at {each.name}"
            counts["events seen, and compared"] += verdict.events
        assert await trio.database.stale_writes() == 0
        assert await trio.database.double_ends() == 0
        assert await trio.database.gaps() == 0
        stories += told
    slowest_s, _ = max(taken_over_s)
    assert slowest_s <= TAKEN_OVER_S, taken_over_s
    assert (await oracle.audit(trio, stories)).problems == [], "what held after each round holds at the end"
    late = oracle.overcalled(await replicas.model.calls(), stories, calls_max=RUNS + 2)
    assert late == [], "none is begun again after its output was shown"
    assert await trio.database.notices_a_stale_write()
    for member in trio.members:
        assert not any(line["event"] in ("task_died", "defect") for line in member.replica.lines)
    record_property("responses", len(stories))
    record_property("slowest takeover s", slowest_s)
    for what, count in counts.items():
        record_property(what, count)
