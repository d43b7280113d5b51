"""Time that nothing done to the wall clock can bend: steady, and slewed where it is a little off."""

from __future__ import annotations

import pytest

from gateway.engine.clock import Clock

START_MS = 1_800_000_000_000
HOUR_S = 3600


class Machine:
    """A wall clock that can be set, and one that cannot."""

    def __init__(self) -> None:
        self.wall_ns = START_MS * 1_000_000
        self.steady_ns = 123_456_789
        self.clock = Clock(lambda: self.wall_ns, lambda: self.steady_ns)

    def passes(self, seconds: float) -> None:
        self.wall_ns += int(seconds * 1e9)
        self.steady_ns += int(seconds * 1e9)

    def is_set(self, seconds: float) -> None:
        self.wall_ns += int(seconds * 1e9)

    @property
    def offset_s(self) -> float:
        """What the wall clock is ahead of us."""
        return self.wall_ns / 1e9 - self.clock.now_ms() / 1000


@pytest.fixture
def machine() -> Machine:
    return Machine()


def test_it_starts_with_the_wall_clock_and_goes_as_time_does(machine: Machine) -> None:
    assert machine.clock.now_ms() == START_MS
    machine.passes(90.5)
    assert machine.clock.now_ms() == START_MS + 90_500
    assert machine.clock.now_s() == START_MS // 1000 + 90


@pytest.mark.parametrize("jump_s", [HOUR_S, -HOUR_S, 24 * HOUR_S, -24 * HOUR_S, 61, -61])
def test_a_jump_is_told_once_and_not_followed(machine: Machine, jump_s: float) -> None:
    machine.is_set(jump_s)
    assert machine.clock.resync() == pytest.approx(jump_s)
    for second in range(1, 600):
        machine.passes(1)
        assert machine.clock.resync() is None
        assert machine.clock.now_ms() == START_MS + second * 1000
    machine.is_set(-jump_s)
    assert machine.clock.resync() is None, "it is where it was: there is nothing to tell"
    machine.passes(1)
    assert machine.clock.now_ms() == START_MS + 600_000


def test_two_jumps_are_two(machine: Machine) -> None:
    machine.is_set(HOUR_S)
    assert machine.clock.resync() == pytest.approx(HOUR_S)
    machine.is_set(HOUR_S)
    assert machine.clock.resync() == pytest.approx(HOUR_S)
    machine.is_set(-5 * HOUR_S)
    assert machine.clock.resync() == pytest.approx(-5 * HOUR_S)


@pytest.mark.parametrize("off_s", [10, -10, 60, -60, 0.3, -0.3])
def test_a_small_difference_is_made_up_for_by_half_a_second_in_a_second(
    machine: Machine, off_s: float
) -> None:
    machine.is_set(off_s)
    assert machine.clock.resync() is None
    assert machine.clock.now_ms() == START_MS, "not at once"
    last_ms, needed_s = machine.clock.now_ms(), abs(off_s) / 0.5
    for tick in range(int(needed_s / 0.25) + 8):
        machine.passes(0.25)
        if tick % 4 == 3:
            machine.clock.resync()
        went_ms = machine.clock.now_ms() - last_ms
        assert 124 <= went_ms <= 376, "half as fast to half as fast again, never back"
        last_ms += went_ms
    assert machine.offset_s == pytest.approx(0, abs=0.01)


def test_a_wall_clock_that_runs_fast_is_kept_up_with(machine: Machine) -> None:
    for _ in range(3600):
        machine.passes(1)
        machine.is_set(0.001)
        assert machine.clock.resync() is None
    assert abs(machine.offset_s) < 0.01
