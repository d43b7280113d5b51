"""What every `Outbox` must do: an ending puts its events there, and they leave only when told to.

How it is used: see `exercise`.
"""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from gateway.core.job import Claim, ClaimLost, NewJob, Outcome, Status
from gateway.core.reason import Reason
from gateway.core.webhooks import CALLERS, Delivery, Endpoint, Judge, Standing, Verdict, owner_of, receiver_of
from gateway.store.bells import OUTBOX
from gateway.store.port import DeletedJob, JobStore, QueueLimits
from gateway.wire.sse import encode
from tests.store.exercise import Open
from tests.store.jobs import NOW, TENANT, new_job

LATER = NOW + 1000
OTHER = b"o" * 32
OVER = -(10**10)
"""A lease that has ended: a look takes nothing away."""
PLENTY = QueueLimits(10_000, 10_000)
ENDINGS = [Status.COMPLETED, Status.FAILED, Status.INCOMPLETE, Status.CANCELLED]
URL = "https://hooks.test/secret-path"


def endpoint(name: str, **changes: Any) -> Endpoint:
    fields: dict[str, Any] = {
        "statuses": frozenset(ENDINGS),
        "tenants": frozenset(),
        "fingerprint": b"1",
        **changes,
    }
    return Endpoint(name, **fields)


def job_named(name: str, tenant: bytes, webhook: str | None) -> NewJob:
    first = encode("response.test", b'{"sequence_number":0}')
    return new_job(name, tenant=tenant, webhook=webhook, events=first, next_seq=1)


async def started(store: JobStore, name: str, *, tenant: bytes = TENANT, webhook: str | None = None) -> Claim:
    await store.create(job_named(name, tenant, webhook), PLENTY)
    (claimed,) = await store.claim(1, attempts_max=2, now_ms=NOW)
    return claimed


async def finish(store: JobStore, claim: Claim, status: Status = Status.COMPLETED, now_ms: int = NOW) -> None:
    last = encode("response.test", b'{"sequence_number":1}')
    outcome = Outcome(status, b"{}", 1, last, 1, None, Reason.ENDED)
    await store.finish(claim, outcome, now_ms=now_ms, expires_at_ms=now_ms + 600_000)


async def ended(store: JobStore, name: str, status: Status = Status.COMPLETED, **fields: Any) -> None:
    now_ms = fields.pop("now_ms", NOW)
    await finish(store, await started(store, name, **fields), status, now_ms)


async def due(
    store: JobStore,
    *,
    now_ms: int = LATER,
    lease_ms: int = OVER,
    per_lane_max: int = 100,
    own_url_max: int = 100,
) -> list[Delivery]:
    """What is due; with a lease, it is under way from now on."""
    taken = await store.outbox.claim(
        now_ms=now_ms, lease_ms=lease_ms, per_lane_max=per_lane_max, own_url_max=own_url_max
    )
    return taken.deliveries


async def told(store: JobStore) -> set[tuple[str, str, str]]:
    return {(each.response_id, each.receiver, each.status.value) for each in await due(store)}


# -- what an ending puts there


async def test_without_endpoints_nothing_is_put_there(store: JobStore) -> None:
    await ended(store, "a")
    assert await due(store) == []
    assert await store.outbox.lane_backlogs() == []


@pytest.mark.parametrize("status", ENDINGS)
async def test_every_ending_is_told_to_every_endpoint_once(store: JobStore, status: Status) -> None:
    await store.outbox.set_endpoints([endpoint("x"), endpoint("y")])
    await ended(store, "a", status)
    found = await due(store)
    assert {(each.lane, each.response_id, each.status, each.url) for each in found} == {
        ("x", "a", status, None),
        ("y", "a", status, None),
    }
    assert {(each.ended_at_ms, each.due_at_ms, each.attempts) for each in found} == {(NOW, 0, 0)}


