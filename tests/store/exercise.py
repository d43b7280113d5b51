"""What every `JobStore` must do, of whatever it is made.

A test module of a store imports all of this and has two fixtures: `opened` opens the store, and again on the
same data if it was closed in between; `store` is one that is open.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any, cast

import pytest

from gateway.core.job import (
    Claim,
    ClaimLost,
    Idempotency,
    IdTaken,
    Job,
    KeyReused,
    NewJob,
    Outcome,
    PreviousGone,
    QueueFull,
    Sealed,
    Status,
    StoreUnavailable,
)
from gateway.core.reason import Reason
from gateway.core.tiers import weight
from gateway.store import bells
from gateway.store.insight import WaitingJobs, Wanted
from gateway.store.port import DeletedJob, JobStore, Page, QueueLimits, Work
from gateway.wire.sse import encode, split_frames
from tests.store.jobs import NOW, TENANT, new_job

EXPIRY = NOW + 600_000
FLEX, DEFAULT, PRIORITY = range(3)
OTHER = b"o" * 32
PLENTY = QueueLimits(10_000, 10_000)
TERMINAL = [Status.COMPLETED, Status.FAILED, Status.INCOMPLETE, Status.CANCELLED]

Open = Callable[[], Awaitable[JobStore]]


def event(number: int, text: str = "") -> bytes:
    return encode("response.test", b'{"sequence_number":%d,"text":"%b"}' % (number, text.encode()))


def block(first: int, count: int, text: str = "") -> bytes:
    return b"".join(event(number, text) for number in range(first, first + count))


def job_named(name: str, **changes: Any) -> NewJob:
    shown = {"response": b'{"id":"%b"}' % name.encode(), "request": b'{"model":"m"}', "events": block(0, 2)}
    return new_job(name, **{**shown, **changes})


def ending(
    first_seq: int, status: Status = Status.COMPLETED, count: int = 1, final: bytes = b"{}"
) -> Outcome:
    return Outcome(status, final, first_seq, block(first_seq, count, "end"), count, None, Reason.ENDED)


async def create(store: JobStore, name: str, **changes: Any) -> NewJob:
    job = job_named(name, **changes)
    await store.create(job, PLENTY)
    return job


async def claim(store: JobStore, limit: int = 1, attempts_max: int = 2, now_ms: int = NOW) -> list[Work]:
    return await store.claim(limit, attempts_max=attempts_max, now_ms=now_ms)


async def started(store: JobStore, name: str, **changes: Any) -> Claim:
    """A claimed job whose next event is number 3."""
    await create(store, name, **changes)
    (claimed,) = await claim(store)
    assert claimed.id == name
    await store.append(claimed, 2, 1, event(2), has_output=False)
    return claimed


async def ended(store: JobStore, name: str, status: Status = Status.COMPLETED, **changes: Any) -> Claim:
    claimed = await started(store, name, **changes)
    outcome = ending(3, status, final=b'{"final":"%b"}' % name.encode())
    await store.finish(claimed, outcome, now_ms=NOW, expires_at_ms=EXPIRY)
    return claimed


async def found(store: JobStore, name: str, now_ms: int = NOW) -> Job:
    job = await store.find(name, TENANT, now_ms=now_ms)
    assert job is not None
    return job


async def page(store: JobStore, name: str, after: int = -1, bytes_max: int = 2**20) -> Page:
    got = await store.page(name, TENANT, after=after, bytes_max=bytes_max, now_ms=NOW)
    assert got is not None
    return got


async def swept(store: JobStore, now_ms: int = EXPIRY) -> int:
    total = 0
    while purged := await store.sweep(now_ms=now_ms):
        total += purged
    return total


# -- accepting and finding


async def test_what_was_accepted_is_found_with_its_call_and_its_first_events(store: JobStore) -> None:
    new = await create(store, "a", is_streamed=True, is_followable=True, is_rerunnable=False)
    job = await found(store, "a")
    assert (job.status, job.epoch, job.attempt, job.next_seq) == (Status.QUEUED, 0, 0, 2)
    assert (job.is_streamed, job.is_followable, job.is_rerunnable) == (True, True, False)
    assert (job.created_at_ms, job.deadline_ms, job.started_at_ms) == (NOW, new.deadline_ms, None)
    assert (job.response, job.final, job.output_shown) == (new.response, None, False)
    call = await store.request_of("a")
    assert call is not None
    assert (call.request, call.input) == (new.request, new.input)
    assert (call.target, call.headers) == (new.target, new.headers)
    assert await store.all_events("a") == new.events


async def test_what_was_accepted_is_there_after_the_store_was_closed_and_opened(opened: Open) -> None:
    first = await opened()
    await create(first, "a")
    await first.close()
    assert (await found(await opened(), "a")).status is Status.QUEUED


@pytest.fixture(params=["foreign", "unknown", "expired", "deleted", "deleted while it ran", "swept"])
async def absent(request: pytest.FixtureRequest, store: JobStore) -> tuple[str, bytes, int]:
    """Id, tenant and time of a job that is not there for who asks."""
    case = request.param
    if case == "unknown":
        return "a", TENANT, NOW
    if case == "deleted while it ran":
        await started(store, "a")
    else:
        await ended(store, "a")
    if case.startswith("deleted"):
        assert await store.delete("a", TENANT, now_ms=NOW)
    if case == "swept":
        assert await swept(store) == 1
    return "a", OTHER if case == "foreign" else TENANT, NOW if case == "foreign" else EXPIRY


async def test_jobs_that_are_not_there_look_alike_on_every_method(
    store: JobStore, absent: tuple[str, bytes, int]
) -> None:
    name, tenant, now_ms = absent
    assert await store.find(name, tenant, now_ms=now_ms) is None
    assert await store.page(name, tenant, after=-1, bytes_max=1000, now_ms=now_ms) is None
    assert await store.delete(name, tenant, now_ms=now_ms) is None
    assert await store.turns_before(name, tenant) == []
    later = job_named("later", tenant=tenant, previous_id=name, created_at_ms=now_ms)
    with pytest.raises(PreviousGone):
        await store.create(later, PLENTY)
    assert await store.find("later", tenant, now_ms=now_ms) is None
    assert await claim(store) == []


async def test_a_foreign_tenant_that_tries_everything_changes_nothing(store: JobStore) -> None:
    await ended(store, "a")
    before = await found(store, "a"), await page(store, "a")
    assert await store.delete("a", OTHER, now_ms=NOW) is None
    assert (await found(store, "a"), await page(store, "a")) == before


async def test_a_job_is_there_until_the_very_millisecond_of_its_expiry(store: JobStore) -> None:
    await ended(store, "a")
    assert await store.find("a", TENANT, now_ms=EXPIRY - 1) is not None
    assert await store.page("a", TENANT, after=-1, bytes_max=1000, now_ms=EXPIRY - 1) is not None
    assert await store.find("a", TENANT, now_ms=EXPIRY) is None
    assert await store.page("a", TENANT, after=-1, bytes_max=1000, now_ms=EXPIRY) is None


async def test_the_queue_has_a_limit_for_all_and_one_for_each_tenant(store: JobStore) -> None:
    limits = QueueLimits(total_max=3, per_tenant_max=2)
    for name in ("a", "b"):
        await store.create(job_named(name), limits)
    with pytest.raises(QueueFull) as of_tenant:
        await store.create(job_named("c"), limits)
    assert of_tenant.value.is_tenant
    await store.create(job_named("d", tenant=OTHER), limits)
    with pytest.raises(QueueFull) as of_all:
        await store.create(job_named("e", tenant=OTHER), limits)
    assert not of_all.value.is_tenant
    assert await store.find("c", TENANT, now_ms=NOW) is None
    await claim(store)  # whatever has started waits no longer
    await store.create(job_named("f"), limits)


async def test_the_backlog_counts_by_status_and_knows_who_waits_longest(store: JobStore) -> None:
    assert (await store.insight.backlog(now_ms=NOW)).oldest_queued_ms is None
    await ended(store, "a")
    await started(store, "b")
    await create(store, "c", created_at_ms=NOW + 5)
    await create(store, "d", created_at_ms=NOW + 9)
    backlog = await store.insight.backlog(now_ms=NOW)
    assert backlog.by_status[Status.COMPLETED] == backlog.by_status[Status.IN_PROGRESS] == 1
    assert backlog.by_status[Status.QUEUED] == 2
    assert backlog.oldest_queued_ms == NOW + 5
    assert (await store.insight.backlog(now_ms=EXPIRY)).by_status[Status.COMPLETED] == 0
    assert await store.delete("a", TENANT, now_ms=NOW)
    assert (await store.insight.backlog(now_ms=NOW)).by_status[Status.COMPLETED] == 0


# -- asked again


async def test_what_has_ended_is_counted_as_it_expires_is_swept_and_after_a_restart(opened: Open) -> None:
    first = await opened()
    for number, status in enumerate([Status.COMPLETED, Status.COMPLETED, Status.FAILED]):
        await ended(first, f"a{number}", status)
    await first.close()
    second = await opened()

    async def counted(now_ms: int) -> dict[str, int]:
        by_status = (await second.insight.backlog(now_ms=now_ms)).by_status
        return {status.value: count for status, count in by_status.items() if count}

    assert await counted(NOW) == {"completed": 2, "failed": 1}
    assert await counted(EXPIRY) == {}
    await swept(second)
    assert await counted(NOW) == {}


async def test_the_backlog_says_of_each_backend_what_its_jobs_wait_for(store: JobStore) -> None:
    for name in ("a", "b", "c"):
        await create(store, name, backend="main")
    await create(store, "d", backend="main", tenant=OTHER, created_at_ms=NOW - 7)
    await create(store, "e", backend="other")
    (claimed,) = await store.claim(1, attempts_max=2, now_ms=NOW, backend="other")
    assert set((await store.insight.backlog(now_ms=NOW)).waiting) == {"main"}
    await store.release(claimed, attempts_returned=1, not_before_ms=NOW + 5)
    barred = {("main", TENANT): "share", ("other", TENANT): "caller", ("gone", OTHER): "share"}
    waiting = (await store.insight.backlog(now_ms=NOW, barred=barred)).waiting
    assert waiting["main"] == WaitingJobs(4, 0, NOW - 7, {"share": 3})
    assert waiting["other"] == WaitingJobs(1, 1, NOW, {"caller": 0})
    waiting = (await store.insight.backlog(now_ms=NOW + 5, barred=barred)).waiting
    assert waiting["other"] == WaitingJobs(1, 0, NOW, {"caller": 1})


async def test_a_key_means_the_first_job_for_as_long_as_it_can_be_seen(opened: Open) -> None:
    store = await opened()
    key = Idempotency("k", b"f" * 32)
    assert await store.repeated(TENANT, key, now_ms=NOW) is None
    await create(store, "a", idempotency=key)
    assert await store.create(job_named("b", idempotency=key), PLENTY) == "a"
    await store.close()
    store = await opened()
    assert await store.repeated(TENANT, key, now_ms=NOW) == "a"
    assert await store.repeated(OTHER, key, now_ms=NOW) is None
    with pytest.raises(KeyReused):
        await store.repeated(TENANT, Idempotency("k", b"g" * 32), now_ms=NOW)
    assert await store.delete("a", TENANT, now_ms=NOW)
    assert await store.repeated(TENANT, key, now_ms=NOW) is None


async def test_the_newest_job_of_a_request_is_found_until_a_request_names_it(opened: Open) -> None:
    store = await opened()
    asked = b"f" * 32

    async def unnamed(since_ms: int = 0, tenant: bytes = TENANT, fingerprint: bytes = asked) -> str | None:
        return await store.unnamed(tenant, fingerprint, since_ms=since_ms, now_ms=NOW)

    assert await unnamed() is None
    for number, name in enumerate("abcd"):
        await create(store, name, fingerprint=asked, created_at_ms=NOW + number)
    await create(store, "e")
    assert await unnamed(tenant=OTHER) is await unnamed(fingerprint=b"g" * 32) is None
    assert await unnamed() == await unnamed() == "d", "finding it is not naming it"
    assert await unnamed(since_ms=NOW + 4) is None
    assert await store.delete("d", TENANT, now_ms=NOW)
    await store.name("c")
    await store.name("unknown")
    await store.close()
    store = await opened()
    assert await unnamed() == "b"
    for name, is_unnamed in {"a": True, "c": False, "e": False}.items():
        job = await store.find(name, TENANT, now_ms=NOW)
        assert job is not None
        assert job.is_unnamed is is_unnamed


# -- claiming and fencing


async def test_claims_are_handed_out_oldest_first_up_to_the_limit_and_once(store: JobStore) -> None:
    for name in "abc":
        await create(store, name)
    assert [claimed.id for claimed in await claim(store, limit=2)] == ["a", "b"]
    assert [claimed.id for claimed in await claim(store, limit=2)] == ["c"]
    assert await claim(store, limit=2) == []


async def test_a_claim_starts_the_job(store: JobStore) -> None:
    await create(store, "a")
    (claimed,) = await claim(store, now_ms=NOW + 7)
    job = await found(store, "a")
    assert claimed.job == job
    assert (job.status, job.epoch, job.attempt, job.started_at_ms) == (Status.IN_PROGRESS, 1, 1, NOW + 7)


async def test_only_who_has_the_last_claim_can_take_a_job_by_it(store: JobStore) -> None:
    mine = await started(store, "a")
    theirs = await store.take_over("a", epoch=mine.epoch)
    assert theirs is not None
    assert await store.take_over("a", epoch=mine.epoch) is None
    assert await store.take_over("a", epoch=theirs.epoch) is not None


async def test_what_is_started_with_its_acceptance_is_as_if_it_had_been_claimed(store: JobStore) -> None:
    await ended(store, "earlier")
    changes = {"previous_id": "earlier", "is_streamed": True, "fingerprint": b"f" * 32, "priority": PRIORITY}
    accepted_id, work = await store.start(job_named("a", **changes), PLENTY)
    assert accepted_id == "a"
    if work is None:  # a store may leave it to the claim
        (work,) = await claim(store)
    assert work.job == await found(store, "a")
    await store.finish(work, ending(2), now_ms=NOW, expires_at_ms=EXPIRY)
    await create(store, "b", **changes)
    (claimed,) = await claim(store)
    assert work.turns == claimed.turns != []
    assert work.call == replace(claimed.call, input=work.call.input)
    assert replace(work.job, id="b", response=claimed.job.response) == claimed.job


async def test_what_is_started_with_its_acceptance_has_begun(store: JobStore) -> None:
    _, work = await store.start(job_named("a", beginning=event(2)), PLENTY)
    has_begun = work is not None  # a store may leave it to the claim
    assert await store.all_events("a") == block(0, 3 if has_begun else 2)
    assert (await found(store, "a")).next_seq == (3 if has_begun else 2)
    if work is None:
        (work,) = await claim(store)
    await store.append(work, work.job.next_seq, 1, event(work.job.next_seq), has_output=True)
    await store.release(work, attempts_returned=0)
    await create(store, "b", backend="other")
    assert (await store.start(job_named("c", backend="other", beginning=event(2)), PLENTY))[1] is None
    assert await store.all_events("c") == block(0, 2)  # another one's turn comes first


async def test_nobody_starts_before_one_who_waits(store: JobStore) -> None:
    await create(store, "a")
    assert await store.start(job_named("b", tenant=OTHER), PLENTY) == ("b", None)
    assert [work.id for work in await claim(store, 9)] == ["a", "b"]


async def test_a_create_that_repeats_another_starts_nothing(store: JobStore) -> None:
    key = Idempotency("key", b"fingerprint")
    first_id, work = await store.start(job_named("a", idempotency=key), PLENTY)
    running = [work] if work is not None else await claim(store)
    assert await store.start(job_named("b", idempotency=key), PLENTY) == (first_id, None)
    assert [one.id for one in running] == ["a"]
    assert await claim(store, 9) == []


async def test_a_start_is_refused_where_a_create_would_be(store: JobStore) -> None:
    await create(store, "a")
    with pytest.raises(QueueFull):
        await store.start(job_named("b"), QueueLimits(1, 1))
    with pytest.raises(PreviousGone):
        await store.start(job_named("b", previous_id="nothing"), PLENTY)
    assert [work.id for work in await claim(store, 9)] == ["a"]


async def test_a_job_past_its_deadline_is_not_claimed_but_overdue(store: JobStore) -> None:
    await create(store, "a", deadline_ms=NOW + 10)
    await create(store, "b", deadline_ms=NOW + 5)
    await create(store, "c", deadline_ms=NOW + 11)
    assert await store.overdue(now_ms=NOW + 10, limit=10) == ["b", "a"]
    assert await store.overdue(now_ms=NOW + 10, limit=1) == ["b"]
    assert [claimed.id for claimed in await claim(store, 10, now_ms=NOW + 10)] == ["c"]
    assert await store.overdue(now_ms=NOW + 11, limit=10) == ["b", "a", "c"]


async def test_an_ended_job_is_never_overdue(store: JobStore) -> None:
    await ended(store, "a", deadline_ms=NOW + 1)
    assert await store.overdue(now_ms=NOW + 10, limit=10) == []


async def test_whoever_lost_the_claim_writes_nothing(store: JobStore) -> None:
    stale = await started(store, "a")
    present = await store.take_over("a")
    assert present is not None
    assert present.epoch > stale.epoch
    before = await found(store, "a"), await store.all_events("a")
    with pytest.raises(ClaimLost):
        await store.append(stale, 3, 1, event(3), has_output=True)
    with pytest.raises(ClaimLost):
        await store.finish(stale, ending(3), now_ms=NOW, expires_at_ms=EXPIRY)
    with pytest.raises(ClaimLost):
        await store.release(stale, attempts_returned=1)
    assert (await found(store, "a"), await store.all_events("a")) == before
    await store.append(present, 3, 1, event(3), has_output=True)
    await store.finish(present, ending(4), now_ms=NOW, expires_at_ms=EXPIRY)


@pytest.mark.parametrize("first_seq", [0, 2, 4, 100])
async def test_events_that_do_not_follow_the_last_one_are_refused(store: JobStore, first_seq: int) -> None:
    claimed = await started(store, "a")
    with pytest.raises(ClaimLost):
        await store.append(claimed, first_seq, 1, event(first_seq), has_output=True)
    with pytest.raises(ClaimLost):
        await store.finish(claimed, ending(first_seq), now_ms=NOW, expires_at_ms=EXPIRY)
    assert await store.all_events("a") == block(0, 3)
    assert (await found(store, "a")).next_seq == 3


async def test_a_queued_job_takes_no_events_even_from_who_holds_it(store: JobStore) -> None:
    await create(store, "a")
    taken = await store.take_over("a")
    assert taken is not None
    with pytest.raises(ClaimLost):
        await store.append(taken, 2, 1, event(2), has_output=False)


# -- whose turn it is


async def claimed_names(store: JobStore, limit: int = 1, **wanted: Any) -> list[str]:
    given: dict[str, Any] = {"attempts_max": 2, "now_ms": NOW, **wanted}
    return [claimed.id for claimed in await store.claim(limit, **given)]


async def run_in_turn(store: JobStore, count: int) -> list[str]:
    """Names of jobs that run one at a time, each to its end."""
    names = []
    for _ in range(count):
        (claimed,) = await claim(store)
        await store.finish(claimed, ending(2), now_ms=NOW, expires_at_ms=EXPIRY)
        names.append(claimed.id)
    return names


async def test_a_backend_s_claims_are_of_its_own_jobs(store: JobStore) -> None:
    await create(store, "a", backend="one")
    await create(store, "b", backend="two")
    await create(store, "c", backend="one")
    assert await claimed_names(store, 9, backend="two") == ["b"]
    assert await claimed_names(store, 9, backend="three") == []
    assert await claimed_names(store, 9, backend="one") == ["a", "c"]
    assert (await found(store, "b")).backend == "two"


async def test_tiers_order_the_jobs_of_one_tenant(store: JobStore) -> None:
    await create(store, "flex", priority=FLEX)
    await create(store, "default", priority=DEFAULT)
    await create(store, "priority", priority=PRIORITY)
    await create(store, "more flex", priority=FLEX)
    await create(store, "more priority", priority=PRIORITY)
    assert await claimed_names(store, 4) == ["priority", "more priority", "default", "flex"]
    assert await claimed_names(store, 4) == ["more flex"]


async def test_a_job_that_waits_can_be_put_into_another_tier_and_keeps_its_place_there(
    store: JobStore,
) -> None:
    for name, priority in (("a", DEFAULT), ("b", FLEX), ("c", PRIORITY), ("d", PRIORITY)):
        await create(store, name, priority=priority)
    assert await store.set_priority("b", PRIORITY)
    assert await store.set_priority("c", FLEX)
    assert await store.set_priority("a", DEFAULT), "it is there already"
    facts = await store.insight.details("b")
    assert facts is not None
    assert (facts.priority, facts.ahead) == (PRIORITY, 0)
    assert await run_in_turn(store, 4) == ["b", "d", "a", "c"]


@pytest.mark.parametrize("state", ["running", "released", "ended", "deleted", "unknown"])
async def test_a_job_that_does_not_wait_for_its_first_start_stays_in_its_tier(
    store: JobStore, state: str
) -> None:
    if state != "unknown":
        await create(store, "a", priority=DEFAULT)
    if state == "deleted":
        await store.delete("a", TENANT, now_ms=NOW)
    elif state != "unknown":
        (claimed,) = await claim(store)
        if state == "released":
            await store.release(claimed, attempts_returned=1)
        if state == "ended":
            await store.finish(claimed, ending(2), now_ms=NOW, expires_at_ms=EXPIRY)
    assert not await store.set_priority("a", PRIORITY)
    facts = await store.insight.details("a")
    assert facts is None or facts.priority == DEFAULT


async def test_who_has_nothing_running_goes_before_every_tier_of_who_has(store: JobStore) -> None:
    for number in range(9):
        await create(store, f"p{number}", priority=PRIORITY)
    await create(store, "f0", priority=FLEX, tenant=OTHER)
    assert await claimed_names(store, 2) == ["p0", "f0"], "of two with nothing running, the higher tier first"
    await create(store, "f1", priority=FLEX, tenant=OTHER)
    assert await claimed_names(store, 5) == ["p1", "p2", "p3", "p4", "f1"], "one of flex counts for four"


async def test_tiers_of_two_tenants_share_slots_by_their_weights(store: JobStore) -> None:
    for number in range(20):
        await create(store, f"p{number}", priority=PRIORITY)
        await create(store, f"d{number}", priority=DEFAULT, tenant=OTHER)
        await create(store, f"f{number}", priority=FLEX, tenant=b"3" * 32)
    shares = Counter(name[0] for name in await claimed_names(store, 21))
    assert shares == {"p": 12, "d": 6, "f": 3}


async def test_tiers_take_turns_by_their_weights_where_one_job_runs_at_a_time(store: JobStore) -> None:
    for number in range(20):
        await create(store, f"p{number}", priority=PRIORITY)
        await create(store, f"f{number}", priority=FLEX, tenant=OTHER)
    order = await run_in_turn(store, 20)
    assert Counter(name[0] for name in order) == {"p": 16, "f": 4}
    assert max(len(run) for run in "".join(name[0] for name in order).split("f")) <= 5


async def test_who_was_away_is_not_owed_the_turns_that_others_took(store: JobStore) -> None:
    await create(store, "early", tenant=OTHER)
    for number in range(20):
        await create(store, f"many{number}")
    assert await run_in_turn(store, 9) == ["early", *(f"many{number}" for number in range(8))]
    for number in range(3):
        await create(store, f"late{number}", tenant=OTHER)
    assert await run_in_turn(store, 5) == ["late0", "many8", "late1", "many9", "late2"]


@pytest.mark.parametrize("seed", range(8))
async def test_waiting_for_another_s_tier_costs_no_more_than_promised(store: JobStore, seed: int) -> None:
    """Whatever is sent, runs and ends: while somebody waits who has nothing running, each other one starts at
    most one job, and as many more as the highest tier weighs over the one that was used last."""
    dice = random.Random(seed)
    slots = dice.choice([1, 1, 2, 5])
    tenants = [bytes([number]) * 32 for number in range(4)]
    running: list[Work] = []
    waiting: Counter[bytes] = Counter()
    owed = dict.fromkeys(tenants, 0)
    passed: dict[bytes, Counter[bytes]] = {tenant: Counter() for tenant in tenants}
    for number in range(250):
        for tenant in tenants:
            if waiting[tenant] < dice.choice([0, 1, 5]):
                await create(store, f"{number}-{tenant[0]}", tenant=tenant, priority=dice.randrange(3))
                waiting[tenant] += 1
        for claimed in await claim(store, slots - len(running)):
            tenant = claimed.job.tenant
            for other in tenants:
                if other != tenant and waiting[other] and all(c.job.tenant != other for c in running):
                    passed[other][tenant] += 1
                    assert passed[other][tenant] <= 1 + owed[other]
            passed[tenant].clear()
            waiting[tenant] -= 1
            owed[tenant] = weight(PRIORITY) // weight(claimed.job.priority)
            running.append(claimed)
        dice.shuffle(running)
        for claimed in running[: dice.randrange(len(running) + 1)]:
            running.remove(claimed)
            await store.finish(claimed, ending(2), now_ms=NOW, expires_at_ms=EXPIRY)


async def test_a_tenant_with_one_job_goes_next_behind_one_with_fifty(store: JobStore) -> None:
    for number in range(50):
        await create(store, f"many{number}")
    await create(store, "one", tenant=OTHER)
    assert await claimed_names(store) == ["many0"]
    assert await claimed_names(store) == ["one"]
    assert await claimed_names(store, 2) == ["many1", "many2"]


async def test_tenants_take_turns_also_where_one_job_runs_at_a_time(store: JobStore) -> None:
    for number in range(5):
        await create(store, f"many{number}")
    assert await run_in_turn(store, 2) == ["many0", "many1"]
    await create(store, "one", tenant=OTHER)
    await create(store, "two", tenant=OTHER)
    assert await run_in_turn(store, 5) == ["one", "many2", "two", "many3", "many4"]


async def test_tenants_share_one_claim_of_many_jobs(store: JobStore) -> None:
    third = b"3" * 32
    for number in range(10):
        await create(store, f"t{number}")
    for number in range(10):
        await create(store, f"o{number}", tenant=OTHER)
    await create(store, "x0", tenant=third)
    assert await claimed_names(store, 7) == ["t0", "o0", "x0", "t1", "o1", "t2", "o2"]
    await create(store, "x1", tenant=third)
    await create(store, "x2", tenant=third)
    assert await claimed_names(store, 3) == ["x1", "x2", "t3"]  # the others have three running already


async def test_of_very_many_tenants_each_gets_a_turn(store: JobStore) -> None:
    tenants = [bytes([number]) * 32 for number in range(60)]
    for turn in range(2):
        for number, tenant in enumerate(tenants):
            await create(store, f"{turn}-{number}", tenant=tenant)
    first = await claimed_names(store, 60)
    assert sorted(first) == sorted(f"0-{number}" for number in range(60))
    assert sorted(await claimed_names(store, 100)) == sorted(f"1-{number}" for number in range(60))


async def test_running_jobs_of_another_backend_cost_nobody_a_turn(store: JobStore) -> None:
    for number in range(9):
        await create(store, f"elsewhere{number}", backend="other")
    assert len(await claimed_names(store, 9, backend="other")) == 9
    for number in range(3):
        await create(store, f"o{number}", tenant=OTHER)
    assert await claimed_names(store) == ["o0"]
    await create(store, "t0")
    assert await claimed_names(store, 2) == ["t0", "o1"]


async def test_later_jobs_than_a_time_stay_where_they_are(store: JobStore) -> None:
    await create(store, "old", created_at_ms=NOW - 1000)
    await create(store, "new", created_at_ms=NOW - 1)
    await create(store, "urgent", created_at_ms=NOW - 1, priority=2)
    assert await claimed_names(store, 9, accepted_before_ms=NOW - 1001) == []
    assert await claimed_names(store, 9, accepted_before_ms=NOW - 1000) == ["old"]
    assert await claimed_names(store, 9) == ["urgent", "new"]


async def test_a_clock_that_was_set_back_keeps_no_job_waiting(store: JobStore) -> None:
    await create(store, "a", created_at_ms=NOW + 60_000)
    assert await claimed_names(store) == ["a"]


async def test_a_job_released_for_later_lets_others_go_before_it(store: JobStore) -> None:
    claimed = await started(store, "a")
    await store.release(claimed, attempts_returned=0, not_before_ms=NOW + 500)
    assert await claimed_names(store, now_ms=NOW + 499) == []
    await create(store, "b")
    assert await claimed_names(store, now_ms=NOW + 499) == ["b"]
    assert await claimed_names(store, now_ms=NOW + 500) == ["a"]


async def test_a_job_that_no_backend_has_accepted_may_go_again_whatever_it_does(store: JobStore) -> None:
    claimed = await started(store, "a", is_rerunnable=False)
    await store.release(claimed, attempts_returned=1, put_offs=1)
    assert await store.orphans(attempts_max=1, limit=9) == []
    (again,) = await claim(store, attempts_max=1)
    assert (again.job.attempt, again.job.put_offs, again.job.status) == (1, 1, Status.IN_PROGRESS)
    await store.release(again, attempts_returned=0)
    assert await claim(store, attempts_max=9) == []
    assert await store.orphans(attempts_max=9, limit=9) == ["a"]


async def test_a_job_released_for_later_keeps_its_place(store: JobStore) -> None:
    claimed = await started(store, "a")
    for name in ("b", "c"):
        await create(store, name)
    await store.release(claimed, attempts_returned=1, not_before_ms=NOW + 500)
    assert await claimed_names(store, 1, now_ms=NOW + 500) == ["a"]


async def test_of_tenants_that_rest_nothing_is_taken(store: JobStore) -> None:
    await create(store, "a")
    await create(store, "b", tenant=OTHER)
    await create(store, "c", priority=2)
    assert await claimed_names(store, 9, resting=[TENANT]) == ["b"]
    assert await claimed_names(store, 9, resting=[TENANT, OTHER]) == []
    assert await claimed_names(store, 9, resting=[OTHER]) == ["c", "a"]


async def test_what_nobody_runs_of_a_backend_is_found_by_its_age(store: JobStore) -> None:
    await ended(store, "ended")
    await started(store, "running")
    waiting = await started(store, "waiting", created_at_ms=NOW - 5)
    await store.release(waiting, attempts_returned=1, not_before_ms=NOW + 500)
    await create(store, "queued")
    await create(store, "young", created_at_ms=NOW + 1)
    await create(store, "elsewhere", backend="other")
    assert await store.waiting_since(NOW, backend="default", limit=9) == ["waiting", "queued"]
    assert await store.waiting_since(NOW, backend="default", limit=1) == ["waiting"]
    assert await store.waiting_since(NOW - 1, backend="default", limit=9) == ["waiting"]


async def test_live_jobs_of_backends_that_are_gone_are_found(store: JobStore) -> None:
    await ended(store, "ended", backend="default")
    for name, backend in (("a", "gone"), ("b", "kept"), ("c", "gone too"), ("d", "gone")):
        await create(store, name, backend=backend)
    assert await store.of_other_backends(["default", "kept"], limit=9) == ["a", "c", "d"]
    assert await store.of_other_backends(["default", "kept"], limit=2) == ["a", "c"]
    assert await claimed_names(store, backend="gone") == ["a"]
    assert await store.of_other_backends(["default", "kept"], limit=9) == ["c", "d"]  # its owner lives
    await store.abandon(dead_after_s=0)
    assert await store.of_other_backends(["default", "kept"], limit=9) == ["a", "c", "d"]
    assert await store.of_other_backends([], limit=9) == ["a", "b", "c", "d"]


# -- turns that were not ours to run


async def record(store: JobStore, name: str, status: Status = Status.COMPLETED, **changes: Any) -> None:
    turn = job_named(name, is_background=False, events=b"", next_seq=0, **changes)
    final = b'{"final":"%b"}' % name.encode()
    await store.record(turn, status, final, finished_at_ms=NOW, expires_at_ms=EXPIRY)


async def test_a_recorded_response_has_ended_and_can_be_gone_on_from(store: JobStore) -> None:
    await record(store, "first")
    await record(store, "second", Status.INCOMPLETE, previous_id="first")
    job = await found(store, "second")
    assert (job.status, job.is_background, job.final) == (Status.INCOMPLETE, False, b'{"final":"second"}')
    await create(store, "job", previous_id="second")
    turns = await store.turns_before("job", TENANT)
    assert [turn.response_id for turn in turns] == ["first", "second"]
    assert await store.all_events("second") == b""
    assert await page(store, "second") == Page(b"", -1, True)


async def test_a_recorded_response_is_nothing_to_run_and_goes_when_it_expires(store: JobStore) -> None:
    await record(store, "a", deadline_ms=NOW)
    assert await claim(store) == []
    assert await store.orphans(attempts_max=1, limit=9) == []
    assert await store.overdue(now_ms=EXPIRY, limit=9) == []
    assert await store.of_other_backends([], limit=9) == []
    assert await store.take_over("a") is None
    assert await swept(store, EXPIRY - 1) == 0
    assert await swept(store) == 1


async def test_an_id_that_is_taken_is_recorded_by_nobody_else(store: JobStore) -> None:
    await ended(store, "a")
    before = await found(store, "a")
    for tenant in (TENANT, OTHER):
        with pytest.raises(IdTaken):
            await record(store, "a", tenant=tenant)
    assert await found(store, "a") == before
    assert await store.find("a", OTHER, now_ms=NOW) is None


async def test_a_recorded_response_whose_previous_turn_is_gone_is_not_kept(store: JobStore) -> None:
    with pytest.raises(PreviousGone):
        await record(store, "a", previous_id="never was")
    assert await store.find("a", TENANT, now_ms=NOW) is None


# -- ending


async def test_an_ending_is_one_piece(store: JobStore) -> None:
    claimed = await started(store, "a")
    await store.finish(claimed, ending(3, count=2, final=b"F"), now_ms=NOW, expires_at_ms=EXPIRY)
    job = await found(store, "a")
    assert (job.status, job.final, job.next_seq) == (Status.COMPLETED, b"F", 5)
    assert await store.all_events("a") == block(0, 3) + block(3, 2, "end")
    assert (await page(store, "a")).is_end


async def test_an_ending_that_fails_half_way_leaves_nothing_behind(store: JobStore) -> None:
    claimed = await started(store, "a")
    before = await found(store, "a"), await store.all_events("a")
    broken = ending(3, final=cast(bytes, "text"))  # the last of its statements fails
    with pytest.raises(Exception, match=r"cannot store TEXT|a bytes-like object is required"):
        await store.finish(claimed, broken, now_ms=NOW, expires_at_ms=EXPIRY)
    assert (await found(store, "a"), await store.all_events("a")) == before
    await store.finish(claimed, ending(3), now_ms=NOW, expires_at_ms=EXPIRY)


@pytest.mark.parametrize("status", TERMINAL)
async def test_a_terminal_status_never_changes(store: JobStore, status: Status) -> None:
    claimed = await ended(store, "a", status)
    before = await found(store, "a"), await page(store, "a")
    for other in TERMINAL:
        with pytest.raises(ClaimLost):
            await store.finish(claimed, ending(4, other), now_ms=NOW, expires_at_ms=EXPIRY)
    with pytest.raises(ClaimLost):
        await store.append(claimed, 4, 1, event(4), has_output=True)
    with pytest.raises(ClaimLost):
        await store.release(claimed, attempts_returned=1)
    assert await store.take_over("a") is None
    await store.abandon(dead_after_s=0)
    assert await claim(store, attempts_max=99) == []
    assert await store.orphans(attempts_max=1, limit=10) == []
    assert (await found(store, "a"), await page(store, "a")) == before


@pytest.mark.parametrize("status", [Status.COMPLETED, Status.INCOMPLETE])
async def test_a_job_that_never_ran_cannot_be_completed(store: JobStore, status: Status) -> None:
    await create(store, "a")
    taken = await store.take_over("a")
    assert taken is not None
    with pytest.raises(Exception, match="illegal move"):
        await store.finish(taken, ending(2, status), now_ms=NOW, expires_at_ms=EXPIRY)
    assert (await found(store, "a")).status is Status.QUEUED
    await store.finish(taken, ending(2, Status.CANCELLED), now_ms=NOW, expires_at_ms=EXPIRY)
    assert (await found(store, "a")).status is Status.CANCELLED


# -- pages


@pytest.fixture
async def sliced(store: JobStore) -> list[bytes]:
    """Job "a", ended, with events 0 to 13 in segments of several lengths; its single events."""
    claimed = await started(store, "a")
    for first, count in ((3, 4), (7, 1), (8, 3)):
        await store.append(claimed, first, count, block(first, count, "x" * 50), has_output=True)
    await store.finish(claimed, ending(11, count=3), now_ms=NOW, expires_at_ms=EXPIRY)
    return split_frames(await store.all_events("a"))


async def test_a_page_starts_directly_after_every_cursor_also_inside_a_segment(
    store: JobStore, sliced: list[bytes]
) -> None:
    assert len(sliced) == 14
    for after in range(-1, 14):
        got = await page(store, "a", after)
        assert got == Page(b"".join(sliced[after + 1 :]), 13, True)


@pytest.mark.parametrize("bytes_max", [1, 60, 150, 300, 500, 100_000])
async def test_pages_of_any_size_add_up_to_all_events(
    store: JobStore, sliced: list[bytes], bytes_max: int
) -> None:
    cursor = -1
    pages: list[Page] = []
    while not pages or not pages[-1].is_end:
        pages.append(await page(store, "a", cursor, bytes_max))
        assert pages[-1].events, "a page without progress would be asked for for ever"
        assert pages[-1].events == b"".join(sliced[cursor + 1 : pages[-1].last_seq + 1])
        cursor = pages[-1].last_seq
    assert b"".join(got.events for got in pages) == b"".join(sliced)
    assert [got.has_more for got in pages] == [True] * (len(pages) - 1) + [False]
    assert all(len(got.events) <= bytes_max or len(split_frames(got.events)) == 1 for got in pages)


@pytest.mark.parametrize("after", [13, 14, 1000])
async def test_a_page_at_or_past_the_end_of_an_ended_job_is_empty_and_its_end(
    store: JobStore, sliced: list[bytes], after: int
) -> None:
    assert await page(store, "a", after) == Page(b"", after, True)


async def test_a_page_of_a_live_job_is_never_its_end(store: JobStore) -> None:
    await started(store, "a")
    assert await page(store, "a") == Page(block(0, 3), 2, False)
    assert await page(store, "a", 2) == Page(b"", 2, False)
    assert await page(store, "a", 50) == Page(b"", 50, False)


# -- taking over and giving back


async def test_only_live_jobs_can_be_taken_over(store: JobStore) -> None:
    assert await store.take_over("a") is None
    await create(store, "a")
    taken = await store.take_over("a")
    assert taken is not None
    assert taken.job == await found(store, "a")
    assert taken.job.status is Status.QUEUED
    assert await claim(store) == []  # it has an owner now
    assert await store.delete("a", TENANT, now_ms=NOW)
    assert await store.take_over("a") is None


async def test_a_released_job_is_run_again_as_if_the_attempt_had_not_been(store: JobStore) -> None:
    claimed = await started(store, "a")
    await store.append(claimed, 3, 2, block(3, 2, "lost"), has_output=True)
    await store.release(claimed, attempts_returned=1)
    assert (await found(store, "a")).attempt == 0
    (again,) = await claim(store, attempts_max=1)
    assert (again.job.attempt, again.job.status) == (1, Status.IN_PROGRESS)
    await store.rewind(again, 3)
    assert await store.all_events("a") == block(0, 3)
    with pytest.raises(ClaimLost):
        await store.append(claimed, 3, 1, event(3), has_output=True)


# -- after a crash


@pytest.mark.parametrize(
    "segments",
    [[(2, 1), (3, 2)], [(2, 3)], [(2, 1), (3, 1), (4, 3), (7, 1)], [(2, 1)], [(2, 6), (8, 2)], []],
    ids=str,
)
async def test_the_rerun_of_a_silent_job_keeps_what_came_before_its_output(
    store: JobStore, segments: list[tuple[int, int]]
) -> None:
    await create(store, "a")
    (lost,) = await claim(store)
    for first, count in segments:
        await store.append(lost, first, count, block(first, count, "lost"), has_output=first + count > 3)
    kept = split_frames(await store.all_events("a"))[:3]
    await store.abandon(dead_after_s=0)
    assert await store.orphans(attempts_max=2, limit=10) == []
    assert (await found(store, "a")).status is Status.IN_PROGRESS
    (again,) = await claim(store)
    assert again.job.attempt == 2
    with pytest.raises(ClaimLost):
        await store.rewind(lost, len(kept))
    assert split_frames(await store.all_events("a"))[: len(kept)] == kept
    await store.rewind(again, len(kept))
    assert (await found(store, "a")).next_seq == len(kept)
    assert split_frames(await store.all_events("a")) == kept
    await store.append(again, len(kept), 4, block(len(kept), 4, "new"), has_output=True)
    assert await store.all_events("a") == b"".join(kept) + block(len(kept), 4, "new")
    with pytest.raises(ClaimLost):
        await store.append(lost, len(kept) + 4, 1, event(0), has_output=True)


@pytest.mark.parametrize(
    ("changes", "attempts_max"),
    [({"is_followable": True}, 2), ({"is_rerunnable": False}, 2), ({}, 1)],
    ids=["output was shown", "not rerunnable", "too often"],
)
async def test_a_lost_job_that_may_not_run_again_is_an_orphan_with_its_output(
    store: JobStore, changes: dict[str, bool], attempts_max: int
) -> None:
    claimed = await started(store, "a", **changes)
    await store.append(claimed, 3, 2, block(3, 2, "kept"), has_output=True)
    assert await store.orphans(attempts_max=attempts_max, limit=10) == []  # its owner lives
    await store.abandon(dead_after_s=0)
    assert await claim(store, attempts_max=attempts_max) == []
    assert await store.orphans(attempts_max=attempts_max, limit=10) == ["a"]
    assert await store.all_events("a") == block(0, 3) + block(3, 2, "kept")


async def test_a_followable_job_is_silent_until_its_first_output(store: JobStore) -> None:
    claimed = await started(store, "a", is_followable=True)
    assert not (await found(store, "a")).output_shown
    await store.append(claimed, 3, 1, event(3), has_output=True)
    await store.append(claimed, 4, 1, event(4), has_output=False)
    assert (await found(store, "a")).output_shown


async def test_orphans_come_oldest_first_up_to_the_limit(store: JobStore) -> None:
    for name in "abc":
        await started(store, name, is_rerunnable=False)
    await create(store, "queued")
    await store.abandon(dead_after_s=0)
    assert await store.orphans(attempts_max=2, limit=2) == ["a", "b"]
    assert await store.orphans(attempts_max=2, limit=9) == ["a", "b", "c"]


async def test_queued_jobs_outlive_their_owner_s_death(store: JobStore) -> None:
    await create(store, "a")
    assert await store.take_over("a") is not None
    await store.abandon(dead_after_s=0)
    assert [claimed.id for claimed in await claim(store)] == ["a"]


# -- deleting and purging


@pytest.mark.parametrize("state", ["queued", "running", "ended"])
async def test_a_deleted_job_is_gone_at_once_and_later_for_good(store: JobStore, state: str) -> None:
    await {"queued": create, "running": started, "ended": ended}[state](store, "a")
    before = await found(store, "a")
    ending_here = replace(before, status=Status.CANCELLED, epoch=before.epoch + 1)
    deleted = await store.delete("a", TENANT, now_ms=NOW)
    assert deleted == DeletedJob(None if state == "ended" else ending_here)
    assert await store.find("a", TENANT, now_ms=NOW) is None
    assert not await store.delete("a", TENANT, now_ms=NOW)
    assert await claim(store) == []
    assert await swept(store, NOW) == 1
    assert await store.request_of("a") is None
    assert await store.all_events("a") == b""


async def test_late_writes_never_bring_a_deleted_job_back(store: JobStore) -> None:
    claimed = await started(store, "a")
    taken = await store.take_over("a")
    assert taken is not None
    await store.delete("a", TENANT, now_ms=NOW)
    for late in range(2):
        for holder in (claimed, taken):
            with pytest.raises(ClaimLost):
                await store.append(holder, 3, 1, event(3), has_output=True)
            with pytest.raises(ClaimLost):
                await store.finish(holder, ending(3), now_ms=NOW, expires_at_ms=EXPIRY)
            with pytest.raises(ClaimLost):
                await store.release(holder, attempts_returned=0)
        assert await store.find("a", TENANT, now_ms=NOW) is None
        if late == 0:
            await swept(store, NOW)
    assert await store.all_events("a") == b""


async def test_a_sweep_takes_what_has_expired_and_nothing_else(store: JobStore) -> None:
    await ended(store, "old")
    await started(store, "running")
    await create(store, "queued")
    assert await swept(store, EXPIRY - 1) == 0
    assert await swept(store, EXPIRY) == 1
    assert await store.request_of("old") is None
    assert (await found(store, "running", EXPIRY)).next_seq == 3
    assert (await found(store, "queued", EXPIRY)).status is Status.QUEUED


async def test_a_sweep_goes_in_pieces_between_which_others_can_write(store: JobStore) -> None:
    await asyncio.gather(*(create(store, f"j{number}") for number in range(1100)))
    deleted = await asyncio.gather(*(store.delete(f"j{n}", TENANT, now_ms=NOW) for n in range(1100)))
    assert all(deleted)
    sweep = asyncio.create_task(store.sweep(now_ms=NOW))
    others = 0
    while not sweep.done():
        await create(store, f"other{others}")
        others += 1
    assert others >= 3
    assert await sweep == 1100
    assert await store.sweep(now_ms=NOW) == 0
    assert (await store.insight.backlog(now_ms=0)).by_status[Status.CANCELLED] == 0


async def test_a_job_of_very_many_commits_is_purged_whole(store: JobStore) -> None:
    claimed = await started(store, "a")
    appends = (store.append(claimed, 3 + n, 1, event(3 + n), has_output=True) for n in range(1200))
    await asyncio.gather(*appends)
    await store.delete("a", TENANT, now_ms=NOW)
    assert await store.sweep(now_ms=NOW) == 1
    assert await store.request_of("a") is None
    assert await store.all_events("a") == b""


# -- chains


async def chain(store: JobStore, length: int) -> None:
    previous = None
    for number in range(length):
        await ended(store, f"t{number}", previous_id=previous)
        previous = f"t{number}"


async def test_the_turns_before_a_job_come_oldest_first_with_input_and_answer(store: JobStore) -> None:
    await chain(store, 3)
    await create(store, "last", previous_id="t2")
    turns = await store.turns_before("last", TENANT)
    assert [turn.response_id for turn in turns] == ["t0", "t1", "t2"]
    assert [turn.input for turn in turns] == [b'"input of t%d"' % number for number in range(3)]
    assert [turn.final for turn in turns] == [b'{"final":"t%d"}' % number for number in range(3)]
    assert await store.turns_before("t0", TENANT) == []
    assert await store.turns_before("last", OTHER) == []


async def test_turns_that_have_gone_are_context_until_their_last_descendant_goes(store: JobStore) -> None:
    await chain(store, 3)
    await started(store, "last", previous_id="t2")
    await store.delete("t1", TENANT, now_ms=NOW)
    assert await swept(store, EXPIRY) == 0
    assert [turn.response_id for turn in await store.turns_before("last", TENANT)] == ["t0", "t1", "t2"]
    assert await store.find("t1", TENANT, now_ms=NOW) is None
    assert await store.all_events("t1") == b""  # nobody can stream it again
    assert await store.delete("last", TENANT, now_ms=NOW)
    assert await swept(store, EXPIRY) == 4
    for name in ("t0", "t1", "t2", "last"):
        assert await store.request_of(name) is None


async def test_a_branch_keeps_only_its_own_ancestors(store: JobStore) -> None:
    await chain(store, 2)
    await ended(store, "left", previous_id="t0")
    await create(store, "right", previous_id="t1")
    assert [turn.response_id for turn in await store.turns_before("left", TENANT)] == ["t0"]
    assert await swept(store) == 1  # "left"
    assert [turn.response_id for turn in await store.turns_before("right", TENANT)] == ["t0", "t1"]


async def test_a_job_whose_previous_turn_is_gone_is_not_accepted(store: JobStore) -> None:
    with pytest.raises(PreviousGone):
        await create(store, "a", previous_id="never was")
    assert await store.find("a", TENANT, now_ms=NOW) is None
    assert await store.request_of("a") is None


# -- many at once


async def test_one_refusal_does_not_hurt_the_others_of_its_commit(store: JobStore) -> None:
    claimed = await started(store, "live")
    await create(store, "taken")
    results = await asyncio.gather(
        store.create(job_named("a"), PLENTY),
        store.append(claimed, 99, 1, event(99), has_output=True),
        store.create(job_named("b", previous_id="never was"), PLENTY),
        store.append(claimed, 3, 1, event(3), has_output=True),
        store.create(job_named("c"), QueueLimits(0, 0)),
        store.create(job_named("taken"), PLENTY),
        store.create(job_named("d", tenant=b"short"), PLENTY),
        store.finish(claimed, ending(4), now_ms=NOW, expires_at_ms=EXPIRY),
        return_exceptions=True,
    )
    kinds = [type(result) for result in results]
    done = type(None)
    assert kinds[:5] == [str, ClaimLost, PreviousGone, done, QueueFull]
    assert all(isinstance(results[number], Exception) for number in (5, 6))
    assert kinds[7] is done
    assert (await found(store, "a")).status is Status.QUEUED
    assert await store.all_events("live") == block(0, 4) + block(4, 1, "end")
    for name in "bcd":
        assert await store.request_of(name) is None


async def test_operations_take_effect_in_the_order_asked(store: JobStore) -> None:
    claimed = await started(store, "a")

    async def append_more() -> None:
        await store.append(claimed, 4, 1, event(4), has_output=True)

    _, taken, late = await asyncio.gather(
        store.append(claimed, 3, 1, event(3), has_output=True),
        store.take_over("a"),
        append_more(),
        return_exceptions=True,
    )
    assert isinstance(taken, Claim)
    assert taken.job.next_seq == 4
    assert isinstance(late, ClaimLost)


async def test_a_create_whose_caller_has_gone_is_committed_all_the_same(opened: Open) -> None:
    store = await opened()
    calls = [asyncio.create_task(create(store, f"j{number}")) for number in range(20)]
    await asyncio.sleep(0)  # each has asked
    for call in calls:
        call.cancel()
    assert all(
        isinstance(r, asyncio.CancelledError) for r in await asyncio.gather(*calls, return_exceptions=True)
    )
    await store.close()
    again = await opened()
    assert (await again.insight.backlog(now_ms=NOW)).by_status[Status.QUEUED] == 20


async def test_what_was_asked_before_the_close_is_written_and_nothing_after(opened: Open) -> None:
    store = await opened()
    asked = [asyncio.create_task(create(store, f"j{number}")) for number in range(5)]
    await asyncio.sleep(0)
    await store.close()
    await asyncio.gather(*asked)
    with pytest.raises(StoreUnavailable):
        await create(store, "late")
    assert (await (await opened()).insight.backlog(now_ms=NOW)).by_status[Status.QUEUED] == 5


# -- what a run needs


async def test_a_claim_brings_what_was_asked_for_and_the_turns_before(store: JobStore) -> None:
    await ended(store, "first")
    new = await create(store, "next", previous_id="first", sealed=Sealed("k", b"secret"))
    (work,) = await claim(store)
    assert work.call == await store.request_of("next")
    assert (work.call.input, work.call.sealed) == (new.input, Sealed("k", b"secret"))
    assert work.turns == await store.turns_before("next", TENANT) != []


async def test_a_claim_of_large_inputs_takes_one_at_least_and_no_more_than_so_much(store: JobStore) -> None:
    for name in "abc":
        await create(store, name, input=b"x" * 1000)

    async def taken(bytes_max: int) -> list[str]:
        works = await store.claim(9, attempts_max=2, now_ms=NOW, bytes_max=bytes_max)
        return [work.id for work in works]

    assert await taken(10) == ["a"]
    assert await taken(1001) == ["b", "c"]


# -- what operators see


async def test_jobs_are_listed_newest_first_by_whatever_is_wanted_of_them(store: JobStore) -> None:
    async def names(limit: int = 9, before: int | None = None, **wanted: Any) -> list[str]:
        listing = await store.insight.jobs(Wanted(**wanted), limit=limit, before=before)
        return [facts.id for facts in listing.jobs]

    await ended(store, "aa", model="small")
    failed = await started(store, "ab", model="large", created_at_ms=NOW + 5)
    error = {"code": "server_error", "message": "no"}
    outcome = replace(ending(3, Status.FAILED), error=cast("Any", error))
    await store.finish(failed, outcome, now_ms=NOW, expires_at_ms=EXPIRY)
    await started(store, "ba", backend="default", tenant=OTHER, created_at_ms=NOW + 7)
    await create(store, "bb", backend="other", model="large", created_at_ms=NOW + 9)
    await record(store, "plain")
    await ended(store, "deleted")
    await store.delete("deleted", TENANT, now_ms=NOW)
    assert await names() == ["bb", "ba", "ab", "aa"]
    assert await names(statuses=[Status.COMPLETED, Status.FAILED]) == ["ab", "aa"]
    assert await names(backend="other") == ["bb"]
    assert await names(model="large") == ["bb", "ab"]
    assert await names(model="large", backend="default") == ["ab"]
    assert await names(error="server_error") == ["ab"]
    assert await names(tenant=OTHER.hex()[:8]) == ["ba"]
    assert await names(id="a") == ["ab", "aa"]
    assert await names(id="c") == []
    assert await names(created_since_ms=NOW + 5, created_before_ms=NOW + 9) == ["ba", "ab"]


async def test_jobs_are_listed_from_the_oldest_too_and_live_ones_without_the_others(store: JobStore) -> None:
    await ended(store, "a")
    await started(store, "b", created_at_ms=NOW + 1)
    await ended(store, "c", created_at_ms=NOW - 1)
    await create(store, "d", tenant=OTHER, created_at_ms=NOW + 3)
    seen: list[str] = []
    before = None
    while not seen or before is not None:
        listing = await store.insight.jobs(Wanted(), limit=1, before=before, is_oldest_first=True)
        seen += [facts.id for facts in listing.jobs]
        before = listing.before
    assert seen == ["a", "b", "c", "d"]
    live = Wanted(statuses=[Status.QUEUED, Status.IN_PROGRESS])
    for is_oldest_first, expected in ((False, ["d", "b"]), (True, ["b", "d"])):
        listing = await store.insight.jobs(live, limit=9, is_oldest_first=is_oldest_first)
        assert [facts.id for facts in listing.jobs] == expected
        assert listing.before is None
    listing = await store.insight.jobs(live, limit=1)
    assert listing.before is not None
    listing = await store.insight.jobs(live, limit=1, before=listing.before)
    assert [facts.id for facts in listing.jobs] == ["b"]


async def test_of_one_job_operators_see_what_follows_from_its_state(store: JobStore) -> None:
    await ended(store, "first")
    await create(store, "second", previous_id="first", webhook="https://hooks.test/x", is_rerunnable=False)
    await create(store, "third")
    details = await store.insight.details("second")
    assert details is not None
    assert (details.previous, details.later, details.ahead) == ("first", (), 0)
    assert (details.is_owned, details.is_rerunnable, details.output_shown) == (False, False, False)
    assert details.is_told
    first, third = await store.insight.details("first"), await store.insight.details("third")
    assert first is not None
    assert third is not None
    assert (first.later, first.status, first.is_told) == (("second",), Status.COMPLETED, False)
    assert first.events_bytes == len(await store.all_events("first"))
    assert third.ahead == 1
    await create(store, "urgent", priority=PRIORITY)
    over = await store.insight.details("first")
    assert over is not None
    assert over.ahead == 0
    assert await store.delete("urgent", TENANT, now_ms=NOW)
    await claim(store)
    running = await store.insight.details("second")
    assert running is not None
    assert (running.is_owned, running.status) == (True, Status.IN_PROGRESS)
    assert "hooks.test" not in repr(running)
    await record(store, "plain")
    await store.delete("first", TENANT, now_ms=NOW)
    for name in ("plain", "first", "unknown"):
        assert await store.insight.details(name) is None


async def test_live_jobs_are_counted_by_backend_caller_and_model(store: JobStore) -> None:
    await ended(store, "over", model="m")
    await started(store, "a", model="m")
    for name in ("b", "c"):
        await create(store, name, model="m", created_at_ms=NOW + 7)
    await create(store, "d", tenant=OTHER, backend="other")
    crowds = {(each.backend, each.tenant, each.model): each for each in await store.insight.crowds()}
    mine = crowds.pop(("default", TENANT.hex(), "m"))
    assert (mine.waiting, mine.running, mine.oldest_waiting_ms) == (2, 1, NOW + 7)
    theirs = crowds.pop(("other", OTHER.hex(), None))
    assert (theirs.waiting, theirs.running) == (1, 0)
    assert crowds == {}


async def test_lists_go_on_where_they_ended_also_while_jobs_come(store: JobStore) -> None:
    for number in range(7):
        await create(store, f"j{number}")
    seen: list[str] = []
    before = None
    while True:
        listing = await store.insight.jobs(Wanted(), limit=3, before=before)
        seen += [facts.id for facts in listing.jobs]
        await create(store, f"later{len(seen)}")
        if (before := listing.before) is None:
            break
    assert seen == [f"j{number}" for number in reversed(range(7))]


async def test_what_operators_see_of_a_job_is_no_content(store: JobStore) -> None:
    await started(store, "a", model="m", input=b"secret")
    (facts,) = (await store.insight.jobs(Wanted(), limit=1)).jobs
    assert (facts.id, facts.status, facts.backend, facts.model) == ("a", Status.IN_PROGRESS, "default", "m")
    assert (facts.attempt, facts.event_count, facts.tenant) == (1, 3, TENANT.hex())
    assert "secret" not in repr(facts)


async def test_notes_are_kept_by_kind_and_name_and_each_is_taken_once(opened: Open) -> None:
    store = await opened()
    notes, rung = store.notes, Counter[str]()
    with store.bells.listen(lambda: rung.update("a"), bells.note("a")):
        await notes.put("a", "one", {"slots": 3})
        await notes.put("a", "b:c", ["x"])
        await notes.put("a", "one", {"slots": 4})
    await notes.put("a-", "one", 1)
    await notes.put("b", "one", None)
    await notes.put("b", "two", 2)
    assert rung["a"] == 3
    await store.close()
    notes = (await opened()).notes
    assert await notes.all("a") == {"one": {"slots": 4}, "b:c": ["x"]}
    assert await notes.all("nothing") == {}
    await notes.drop_before("b", "two")
    assert await notes.all("b") == {"two": 2}
    taken = await asyncio.gather(*(notes.take("a", "b:c") for _ in range(5)))
    assert (taken.count(["x"]), taken.count(None)) == (1, 4)
    assert await notes.all("a") == {"one": {"slots": 4}}
    assert await notes.all("a-") == {"one": 1}


async def test_a_nul_in_a_name_breaks_nothing_and_finds_what_was_stored_by_it(store: JobStore) -> None:
    claimed = await started(store, "a", model="m\0x")
    outcome = replace(ending(3, Status.FAILED), error={"code": "bad\0", "message": ""})
    await store.finish(claimed, outcome, now_ms=NOW, expires_at_ms=EXPIRY)
    for wanted in (Wanted(model="m\0x"), Wanted(error="bad\0")):
        assert [job.id for job in (await store.insight.jobs(wanted, limit=2)).jobs] == ["a"]
    assert (await store.insight.jobs(Wanted(model="m"), limit=2)).jobs == []
    assert await store.find("a\0", TENANT, now_ms=NOW) is None
    assert await store.insight.details("a\0") is None
    assert not await store.set_priority("a\0", FLEX)
    with pytest.raises(PreviousGone):
        await create(store, "b", previous_id="a\0")
