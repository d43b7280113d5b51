"""Moments at which many are called at once, by a clock of the test's own."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from gateway.engine.ticks import Ticks


class Loop:
    """An event loop, as far as timers go."""

    def __init__(self) -> None:
        self.now_s = 1000.0
        self.timers: list[tuple[float, Callable[..., None], tuple[Any, ...]]] = []

    def time(self) -> float:
        return self.now_s

    def call_at(self, when_s: float, call: Callable[..., None], *args: Any) -> None:
        self.timers.append((when_s, call, args))

    def go_to(self, now_s: float) -> None:
        """Let all timers go off that are due by then, each at its time."""
        while due := [timer for timer in self.timers if timer[0] <= now_s]:
            timer = min(due, key=lambda each: each[0])
            self.timers.remove(timer)
            self.now_s = timer[0]
            timer[1](*timer[2])
        self.now_s = now_s


@pytest.fixture
def loop(monkeypatch: pytest.MonkeyPatch) -> Loop:
    loop = Loop()
    monkeypatch.setattr(asyncio, "get_running_loop", lambda: loop)
    return loop


def test_a_thousand_that_wait_have_eight_timers_a_wait_and_none_waits_for_longer(loop: Loop) -> None:
    ticks, waits, timers = Ticks(0.1), [], 0
    for number in range(1000):
        loop.go_to(1000 + number * 0.0004)
        timers = max(timers, len(loop.timers))

        def due(since_s: float = loop.now_s) -> None:
            waits.append(loop.now_s - since_s)

        ticks.call(due)
    loop.go_to(1001)
    assert len(waits) == 1000
    assert timers <= 9
    assert 0.1 * 7 / 8 - 1e-6 <= min(waits) <= max(waits) <= 0.1 + 1e-6
    assert not ticks._waiting


def test_whoever_asks_again_while_called_is_called_at_a_later_tick(loop: Loop) -> None:
    ticks, at = Ticks(0.8), []

    def due() -> None:
        at.append(round(loop.now_s, 3))
        if len(at) < 3:
            ticks.call(due)

    ticks.call(due)
    loop.go_to(1010)
    assert at == [1000.8, 1001.6, 1002.4]