async def test_an_endpoint_is_told_of_the_ends_and_the_tenants_that_it_wants_only(store: JobStore) -> None:
    mine, others = TENANT.hex()[:8], OTHER.hex()[:8]
    await store.outbox.set_endpoints(
        [
            endpoint("failures", statuses=frozenset({Status.FAILED, Status.CANCELLED})),
            endpoint("mine", tenants=frozenset({mine})),
            endpoint("both", tenants=frozenset({mine, others})),
        ]
    )
    await ended(store, "a")
    await ended(store, "b", Status.FAILED, tenant=OTHER)
    assert await told(store) == {
        ("a", "mine", "completed"),
        ("a", "both", "completed"),
        ("b", "failures", "failed"),
        ("b", "both", "failed"),
    }


async def test_a_job_that_is_deleted_while_it_runs_or_waits_is_told_as_cancelled(store: JobStore) -> None:
    await store.outbox.set_endpoints([endpoint("x")])
    await started(store, "a")
    await store.create(job_named("b", TENANT, None), PLENTY)
    for name in ("a", "b"):
        assert await store.delete(name, TENANT, now_ms=NOW)
    assert await told(store) == {("a", "x", "cancelled"), ("b", "x", "cancelled")}


async def test_an_event_is_there_for_as_long_as_it_must_be_when_its_response_is_gone(store: JobStore) -> None:
    await store.outbox.set_endpoints([endpoint("x")])
    await ended(store, "a")
    assert await store.delete("a", TENANT, now_ms=NOW)
    while await store.sweep(now_ms=NOW + 10**9):
        pass
    assert await store.find("a", TENANT, now_ms=NOW) is None
    assert await told(store) == {("a", "x", "completed")}


async def test_an_ending_that_is_lost_leaves_nothing(store: JobStore) -> None:
    await store.outbox.set_endpoints([endpoint("x")])
    claim = await started(store, "a")
    taken = await store.take_over("a")
    assert taken is not None
    with pytest.raises(ClaimLost):
        await finish(store, claim)
    assert await due(store) == []
    await finish(store, taken, Status.CANCELLED)
    with pytest.raises(ClaimLost):
        await finish(store, taken, Status.FAILED)
    assert await told(store) == {("a", "x", "cancelled")}


async def test_two_ends_at_once_are_told_as_the_one_that_happened(store: JobStore) -> None:
    await store.outbox.set_endpoints([endpoint("x")])
    for number in range(30):
        claim = await started(store, f"a{number}")
        results = await asyncio.gather(
            finish(store, claim),
            store.delete(claim.id, TENANT, now_ms=NOW),
            store.delete(claim.id, TENANT, now_ms=NOW),
            return_exceptions=True,
        )
        (deleted,) = [result for result in results if isinstance(result, DeletedJob)]
        assert isinstance(results[0], ClaimLost) is (deleted.ended is not None), "one of them was the end"
    found = await told(store)
    assert sorted(name for name, *_ in found) == sorted(f"a{number}" for number in range(30))


async def test_a_plain_response_that_is_kept_is_told_to_nobody(store: JobStore) -> None:
    await store.outbox.set_endpoints([endpoint("x")])
    await store.record(
        job_named("a", TENANT, URL), Status.COMPLETED, b"{}", finished_at_ms=NOW, expires_at_ms=NOW + 1
    )
    assert await due(store) == []


async def test_a_callers_url_is_told_beside_the_endpoints(store: JobStore) -> None:
    await store.outbox.set_endpoints([endpoint("x")])
    await ended(store, "a", webhook=URL)
    own, configured = sorted(await due(store), key=lambda each: each.lane)
    assert (own.url, own.receiver, owner_of(own.lane)) == (URL, CALLERS, f"@{TENANT.hex()}")
    assert (configured.url, configured.lane) == (None, "x")
    assert URL not in repr(own)
    assert [each.lane for each in await due(store, own_url_max=0)] == ["x"]


async def test_an_event_outlives_the_process(opened: Open) -> None:
    first = await opened()
    await first.outbox.set_endpoints([endpoint("x")])
    await ended(first, "a", Status.FAILED)
    await first.close()
    second = await opened()
    await second.outbox.set_endpoints([endpoint("x")])
    assert await told(second) == {("a", "x", "failed")}


# -- what is due


