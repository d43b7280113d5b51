"""Keeping calls from a server for a while, and seeing when that is needed."""

from __future__ import annotations

from collections import deque
from enum import StrEnum

from gateway.config import UpstreamSettings


class BreakerState(StrEnum):
    CLOSED = "closed"
    OPEN = "open"
    PROBING = "probing"


class Breaker:
    """A switch: once tripped it lets no call through for a time, then one at a time until it is closed.

    Args:
        probe_s: One that tries and is never answered for counts no longer after this.
    """

    def __init__(self, probe_s: float) -> None:
        self._probe_s = probe_s
        self._open_until_s: float | None = None
        self._probe_since_s: float | None = None

    def state(self, now_s: float) -> BreakerState:
        if self._open_until_s is None:
            return BreakerState.CLOSED
        return BreakerState.OPEN if now_s < self._open_until_s else BreakerState.PROBING

    def allows(self, now_s: float) -> bool:
        """Whether a call may be made now."""
        match self.state(now_s):
            case BreakerState.CLOSED:
                return True
            case BreakerState.OPEN:
                return False
            case BreakerState.PROBING:
                since = self._probe_since_s
                return since is None or now_s - since >= self._probe_s

    def called(self, now_s: float) -> None:
        if self.state(now_s) is BreakerState.PROBING:
            self._probe_since_s = now_s

    def trip(self, until_s: float) -> None:
        """Keep calls away until a time, or longer if that was said before."""
        self._open_until_s = max(until_s, self._open_until_s or until_s)
        self._probe_since_s = None

    def close(self) -> None:
        self._open_until_s = self._probe_since_s = None


class Failures:
    """What calls came to lately, and whether that is too bad to go on.

    It is after so many in a row that got no answer, or when so many percent of enough calls failed within the
    window. The window is kept by the second.
    """

    def __init__(self, settings: UpstreamSettings) -> None:
        self._in_a_row_max = settings.breaker_failures
        self._percent = settings.breaker_percent
        self._calls_min = settings.breaker_calls_min
        self._window_s = settings.breaker_window_s
        self._in_a_row = 0
        self._by_second: deque[list[int]] = deque()  # second, calls, of these failed

    def answered(self, now_s: float, *, is_failure: bool) -> None:
        """A call was answered: by the server, or in its place by one that could not reach it."""
        self._in_a_row = 0
        self._count(now_s, is_failure)

    def unanswered(self, now_s: float) -> None:
        """A call could not be made, or was cut off before its answer."""
        self._in_a_row += 1
        self._count(now_s, True)

    def are_too_many(self, now_s: float) -> bool:
        if self._in_a_row >= self._in_a_row_max:
            return True
        while self._by_second and self._by_second[0][0] <= now_s - self._window_s:
            self._by_second.popleft()
        calls = sum(calls for _, calls, _ in self._by_second)
        failed = sum(failed for *_, failed in self._by_second)
        return calls >= self._calls_min and failed * 100 >= calls * self._percent

    def forgive(self, *, but_one: bool = False) -> None:
        """Reset the counts. `but_one`: on trial, the next unanswered call is one too many."""
        self._in_a_row = self._in_a_row_max - 1 if but_one else 0
        self._by_second.clear()

    def _count(self, now_s: float, is_failure: bool) -> None:
        second = int(now_s)
        if self._by_second and (latest := self._by_second[-1])[0] == second:
            latest[1] += 1
            latest[2] += is_failure
            return
        self._by_second.append([second, 1, int(is_failure)])
        while len(self._by_second) > self._window_s + 1:
            self._by_second.popleft()
