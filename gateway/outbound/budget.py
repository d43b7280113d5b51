"""How much of the calls to a backend may be retries.

Retries make an overloaded backend more so, and all clients make theirs at the same time. Each layer that
retries without a limit multiplies the load of the one below it (Google, Site Reliability Engineering,
"Handling Overload").
"""

from __future__ import annotations

import bisect
from collections import deque
from collections.abc import Callable


class RetryBudget:
    """So many percent of the calls within a window, and at least so many a second of it.

    Args:
        monotonic: Seconds from any start, that never go back.
    """

    def __init__(
        self, *, percent: float, min_per_s: float, window_s: float, monotonic: Callable[[], float]
    ) -> None:
        self._percent = percent
        self._least = max(1, int(min_per_s * window_s))
        self._window_s = window_s
        self._now_s = monotonic
        self._calls: deque[list[int]] = deque()  # second, calls
        self._calls_in_all = 0
        self._retries: list[float] = []  # when, in order; some are still to come

    def called(self) -> None:
        """A call was made that is no retry."""
        second = int(self._now_s())
        self._calls_in_all += 1
        if self._calls and self._calls[-1][0] == second:
            self._calls[-1][1] += 1
        else:
            self._calls.append([second, 1])
            self._forget()

    @property
    def free_in_s(self) -> float:
        """In how many seconds the next one can be taken."""
        now_s = self._now_s()
        return self._free_at(now_s) - now_s

    def spend(self) -> bool:
        """Take one for now. False, and nothing is taken, if there is none."""
        now_s = self._now_s()
        if self._free_at(now_s) > now_s:
            return False
        bisect.insort(self._retries, now_s)
        return True

    def book(self) -> float:
        """Take the next one there will be. Returns the seconds until then."""
        now_s = self._now_s()
        free_at_s = self._free_at(now_s)
        bisect.insort(self._retries, free_at_s)
        return free_at_s - now_s

    def _free_at(self, now_s: float) -> float:
        self._forget()
        allowed = max(self._least, int(self._calls_in_all * self._percent / 100))
        if len(self._retries) < allowed:
            return now_s
        return max(now_s, self._retries[-allowed] + self._window_s)

    def _forget(self) -> None:
        old_s = self._now_s() - self._window_s
        while self._calls and self._calls[0][0] <= old_s:
            self._calls_in_all -= self._calls.popleft()[1]
        del self._retries[: bisect.bisect_right(self._retries, old_s)]
