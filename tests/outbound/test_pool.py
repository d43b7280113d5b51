"""Which replica gets a call, when one is left alone, and how many background calls there may be."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from contextlib import ExitStack
from typing import Any

import pytest

from gateway.config import UpstreamSettings
from gateway.core.retry import RetryPolicy
from gateway.outbound.breaker import BreakerState
from gateway.outbound.pool import Pool, Replica

PATIENCE_S = 20
OPEN_S = 5.0

PATIENCE = RetryPolicy(
    down_wait_s=300,
    put_offs_max=5,
    put_off_first_s=0.5,
    put_off_max_s=120,
    backoff_first_s=0.1,
    backoff_max_s=2,
)


class Time:
    """Stands still until a test moves it."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def time() -> Time:
    return Time()


def pool_of(count: int, time: Time, **settings: Any) -> Pool:
    urls = [f"http://m{number}.test/v1" for number in range(count)]
    given = {"breaker_failures": 3, "breaker_open_s": OPEN_S, **settings}
    return Pool(UpstreamSettings.model_validate({"url": urls[0], "replicas": urls[1:], **given}), time)


def names(replicas: Iterable[Replica | None]) -> list[str]:
    return [replica.url[7:9] if replica else "none" for replica in replicas]


def fail(pool: Pool, replica: Replica, times: int = 3) -> None:
    for _ in range(times):
        pool.failed(replica, was_reached=False)


# -- the choice


def test_the_replica_with_the_fewest_calls_of_both_kinds_is_next(time: Time) -> None:
    pool = pool_of(3, time)
    a, b, c = pool.replicas
    with (
        pool.call(a, is_background=True),
        pool.call(a, is_background=False),
        pool.call(b, is_background=False),
        pool.call(c, is_background=True),
        pool.call(c, is_background=True),
    ):
        assert pool.pick() is b
        assert pool.pick(tried=[b]) in (a, c)
        assert pool.pick(tried=[a, b, c]) is None


def test_a_call_that_has_ended_however_it_ended_counts_no_longer(time: Time) -> None:
    pool = pool_of(1, time)
    (only,) = pool.replicas

    def break_off(*, is_background: bool) -> None:
        with pool.call(only, is_background=is_background):
            assert (only.plain, only.background) == (not is_background, is_background)
            raise RuntimeError

    for is_background in (True, False):
        with pytest.raises(RuntimeError):
            break_off(is_background=is_background)
        assert (only.plain, only.background) == (0, 0)


def test_equals_take_turns(time: Time) -> None:
    pool = pool_of(3, time)
    assert sorted(names(pool.pick() for _ in range(6))) == ["m0", "m0", "m1", "m1", "m2", "m2"]


def test_a_burst_is_spread_evenly(time: Time) -> None:
    pool = pool_of(4, time)
    with ExitStack() as calls:
        for _ in range(40):
            chosen = pool.pick()
            assert chosen is not None
            calls.enter_context(pool.call(chosen, is_background=False))
        assert [replica.plain for replica in pool.replicas] == [10, 10, 10, 10]


def test_a_busy_healthy_replica_goes_before_an_idle_one_that_is_not(time: Time) -> None:
    pool = pool_of(2, time)
    sick, well = pool.replicas
    pool.checked(sick, is_healthy=False)
    with pool.call(well, is_background=False), pool.call(well, is_background=False):
        assert pool.pick() is well
        assert pool.pick(tried=[well]) is sick  # better than nothing, for who waits


# -- left alone


def test_a_replica_whose_breaker_is_open_gets_no_call(time: Time) -> None:
    pool = pool_of(2, time)
    dead, alive = pool.replicas
    fail(pool, dead)
    with pool.call(alive, is_background=False):
        assert names(pool.pick() for _ in range(3)) == ["m1"] * 3
        time.now_s += OPEN_S
        assert pool.pick() is dead
        with pool.call(dead, is_background=False):
            assert pool.pick(tried=[alive]) is None
    fail(pool, alive)
    fail(pool, dead)
    assert pool.pick() is None