async def test_what_is_taken_is_gone_and_what_is_put_off_is_due_later(store: JobStore) -> None:
    await store.outbox.set_endpoints([endpoint("x"), endpoint("y")])
    await ended(store, "a")
    first, second = await due(store)
    await store.outbox.remove(first)
    await store.outbox.put_off(second, due_at_ms=LATER + 5, failure="http_500")
    assert await due(store, now_ms=LATER + 4) == []
    (again,) = await due(store, now_ms=LATER + 5)
    assert (again.key, again.attempts, again.failure) == (second.key, 1, "http_500")
    await store.outbox.remove(again)
    assert await store.outbox.lane_backlogs() == []


async def test_what_is_under_way_is_not_due_and_counts(store: JobStore) -> None:
    await store.outbox.set_endpoints([endpoint("x"), endpoint("y")])
    for name in "abcde":
        await ended(store, name)
    first = await due(store, per_lane_max=2, lease_ms=50)
    assert sorted(each.lane for each in first) == ["x", "x", "y", "y"]
    under_way = {each.key for each in first}
    assert await due(store, per_lane_max=2) == []
    more = await due(store, per_lane_max=3)
    assert sorted(each.lane for each in more) == ["x", "y"]
    assert not under_way & {each.key for each in more}
    done = next(each for each in first if each.lane == "x")
    await store.outbox.remove(done)
    (next_one,) = await due(store, per_lane_max=2)
    assert next_one.lane == "x"


async def test_what_was_taken_and_not_told_is_due_again_when_its_lease_ends(store: JobStore) -> None:
    await store.outbox.set_endpoints([endpoint("x")])
    await ended(store, "a")
    (taken_once,) = await due(store, lease_ms=50)
    assert await due(store, now_ms=LATER + 49) == []
    assert await due(store, now_ms=LATER + 50) == [taken_once]


async def test_a_look_says_when_the_next_one_is_due(store: JobStore) -> None:
    async def next_at_ms() -> int | None:
        look = await store.outbox.claim(now_ms=LATER, lease_ms=0, per_lane_max=9, own_url_max=9)
        return look.next_at_ms

    await store.outbox.set_endpoints([endpoint("x"), endpoint("y")])
    assert await next_at_ms() is None
    await ended(store, "a")
    for delivery in await due(store):
        due_at_ms = LATER + (70 if delivery.lane == "x" else 30)
        await store.outbox.put_off(delivery, due_at_ms=due_at_ms, failure="timeout")
    assert await next_at_ms() == LATER + 30


async def test_the_bell_of_the_outbox_rings_when_something_may_be_due(store: JobStore) -> None:
    rung: list[str] = []
    with store.bells.listen(lambda: rung.append("!"), OUTBOX):
        claim = await started(store, "a")
        await started(store, "b")
        assert rung == []
        await finish(store, claim)
        assert len(rung) == 1
        await store.delete("b", TENANT, now_ms=NOW)
        assert len(rung) == 2
        await store.outbox.hurry("a")
        assert len(rung) == 3
        await store.outbox.enable("x")
        assert len(rung) == 4
    await ended(store, "c")
    assert len(rung) == 4, "nobody listens any more"


async def test_callers_urls_share_a_limit_and_each_caller_has_one(store: JobStore) -> None:
    for number in range(4):
        for tenant in (TENANT, OTHER):
            await ended(store, f"{tenant.hex()[:2]}{number}", tenant=tenant, webhook=URL)
    assert len(await due(store)) == 8
    assert len(await due(store, per_lane_max=2, own_url_max=3)) == 3
    shared = await due(store, per_lane_max=2, own_url_max=10, lease_ms=50)
    assert sorted(each.lane[1:3] for each in shared) == ["6f", "6f", "74", "74"]
    assert await due(store, per_lane_max=3, own_url_max=4) == []


async def test_a_full_lane_leaves_the_others_alone(store: JobStore) -> None:
    await store.outbox.set_endpoints([endpoint("dead"), endpoint("well")])
    for number in range(20):
        await ended(store, f"a{number}")
    for each in await due(store, per_lane_max=4, lease_ms=50):
        if each.lane == "well":
            await store.outbox.remove(each)
    assert {each.lane for each in await due(store, per_lane_max=4)} == {"well"}


# -- endpoints that come and go


