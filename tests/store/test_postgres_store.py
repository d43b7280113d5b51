"""What only a store in PostgreSQL has to do: several gateways, lost answers, and refusals at the start."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from pydantic import SecretStr

from gateway.config import Settings, StoreSettings
from gateway.core.job import Claim, ClaimLost, Idempotency, Status, StoreUnavailable
from gateway.core.reason import Reason
from gateway.core.upstream import UpstreamFailed
from gateway.engine.handover import Lease
from gateway.engine.orders import PAUSE
from gateway.observe import Observer
from gateway.store.bells import response
from gateway.store.insight import Wanted
from gateway.store.postgres.connections import one_by_one
from gateway.store.postgres.queries import MIGRATIONS, QUERIES, Migration, Query
from gateway.store.postgres.store import PostgresStore
from gateway.store.refused import DatabaseDamaged, DatabaseRefused, DatabaseUnreachable
from gateway.wire.failures import failure
from tests.store.exercise import (
    EXPIRY,
    OTHER,
    PLENTY,
    block,
    claim,
    create,
    ended,
    ending,
    event,
    found,
    job_named,
    page,
    started,
)
from tests.store.exercise_outbox import endpoint
from tests.store.jobs import NOW, TENANT
from tests.support.cutting import Way, way_to
from tests.support.databases import Databases
from tests.support.house import ALL, Hold, House, ScriptedBackend, SetClock, Signals, Wrapped

OpenReplica = Callable[..., Awaitable[PostgresStore]]


@pytest.fixture
async def way(databases: Databases) -> AsyncIterator[Way]:
    async with way_to(databases.server.port) as made:
        yield made


@pytest.fixture
async def replica(url: str) -> AsyncIterator[OpenReplica]:
    """Opens stores of several gateways on one database."""
    async with AsyncExitStack() as stack:

        async def opener(way: Way | None = None, **settings: Any) -> PostgresStore:
            address = url if way is None else url.replace(url.split(":")[2].split("/")[0], str(way.port))
            given = StoreSettings(url=SecretStr(address), **settings)
            store = await PostgresStore.open(given, Observer())
            stack.push_async_callback(store.close)
            return store

        yield opener


async def run_sql(url: str, statement: str, *values: Any) -> list[Any]:
    connection = await asyncpg.connect(url)
    try:
        found: list[Any] = await connection.fetch(statement, *values)
        return found
    finally:
        await connection.close()


# -- several gateways


async def test_a_response_is_told_again_once_however_many_gateways_are_asked_for_it(
    replica: OpenReplica,
) -> None:
    stores = [await replica() for _ in range(3)]
    for store in stores:
        await store.outbox.set_endpoints([endpoint("x"), endpoint("y")])
    await ended(stores[0], "a", webhook="https://hooks.test/x")
    for delivery in await stores[0].outbox.about("a"):
        await stores[0].outbox.remove(delivery)
    told = await asyncio.gather(*(store.outbox.tell_again("a") for store in stores * 4))
    assert {len(lanes) for lanes in told} == {3}
    assert len(await stores[0].outbox.about("a")) == 3


async def test_a_list_goes_through_a_bounded_number_of_jobs_from_either_end(
    replica: OpenReplica, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.store.postgres.insight.AT_FIRST", 2)
    monkeypatch.setattr("gateway.store.postgres.insight.LOOKED_AT", 4)
    store = await replica()
    for number in range(10):
        await create(store, f"j{number}", model="rare" if number in (0, 9) else "m")
    for is_oldest_first, expected in ((False, [["j9"], [], ["j0"]]), (True, [["j0"], [], ["j9"]])):
        looks: list[list[str]] = []
        before = None
        while not looks or before is not None:
            listing = await store.insight.jobs(
                Wanted(model="rare"), limit=5, before=before, is_oldest_first=is_oldest_first
            )
            looks.append([facts.id for facts in listing.jobs])
            before = listing.before
        assert looks == expected
    assert [facts.id for facts in (await store.insight.jobs(Wanted(id="j0"), limit=5)).jobs] == ["j0"]
    assert len((await store.insight.jobs(Wanted(id="j"), limit=9)).jobs) == 4, "too many begin so"


async def test_a_job_is_claimed_once_however_many_ask(replica: OpenReplica) -> None:
    stores = [await replica() for _ in range(3)]
    for number in range(60):
        await create(stores[number % 3], f"j{number}")
    taken: list[str] = []
    while got := await asyncio.gather(*(claim(store, 4) for store in stores)):
        if not any(got):
            break
        taken += [work.id for works in got for work in works]
    assert sorted(taken) == sorted(f"j{number}" for number in range(60))


async def test_all_together_run_no_more_jobs_of_a_backend_than_it_has_slots(replica: OpenReplica) -> None:
    stores = [await replica() for _ in range(3)]
    for number in range(12):
        await create(stores[0], f"j{number}")
    got = await asyncio.gather(
        *(store.claim(9, attempts_max=2, now_ms=NOW, running_max=5) for store in stores)
    )
    assert sum(map(len, got)) == 5
    first = next(work for works in got for work in works)
    await stores[1].finish(first, ending(2), now_ms=NOW, expires_at_ms=EXPIRY)
    assert len(await stores[2].claim(9, attempts_max=2, now_ms=NOW, running_max=5)) == 1


async def test_tenants_take_turns_whichever_gateway_claims(replica: OpenReplica) -> None:
    stores = [await replica() for _ in range(2)]
    for number in range(6):
        await create(stores[0], f"t{number}")
    for number in range(6):
        await create(stores[1], f"o{number}", tenant=OTHER)
    order = [(await claim(stores[number % 2]))[0].id for number in range(8)]
    assert order == ["t0", "o0", "t1", "o1", "t2", "o2", "t3", "o3"]


async def test_one_key_means_one_job_wherever_it_is_used_at_once(replica: OpenReplica) -> None:
    stores = [await replica() for _ in range(3)]
    key = Idempotency("k", b"f" * 32)
    made = await asyncio.gather(
        *(
            store.create(job_named(f"j{number}-{place}", idempotency=key), PLENTY)
            for place, store in enumerate(stores)
            for number in range(5)
        )
    )
    assert len(set(made)) == 1
    assert (await stores[0].insight.backlog(now_ms=NOW)).by_status[Status.QUEUED] == 1


async def test_whoever_leaves_leaves_its_jobs_to_the_others_at_once(replica: OpenReplica) -> None:
    first, second = await replica(), await replica()
    await started(first, "a")
    assert await claim(second) == []
    await first.close()
    (again,) = await claim(second)
    assert (again.id, again.epoch) == ("a", 3)


async def test_nobody_is_taken_for_dead_by_one_who_was_away_itself(replica: OpenReplica, url: str) -> None:
    """The database may have been away for both."""
    first, second = await replica(), await replica()
    claimed = await started(first, "a")
    await run_sql(url, "UPDATE backburner.replica SET beat_at_ms = beat_at_ms - 60000")
    assert await second.beat()
    await second.abandon(dead_after_s=6.5)
    await first.append(claimed, 3, 1, event(3), has_output=True)
    assert await first.beat()


async def test_who_is_dead_loses_its_jobs_and_hears_of_it(replica: OpenReplica, url: str) -> None:
    first, second = await replica(), await replica()
    claimed = await started(first, "a")
    await run_sql(
        url,
        "UPDATE backburner.replica SET steady_since_ms = steady_since_ms - 60000, "
        "beat_at_ms = beat_at_ms - CASE WHEN id = $1 THEN 60000 ELSE 0 END",
        first._owner,
    )
    await second.abandon(dead_after_s=6.5)
    with pytest.raises(ClaimLost):
        await first.append(claimed, 3, 1, event(3), has_output=True)
    assert [work.id for work in await claim(second)] == ["a"]
    assert not await first.beat()
    assert await first.beat(), "it is one of them again"


async def test_what_one_that_was_taken_for_dead_claims_before_it_hears_of_it_waits_again(
    replica: OpenReplica, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is its own, is stopped with all that it runs, and its owner lives: nobody else would free it."""
    first, second = await replica(), await replica()
    runs = [await started(first, "a")]
    await run_sql(
        url,
        "UPDATE backburner.replica SET steady_since_ms = steady_since_ms - 60000, "
        "beat_at_ms = beat_at_ms - CASE WHEN id = $1 THEN 60000 ELSE 0 END",
        first._owner,
    )
    await second.abandon(dead_after_s=6.5)
    (theirs,) = await claim(second)
    await create(first, "b")
    tell = first._membership._tell

    async def claims_before() -> Any:
        runs.extend(await claim(first))
        return await tell()

    monkeypatch.setattr(first._membership, "_tell", claims_before)
    await Lease(first, lambda: runs, list).renew()
    assert [run.id for run in runs] == ["a", "b"]
    (again,) = await claim(second)
    assert (theirs.id, again.id, again.job.attempt) == ("a", "b", 1)
    assert (await found(second, "a")).epoch == theirs.epoch


