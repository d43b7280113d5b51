"""Jobs leave no cycles behind: whatever they held is freed at once, and the garbage collector may rest."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Iterator

import pytest

from gateway.core.transcript import Transcript
from tests.support.house import Hold, House, frames

JOBS = 20
TIMEOUT_S = 10


@pytest.fixture
def no_collector() -> Iterator[None]:
    gc.disable()
    yield
    gc.enable()


@pytest.mark.parametrize("is_read", [False, True])
async def test_a_job_leaves_no_cycles_behind(house: House, no_collector: None, is_read: bool) -> None:
    async def run(count: int) -> None:
        for _ in range(count):
            response_id = await house.submit(stream=is_read)
            if is_read:
                await house.stream(response_id)
            await house.ended(response_id)
        for _ in range(5):
            await asyncio.sleep(0)

    await run(5)
    gc.collect()
    await run(JOBS)
    assert gc.collect() < JOBS


@pytest.mark.parametrize("way", ["cancelled", "deleted"])
async def test_the_output_of_a_stopped_run_is_freed_at_once(
    house: House, no_collector: None, way: str
) -> None:
    """The frames of a cancelled task may stay until the collector comes."""
    hold = Hold()
    house.backend.script = [frames(0, 6), hold]
    response_id = await house.submit()
    await hold.here()
    if way == "cancelled":
        await house.cancel(response_id)
    else:
        await house.jobs.delete(await house.job(response_id))
    await house.backend.closed(response_id)
    async with asyncio.timeout(TIMEOUT_S):
        while any(isinstance(each, Transcript) for each in gc.get_objects()):
            await asyncio.sleep(0)
