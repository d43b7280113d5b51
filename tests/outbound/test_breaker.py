"""When a breaker trips, and what closes it again."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.config import UpstreamSettings
from gateway.outbound.breaker import Breaker, BreakerState, Failures

OPEN_S = 5.0


def failures(**settings: Any) -> Failures:
    return Failures(UpstreamSettings.model_validate({"url": "http://m.test/v1", **settings}))


# -- the switch


def test_a_tripped_breaker_lets_nothing_through_until_its_time_is_over() -> None:
    breaker = Breaker(OPEN_S)
    assert breaker.allows(0.0)
    breaker.trip(7.0)
    assert breaker.state(6.9) is BreakerState.OPEN
    assert not breaker.allows(6.9)
    assert breaker.state(7.0) is BreakerState.PROBING
    assert breaker.allows(7.0)


def test_after_its_time_one_call_tries_and_the_others_wait_for_what_comes_of_it() -> None:
    breaker = Breaker(OPEN_S)
    breaker.trip(5.0)
    breaker.called(5.0)
    assert not breaker.allows(5.1)
    breaker.close()
    assert breaker.state(5.2) is BreakerState.CLOSED
    assert breaker.allows(5.2)


def test_a_failed_try_trips_it_again() -> None:
    breaker = Breaker(OPEN_S)
    breaker.trip(5.0)
    breaker.called(5.0)
    breaker.trip(11.0)
    assert not breaker.allows(10.9)
    assert breaker.allows(11.0)


def test_it_never_opens_sooner_than_was_said_before() -> None:
    breaker = Breaker(OPEN_S)
    breaker.trip(120.0)
    breaker.trip(3.0)
    assert breaker.state(119.0) is BreakerState.OPEN


def test_a_try_that_is_never_answered_for_does_not_keep_calls_away_for_ever() -> None:
    breaker = Breaker(OPEN_S)
    breaker.trip(0.0)
    breaker.called(OPEN_S)  # its client hung up: neither failed nor succeeded
    assert not breaker.allows(2 * OPEN_S - 0.1)
    assert breaker.allows(2 * OPEN_S)


# -- too many failures


def test_so_many_without_an_answer_in_a_row_are_too_many() -> None:
    found = failures(breaker_failures=3)
    for _ in range(2):
        found.unanswered(0.0)
    found.answered(0.0, is_failure=True)  # a gateway's 502 is an answer all the same
    for _ in range(2):
        found.unanswered(0.0)
        assert not found.are_too_many(0.0)
    found.unanswered(0.0)
    assert found.are_too_many(0.0)


@pytest.mark.parametrize(("failed", "answered", "are"), [(9, 10, False), (10, 10, True), (9, 11, False)])
def test_half_of_twenty_calls_are_too_many(failed: int, answered: int, are: bool) -> None:
    found = failures()
    for number in range(max(failed, answered)):  # never five in a row
        if number < failed:
            found.answered(number / 10, is_failure=True)
        if number < answered:
            found.answered(number / 10, is_failure=False)
    assert found.are_too_many(2.0) is are


def test_failures_count_for_so_long() -> None:
    found = failures(breaker_window_s=30)
    for second in range(20):
        found.answered(float(second), is_failure=True)
    assert found.are_too_many(19.0)
    assert found.are_too_many(29.9)
    assert not found.are_too_many(31.0), "fewer than twenty calls are left"


def test_what_is_forgiven_counts_no_longer_and_on_trial_one_is_too_many() -> None:
    found = failures(breaker_failures=3)
    for _ in range(30):
        found.unanswered(0.0)
    found.forgive()
    found.unanswered(0.0)
    assert not found.are_too_many(0.0)
    found.forgive(but_one=True)
    assert not found.are_too_many(0.0)
    found.unanswered(0.0)
    assert found.are_too_many(0.0)
