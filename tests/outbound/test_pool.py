"""Which replica gets a call, when one is left alone, and how many background calls there may be."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from contextlib import ExitStack
from typing import Any

import pytest

from gateway.config import UpstreamSettings
from gateway.outbound.pool import Breaker, BreakerState, Pool, Replica

PATIENCE_S = 20
OPEN_S = 5.0


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
        pool.failed(replica)


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


# -- the breaker


def test_a_breaker_opens_after_so_many_failures_in_a_row() -> None:
    breaker = Breaker(3, OPEN_S)
    for _ in range(2):
        breaker.failed(0.0)
    breaker.succeeded()
    for _ in range(2):
        breaker.failed(0.0)
        assert breaker.state(0.0) is BreakerState.CLOSED
        assert breaker.allows(0.0)
    breaker.failed(0.0)
    assert breaker.state(0.0) is BreakerState.OPEN
    assert not breaker.allows(OPEN_S - 0.01)


def test_after_its_time_one_call_tries_and_the_others_wait_for_what_comes_of_it() -> None:
    breaker = Breaker(1, OPEN_S)
    breaker.failed(0.0)
    assert breaker.state(OPEN_S) is BreakerState.PROBING
    assert breaker.allows(OPEN_S)
    breaker.called(OPEN_S)
    assert not breaker.allows(OPEN_S)
    breaker.succeeded()
    assert breaker.state(OPEN_S) is BreakerState.CLOSED
    assert breaker.allows(OPEN_S)


def test_a_failed_try_opens_it_for_the_whole_time_again() -> None:
    breaker = Breaker(2, OPEN_S)
    breaker.failed(0.0)
    breaker.failed(0.0)
    breaker.called(OPEN_S)
    breaker.failed(OPEN_S + 1)
    assert breaker.state(2 * OPEN_S + 0.9) is BreakerState.OPEN
    assert breaker.allows(2 * OPEN_S + 1)


def test_a_try_that_is_never_answered_for_does_not_keep_the_replica_out_for_ever() -> None:
    breaker = Breaker(1, OPEN_S)
    breaker.failed(0.0)
    breaker.called(OPEN_S)  # its client hung up: neither failed nor succeeded
    assert not breaker.allows(2 * OPEN_S - 0.1)
    assert breaker.allows(2 * OPEN_S)


def test_a_health_check_closes_it_on_trial_but_not_before_its_time() -> None:
    breaker = Breaker(3, OPEN_S)
    for _ in range(3):
        breaker.failed(0.0)
    breaker.checked(1.0)
    assert breaker.state(1.0) is BreakerState.OPEN
    breaker.checked(OPEN_S)
    assert breaker.state(OPEN_S) is BreakerState.CLOSED
    breaker.failed(OPEN_S)
    assert breaker.state(OPEN_S) is BreakerState.OPEN


def test_health_checks_between_failed_calls_do_not_hide_them() -> None:
    """A server whose engine is dead still lists its models."""
    breaker = Breaker(3, OPEN_S)
    for second in range(3):
        breaker.failed(second)
        breaker.checked(second)
    assert breaker.state(2.0) is BreakerState.OPEN


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
    pool.failed(only)
    assert pool.background_slots() == 0, "it has: still down"
    time.now_s += OPEN_S
    with pool.call(only, is_background=True):
        only.breaker.succeeded()
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


async def test_a_background_call_waits_for_a_replica_that_is_back(time: Time) -> None:
    pool = pool_of(1, time)
    (only,) = pool.replicas
    fail(pool, only)
    waiting = asyncio.create_task(pool.room_for_background())
    for _ in range(5):
        await asyncio.sleep(0)
    assert not waiting.done()
    time.now_s += OPEN_S
    pool.checked(only, is_healthy=True)
    async with asyncio.timeout(PATIENCE_S):
        assert await waiting is only


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