def state_of(pool: Pool) -> list[BreakerState]:
    return [pool.breaker_state(replica) for replica in pool.replicas]


def test_one_call_tries_when_the_time_is_over_and_what_comes_of_it_decides(time: Time) -> None:
    pool = pool_of(1, time)
    (only,) = pool.replicas
    fail(pool, only)
    time.now_s += OPEN_S
    pool.failed(only, was_reached=False)
    assert state_of(pool) == [BreakerState.OPEN]
    time.now_s += OPEN_S
    pool.answered(only, 502, takes_jobs=False)  # it answers, but not for itself
    assert state_of(pool) == [BreakerState.OPEN]
    time.now_s += OPEN_S
    pool.answered(only, 500, takes_jobs=False)
    assert state_of(pool) == [BreakerState.CLOSED]
    fail(pool, only, times=2)
    assert state_of(pool) == [BreakerState.CLOSED], "it began anew"


def test_an_answer_to_a_call_from_before_does_not_close_it(time: Time) -> None:
    pool = pool_of(1, time)
    (only,) = pool.replicas
    fail(pool, only)
    pool.answered(only, 200, takes_jobs=True)
    assert state_of(pool) == [BreakerState.OPEN]


@pytest.mark.parametrize("status", [502, 504])
def test_half_of_the_calls_failing_behind_a_proxy_opens_it(time: Time, status: int) -> None:
    pool = pool_of(1, time)
    (only,) = pool.replicas
    for _ in range(10):
        assert state_of(pool) == [BreakerState.CLOSED]
        pool.answered(only, 200, takes_jobs=False)
        pool.answered(only, status, takes_jobs=False)
    assert state_of(pool) == [BreakerState.OPEN]


@pytest.mark.parametrize("status", [400, 401, 404, 429, 500, 503])
def test_what_the_server_itself_answers_does_not(time: Time, status: int) -> None:
    pool = pool_of(1, time)
    for _ in range(100):
        pool.answered(pool.replicas[0], status, takes_jobs=False)
    assert state_of(pool) == [BreakerState.CLOSED]


def test_a_health_check_closes_it_on_trial_but_not_before_its_time(time: Time) -> None:
    pool = pool_of(1, time)
    (only,) = pool.replicas
    fail(pool, only)
    pool.checked(only, is_healthy=True)
    assert state_of(pool) == [BreakerState.OPEN]
    time.now_s += OPEN_S
    pool.checked(only, is_healthy=True)
    assert state_of(pool) == [BreakerState.CLOSED]
    pool.failed(only, was_reached=True)
    assert state_of(pool) == [BreakerState.OPEN]


def test_health_checks_between_failed_calls_do_not_hide_them(time: Time) -> None:
    """A server whose engine is dead still lists its models."""
    pool = pool_of(1, time)
    for _ in range(3):
        pool.failed(pool.replicas[0], was_reached=True)
        pool.checked(pool.replicas[0], is_healthy=True)
    assert state_of(pool) == [BreakerState.OPEN]


def test_a_backend_is_out_of_reach_only_if_no_replica_could_be_reached(time: Time) -> None:
    pool = pool_of(2, time)
    one, two = pool.replicas
    assert pool.unreached_s == 0
    pool.failed(one, was_reached=False)
    time.now_s += 60
    assert pool.unreached_s == 0, "nobody has tried the other one"
    pool.failed(two, was_reached=True)
    assert pool.unreached_s == 0, "it broke the connection off, but there was one"
    pool.failed(two, was_reached=False)
    time.now_s += 30
    pool.failed(two, was_reached=False)
    assert pool.unreached_s == 30
    pool.answered(one, 500, takes_jobs=False)
    assert pool.unreached_s == 0
    pool.failed(one, was_reached=False)
    time.now_s += 5
    assert pool.unreached_s == 0, "nobody has tried since: this process may have been stopped"
    pool.checked(one, is_healthy=False)
    assert pool.unreached_s == 5
    pool.checked(two, is_healthy=True)
    assert pool.unreached_s == 0


# -- background


