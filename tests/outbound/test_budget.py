"""How many retries a backend's calls allow."""

from __future__ import annotations

import random

import pytest

from gateway.outbound.budget import RetryBudget


class Time:
    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def time() -> Time:
    return Time()


def budget_of(time: Time, *, percent: float = 10, min_per_s: float = 0.05) -> RetryBudget:
    return RetryBudget(percent=percent, min_per_s=min_per_s, window_s=60, monotonic=time)


def spent(budget: RetryBudget) -> int:
    count = 0
    while budget.spend():
        count += 1
    return count


@pytest.mark.parametrize(("calls", "retries"), [(0, 3), (30, 3), (100, 10), (1005, 100)])
def test_so_many_percent_of_the_calls_and_at_least_so_many_a_second(
    time: Time, calls: int, retries: int
) -> None:
    budget = budget_of(time)
    for _ in range(calls):
        budget.called()
    assert spent(budget) == retries


def test_what_was_called_and_spent_is_forgotten_after_the_window(time: Time) -> None:
    budget = budget_of(time)
    for _ in range(100):
        budget.called()
    assert spent(budget) == 10
    time.now_s += 59
    assert spent(budget) == 0
    time.now_s += 2
    assert spent(budget) == 3, "the calls are forgotten, too"


def test_in_any_window_retries_stay_within_the_budget(time: Time) -> None:
    """An outage of ten minutes in which everything fails, and everything would be tried again."""
    budget, dice = budget_of(time, min_per_s=0.1), random.Random(7)
    calls: list[float] = []
    retries: list[float] = []
    for _ in range(6000):
        time.now_s += dice.random() * 0.2
        budget.called()
        calls.append(time.now_s)
        if budget.spend():
            retries.append(time.now_s)
    for end in range(1060, int(time.now_s), 7):
        in_window = [sum(end - 60 < at <= end for at in times) for times in (calls, retries)]
        assert in_window[1] <= max(6, in_window[0] * 0.1 + 1)
    assert len(retries) <= len(calls) * 0.1 + 1
    assert len(retries) >= len(calls) * 0.08


def test_who_can_wait_books_the_next_one_there_will_be(time: Time) -> None:
    budget = budget_of(time)
    assert [budget.book() for _ in range(7)] == [0, 0, 0, 60, 60, 60, 120]
    assert not budget.spend()
    time.now_s += 61
    assert not budget.spend(), "those were booked"
    assert budget.book() == pytest.approx(59)
