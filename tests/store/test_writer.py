"""Operations share a transaction, and events of several jobs a statement; none spoils another one's part."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from typing import Any

import pytest

from gateway.core.job import ClaimLost, StoreUnavailable
from gateway.store.sqlite import writer
from gateway.store.sqlite.store import SqliteStore
from tests.store.exercise import block, event, found, started


async def test_events_of_many_jobs_and_of_one_at_once_are_all_stored(store: SqliteStore) -> None:
    claims = [await started(store, f"j{number}") for number in range(50)]
    lost = await started(store, "lost")
    await store.take_over("lost")
    gathered = await asyncio.gather(
        *(store.append(claim, 3, 2, block(3, 2), has_output=True) for claim in claims),
        store.append(lost, 3, 1, event(3), has_output=True),
        *(store.append(claim, 5, 1, event(5), has_output=True) for claim in claims),
        store.append(claims[0], 5, 1, event(5), has_output=True),
        return_exceptions=True,
    )
    assert [type(each) for each in gathered if each is not None] == [ClaimLost, ClaimLost]
    for claim in claims:
        assert (await found(store, claim.id)).next_seq == 6
        assert await store.all_events(claim.id) == block(0, 6)
    assert await store.all_events("lost") == block(0, 3)


async def test_an_operation_that_fails_after_it_has_written_spoils_nothing_for_the_others(
    store: SqliteStore,
) -> None:
    one, another = await started(store, "a"), await started(store, "b")

    def spoil(raw: sqlite3.Connection) -> None:
        raw.execute("UPDATE job SET attempt = 7")
        raise RuntimeError("spoilt")

    told = await asyncio.gather(
        store.append(one, 3, 1, event(3), has_output=True),
        store.append(another, 3, 0, b"no event", has_output=True),  # which no segment may be
        store._writer.ask(spoil),
        store.append(one, 4, 1, event(4), has_output=True),
        return_exceptions=True,
    )
    assert [type(each) for each in told] == [type(None), sqlite3.IntegrityError, RuntimeError, type(None)]
    job = await found(store, "a")
    assert (job.attempt, job.next_seq) == (1, 5)
    assert (await found(store, "b")).next_seq == 3


async def test_what_is_refused_alone_is_refused(store: SqliteStore) -> None:
    claimed = await started(store, "a")
    with pytest.raises(ClaimLost):
        await store.append(claimed, 9, 1, event(9), has_output=True)


async def test_whatever_keeps_the_file_from_being_opened_again_whoever_asks_is_answered(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    claimed = await started(store, "a")

    async def no_thread() -> Any:
        raise RuntimeError("can't start new thread")

    def fail(_: sqlite3.Connection) -> None:
        error = sqlite3.OperationalError("disk I/O error")
        error.sqlite_errorcode = sqlite3.SQLITE_IOERR
        raise error

    with monkeypatch.context() as broken:
        broken.setattr(store._writer, "_connect", no_thread)
        for _ in range(2):
            with pytest.raises(StoreUnavailable):
                await asyncio.wait_for(store._writer.ask(fail), 10)
        await store._upkeep.run_once()
        assert store.state() == "failing"
    await store._upkeep.run_once()
    await store.append(claimed, 3, 1, event(3), has_output=True)


async def test_events_rest_after_a_commit_unless_something_else_is_asked_for(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "_REST_MAX_S", 60)
    claimed = await started(store, "a")
    await store._writer.ask(lambda raw: time.sleep(0.5))  # a commit that takes long, and so does the rest
    resting = store.append(claimed, 3, 1, event(3), has_output=True)
    for _ in range(20):
        await asyncio.sleep(0.001)
    assert not resting.done()
    await store._writer.ask(lambda raw: None)
    assert resting.done()
    await store._writer.ask(lambda raw: time.sleep(0.2))
    await store.append(claimed, 4, 1, event(4), has_output=True)  # the rest has an end
    assert await store.all_events("a") == block(0, 5)


async def test_what_waits_at_the_end_is_written_at_once(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "_REST_MAX_S", 60)
    claimed = await started(store, "a")
    await store._writer.ask(lambda raw: time.sleep(0.5))
    resting = store.append(claimed, 3, 1, event(3), has_output=True)
    await store.close()
    assert resting.done()
    assert resting.exception() is None
    with pytest.raises(StoreUnavailable):
        await store.append(claimed, 4, 1, event(4), has_output=True)
