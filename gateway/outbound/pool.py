"""The replicas of one backend: which of them gets the next call, and which are left alone for a while."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from enum import StrEnum

from yarl import URL

from gateway.config import UpstreamSettings


class BreakerState(StrEnum):
    CLOSED = "closed"
    OPEN = "open"
    PROBING = "probing"


class Breaker:
    """Keeps calls from a replica that cannot be reached, and lets one through now and then to see.

    Args:
        failures_max: This many failures in a row open it.
        open_s: For this long; then one call may try.
    """

    def __init__(self, failures_max: int, open_s: float) -> None:
        self._failures_max = failures_max
        self._open_s = open_s
        self._failures = 0
        self._opened_at_s = 0.0
        self._probe_since_s: float | None = None

    def state(self, now_s: float) -> BreakerState:
        if self._failures < self._failures_max:
            return BreakerState.CLOSED
        return BreakerState.OPEN if now_s - self._opened_at_s < self._open_s else BreakerState.PROBING

    def allows(self, now_s: float) -> bool:
        """Whether a call may be made now."""
        match self.state(now_s):
            case BreakerState.CLOSED:
                return True
            case BreakerState.OPEN:
                return False
            case BreakerState.PROBING:  # one at a time; one that was never answered for counts no longer
                since = self._probe_since_s
                return since is None or now_s - since >= self._open_s

    def called(self, now_s: float) -> None:
        if self.state(now_s) is BreakerState.PROBING:
            self._probe_since_s = now_s

    def succeeded(self) -> None:
        self._failures = 0
        self._probe_since_s = None

    def failed(self, now_s: float) -> None:
        self._failures += 1
        self._opened_at_s = now_s
        self._probe_since_s = None


class Replica:
    """One server.

    Attributes:
        plain, background: Calls under way.
        is_healthy: What the last active check said; True where none is made.
    """

    def __init__(self, url: str, settings: UpstreamSettings) -> None:
        self.url = url
        self.origin = URL(url).origin()
        self.breaker = Breaker(settings.breaker_failures, settings.breaker_open_s)
        self.plain = 0
        self.background = 0
        self.is_healthy = True


class Pool:
    """The replicas of one backend, and what each has to do."""

    def __init__(self, settings: UpstreamSettings) -> None:
        self._capacity = settings.concurrency_max
        self._reserved = settings.foreground_reserved
        self.replicas = [Replica(url, settings) for url in settings.urls]
        self._turn = 0

    def pick(self, *, tried: Collection[Replica] = ()) -> Replica | None:
        """The replica for the next call: healthy before not, then the one with the least to do.

        Args:
            tried: Those that this call has been to.
        """
        now_s = time.monotonic()
        usable = [r for r in self.replicas if r not in tried and r.breaker.allows(now_s)]
        if not usable:
            return None
        self._turn += 1  # equals take turns
        start = self._turn % len(usable)
        turns = usable[start:] + usable[:start]
        return min(turns, key=lambda r: (not r.is_healthy, r.plain + r.background))

    @contextmanager
    def call(self, replica: Replica, *, is_background: bool) -> Iterator[None]:
        """Counts a call for as long as it is under way."""
        replica.breaker.called(time.monotonic())
        if is_background:
            replica.background += 1
        else:
            replica.plain += 1
        try:
            yield
        finally:
            if is_background:
                replica.background -= 1
            else:
                replica.plain -= 1

    def background_slots(self) -> int:
        """How many background calls may be under way in all: what plain calls, present or reserved, leave.

        While every replica is left alone there is none, and jobs wait in the queue; a replica that is being
        tried again has one.
        """
        now_s = time.monotonic()
        slots = 0
        for replica in self.replicas:
            if not replica.breaker.allows(now_s):
                slots += replica.background  # these run already
            elif replica.breaker.state(now_s) is BreakerState.PROBING:
                slots += replica.background + 1
            else:
                slots += max(0, self._capacity - max(self._reserved, replica.plain))
        return slots
