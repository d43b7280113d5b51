"""Jobs leave no cycles behind: whatever they held is freed at once, and the garbage collector may rest."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Iterator

import pytest

from tests.support.house import House

JOBS = 20


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