async def test_who_could_not_give_a_job_back_leaves_it_to_the_gateway_that_runs_it_by_now(
    replica: OpenReplica, url: str, tmp_path: Path
) -> None:
    """Its lease has lapsed meanwhile."""
    store = Defiant(await replica())
    first = house_on(store, tmp_path)
    first.backend.script = [UpstreamFailed(failure("Busy"), Reason.PUT_OFF, 503)]
    second = house_on(await replica(), tmp_path)
    hold = Hold()
    second.backend.script = [hold, *ALL]
    running = [asyncio.create_task(first.engine._runner.run())]
    response_id = await first.submit()
    async with asyncio.timeout(10):
        while response_id not in first.engine._endings.owed:
            await asyncio.sleep(0.01)
    first.backends.slots_now = 0
    await run_sql(url, "DELETE FROM backburner.replica WHERE id = $1", store.inner._owner)
    await second.store.abandon(dead_after_s=6.5)
    running.append(asyncio.create_task(second.engine._runner.run()))
    await hold.here()
    await first.tick()
    assert first.engine._endings.owed == {}
    hold.go.set()
    assert (await second.ended(response_id))["status"] == "completed"
    for task in running:
        task.cancel()
    await asyncio.wait(running)


class Defiant(Wrapped):
    async def release(self, *_: Any, **__: Any) -> None:
        raise StoreUnavailable("away")