async def test_a_disabled_endpoint_gets_nothing_and_its_events_wait(opened: Open) -> None:
    first = await opened()
    await first.outbox.set_endpoints([endpoint("x"), endpoint("y")])
    await ended(first, "a")
    assert await first.outbox.disable("x", now_ms=NOW)
    assert not await first.outbox.disable("x", now_ms=NOW + 1)
    assert not await first.outbox.disable("no such", now_ms=NOW)
    await ended(first, "b")
    assert {each.lane for each in await due(first)} == {"y"}
    assert [(each.name, each.since_ms) for each in await first.outbox.disabled()] == [("x", NOW)]
    await first.close()
    second = await opened()
    await second.outbox.set_endpoints([endpoint("x"), endpoint("y")])
    assert {each.lane for each in await due(second)} == {"y"}
    for delivery in await due(second):
        await second.outbox.put_off(delivery, due_at_ms=LATER * 2, failure="http_500")
    assert await second.outbox.enable("x")
    assert {each.key for each in await due(second)} == {("a", "x"), ("b", "x")}
    assert not await second.outbox.enable("no such")


async def test_another_address_or_secret_enables_an_endpoint(store: JobStore) -> None:
    await store.outbox.set_endpoints([endpoint("x")])
    await ended(store, "a")
    await store.outbox.disable("x", now_ms=NOW)
    await store.outbox.set_endpoints([endpoint("x", statuses=frozenset({Status.FAILED}))])
    assert await due(store) == []
    await store.outbox.set_endpoints([endpoint("x", fingerprint=b"2")])
    assert await told(store) == {("a", "x", "completed")}


async def test_the_events_of_an_endpoint_that_was_removed_wait_for_its_return(store: JobStore) -> None:
    await store.outbox.set_endpoints([endpoint("x")])
    await ended(store, "a")
    await store.outbox.set_endpoints([])
    await ended(store, "b")
    assert await due(store) == []
    assert [(each.lane, each.count) for each in await store.outbox.lane_backlogs()] == [("x", 1)]
    await store.outbox.set_endpoints([endpoint("x")])
    assert await told(store) == {("a", "x", "completed")}


# -- what is given up, and what is looked at


async def test_what_is_put_off_can_be_hurried(store: JobStore) -> None:
    await store.outbox.set_endpoints([endpoint("x"), endpoint("y")])
    await ended(store, "a")
    for delivery in await due(store):
        await store.outbox.put_off(delivery, due_at_ms=LATER * 2, failure="timeout")
    assert await due(store) == []
    assert sorted(await store.outbox.hurry("a")) == ["x", "y"]
    assert len(await due(store)) == 2
    assert await store.outbox.hurry("b") == []


async def test_what_was_taken_can_be_told_again_to_all_who_are_told_of_it(store: JobStore) -> None:
    failures = endpoint("failures", statuses=frozenset({Status.FAILED}))
    others = endpoint("others", tenants=frozenset({"ffffffff"}))
    await store.outbox.set_endpoints([endpoint("x"), endpoint("y"), failures, others])
    await ended(store, "a", webhook=URL)
    for delivery in await due(store):
        await store.outbox.remove(delivery)
    assert await store.outbox.about("a") == []
    lanes = await store.outbox.tell_again("a")
    assert sorted(map(receiver_of, lanes)) == ["@callers", "x", "y"]
    about = {receiver_of(each.lane): each for each in await store.outbox.about("a")}
    assert (about["x"].status, about["x"].attempts, about["x"].ended_at_ms) == (Status.COMPLETED, 0, NOW)
    assert about["@callers"].url == URL
    assert len(await due(store)) == 3
    again = await store.outbox.tell_again("a")
    assert sorted(again) == sorted(lanes), "what waits is hurried, and not there twice"
    assert len(await store.outbox.about("a")) == 3


async def test_of_a_response_that_is_not_over_or_not_there_nobody_is_told_again(store: JobStore) -> None:
    await store.outbox.set_endpoints([endpoint("x")])
    await started(store, "runs")
    await ended(store, "gone")
    await store.delete("gone", TENANT, now_ms=NOW)
    for name in ("runs", "gone", "unknown"):
        assert await store.outbox.tell_again(name) == []


