"""Whether there is room in the queue for one more job, and if not, when to ask again."""

from __future__ import annotations

import math
import random
from collections import deque

from gateway.config import BackgroundSettings
from gateway.core.job import QueueFull
from gateway.engine.clock import Clock
from gateway.observe import Observer
from gateway.store.port import QueueLimits
from gateway.wire.errors import Fault, Refusal

_KNOWN_MS = 100
"""Milliseconds for which a full queue counts as full. Then one request asks the store, for all others."""
_KNOWN_MAX = 1000
_WINDOW_MS = 30_000
_SHARE = 0.1
"""Share of the queue that `Retry-After` waits for: at the present pace, so much of it is free by then."""
_RETRY_AFTER_MAX_S = 120
"""Longest `Retry-After`, in seconds. The SDKs ignore a longer one, and come back after half a second."""

_YOURS = "You have too many responses waiting; retry when some of them have started."
_ALL = "Too many responses are waiting; retry later."


class Intake:
    """Refuses creates while the queue is full, cheaply: that is when there are many of them.

    Attributes:
        limits: How many jobs may wait.
    """

    def __init__(self, clock: Clock, settings: BackgroundSettings, observer: Observer) -> None:
        self._clock = clock
        self._observer = observer
        self.limits = QueueLimits(settings.queue_max, settings.queue_per_tenant_max)
        self._full_until_ms: dict[bytes | None, int] = {}  # by tenant; None is the whole queue
        self._starts: deque[tuple[int, int]] = deque(maxlen=_WINDOW_MS // 1000 + 1)  # second, jobs
        self._since_ms = clock.now_ms()
        self._pace = 0.0
        self._pace_until_ms = 0

    def check(self, tenant: bytes) -> None:
        """Raises: Refusal, if the queue was full for this tenant just now."""
        if self._full_until_ms:
            now_ms = self._clock.now_ms()
            for whose in (None, tenant):
                until_ms = self._full_until_ms.get(whose)
                if until_ms is not None and now_ms < until_ms:
                    raise self._refusal(now_ms, is_tenant=whose is not None)
                if until_ms is not None:
                    self._full_until_ms[whose] = now_ms + _KNOWN_MS  # for those who come while this one asks

    def accepted(self, tenant: bytes) -> None:
        """There was room."""
        if self._full_until_ms:
            self._full_until_ms.pop(None, None)
            self._full_until_ms.pop(tenant, None)

    def full(self, error: QueueFull, tenant: bytes) -> Refusal:
        """Remember for a moment that the queue is full, and return the refusal for this client."""
        if len(self._full_until_ms) >= _KNOWN_MAX:
            self._full_until_ms.clear()
        now_ms = self._clock.now_ms()
        self._full_until_ms[tenant if error.is_tenant else None] = now_ms + _KNOWN_MS
        return self._refusal(now_ms, is_tenant=error.is_tenant)

    def started(self, count: int) -> None:
        """So many jobs have left the queue."""
        second = self._clock.now_ms() // 1000
        if self._starts and self._starts[-1][0] == second:
            count += self._starts.pop()[1]
        self._starts.append((second, count))

    def _refusal(self, now_ms: int, *, is_tenant: bool) -> Refusal:
        self._observer.create_refused("tenant_queue_full" if is_tenant else "queue_full")
        if now_ms >= self._pace_until_ms:
            self._pace, self._pace_until_ms = self._measured(now_ms), now_ms + _KNOWN_MS
        limit = self.limits.per_tenant_max if is_tenant else self.limits.total_max
        wait_s = _wait_s(limit * _SHARE, self._pace)
        message = _YOURS if is_tenant else _ALL
        return Refusal(Fault.OVERLOADED, message, code="rate_limit_exceeded", retry_after_s=wait_s)

    def _measured(self, now_ms: int) -> float:
        """Starts a second, of the last half minute or since the start."""
        while self._starts and self._starts[0][0] * 1000 < now_ms - _WINDOW_MS:
            self._starts.popleft()
        elapsed_ms = min(_WINDOW_MS, max(1000, now_ms - self._since_ms))
        return sum(count for _, count in self._starts) / elapsed_ms * 1000


def _wait_s(jobs: float, pace: float) -> int:
    """Seconds until so many have started at this pace, times a random 1 to 2, to spread the clients."""
    if not pace:
        return _RETRY_AFTER_MAX_S
    spread_s = jobs / pace * random.uniform(1, 2)  # noqa: S311  not a secret
    return max(1, min(_RETRY_AFTER_MAX_S, math.ceil(spread_s)))