@pytest.mark.parametrize(
    ("reserved", "plain", "slots"), [(0, 0, 8), (3, 0, 5), (3, 2, 5), (3, 5, 3), (0, 8, 0), (3, 20, 0)]
)
def test_background_gets_what_plain_calls_present_or_reserved_leave(
    time: Time, reserved: int, plain: int, slots: int
) -> None:
    pool = pool_of(1, time, concurrency_max=8, foreground_reserved=reserved)
    pool.replicas[0].plain = plain
    assert pool.background_slots() == slots
    assert (pool.pick_for_background() is not None) is (slots > 0)


def test_slots_are_counted_for_each_replica(time: Time) -> None:
    pool = pool_of(2, time, concurrency_max=4)
    pool.replicas[0].plain = 100
    assert pool.background_slots() == 4
    assert names(pool.pick_for_background() for _ in range(3)) == ["m1"] * 3


def test_no_replica_gets_more_background_calls_than_its_own_limit(time: Time) -> None:
    pool = pool_of(2, time, concurrency_max=2)
    a, b = pool.replicas
    b.plain = 2
    with pool.call(a, is_background=True):
        assert pool.pick_for_background() is a
        with pool.call(a, is_background=True):
            assert pool.pick_for_background() is None
            assert pool.pick() is not None  # plain calls never wait


@pytest.mark.parametrize("how", ["unhealthy", "open", "probing"])
def test_a_replica_that_is_not_up_gets_no_more_jobs_than_it_has(time: Time, how: str) -> None:
    pool = pool_of(2, time, concurrency_max=4)
    down, up = pool.replicas
    with pool.call(down, is_background=True):
        if how == "unhealthy":
            pool.checked(down, is_healthy=False)
        else:
            fail(pool, down)
            time.now_s += OPEN_S if how == "probing" else 0
        assert pool.background_slots() == 1 + 4
        assert names(pool.pick_for_background() for _ in range(3)) == ["m1"] * 3
        assert pool.pick_for_background(tried=[up]) is None


def test_while_all_are_down_one_job_at_a_time_finds_out(time: Time) -> None:
    pool = pool_of(1, time, concurrency_max=4)
    (only,) = pool.replicas
    fail(pool, only)
    assert pool.is_down
    assert pool.pick_for_background() is None
    assert pool.background_slots() == 0
    time.now_s += OPEN_S
    assert pool.background_slots() == 1
    assert pool.pick_for_background() is only
    with pool.call(only, is_background=True):
        assert pool.pick_for_background() is None, "it has not found out yet"
        assert pool.background_slots() == 1
    pool.failed(only, was_reached=False)
    assert pool.background_slots() == 0, "it has: still down"
    time.now_s += OPEN_S
    with pool.call(only, is_background=True):
        pool.answered(only, 200, takes_jobs=True)
    assert pool.background_slots() == 4


async def test_a_background_call_without_a_slot_waits_for_one(time: Time) -> None:
    pool = pool_of(1, time, concurrency_max=1)
    (only,) = pool.replicas
    with pool.call(only, is_background=True):
        waiting = asyncio.create_task(pool.room_for_background())
        for _ in range(5):
            await asyncio.sleep(0)
        assert not waiting.done()
    async with asyncio.timeout(PATIENCE_S):
        assert await waiting is only


async def test_a_background_call_does_not_wait_where_no_replica_takes_jobs(time: Time) -> None:
    pool = pool_of(1, time)
    (only,) = pool.replicas
    fail(pool, only)
    assert await pool.room_for_background() is None, "the queue is the place to wait"
    time.now_s += OPEN_S
    pool.checked(only, is_healthy=True)
    assert await pool.room_for_background() is only


async def test_a_background_call_that_failed_somewhere_waits_for_a_full_replica_rather_than_give_up(
    time: Time,
) -> None:
    pool = pool_of(2, time, concurrency_max=1)
    gone, full = pool.replicas
    with pool.call(full, is_background=True):
        waiting = asyncio.create_task(pool.room_for_background(tried=[gone]))
        for _ in range(5):
            await asyncio.sleep(0)
        assert not waiting.done()
    async with asyncio.timeout(PATIENCE_S):
        assert await waiting is full
        assert await pool.room_for_background(tried=[gone, full]) is None


