"""What must not cost more when there is more: counted in steps of SQLite's own machine, not in time."""

from __future__ import annotations

import itertools
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from pathlib import Path

import pytest

from gateway.config import StoreSettings
from gateway.core.job import NewJob, Outcome, Status
from gateway.core.reason import Reason
from gateway.core.webhooks import Delivery, Endpoint
from gateway.observe import Observer
from gateway.store.insight import Wanted
from gateway.store.port import QueueLimits
from gateway.store.sqlite.connector import on_thread
from gateway.store.sqlite.store import SqliteStore
from gateway.wire.sse import encode
from tests.store.jobs import NOW, new_job

PLENTY = QueueLimits(100_000, 100_000)
TENANTS = [bytes([number]) * 32 for number in range(5)]
_STEPS = 20


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqliteStore]:
    settings = StoreSettings(database=tmp_path / "test.db", durability="process", readers=1)
    opened = await SqliteStore.open(settings, Observer())
    yield opened
    await opened.close()


def job(name: str, tenant: bytes = TENANTS[0]) -> NewJob:
    return new_job(name, tenant=tenant, events=b"", is_streamed=True, is_followable=True)


async def steps(store: SqliteStore, work: Awaitable[object]) -> int:
    """Instructions that something takes on both connections, in twenties."""
    count = 0

    def step() -> int:
        nonlocal count
        count += 1
        return 0

    def watch(raw: sqlite3.Connection) -> None:
        raw.set_progress_handler(step, _STEPS)

    reading = [reader.connection for reader in store._database.readers._all]
    connections = (store._writer._connection, *reading)
    for connection in connections:
        await on_thread(connection, watch)
    await work
    for connection in connections:
        await on_thread(connection, lambda raw: raw.set_progress_handler(None, 0))
    return count


async def test_a_create_and_a_claim_cost_the_same_however_long_the_queue_is(store: SqliteStore) -> None:
    async def fill(start: int, count: int) -> None:
        for number in range(start, start + count):
            await store.create(job(f"j{number}", TENANTS[number % 5]), PLENTY)

    await fill(0, 20)
    create = await steps(store, store.create(job("first"), PLENTY))
    claim = await steps(store, store.claim(1, attempts_max=2, now_ms=NOW))
    await fill(20, 2000)
    assert await steps(store, store.create(job("last"), PLENTY)) < 2 * create
    assert await steps(store, store.claim(1, attempts_max=2, now_ms=NOW)) < 2 * claim


async def test_a_claim_costs_the_same_however_many_callers_wait(store: SqliteStore) -> None:
    async def fill(start: int, count: int) -> None:
        for number in range(start, start + count):
            await store.create(job(f"j{number}", number.to_bytes(32, "big")), PLENTY)

    async def one() -> None:
        (claimed,) = await store.claim(1, attempts_max=2, now_ms=NOW)
        await store.release(claimed, attempts_returned=1)

    await fill(0, 20)
    claim = await steps(store, one())
    await fill(20, 2000)
    assert await steps(store, one()) < 2 * claim


async def test_a_look_at_the_list_costs_the_same_however_many_jobs_there_are(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.store.sqlite.insight.AT_FIRST", 10)
    monkeypatch.setattr("gateway.store.sqlite.insight.LOOKED_AT", 40)
    looks = (Wanted(), Wanted(model="rare"), Wanted(statuses=[Status.FAILED], tenant="01"), Wanted(id="j"))

    async def costs() -> list[int]:
        insight = store.insight
        return [
            await steps(store, insight.jobs(wanted, limit=5, is_oldest_first=is_oldest_first))
            for wanted in looks
            for is_oldest_first in (False, True)
        ]

    for number in range(60):
        await store.create(job(f"j{number}", TENANTS[number % 5]), PLENTY)
    few = await costs()
    for number in range(60, 2000):
        await store.create(job(f"j{number}", TENANTS[number % 5]), PLENTY)
    assert all(many < 2 * cost for cost, many in zip(few, await costs(), strict=True))


async def test_live_jobs_are_listed_at_the_same_cost_however_many_have_ended(store: SqliteStore) -> None:
    async def cost() -> int:
        return await steps(store, store.insight.jobs(Wanted(statuses=[Status.QUEUED]), limit=5))

    for number in range(20):
        await store.create(job(f"j{number}"), PLENTY)
    few = await cost()
    for number in range(1000):
        over = replace(job(f"over{number}"), is_background=False)
        await store.record(over, Status.COMPLETED, b"{}", finished_at_ms=NOW, expires_at_ms=NOW + 10**6)
    assert await cost() < 2 * few


async def test_a_late_page_of_a_long_stream_costs_no_more_than_the_first(store: SqliteStore) -> None:
    await store.create(job("a"), PLENTY)
    (claim,) = await store.claim(1, attempts_max=2, now_ms=NOW)
    for number in range(2, 2000):
        await store.append(claim, number, 1, encode("e", b'{"n":%d}' % number), has_output=True)

    async def read(after: int) -> None:
        page = await store.page("a", TENANTS[0], after=after, bytes_max=100, now_ms=NOW)
        assert page is not None
        assert page.last_seq in range(after + 2, after + 10)

    await read(1)  # the first one reads the schema, too
    assert await steps(store, read(1900)) < 2 * await steps(store, read(1))


async def test_a_scrape_and_a_look_cost_the_same_however_much_has_ended_and_waits_to_be_told(
    store: SqliteStore,
) -> None:
    names = [f"x{number}" for number in range(5)]
    statuses = frozenset(status for status in Status if status.is_terminal)
    await store.outbox.set_endpoints([Endpoint(name, statuses, frozenset(), b"") for name in names])

    async def fill(start: int, count: int) -> None:
        for number in range(start, start + count):
            await store.create(job(f"j{number}"), PLENTY)
            (claim,) = await store.claim(1, attempts_max=2, now_ms=NOW)
            last = encode("e", b"{}")
            outcome = Outcome(Status.COMPLETED, b"{}", 2, last, 1, None, Reason.ENDED)
            await store.finish(claim, outcome, now_ms=NOW + number, expires_at_ms=NOW * 2)

    async def due(now_ms: int, per_lane_max: int) -> list[Delivery]:
        taken = await store.outbox.claim(
            now_ms=now_ms, lease_ms=-NOW * 9, per_lane_max=per_lane_max, own_url_max=8
        )
        return taken.deliveries

    async def look() -> None:
        assert len(await due(NOW * 2, 8)) == 40

    async def put_off() -> None:
        (first, *_) = await due(NOW, 1)
        await store.outbox.put_off(first, due_at_ms=NOW * 2, failure="x")

    def works() -> list[Callable[[], Awaitable[object]]]:
        return [
            lambda: store.insight.backlog(now_ms=NOW),
            store.outbox.lane_backlogs,
            look,
            put_off,
            lambda: fill(next(numbers), 1),
        ]

    await fill(0, 20)
    costs: list[int] = []
    numbers = itertools.count(10_000)
    for work in works():
        await work()  # the first one reads the schema, too
        costs.append(await steps(store, work()))
    await fill(20, 1500)
    for number, work in enumerate(works()):
        assert await steps(store, work()) < 2 * costs[number], f"number {number}"