def house_on(store: Any, directory: Path) -> House:
    given = {"upstream": {"url": "http://backend.test/v1"}, "store": {"database": directory / "unused.db"}}
    return House(store, Settings.model_validate(given), ScriptedBackend(), SetClock(), Signals())


async def test_the_dead_are_cut_off_whatever_locks_they_hold(replica: OpenReplica, url: str) -> None:
    first, second = await replica(), await replica()
    await started(first, "a")
    stuck = await first._membership._connector.connect()
    await stuck.execute("BEGIN")
    await stuck.execute("UPDATE backburner.job SET model = 'x'")
    await run_sql(
        url,
        "UPDATE backburner.replica SET steady_since_ms = steady_since_ms - 60000, "
        "beat_at_ms = beat_at_ms - CASE WHEN id = $1 THEN 60000 ELSE 0 END",
        first._owner,
    )
    async with asyncio.timeout(5):
        await second.abandon(dead_after_s=6.5)
    assert [work.id for work in await claim(second)] == ["a"]
    stuck.terminate()


async def test_jobs_of_the_dead_that_are_freed_too_slowly_once_are_freed_at_the_next_beat(
    replica: OpenReplica, url: str
) -> None:
    first, second = await replica(), await replica(busy_timeout_s=1)
    await started(first, "a")
    await run_sql(
        url,
        "UPDATE backburner.replica SET steady_since_ms = steady_since_ms - 60000, "
        "beat_at_ms = beat_at_ms - CASE WHEN id = $1 THEN 60000 ELSE 0 END",
        first._owner,
    )
    slow = await asyncpg.connect(url)
    await slow.execute("BEGIN")
    await slow.execute("UPDATE backburner.job SET model = 'x'")
    with pytest.raises(StoreUnavailable):
        await second.abandon(dead_after_s=6.5)
    await slow.close()
    assert await second.beat()
    await second.abandon(dead_after_s=6.5)
    assert [work.id for work in await claim(second)] == ["a"]


