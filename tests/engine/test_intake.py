"""Room in the queue: refused cheaply while there is none, and told when to come back."""

from __future__ import annotations

import pytest

from gateway.config import BackgroundSettings
from gateway.core.job import QueueFull
from gateway.engine.clock import Clock
from gateway.engine.intake import Intake
from gateway.observe import Observer
from gateway.wire.errors import Refusal

MINE, OTHER = b"m" * 32, b"o" * 32


class SetClock(Clock):
    def __init__(self) -> None:
        self.ms = 1_000_000

    def now_ms(self) -> int:
        return self.ms


@pytest.fixture
def clock() -> SetClock:
    return SetClock()


@pytest.fixture
def intake(clock: SetClock) -> Intake:
    settings = BackgroundSettings(queue_max=1000, queue_per_tenant_max=100)
    return Intake(clock, settings, Observer())


def is_refused(intake: Intake, tenant: bytes) -> bool:
    try:
        intake.check(tenant)
    except Refusal:
        return True
    return False


def test_a_queue_that_was_full_counts_as_full_for_everybody_for_a_moment(
    intake: Intake, clock: SetClock
) -> None:
    assert not is_refused(intake, MINE)
    intake.full(QueueFull(is_tenant=False), MINE)
    assert is_refused(intake, MINE)
    assert is_refused(intake, OTHER)
    clock.ms += 99
    assert is_refused(intake, OTHER)
    clock.ms += 1
    assert not is_refused(intake, OTHER)


def test_a_tenant_with_too_many_waiting_is_refused_and_nobody_else(intake: Intake) -> None:
    intake.full(QueueFull(is_tenant=True), MINE)
    assert is_refused(intake, MINE)
    assert not is_refused(intake, OTHER)


def test_after_that_moment_one_finds_out_for_all_others(intake: Intake, clock: SetClock) -> None:
    intake.full(QueueFull(is_tenant=False), MINE)
    clock.ms += 100
    assert not is_refused(intake, OTHER)
    assert is_refused(intake, MINE)
    intake.accepted(OTHER)
    assert not is_refused(intake, MINE)
    assert not is_refused(intake, MINE)


def test_one_that_never_comes_back_with_an_answer_keeps_nobody_waiting(
    intake: Intake, clock: SetClock
) -> None:
    intake.full(QueueFull(is_tenant=True), MINE)
    for _ in range(3):
        clock.ms += 100
        assert not is_refused(intake, MINE)
        assert is_refused(intake, MINE)


def test_tenants_that_were_refused_are_not_remembered_without_bound(intake: Intake) -> None:
    for number in range(5000):
        intake.full(QueueFull(is_tenant=True), number.to_bytes(32))
    assert len(intake._full_until_ms) <= 1000


@pytest.mark.parametrize(
    ("a_second", "is_tenant", "least", "most"),
    [
        (0, False, 120, 120),  # nobody knows
        (1, False, 95, 120),  # 100 of 1000 places at one a second, to the second
        (20, False, 5, 10),
        (1000, False, 1, 1),
        (1, True, 9, 20),
        (20, True, 1, 1),
    ],
)
def test_the_time_to_come_back_follows_from_the_pace_of_the_last_half_minute(
    intake: Intake, clock: SetClock, a_second: int, is_tenant: bool, least: int, most: int
) -> None:
    for _ in range(300):  # a faster minute long ago counts no more
        clock.ms += 200
        intake.started(100)
    for _ in range(310):
        clock.ms += 100
        if a_second:
            intake.started(a_second // 10 or (clock.ms % 1000 == 0))
    waits = [intake.full(QueueFull(is_tenant), MINE).retry_after_s or 0 for _ in range(100)]
    assert min(waits) >= least
    assert max(waits) <= most
    if least + 2 < most:
        assert len(set(waits)) > 1, "all would come back together"


def test_right_after_the_start_the_pace_is_that_since_the_start(intake: Intake, clock: SetClock) -> None:
    clock.ms += 2000
    intake.started(100)
    assert (intake.full(QueueFull(False), MINE).retry_after_s or 0) in range(2, 5)
