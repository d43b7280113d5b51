"""Operations share a transaction, and none spoils another one's part of it."""

from __future__ import annotations

import asyncio
import sqlite3

from gateway.store.sqlite.store import SqliteStore
from tests.store.exercise import event, found, started


async def test_an_operation_that_fails_after_it_has_written_spoils_nothing_for_the_others(
    store: SqliteStore,
) -> None:
    claimed = await started(store, "a")

    def spoil(raw: sqlite3.Connection) -> None:
        raw.execute("UPDATE job SET attempt = 7")
        raise RuntimeError("spoilt")

    before, spoilt, after = await asyncio.gather(
        store.append(claimed, 3, 1, event(3), has_output=True),
        store._writer.ask(spoil, refuses_first=True),  # which is not true
        store.append(claimed, 4, 1, event(4), has_output=True),
        return_exceptions=True,
    )
    assert (before, after) == (None, None)
    assert isinstance(spoilt, RuntimeError)
    job = await found(store, "a")
    assert (job.attempt, job.next_seq) == (1, 5)