async def test_what_ended_before_a_time_is_given_up(store: JobStore) -> None:
    await store.outbox.set_endpoints([endpoint("x")])
    for number in range(5):
        await ended(store, f"a{number}", now_ms=NOW + number)
    given_up = []
    while some := await store.outbox.give_up_old(ended_before_ms=NOW + 2):
        given_up += some
    assert [(each.response_id, each.lane) for each in given_up] == [("a0", "x"), ("a1", "x"), ("a2", "x")]
    assert {name for name, *_ in await told(store)} == {"a3", "a4"}


async def test_of_too_many_the_oldest_of_that_lane_are_given_up(store: JobStore) -> None:
    await store.outbox.set_endpoints([endpoint("x"), endpoint("y", statuses=frozenset({Status.FAILED}))])
    await ended(store, "f", Status.FAILED)
    for number in range(5):
        await ended(store, f"a{number}", now_ms=NOW + 1 + number)
    given_up = await store.outbox.give_up_surplus("x", 3)
    assert [each.response_id for each in given_up] == ["f", "a0", "a1"]
    assert await told(store) == {
        ("f", "y", "failed"),
        ("a2", "x", "completed"),
        ("a3", "x", "completed"),
        ("a4", "x", "completed"),
    }


async def test_what_waits_is_counted_and_what_failed_is_listed(store: JobStore) -> None:
    await store.outbox.set_endpoints([endpoint("x"), endpoint("y")])
    await ended(store, "a")
    await ended(store, "b", now_ms=NOW + 10)
    assert [(each.lane, each.count, each.oldest_ms) for each in await store.outbox.lane_backlogs()] == [
        ("x", 2, NOW),
        ("y", 2, NOW),
    ]
    assert await store.outbox.failing(limit=10) == []
    for delivery in await due(store):
        if delivery.lane == "x":
            await store.outbox.put_off(delivery, due_at_ms=LATER, failure="unreachable")
    failing = await store.outbox.failing(limit=10)
    assert [(each.key, each.failure) for each in failing] == [
        (("b", "x"), "unreachable"),
        (("a", "x"), "unreachable"),
    ]
    assert len(await store.outbox.failing(limit=1)) == 1


# -- how it is with a receiver


def down_at(now_ms: int, *, delay_ms: int = 100) -> Judge:
    """What an attempt makes of a receiver that has failed often enough."""

    def judge(standing: Standing) -> Standing:
        for _ in range(3):
            standing = standing.after(Verdict.DOWN, now_ms=now_ms, delays_ms=[delay_ms])
        return standing

    return judge


async def put_down(store: JobStore, name: str, *, now_ms: int = LATER) -> Delivery:
    """One attempt, after which it is known to be down."""
    first = next(each for each in await due(store, now_ms=now_ms) if each.lane == name)
    await store.outbox.put_off(first, due_at_ms=now_ms + 1, failure="http_503", judge=down_at(now_ms))
    return first


def taken(standing: Standing) -> Standing:
    return standing.after(Verdict.TAKEN, now_ms=LATER, delays_ms=[1])


async def test_of_a_receiver_that_is_down_one_event_is_due_at_a_time_and_not_the_same_again(
    store: JobStore,
) -> None:
    await store.outbox.set_endpoints([endpoint("x"), endpoint("y")])
    for number in range(5):
        await ended(store, f"a{number}", now_ms=NOW + number)
    first = await put_down(store, "x")
    assert {each.lane for each in await due(store, now_ms=LATER + 99)} == {"y"}
    taken_now = await due(store, now_ms=LATER + 100, per_lane_max=2, lease_ms=50)
    (probe,) = [each for each in taken_now if each.lane == "x"]
    assert (first.response_id, probe.response_id) == ("a0", "a1")
    assert {each.lane for each in await due(store, now_ms=LATER + 100)} == {"y"}
    before, after = await store.outbox.remove(probe, taken)
    assert (before.down_since_ms, after.down_since_ms) == (LATER, None)
    left = [each.response_id for each in await due(store, now_ms=LATER + 100) if each.lane == "x"]
    assert sorted(left) == ["a0", "a2", "a3", "a4"]


