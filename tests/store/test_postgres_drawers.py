"""Drawers: events in PostgreSQL go many at a time, and who reads, writes or deletes sees nothing of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import asyncpg
import pytest
from pydantic import SecretStr

from gateway.config import StoreSettings
from gateway.observe import Observer
from gateway.store.postgres import startup
from gateway.store.postgres import store as store_module
from gateway.store.postgres.queries import MIGRATIONS
from gateway.store.postgres.store import PostgresStore
from gateway.wire.sse import split_frames
from tests.store.exercise import EXPIRY, block, create, ended, ending, event, started
from tests.store.jobs import NOW, TENANT

KEPT_MS = EXPIRY - NOW
TURN_MS = KEPT_MS // 4


@pytest.fixture
async def sql(url: str) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(url)
    yield connection
    await connection.close()


@pytest.fixture
async def replicas(url: str) -> AsyncIterator[list[PostgresStore]]:
    async with AsyncExitStack() as stack:
        stores = [await PostgresStore.open(StoreSettings(url=SecretStr(url)), Observer()) for _ in range(2)]
        for store in stores:
            stack.push_async_callback(store.close)
        yield stores


@pytest.fixture
def store(replicas: list[PostgresStore]) -> PostgresStore:
    return replicas[0]


async def drawers(sql: asyncpg.Connection) -> dict[int, str]:
    """What state those are in that are not empty."""
    rows = await sql.fetch(
        "SELECT number, state FROM backburner.drawer WHERE state <> 'empty' ORDER BY number"
    )
    return {row["number"]: row["state"] for row in rows}


async def rows_in(sql: asyncpg.Connection) -> dict[int, int]:
    """Rows of events by drawer."""
    rows = await sql.fetch("SELECT drawer, count(*) FROM backburner.segment GROUP BY drawer ORDER BY drawer")
    return {row["drawer"]: row["count"] for row in rows}


async def events(store: PostgresStore, name: str, now_ms: int = NOW) -> bytes:
    """All of them, as a follower reads them page by page."""
    got, after = b"", -1
    while True:
        page = await store.page(name, TENANT, after=after, bytes_max=300, now_ms=now_ms)
        assert page is not None
        if not page.events:
            return got
        got, after = got + page.events, page.last_seq


async def filled(store: PostgresStore, count: int = 3) -> None:
    """A drawer that is closed, with so many responses that have ended in it."""
    for number in range(count):
        await ended(store, f"short{number}")
    await store.sweep(now_ms=NOW)


async def kept_from(store: PostgresStore, name: str, now_ms: int) -> None:
    """One more that has ended, at this time."""
    claimed = await started(store, name)
    await store.finish(claimed, ending(3), now_ms=now_ms, expires_at_ms=now_ms + KEPT_MS)


async def test_what_has_expired_goes_with_its_drawer_and_no_row_is_deleted(
    store: PostgresStore, sql: asyncpg.Connection
) -> None:
    await filled(store)
    assert await drawers(sql) == {1: "closed", 2: "open"}
    await kept_from(store, "later", NOW + 1)
    assert await rows_in(sql) == {1: 9, 2: 3}
    assert await store.sweep(now_ms=EXPIRY - 1) == 0
    assert await drawers(sql) == {1: "closed", 2: "closed", 3: "open"}
    assert await store.sweep(now_ms=EXPIRY) == 3
    assert await drawers(sql) == {2: "closed", 3: "open"}
    assert await rows_in(sql) == {2: 3}
    assert await store.sweep(now_ms=EXPIRY + 1) == 1
    assert await rows_in(sql) == {}
    deleted = "SELECT sum(n_tup_del) FROM pg_stat_user_tables WHERE relname LIKE 'segment%'"
    await sql.execute("SELECT pg_stat_force_next_flush()")
    assert await sql.fetchval(deleted) == 0


async def test_a_drawer_is_filled_for_a_quarter_of_the_time_that_responses_are_kept(
    store: PostgresStore, sql: asyncpg.Connection
) -> None:
    await filled(store)
    await ended(store, "later")
    await store.sweep(now_ms=NOW + TURN_MS - 1)
    assert await drawers(sql) == {1: "closed", 2: "open"}
    await store.sweep(now_ms=NOW + TURN_MS)
    assert await drawers(sql) == {1: "closed", 2: "closed", 3: "open"}
    await store.sweep(now_ms=NOW + 2 * TURN_MS)
    assert await drawers(sql) == {1: "closed", 2: "closed", 3: "open"}, "nothing is in it"


async def test_when_every_drawer_is_in_use_the_open_one_stays_open(
    store: PostgresStore, sql: asyncpg.Connection
) -> None:
    for number in range(7):
        await started(store, f"long{number}")
        await kept_from(store, f"short{number}", NOW + number * TURN_MS)
        await store.sweep(now_ms=NOW + number * TURN_MS)
    assert await drawers(sql) == {1: "closed", 2: "closed", 3: "closed", 4: "closed", 5: "closed", 6: "open"}
    assert await rows_in(sql) == {1: 5, 2: 5, 3: 5, 4: 5, 5: 5, 6: 10}


@pytest.mark.parametrize("at_once", [1, 2, 1000])
async def test_a_job_that_outlives_its_drawer_keeps_every_event(
    store: PostgresStore, sql: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch, at_once: int
) -> None:
    monkeypatch.setattr(store_module, "_MOVED_ROWS", at_once)
    claimed = await started(store, "long", is_followable=True)
    for seq in range(3, 9):
        await store.append(claimed, seq, 1, event(seq), has_output=True)
    await filled(store, 20)
    await store.sweep(now_ms=EXPIRY)
    assert (await drawers(sql), await rows_in(sql)) == ({2: "open"}, {0: 8})
    assert await events(store, "long") == await store.all_events("long") == block(0, 9)
    await store.append(claimed, 9, 2, block(9, 2), has_output=True)
    await store.rewind(claimed, 10)
    await store.append(claimed, 10, 1, event(10), has_output=True)
    assert await events(store, "long") == block(0, 11)
    await store.finish(claimed, ending(11), now_ms=EXPIRY, expires_at_ms=EXPIRY + KEPT_MS)
    assert await events(store, "long", EXPIRY) == block(0, 11) + block(11, 1, "end")
    details = await store.insight.details("long")
    assert details is not None
    assert details.events_bytes == len(await store.all_events("long")) == await store.events_bytes("long")
    assert await store.sweep(now_ms=EXPIRY + KEPT_MS) == 1
    assert await rows_in(sql) == {}


async def test_a_rewind_reaches_what_has_been_moved_and_what_has_not(
    store: PostgresStore, sql: asyncpg.Connection
) -> None:
    claimed = await started(store, "long")
    await store.append(claimed, 3, 5, block(3, 5), has_output=False)
    await filled(store, 20)
    assert await sql.fetchval("SELECT backburner.move_on(1::smallint, $1, 1)", EXPIRY)
    assert (await rows_in(sql))[0] == 1
    assert await events(store, "long") == block(0, 8)
    await store.rewind(claimed, 1)
    assert await events(store, "long") == block(0, 1)
    await store.append(claimed, 1, 4, block(1, 4), has_output=False)
    await store.sweep(now_ms=EXPIRY)
    assert await events(store, "long") == block(0, 5)


async def test_a_rewind_waits_for_a_move_that_is_under_way(
    store: PostgresStore, sql: asyncpg.Connection
) -> None:
    claimed = await started(store, "long")
    await store.append(claimed, 3, 1, event(3), has_output=False)
    await filled(store, 20)
    async with sql.transaction():
        assert await sql.fetchval("SELECT backburner.move_on(1::smallint, $1, 2)", EXPIRY)
        rewinding = asyncio.create_task(store.rewind(claimed, 2))
        async with asyncio.timeout(2):
            while not await sql.fetchval("SELECT count(*) FROM pg_locks WHERE NOT granted"):
                await asyncio.sleep(0.01)
    await rewinding
    assert await events(store, "long") == block(0, 2)


async def test_many_jobs_that_are_kept_are_waited_for_and_then_moved(
    store: PostgresStore, sql: asyncpg.Connection
) -> None:
    claims = [await started(store, f"long{number}") for number in range(3)]
    await filled(store)
    await kept_from(store, "later", EXPIRY - 1)
    await store.sweep(now_ms=EXPIRY)
    assert await rows_in(sql) == {1: 15, 2: 3}, "half of its jobs"
    await kept_from(store, "latest", EXPIRY + KEPT_MS - 1)
    await store.sweep(now_ms=NOW + 2 * KEPT_MS)
    assert await rows_in(sql) == {0: 6, 3: 3}
    assert [await events(store, claimed.id) for claimed in claims] == [block(0, 3)] * 3


async def test_what_a_client_deletes_goes_at_the_next_sweep_wherever_it_is(
    store: PostgresStore, sql: asyncpg.Connection
) -> None:
    await started(store, "long")
    await filled(store, 20)
    await store.sweep(now_ms=EXPIRY)
    await ended(store, "new")
    await started(store, "running")
    assert await rows_in(sql) == {0: 2, 2: 5}
    for name in ("long", "new", "running"):
        assert await store.delete(name, TENANT, now_ms=EXPIRY - 1)
    assert await store.sweep(now_ms=EXPIRY) == 3
    assert await rows_in(sql) == {}


async def test_a_reader_in_a_drawer_holds_its_emptying_up_and_is_not_held_up_by_it(
    store: PostgresStore, sql: asyncpg.Connection
) -> None:
    await filled(store)
    await kept_from(store, "new", EXPIRY - 1)
    async with sql.transaction():
        await sql.fetch("SELECT FROM backburner.segment")  # as a backup does: the lock stays to the end
        sweeping = asyncio.create_task(store.sweep(now_ms=EXPIRY))
        while not sweeping.done():
            async with asyncio.timeout(1):
                assert await events(store, "new") == block(0, 3) + block(3, 1, "end")
        assert await sweeping == 3
    assert (await rows_in(sql))[1] == 9
    await store.sweep(now_ms=EXPIRY)
    assert await rows_in(sql) == {2: 3}


async def test_a_drawer_in_which_something_is_kept_is_never_emptied(
    store: PostgresStore, sql: asyncpg.Connection
) -> None:
    """Also not by one that thinks that all of it has been moved."""
    await started(store, "long")
    await filled(store)
    assert not await sql.fetchval("SELECT backburner.empty_drawer(1::smallint, $1)", EXPIRY)
    assert not await sql.fetchval("SELECT backburner.empty_drawer(2::smallint, $1)", EXPIRY), "it is open"
    assert await events(store, "long") == block(0, 3)


async def test_jobs_run_on_while_drawers_are_closed_moved_and_emptied_by_two_gateways(
    replicas: list[PostgresStore], sql: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_module, "_MOVED_ROWS", 3)
    now_ms, appended = NOW, 0
    claims = [await started(replicas[0], f"long{number}") for number in range(4)]

    async def run(store: PostgresStore, number: int) -> None:
        nonlocal appended
        seq = 3
        while now_ms < NOW + 8 * KEPT_MS:
            await store.append(claims[number], seq, 1, event(seq), has_output=False)
            seq, appended = seq + 1, appended + 1
            if seq % 5 == 0:
                seq -= 3
                await store.rewind(claims[number], seq)
            assert await events(replicas[1 - number % 2], f"long{number}", now_ms) == block(0, seq)

    async def fill(store: PostgresStore) -> None:
        nonlocal now_ms
        number = 0
        while now_ms < NOW + 8 * KEPT_MS:
            for _ in range(4):
                number += 1
                await create(store, f"short{number}", created_at_ms=now_ms, deadline_ms=2**60)
                [claimed] = await store.claim(1, attempts_max=2, now_ms=now_ms)
                outcome, expires_at_ms = ending(2), now_ms + KEPT_MS
                await store.finish(claimed, outcome, now_ms=now_ms, expires_at_ms=expires_at_ms)
            await asyncio.gather(*(each.sweep(now_ms=now_ms) for each in replicas))
            now_ms += TURN_MS

    await asyncio.gather(fill(replicas[0]), *(run(replicas[number % 2], number) for number in range(4)))
    assert appended > 40
    assert await sql.fetchval("SELECT count(*) FROM backburner.job WHERE id ^@ 'long' AND drawer = 0") == 4
    for number in range(4):
        got = split_frames(await replicas[0].all_events(f"long{number}"))
        assert b"".join(got) == block(0, len(got))


async def test_what_was_stored_before_there_were_drawers_is_read_written_and_deleted(
    url: str, sql: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    await _made_by_the_first_step(url, monkeypatch)
    await sql.execute(
        "INSERT INTO backburner.job (id, tenant, backend, priority, status, epoch, owner, next_seq, "
        "is_background, is_streamed, is_followable, is_rerunnable, created_at_ms, deadline_ms) "
        "VALUES ('old', $1, 'default', 1, 'in_progress', 1, 'x', 5, true, true, true, true, $2, 2^60)",
        TENANT,
        NOW,
    )
    await sql.execute("INSERT INTO backburner.call SELECT pk, '{}', '{}', '1', '/', '{}' FROM backburner.job")
    for first_seq in (0, 2):
        events_of = "INSERT INTO backburner.segment SELECT pk, $1, $2, $3 FROM backburner.job"
        last_seq = first_seq + 1 + first_seq // 2
        await sql.execute(events_of, first_seq, last_seq, block(first_seq, last_seq - first_seq + 1))
    opened = await PostgresStore.open(StoreSettings(url=SecretStr(url)), Observer())
    try:
        assert await events(opened, "old") == block(0, 5)
        claimed = await opened.take_over("old")
        assert claimed is not None
        await opened.append(claimed, 5, 1, event(5), has_output=True)
        await opened.finish(claimed, ending(6), now_ms=NOW, expires_at_ms=EXPIRY)
        assert await rows_in(sql) == {0: 4}
        assert await events(opened, "old") == block(0, 6) + block(6, 1, "end")
        assert await opened.sweep(now_ms=EXPIRY) == 1
        assert await rows_in(sql) == {}
    finally:
        await opened.close()


async def _made_by_the_first_step(url: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    with monkeypatch.context() as patch:
        patch.setattr(startup, "MIGRATIONS", MIGRATIONS[:1])
        before = await PostgresStore.open(StoreSettings(url=SecretStr(url)), Observer())
        await before.close()


async def test_what_a_gateway_from_before_the_drawers_appends_is_read_and_deleted_like_the_rest(
    store: PostgresStore, sql: asyncpg.Connection
) -> None:
    await started(store, "mixed")
    new = await events(store, "mixed")
    assert await rows_in(sql) == {1: 2}
    old = event(3)
    await sql.execute(  # in its words
        "INSERT INTO backburner.segment (job, first_seq, last_seq, events)"
        " SELECT pk, next_seq, next_seq, $2 FROM backburner.job WHERE id = $1",
        "mixed",
        old,
    )
    await sql.execute("UPDATE backburner.job SET next_seq = next_seq + 1 WHERE id = $1", "mixed")
    assert await rows_in(sql) == {0: 1, 1: 2}
    assert await events(store, "mixed") == new + old
    assert await store.delete("mixed", TENANT, now_ms=NOW)
    await store.sweep(now_ms=NOW)
    assert await rows_in(sql) == {}
