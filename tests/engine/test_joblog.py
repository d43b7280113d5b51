"""Events on their way to the store: how many may wait, and what becomes of those of a run that is stopped."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

from tests.support.house import (
    ALL,
    PATIENCE_S,
    Build,
    Hold,
    House,
    Wrapped,
    frames,
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
    async with asyncio.timeout(PATIENCE_S):
        while unflushed._bytes < 4096:
            await asyncio.sleep(0)
    for _ in range(50):
        await asyncio.sleep(0)
    one = 1500  # what a run may add before it finds that there is no room; alone it may have 4096
    assert unflushed._bytes <= 4096 + len(jobs) * one
    before = unflushed._bytes
    for _ in range(50):
        await asyncio.sleep(0)
    assert unflushed._bytes == before, "nobody reads on"
    stuck.set()
    for job in jobs:
        assert (await house.ended(job))["status"] == "completed"
    assert unflushed._bytes == 0


async def test_what_a_stopped_run_had_not_committed_is_given_back(house: House) -> None:
    hold = Hold()
    house.backend.script = [frames(0, 6), hold]
    slow = house.settings.background.model_copy(update={"flush_ms": 10_000})
    house.engine._runner._endings = replace(house.engine._endings, settings=slow)
    response_id = await house.submit()
    await hold.here()
    assert house.engine._runner._unflushed._bytes > 0
    await house.jobs.delete(await house.job(response_id))
    await house.backend.closed(response_id)
    async with asyncio.timeout(PATIENCE_S):
        while house.engine._runner._unflushed._bytes:
            await asyncio.sleep(0)
