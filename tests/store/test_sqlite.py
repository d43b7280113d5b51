"""What only a store in one file does: it groups commits, and has files in which nothing deleted stays."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from gateway.core.job import Status
from gateway.store.insight import Wanted
from gateway.store.port import JobStore
from gateway.store.sqlite.store import SqliteStore
from tests.store.exercise import Open, chain, create, event, started
from tests.store.exercise_outbox import URL, due, endpoint
from tests.store.exercise_outbox import ended as told_of
from tests.store.jobs import NOW, TENANT


async def test_many_at_once_share_commits(store: JobStore, commits: list[int]) -> None:
    await asyncio.gather(*(create(store, f"j{number}") for number in range(200)))
    assert sum(commits) == 200
    assert len(commits) <= 20
    assert (await store.insight.backlog(now_ms=NOW)).by_status[Status.QUEUED] == 200


async def test_a_long_chain_is_read_without_a_commit(store: JobStore, commits: list[int]) -> None:
    await chain(store, 200)
    before = len(commits)
    turns = await store.turns_before("t199", TENANT)
    assert [turn.response_id for turn in turns] == [f"t{number}" for number in range(199)]
    assert len(commits) == before  # and only read


async def test_one_batch_holds_whatever_was_asked_for_at_once(store: JobStore, commits: list[int]) -> None:
    claimed = await started(store, "live")
    commits.clear()
    await asyncio.gather(
        create(store, "a"),
        store.append(claimed, 3, 1, event(3), has_output=True),
        create(store, "b", previous_id="never was"),
        return_exceptions=True,
    )
    assert len(commits) <= 2, "they were meant to share one"


async def test_the_sizes_of_the_files_are_known(store: SqliteStore) -> None:
    await create(store, "a")
    sizes = await store.sizes()
    assert sizes["db"] + sizes["wal"] > 0


async def test_what_a_dead_process_was_sending_is_due_at_once_after_the_next_start(opened: Open) -> None:
    first = await opened()
    await first.outbox.set_endpoints([endpoint("x")])
    await told_of(first, "a")
    assert len(await due(first, lease_ms=10**6)) == 1
    await first.close()
    second = await opened()
    await second.outbox.set_endpoints([endpoint("x")])
    assert len(await due(second)) == 1


async def test_no_url_of_a_caller_stays_in_the_files(store: JobStore, tmp_path: Path) -> None:
    await told_of(store, "a", webhook=URL)
    for delivery in await due(store):
        await store.outbox.remove(delivery)
    while await store.sweep(now_ms=NOW + 10**9):
        pass
    await store.reclaim_space()
    for file in tmp_path.iterdir():
        assert b"secret-path" not in file.read_bytes(), file.name


async def test_a_list_goes_through_a_bounded_number_of_jobs_and_says_where_to_go_on(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.store.sqlite.insight.LOOKED_AT", 4)
    for number in range(10):
        await create(store, f"j{number}", model="rare" if number == 0 else "m")
    looks: list[list[str]] = []
    before = None
    while not looks or before is not None:
        listing = await store.insight.jobs(Wanted(model="rare"), limit=5, before=before)
        looks.append([facts.id for facts in listing.jobs])
        before = listing.before
    assert looks == [[], [], ["j0"]]
    assert [facts.id for facts in (await store.insight.jobs(Wanted(id="j0"), limit=5)).jobs] == ["j0"]
