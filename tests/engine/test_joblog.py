"""Events on their way to the store: how many may wait, and what becomes of those of a run that is stopped."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from gateway.core.job import StoreUnavailable
from gateway.core.upstream import UpstreamClosed
from gateway.wire.errors import Refusal
from tests.support.house import (
    ALL,
    PATIENCE_S,
    Build,
    Hold,
    House,
    Wrapped,
    frames,
    parsed,
    text_of,
)


async def test_all_runs_together_hold_no_more_than_the_process_may(build: Build) -> None:
    """None of them is over its own limit; together they are, until the store has caught up."""
    stuck = asyncio.Event()

    class Slow(Wrapped):
        async def append(self, claim: Any, first_seq: int, *rest: Any, **more: Any) -> None:
            if first_seq > 2:
                await stuck.wait()
            await self.inner.append(claim, first_seq, *rest, **more)

    house = await build(
        wrap=Slow, background={"unflushed_bytes_max": 4096, "unflushed_total_bytes_max": 4096, "flush_ms": 0}
    )
    house.backend.script = [*(frames(n, n + 1) for n in range(3)), *ALL[1:]]
    jobs = [await house.submit() for _ in range(40)]
    unflushed = house.engine._runner._unflushed
    before = -1
    async with asyncio.timeout(PATIENCE_S):  # until nobody reads on
        while before < 4096 or unflushed._bytes != before:
            before = unflushed._bytes
            for _ in range(200):
                await asyncio.sleep(0)
    one = 1500  # what a run may add before it finds that there is no room; alone it may have 4096
    assert unflushed._bytes <= 4096 + len(jobs) * one
    stuck.set()
    for job in jobs:
        assert (await house.ended(job))["status"] == "completed"
    assert unflushed._bytes == 0


async def test_what_a_stopped_run_had_not_committed_is_given_back(build: Build) -> None:
    house = await build(background={"flush_ms": 10_000})
    hold = Hold()
    house.backend.script = [frames(0, 6), hold]
    response_id = await house.submit()
    await hold.here()
    assert house.engine._runner._unflushed._bytes > 0
    await house.jobs.delete(await house.job(response_id))
    await house.backend.closed(response_id)
    async with asyncio.timeout(PATIENCE_S):
        while house.engine._runner._unflushed._bytes:
            await asyncio.sleep(0)


async def _adds_up(house: House, response_id: str) -> None:
    """The numbers have no hole, and the deltas are the text of the final object."""
    events = parsed(await house.store.all_events(response_id))
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    deltas = [event["delta"] for event in events if event["type"] == "response.output_text.delta"]
    assert "".join(deltas) == text_of(await house.shown(response_id)) != ""


async def test_a_cancel_of_a_run_that_waits_for_memory_leaves_no_hole(build: Build) -> None:
    """It has been told some deltas, and what ends their text is still to be told of the same read."""
    house = await build(background={"output_total_bytes_max": 3200, "flush_ms": 0})
    hold = Hold()
    house.backend.script = [frames(0, 23), hold]
    await house.submit()
    await hold.here()
    house.backend.script = [frames(0, 14), frames(14, 22), Hold()]
    smaller = await house.submit()  # of two that want more than there is, the larger one goes on
    async with asyncio.timeout(PATIENCE_S):
        while house.engine._endings.outputs.total <= 3200:
            await asyncio.sleep(0)
    await house.cancel(smaller)
    await _adds_up(house, smaller)


async def test_runs_that_nobody_follows_commit_together(build: Build) -> None:
    """Each has its one event at a time of its own."""
    batches: list[int] = []
    is_turn: list[bool] = []

    class Counted(Wrapped):
        async def append(self, claim: Any, first_seq: int, *rest: Any, **more: Any) -> None:
            if not is_turn:
                is_turn.append(True)
                batches.append(0)
                asyncio.get_running_loop().call_soon(is_turn.clear)
            batches[-1] += 1
            await self.inner.append(claim, first_seq, *rest, **more)

    house = await build(wrap=Counted, background={"flush_ms": 1_000})
    house.backend.script = [frames(0, 6), Hold(), *ALL[6:]]
    jobs = []
    for _ in range(20):
        jobs.append(await house.submit())
        await asyncio.sleep(0.002)
    async with asyncio.timeout(PATIENCE_S):
        while sum(batches) < len(jobs):
            await asyncio.sleep(0.01)
    assert len(batches) <= 3, batches  # a tick may pass while they begin


async def test_a_reader_that_comes_is_not_kept_waiting_for_the_tick(build: Build) -> None:
    house = await build(background={"flush_ms": 10_000})
    hold = Hold()
    house.backend.script = [frames(0, 6), hold]
    response_id = await house.submit()
    await hold.here()
    job = await house.job(response_id)
    seen = 0
    async with asyncio.timeout(5):  # half of what they would wait for
        async for block in house.engine.followers.follow(job.id, job.tenant, after=-1):
            seen += len(parsed(block)) if block else 0
            if seen > 2:  # the first two were there from the beginning
                return


async def test_what_waits_is_committed_after_a_rewind_that_failed(build: Build) -> None:
    """A cancel wants it stored at once; that fails, and the run goes on. The tick passes meanwhile."""
    begun, fails = asyncio.Event(), asyncio.Event()

    class Failing(Wrapped):
        async def rewind(self, *given: Any) -> None:
            if not fails.is_set():
                begun.set()
                await fails.wait()
                raise StoreUnavailable("disk full")
            await self.inner.rewind(*given)

    house = await build(wrap=Failing, background={"flush_ms": 200})
    hold, last = Hold(), Hold()
    house.backend.script = [frames(0, 6), hold, UpstreamClosed()]
    response_id = await house.submit()
    async with asyncio.timeout(PATIENCE_S):
        while len(await house.stored(response_id)) <= 3:
            await asyncio.sleep(0.01)
    hold.go.set()
    await house.observer.until(response_id, "released")
    house.backend.script = [frames(0, 8), last, *ALL[8:]]
    house.clock.advance(1)
    await last.here()
    cancelling = asyncio.create_task(house.cancel(response_id))
    await begun.wait()
    await asyncio.sleep(0.3)
    fails.set()
    with pytest.raises(Refusal):
        await cancelling
    async with asyncio.timeout(PATIENCE_S):
        while (await house.job(response_id)).next_seq != 9:
            await asyncio.sleep(0.01)
