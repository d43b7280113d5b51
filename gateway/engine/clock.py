"""The store's time: steady, whatever is done to the wall clock while the gateway runs."""

from __future__ import annotations

import time
from collections.abc import Callable

_SLEW = 0.5
"""Seconds by which it may catch up or hold back in a second."""
_JUMP_MS = 60_000


def _since_boot_ns() -> int:
    """Monotonic, and goes on while the machine sleeps, where there is such a clock."""
    return time.clock_gettime_ns(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


class Clock:
    """Wall clock at the start, plus steady time since; small differences that come up are slewed away.

    A wall clock that jumps, as when somebody sets it by hand, is not followed: deadlines and expiries are
    lengths of time, and no length has changed.

    Args:
        wall_ns, steady_ns: Where the time comes from.
    """

    def __init__(
        self, wall_ns: Callable[[], int] = time.time_ns, steady_ns: Callable[[], int] = _since_boot_ns
    ) -> None:
        self._wall_ns = wall_ns
        self._steady_ns = steady_ns
        self._steady_ms = steady_ns() // 1_000_000
        self._now_ms = wall_ns() // 1_000_000
        self._drift_ms = 0
        self._jump_ms = 0

    def now_ms(self) -> int:
        """Unix milliseconds. Never goes back."""
        passed_ms = self._steady_ns() // 1_000_000 - self._steady_ms
        slewed_ms = int(min(abs(self._drift_ms), passed_ms * _SLEW))
        return self._now_ms + passed_ms + (slewed_ms if self._drift_ms > 0 else -slewed_ms)

    def now_s(self) -> int:
        """Unix seconds, as the API shows them."""
        return self.now_ms() // 1000

    def resync(self) -> float | None:
        """Compare with the wall clock, and begin to make up for a small difference.

        Returns:
            Seconds by which the wall clock has jumped since the last call; None if it has not.
        """
        steady_ms = self._steady_ns() // 1_000_000
        self._now_ms, self._steady_ms = self.now_ms(), steady_ms
        difference_ms = self._wall_ns() // 1_000_000 - self._now_ms
        if abs(difference_ms) <= _JUMP_MS:
            self._drift_ms, self._jump_ms = difference_ms, 0
            return None
        self._drift_ms = 0
        jumped_ms, self._jump_ms = difference_ms - self._jump_ms, difference_ms
        return jumped_ms / 1000 if abs(jumped_ms) > _JUMP_MS else None
