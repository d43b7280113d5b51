"""Whoever stops waiting for the store leaves nothing behind for the next one.

A pooled connection on which a call was cancelled in mid-flight once gave one user another user's answer
(CVE-2023-28858): here every call has a place of its own for its result.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from gateway.core.job import NewJob
from gateway.store.port import QueueLimits
from gateway.store.sqlite.store import SqliteStore
from gateway.wire.sse import encode
from tests.store.jobs import NOW, new_job

PLENTY = QueueLimits(100_000, 100_000)
_JOBS = 60


def tenant(number: int) -> bytes:
    return number.to_bytes(32, "big")


def job(number: int) -> NewJob:
    """One in which everything says whose it is."""
    mine = b'"%d"' % number
    same = dict.fromkeys(("response", "request", "input", "headers"), mine)
    shown = {"is_streamed": True, "is_followable": True}
    return new_job(
        f"resp_{number}",
        tenant=tenant(number),
        target=f"/{number}",
        events=encode("e", mine) * 2,
        **same,
        **shown,
    )


@pytest.fixture
async def store(open_store: Any) -> SqliteStore:
    opened: SqliteStore = await open_store(durability="process")
    for number in range(_JOBS):
        await opened.create(job(number), PLENTY)
    return opened


async def test_no_answer_is_another_ones_however_many_calls_are_cancelled(store: SqliteStore) -> None:
    counted: Counter[str] = Counter()
    made = iter(range(_JOBS, 100_000))

    async def find(number: int) -> None:
        found = await store.find(f"resp_{number}", tenant(number), now_ms=NOW)
        assert found is not None
        assert (found.id, found.tenant) == (f"resp_{number}", tenant(number))
        assert found.response == b'"%d"' % number

    async def find_of_another(number: int) -> None:
        assert await store.find(f"resp_{number}", tenant(number + 1), now_ms=NOW) is None

    async def request_of(number: int) -> None:
        found = await store.request_of(f"resp_{number}")
        assert found is not None
        assert (found.target, found.input) == (f"/{number}", b'"%d"' % number)

    async def page(number: int) -> None:
        found = await store.page(f"resp_{number}", tenant(number), after=-1, bytes_max=2**20, now_ms=NOW)
        assert found is not None
        assert found.events == encode("e", b'"%d"' % number) * 2

    async def create(_number: int) -> None:
        number = next(made)
        assert await store.create(job(number), PLENTY) == f"resp_{number}"

    async def take_over(number: int) -> None:
        claim = await store.take_over(f"resp_{number}")
        assert claim is not None
        assert claim.job.tenant == tenant(number)

    asks: list[Callable[[int], Awaitable[None]]] = [
        find,
        find_of_another,
        request_of,
        page,
        create,
        take_over,
    ]

    async def client() -> None:
        for _ in range(60):
            ask = random.choice(asks)
            waiting = asyncio.ensure_future(ask(random.randrange(_JOBS)))
            if random.random() < 0.5:
                for _ in range(random.randrange(6)):
                    await asyncio.sleep(0)  # now it waits here, now there
                if random.random() < 0.3:
                    await asyncio.sleep(random.uniform(0, 0.01))
                waiting.cancel()
            try:
                await waiting
                counted["answered"] += 1
            except asyncio.CancelledError:
                counted["cancelled"] += 1

    async with asyncio.timeout(60), asyncio.TaskGroup() as group:
        for _ in range(40):
            group.create_task(client())
    assert counted["answered"] > 500
    assert counted["cancelled"] > 500
    for number in range(_JOBS):
        await find(number)


async def test_what_was_asked_for_happens_though_nobody_waits_any_more(store: SqliteStore) -> None:
    """Half of a transaction is never left behind, and the ones after it are not held up."""
    abandoned = [asyncio.ensure_future(store.create(job(number), PLENTY)) for number in range(1000, 1050)]
    await asyncio.sleep(0)
    for waiting in abandoned:
        waiting.cancel()
    await asyncio.gather(*abandoned, return_exceptions=True)
    await store.create(job(2000), PLENTY)
    for number in (*range(1000, 1050), 2000):
        found = await store.find(f"resp_{number}", tenant(number), now_ms=NOW)
        assert found is not None
        call = await store.request_of(f"resp_{number}")
        assert call is not None
        page = await store.page(f"resp_{number}", tenant(number), after=-1, bytes_max=2**20, now_ms=NOW)
        assert page is not None
        assert page.last_seq == 1
