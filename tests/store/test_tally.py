"""What the writer keeps count of: always what a count would give."""

from __future__ import annotations

import random
import sqlite3
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from gateway.config import StoreSettings
from gateway.core.job import Claim, ClaimLost, NewJob, Outcome, QueueFull, Status
from gateway.core.reason import Reason
from gateway.observe import Observer
from gateway.store.port import QueueLimits
from gateway.store.sqlite.store import SqliteStore
from tests.store.jobs import NOW, new_job

PLENTY = QueueLimits(100_000, 100_000)
TENANTS = [bytes([number]) * 32 for number in range(5)]
BACKENDS = ["one", "two"]

COUNTED = {
    "queued": "SELECT tenant, count(*) FROM job WHERE status = 'queued' GROUP BY tenant "
    "UNION ALL SELECT x'', count(*) FROM job WHERE status = 'queued'",
    "running": "SELECT backend, tenant, count(*) FROM job WHERE owner IS NOT NULL AND status = 'in_progress' "
    "GROUP BY backend, tenant",
    "waiting": "SELECT backend, tenant, priority, count(*), (4 >> priority) * "
    "(SELECT count(*) FROM job AS other WHERE other.owner IS NOT NULL AND other.status = 'in_progress' "
    "AND other.tenant = job.tenant AND other.backend = job.backend) FROM job "
    "WHERE owner IS NULL AND status IN ('queued', 'in_progress') GROUP BY backend, tenant, priority",
}


async def open_store(path: Path) -> SqliteStore:
    settings = StoreSettings(database=path / "test.db", durability="process", readers=1)
    return await SqliteStore.open(settings, Observer())


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqliteStore]:
    opened = await open_store(tmp_path)
    yield opened
    await opened.close()


def job(name: str, **changes: Any) -> NewJob:
    return new_job(name, **{"tenant": TENANTS[0], "events": b"", **changes})


async def assert_true(store: SqliteStore) -> None:
    def compare(raw: sqlite3.Connection) -> None:
        for table, count in COUNTED.items():
            columns = "backend, tenant, priority, jobs, load" if table == "waiting" else "*"
            kept = sorted(map(tuple, raw.execute(f"SELECT {columns} FROM temp.{table}").fetchall()))
            assert kept == sorted(map(tuple, raw.execute(count).fetchall())), table

    await store._writer.ask(compare)


@pytest.mark.parametrize("seed", range(5))
async def test_the_tally_is_what_a_count_would_give_after_any_moves(tmp_path: Path, seed: int) -> None:
    dice = random.Random(seed)
    store = await open_store(tmp_path)
    claims: list[Claim] = []
    names: list[str] = []

    def new() -> NewJob:
        names.append(f"j{len(names)}")
        where = {"tenant": dice.choice(TENANTS), "backend": dice.choice(BACKENDS)}
        return job(names[-1], **where, priority=dice.randrange(3))

    async def create() -> None:
        await store.create(new(), PLENTY)

    async def start() -> None:
        _, work = await store.start(new(), PLENTY)
        claims.extend([work] if work is not None else [])

    async def fail_to_create() -> None:
        with pytest.raises(QueueFull):
            await store.create(job("never", tenant=dice.choice(TENANTS)), QueueLimits(0, 0))

    async def claim() -> None:
        claims.extend(await store.claim(2, attempts_max=9, now_ms=NOW, backend=dice.choice(BACKENDS)))

    async def take_over() -> None:
        if names and (claimed := await store.take_over(dice.choice(names))) is not None:
            claims.append(claimed)

    async def finish() -> None:
        if claims:
            held = claims.pop(dice.randrange(len(claims)))
            outcome = Outcome(Status.CANCELLED, b"{}", held.job.next_seq, b"e", 1, None, Reason.ENDED)
            await store.finish(held, outcome, now_ms=NOW, expires_at_ms=NOW)

    async def release() -> None:
        if claims:
            await store.release(claims.pop(dice.randrange(len(claims))), attempts_returned=0)

    async def move() -> None:
        await store.set_priority(dice.choice([*names, ""]), dice.randrange(3))

    async def delete() -> None:
        for tenant in TENANTS:
            await store.delete(dice.choice([*names, ""]), tenant, now_ms=NOW - 1)

    async def sweep() -> None:
        await store.sweep(now_ms=NOW)

    async def reopen() -> None:
        nonlocal store
        await store.close()
        store = await open_store(tmp_path)
        await assert_true(store)
        await store.abandon(dead_after_s=0)

    moves = [create, create, start, start] + [claim] * 3 + [move] * 2
    moves += [finish, finish, release, take_over, delete, sweep, fail_to_create]
    for _ in range(150):
        with suppress(ClaimLost):
            await dice.choice([*moves, reopen] if dice.random() < 0.1 else moves)()
        await assert_true(store)
    await store.close()


async def test_what_is_rolled_back_is_not_counted(store: SqliteStore) -> None:
    await store.create(job("a"), PLENTY)

    def spoil(raw: sqlite3.Connection) -> None:
        raw.execute("UPDATE job SET status = 'in_progress', owner = 'x'")
        raise RuntimeError("spoilt")

    with pytest.raises(RuntimeError):
        await store._writer.ask(spoil)
    await assert_true(store)