async def test_a_bell_that_one_rings_is_heard_by_the_others_who_listen(replica: OpenReplica) -> None:
    first, second = await replica(), await replica()
    tending = [asyncio.create_task(store.tend()) for store in (first, second)]
    heard = asyncio.Event()
    try:
        async with asyncio.timeout(5):
            while not (first.bells._is_heard and second.bells._is_heard):
                await asyncio.sleep(0.01)
            claimed = await started(first, "a")
            with second.bells.listen(heard.set, response("a")):
                while not first.bells.is_wanted("a"):
                    await asyncio.sleep(0.01)
                await first.append(claimed, 3, 1, event(3), has_output=True)
                await heard.wait()
    finally:
        for task in tending:
            task.cancel()
        await asyncio.wait(tending)


async def test_that_notifications_come_no_more_is_noticed_when_nobody_has_anything_to_tell(
    replica: OpenReplica, way: Way, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.store.postgres.bells._TRY_S", 0.1)
    store = await replica(way, busy_timeout_s=0.3)
    tending = asyncio.create_task(store.tend())
    try:
        async with asyncio.timeout(10):
            while not store.bells._is_heard:
                await asyncio.sleep(0.01)
            way.flows.clear()
            while store.bells._is_heard:
                await asyncio.sleep(0.01)
            way.flows.set()
            while not store.bells._is_heard:
                await asyncio.sleep(0.01)
    finally:
        way.flows.set()
        tending.cancel()
        await asyncio.wait([tending])


async def test_all_go_by_the_same_facts_or_not_at_all(replica: OpenReplica) -> None:
    first, second = await replica(), await replica()
    await first.agree({"tenants.pepper": "one"}, ["gpu"])
    await second.agree({"tenants.pepper": "one"}, ["cpu"])
    third = await replica()
    with pytest.raises(DatabaseRefused, match=r"another value of tenants\.pepper"):
        await third.agree({"tenants.pepper": "two"}, [])
    assert first.pepper == second.pepper == third.pepper


async def test_a_job_of_a_backend_that_only_another_gateway_has_is_left_to_that_one(
    replica: OpenReplica, url: str
) -> None:
    """As in a rolling deploy that adds a backend, or takes one away."""
    old, new = await replica(), await replica()
    await old.agree({}, ["default"])
    await new.agree({}, ["default", "gpu"])
    await create(old, "a", backend="gpu")
    await create(old, "b", backend="gone")
    assert await old.of_other_backends(["default"], limit=9) == ["b"]
    await run_sql(url, "DELETE FROM backburner.replica WHERE id = $1", new._owner)
    assert not await new.beat(), "it was taken for dead"
    assert await old.of_other_backends(["default"], limit=9) == ["b"], "and has said again what it has"
    await new.close()
    assert await old.of_other_backends(["default"], limit=9) == ["a", "b"]


_LATER = """
ALTER TABLE backburner.job ADD COLUMN later text NOT NULL DEFAULT 'x';
ALTER TABLE backburner.call ADD COLUMN later text NOT NULL DEFAULT 'x';
CREATE TABLE backburner.later (name text PRIMARY KEY);
"""


async def test_an_older_gateway_works_on_while_a_newer_one_changes_the_tables_and_starts_again_after(
    replica: OpenReplica, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = await replica()

    async def a_whole_life(store: PostgresStore, name: str) -> None:
        await started(store, name)  # all statements of a run, prepared on the connections of that store
        claimed = await store.take_over(name)
        assert claimed is not None
        await store.append(claimed, 3, 1, event(3), has_output=True)
        await store.finish(claimed, ending(4), now_ms=NOW, expires_at_ms=EXPIRY)
        assert (await found(store, name)).status is Status.COMPLETED
        assert (await store.insight.details(name)) is not None
        await store.notes.put("a", name, 1)
        await store.sweep(now_ms=NOW)

    await a_whole_life(old, "before")
    with monkeypatch.context() as newer:
        newer.setattr("gateway.store.postgres.startup.MIGRATIONS", [*MIGRATIONS, Migration(9999, _LATER)])
        new = await replica()
    for number in range(3):
        await a_whole_life(old, f"old{number}")
        await a_whole_life(new, f"new{number}")
    again = await replica()
    await a_whole_life(again, "again")
    assert (await found(again, "before")).status is Status.COMPLETED
    assert [row["later"] for row in await run_sql(url, "SELECT later FROM backburner.job")] == ["x"] * 8


async def test_sweeps_of_several_gateways_take_each_job_once(replica: OpenReplica) -> None:
    stores = [await replica() for _ in range(3)]
    for number in range(30):
        await ended(stores[number % 3], f"j{number}")
    assert sum(await asyncio.gather(*(store.sweep(now_ms=EXPIRY) for store in stores))) == 30


# -- answers that are lost


async def test_what_was_written_when_the_answer_was_lost_is_written_once(
    replica: OpenReplica, way: Way
) -> None:
    store = await replica(way)
    claimed = await started(store, "a")
    way.loses_answers = True
    appending = store.append(claimed, 3, 2, block(3, 2), has_output=True)
    async with asyncio.timeout(10):
        while not way.cuts:
            await asyncio.sleep(0.01)
        way.loses_answers = False
        await appending
    assert await store.all_events("a") == block(0, 5)
    way.loses_answers, way.cuts = True, 0
    finishing = asyncio.create_task(store.finish(claimed, ending(5), now_ms=NOW, expires_at_ms=EXPIRY))
    async with asyncio.timeout(10):
        while not way.cuts:
            await asyncio.sleep(0.01)
        way.loses_answers = False
        await finishing
    assert (await page(store, "a")).is_end


async def test_a_create_or_a_claim_whose_answer_was_lost_is_answered_when_it_is_known(
    replica: OpenReplica, way: Way
) -> None:
    store = await replica(way)
    await ended(store, "before")  # so there is a connection to lose an answer on
    for attempt in range(3):
        way.loses_answers, way.cuts = True, 0
        creating = asyncio.create_task(create(store, f"j{attempt}"))
        async with asyncio.timeout(10):
            while not way.cuts:
                await asyncio.sleep(0.01)
            way.loses_answers = False
            await creating
        way.loses_answers, way.cuts = True, 0
        claiming = asyncio.create_task(claim(store))
        async with asyncio.timeout(10):
            while not way.cuts:
                await asyncio.sleep(0.01)
            way.loses_answers = False
            (work,) = await claiming
        assert (work.id, work.epoch, work.job.attempt) == (f"j{attempt}", 1, 1)


@pytest.mark.parametrize("was_live", [True, False])
async def test_a_delete_whose_answer_was_lost_says_whether_it_was_the_end(
    replica: OpenReplica, way: Way, was_live: bool
) -> None:
    store = await replica(way)
    await (started(store, "a") if was_live else ended(store, "a", Status.CANCELLED))
    assert await store.delete("unknown", TENANT, now_ms=NOW) is None  # the statement is prepared
    way.loses_answers = True
    deleting = asyncio.create_task(store.delete("a", TENANT, now_ms=NOW + 1))
    async with asyncio.timeout(10):
        while not way.cuts:
            await asyncio.sleep(0.01)
        way.loses_answers = False
        deleted = await deleting
    assert deleted is not None
    assert (deleted.ended.status if deleted.ended else None) is (Status.CANCELLED if was_live else None)


async def test_while_nobody_is_there_writes_fail_at_once_and_reads_as_well(
    replica: OpenReplica, way: Way
) -> None:
    store = await replica(way)
    await create(store, "a")
    way.is_closed = True
    way.cut()
    with pytest.raises(StoreUnavailable):
        await store.find("a", TENANT, now_ms=NOW)
    assert store.state() == "failing"
    with pytest.raises(StoreUnavailable):
        await create(store, "b")
    way.is_closed = False
    async with asyncio.timeout(5):
        while True:
            try:
                await create(store, "c")
                break
            except StoreUnavailable:
                await asyncio.sleep(0.05)
    assert (await found(store, "c")).status is Status.QUEUED
    assert store.state() == "ok"


async def test_idle_connections_that_were_cut_are_nobody_s_trouble(replica: OpenReplica, way: Way) -> None:
    store = await replica(way)
    claimed: Claim = await started(store, "a")
    way.cut()
    await asyncio.sleep(0)
    assert (await found(store, "a")).next_seq == 3
    await store.append(claimed, 3, 1, event(3), has_output=True)
    assert await store.beat()


# -- at the start


async def test_of_several_hosts_one_that_says_nothing_costs_a_little_time_and_once(
    url: str, replica: OpenReplica, way: Way
) -> None:
    """As the machine of a primary that is gone, with a standby that was promoted in its place."""
    port = url.split(":")[2].split("/")[0]
    settings = StoreSettings(
        url=SecretStr(url.replace(f":{port}/", f":{way.port},127.0.0.1:{port}/")), connect_timeout_s=1
    )
    way.flows.clear()
    store = await PostgresStore.open(settings, Observer())
    try:
        started_s = time.monotonic()
        await create(store, "a")  # by connections that were not open yet
        await found(store, "a")
        assert time.monotonic() - started_s < 1
    finally:
        await store.close()


async def test_when_one_host_was_left_for_another_no_connection_to_it_is_used_again(
    url: str, databases: Databases, way: Way
) -> None:
    """Not by readers either, which nobody used meanwhile: a former primary would show them what it had."""
    port = databases.server.port
    async with way_to(port) as second:
        both = url.replace(f":{port}/", f":{way.port},127.0.0.1:{second.port}/")
        settings = StoreSettings(url=SecretStr(both), connect_timeout_s=0.5, busy_timeout_s=0.5, readers=1)
        store = await PostgresStore.open(settings, Observer())
        try:
            claimed = await started(store, "a")
            await found(store, "a")
            way.flows.clear()
            await store.append(claimed, 3, 1, event(3), has_output=True)  # by the other one, after a while
            way.flows.set()
            await found(store, "a")
            way.flows.clear()
            started_s = time.monotonic()
            await found(store, "a")
            assert await store.beat()
            await store.append(claimed, 4, 1, event(4), has_output=True)
            assert time.monotonic() - started_s < 0.4
        finally:
            way.flows.set()
            await store.close()


async def test_a_claim_that_cannot_be_read_back_is_given_back(
    replica: OpenReplica, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = await replica()
    await create(store, "a")
    with monkeypatch.context() as elsewhere:
        everything = store._reading.all

        async def stale(query: Query, **given: Any) -> list[Any]:
            return [] if query is QUERIES["works"] else await everything(query, **given)

        elsewhere.setattr(store._reading, "all", stale)
        assert await claim(store) == []
    assert await claim(store) == [], "it has it still"
    await store.abandon(dead_after_s=6.5)
    (work,) = await claim(store)
    assert (work.id, work.job.attempt) == ("a", 1)


async def test_the_first_gateways_make_the_tables_together(url: str) -> None:
    settings = StoreSettings(url=SecretStr(url))
    stores = await asyncio.gather(*(PostgresStore.open(settings, Observer()) for _ in range(5)))
    assert len({store.pepper for store in stores}) == 1
    for store in stores:
        await store.close()


async def test_a_database_that_cannot_be_used_says_why(databases: Databases, url: str) -> None:
    async def refused(address: str, **settings: Any) -> str:
        given = StoreSettings(url=SecretStr(address), **settings)
        with pytest.raises((DatabaseRefused, DatabaseUnreachable)) as caught:
            await PostgresStore.open(given, Observer())
        return f"{caught.type.__name__}: {caught.value}"

    assert "does not exist" in await refused(databases.server.url("no_such"))
    unreachable = await refused("postgresql://postgres:secret@127.0.0.1:1/test")
    assert unreachable.startswith("DatabaseUnreachable")
    unreadable = await refused("postgresql://postgres:secret@127.0.0.1:port/test")
    assert "store.url is no address" in unreadable
    assert "secret" not in unreachable + unreadable
    await run_sql(url, "ALTER ROLE postgres SET synchronous_commit = off")
    try:
        assert "store.durability: process" in await refused(url)
        store = await PostgresStore.open(StoreSettings(url=SecretStr(url), durability="process"), Observer())
        await store.close()
    finally:
        await run_sql(url, "ALTER ROLE postgres RESET synchronous_commit")
    await run_sql(url, "UPDATE backburner.migration SET digest = 'other'")
    assert "unreleased version" in await refused(url)


async def test_a_changed_pepper_is_damage(replica: OpenReplica, url: str) -> None:
    await replica()
    await run_sql(url, "UPDATE backburner.meta SET value = 'other' WHERE key = 'pepper'")
    with pytest.raises(DatabaseDamaged):
        await replica()


async def test_a_wrong_statement_cannot_break_the_state_machine(replica: OpenReplica, url: str) -> None:
    await ended(await replica(), "a")
    for status in Status:
        if status is not Status.COMPLETED:
            with pytest.raises(asyncpg.CheckViolationError):
                await run_sql(
                    url,
                    "UPDATE backburner.job SET status = $1, finished_at_ms = $2, expires_at_ms = $2",
                    status.value,
                    1 if status.is_terminal else None,
                )


async def test_a_step_of_the_tables_may_take_longer_than_any_other_statement(
    replica: OpenReplica, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = Migration(9999, "SELECT pg_sleep(1.5); ALTER TABLE backburner.job ADD COLUMN later text;")
    monkeypatch.setattr("gateway.store.postgres.startup.MIGRATIONS", [*MIGRATIONS, slow])
    await replica(busy_timeout_s=0.5)
    assert await run_sql(url, "SELECT later FROM backburner.job") == []


def test_what_follows_the_hosts_of_an_address_is_for_each_of_them() -> None:
    both = ["postgresql://u:p@a:1?sslmode=verify-full", "postgresql://u:p@b?sslmode=verify-full"]
    assert one_by_one("postgresql://u:p@a:1,b?sslmode=verify-full") == both
    both = ["postgresql://u:p@a:1/db?sslmode=verify-full", "postgresql://u:p@b/db?sslmode=verify-full"]
    assert one_by_one("postgresql://u:p@a:1,b/db?sslmode=verify-full") == both
    for one in ("postgresql://u:p@[::1]:5?options=-cgeqo=on,x@y", "postgresql:///db?host=/tmp,/var"):
        assert one_by_one(one) == [one]


async def test_nothing_is_claimed_of_a_paused_backend_also_by_a_gateway_that_has_not_heard_of_it(
    replica: OpenReplica,
) -> None:
    store, other = await replica(), await replica()
    await other.notes.put(PAUSE, "default", {})
    await create(store, "j")
    assert await claim(store) == []
    await other.notes.take(PAUSE, "default")
    assert [work.id for work in await claim(store)] == ["j"]