@pytest.mark.parametrize(
    ("capacity", "percent", "kept"), [(256, 5, 13), (16, 5, 1), (2, 5, 1), (1, 5, 0), (64, 0, 0), (10, 50, 5)]
)
def test_of_the_slots_some_are_kept_but_never_the_only_one(
    time: Time, capacity: int, percent: float, kept: int
) -> None:
    pool = pool_of(1, time, concurrency_max=capacity, slots_kept_percent=percent)
    assert pool.slots_kept() == kept


def test_none_are_kept_where_one_call_is_to_find_out(time: Time) -> None:
    pool = pool_of(2, time, concurrency_max=40)
    one, two = pool.replicas
    assert pool.slots_kept() == 4
    pool.put_off(one, 10.0, PATIENCE)
    assert pool.slots_kept() == 2
    pool.put_off(two, 10.0, PATIENCE)
    assert pool.slots_kept() == 0
    time.now_s += 10
    assert pool.background_slots() == 2
    assert pool.slots_kept() == 0


# -- a server that has no time


def test_a_server_that_has_no_time_gets_no_jobs_for_a_while_and_all_plain_calls(time: Time) -> None:
    pool = pool_of(1, time, concurrency_max=8)
    (only,) = pool.replicas
    with pool.call(only, is_background=True), pool.call(only, is_background=True):
        assert pool.put_off(only, 10.0, PATIENCE) == 10
        assert pool.rests(only)
        assert pool.pick_for_background() is None
        assert pool.background_slots() == 2, "as many as it has"
        assert pool.pick() is only
        time.now_s += 8.9
        assert pool.background_slots() == 2
    time.now_s += 0.2  # a tenth before its time: so the first job that it sent away may come back
    assert pool.background_slots() == 1
    assert pool.pick_for_background() is only
    with pool.call(only, is_background=True):
        assert pool.pick_for_background() is None, "one tries"
        pool.answered(only, 200, takes_jobs=True)
        assert pool.background_slots() == 8


def test_another_replica_takes_the_jobs_and_then_both_do(time: Time) -> None:
    pool = pool_of(2, time, concurrency_max=4)
    busy, other = pool.replicas
    pool.put_off(busy, 10.0, PATIENCE)
    assert pool.background_slots() == 4
    assert names(pool.pick_for_background() for _ in range(3)) == ["m1"] * 3
    time.now_s += 9.1
    with pool.call(other, is_background=True):
        assert pool.pick_for_background() is busy, "one tries it again, though the other one is sure"
        assert pool.background_slots() == 5


def test_many_that_are_sent_away_together_are_one_time(time: Time) -> None:
    pool = pool_of(1, time)
    (only,) = pool.replicas
    assert [pool.put_off(only, None, PATIENCE) for _ in range(50)] == [0.5] * 50
    waits = []
    for _ in range(10):
        time.now_s += 200
        waits.append(pool.put_off(only, None, PATIENCE))
    assert waits == [1, 2, 4, 8, 16, 32, 64, 120, 120, 120]
    time.now_s += 200
    pool.answered(only, 200, takes_jobs=True)
    assert pool.put_off(only, None, PATIENCE) == 0.5


def test_the_answer_to_a_job_from_before_does_not_end_the_rest(time: Time) -> None:
    pool = pool_of(1, time)
    (only,) = pool.replicas
    pool.put_off(only, 10.0, PATIENCE)
    pool.answered(only, 200, takes_jobs=True)
    pool.answered(only, 200, takes_jobs=False)
    assert pool.rests(only)


def test_what_keeps_jobs_from_every_replica_has_a_name(time: Time) -> None:
    pool = pool_of(2, time)
    a, b = pool.replicas
    fail(pool, a)
    assert pool.halted() is None
    pool.put_off(b, 5.0, PATIENCE)
    assert pool.halted() == "rest"
    fail(pool, b)
    assert pool.halted() == "breaker"