async def test_what_ends_while_a_receiver_is_down_waits_with_the_rest(store: JobStore) -> None:
    await store.outbox.set_endpoints([endpoint("x")])
    await ended(store, "a")
    await put_down(store, "x")
    await ended(store, "b")
    assert await due(store, now_ms=LATER + 99) == []
    assert [each.response_id for each in await due(store, now_ms=LATER + 100)] == ["b"]
    (waiting,) = await store.outbox.lane_backlogs()
    assert (waiting.count, waiting.down_since_ms) == (2, LATER)


async def test_a_receiver_is_down_still_after_a_restart_and_is_tried_at_once(opened: Open) -> None:
    first = await opened()
    await first.outbox.set_endpoints([endpoint("x")])
    await ended(first, "a")
    await ended(first, "b")
    await put_down(first, "x", now_ms=LATER + 10**9)  # by a clock that was wrong
    await first.close()
    second = await opened()
    await second.outbox.set_endpoints([endpoint("x")], due_by_ms=LATER + 50)
    assert [each.response_id for each in await due(second)] == ["b"]
    assert len(await due(second, now_ms=LATER + 50)) == 1
    (waiting,) = await second.outbox.lane_backlogs()
    assert (waiting.count, waiting.down_since_ms) == (2, LATER + 10**9)
    (probe,) = await due(second)
    await second.outbox.remove(probe, taken)
    assert [each.response_id for each in await due(second, now_ms=LATER + 50)] == ["a"]


async def test_an_endpoint_that_was_removed_while_it_was_down_is_tried_when_it_is_back(
    store: JobStore,
) -> None:
    await store.outbox.set_endpoints([endpoint("x")])
    await ended(store, "a")
    await ended(store, "b")
    await put_down(store, "x")
    await store.outbox.set_endpoints([])
    assert await due(store, now_ms=LATER + 10**6) == []
    await store.outbox.set_endpoints([endpoint("x")])
    assert [each.response_id for each in await due(store)] == ["b"]


async def test_an_event_that_is_hurried_is_the_next_one_that_a_receiver_is_tried_with(
    store: JobStore,
) -> None:
    await store.outbox.set_endpoints([endpoint("x")])
    for name in "abc":
        await ended(store, name)
    await put_down(store, "x")
    assert await store.outbox.hurry("c") == ["x"]
    (probe,) = await due(store)
    assert probe.response_id == "c"


async def test_whoever_is_enabled_is_up(store: JobStore) -> None:
    await store.outbox.set_endpoints([endpoint("x")])
    for name in "abc":
        await ended(store, name)
    await put_down(store, "x")
    assert await store.outbox.enable("x")
    assert sorted(each.response_id for each in await due(store)) == ["a", "b", "c"]


async def test_of_a_caller_one_host_that_is_down_holds_up_no_other_and_no_other_caller(
    store: JobStore,
) -> None:
    await ended(store, "a", webhook="https://dead.test/one")
    await ended(store, "b", webhook="https://DEAD.test:443/two")
    await ended(store, "c", webhook="https://well.test/")
    await ended(store, "d", tenant=OTHER, webhook="https://dead.test/one")
    (first,) = [each for each in await due(store) if each.response_id == "a"]
    await store.outbox.put_off(first, due_at_ms=LATER, failure="timeout", judge=down_at(LATER))
    assert {each.response_id for each in await due(store)} == {"c", "d"}
    assert {each.response_id for each in await due(store, now_ms=LATER + 100)} == {"b", "c", "d"}
    assert {each.response_id for each in await due(store, per_lane_max=1)} == {"c", "d"}


async def test_a_caller_with_many_hosts_has_as_many_attempts_as_one_with_one(store: JobStore) -> None:
    for number in range(6):
        await ended(store, f"a{number}", webhook=f"https://{number}.test/")
    await ended(store, "b", tenant=OTHER, webhook="https://well.test/")
    found = await due(store, per_lane_max=2, lease_ms=50)
    assert sorted(owner_of(each.lane)[1:3] for each in found) == ["6f", "74", "74"]
    (others,) = [each for each in found if each.response_id == "b"]
    await store.outbox.put_off(others, due_at_ms=LATER, failure="timeout")
    assert [each.key for each in await due(store, per_lane_max=2, own_url_max=3)] == [others.key]
