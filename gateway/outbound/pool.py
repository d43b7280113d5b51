"""The replicas of one backend: which of them gets the next call, and which are left alone for a while."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from enum import StrEnum

from yarl import URL

from gateway.config import UpstreamSettings

_LOOK_AGAIN_S = 0.25
"""Behind the bell of `room_for_background`: that a breaker's time is over rings nothing."""

Monotonic = Callable[[], float]


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
        """A call was answered."""
        self._failures = 0
        self._probe_since_s = None

    def failed(self, now_s: float) -> None:
        self._failures += 1
        self._opened_at_s = now_s
        self._probe_since_s = None

    def checked(self, now_s: float) -> None:
        """A health check was answered: calls may try again, and the first that fails opens it again.

        Failures in a row stay counted. A server whose engine has died goes on to list its models, and would
        otherwise be forgiven by each check for all the calls it broke off before.
        """
        if self.state(now_s) is BreakerState.PROBING:
            self._failures = self._failures_max - 1
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
    """The replicas of one backend, and what each has to do.

    Args:
        monotonic: Seconds from any start, that never go back.
    """

    def __init__(self, settings: UpstreamSettings, monotonic: Monotonic = time.monotonic) -> None:
        self._capacity = settings.concurrency_max
        self._reserved = settings.foreground_reserved
        self._now_s = monotonic
        self.replicas = [Replica(url, settings) for url in settings.urls]
        self._turn = 0
        self._bell = asyncio.Event()

    # -- which one

    def pick(self, *, tried: Collection[Replica] = ()) -> Replica | None:
        """The replica for the next plain call: healthy before not, then the one with the least to do.

        Args:
            tried: Those that this call has been to.
        """
        now_s = self._now_s()
        usable = [r for r in self.replicas if r not in tried and r.breaker.allows(now_s)]
        return self._least(usable)

    def pick_for_background(self, *, tried: Collection[Replica] = ()) -> Replica | None:
        """The same for a background call, which goes only where one of its slots is free."""
        return self._least([r for r in self._up() if r not in tried and r.background < self._slots(r)])

    async def room_for_background(self, *, tried: Collection[Replica] = ()) -> Replica | None:
        """As `pick_for_background`, but waits for a slot of a replica that is only busy. None if all that are
        up have been tried. With none up and none tried, waits for that, too."""
        while True:
            self._bell.clear()
            if (replica := self.pick_for_background(tried=tried)) is not None:
                return replica
            if tried and all(replica in tried for replica in self._up()):
                return None
            try:
                async with asyncio.timeout(_LOOK_AGAIN_S):
                    await self._bell.wait()
            except TimeoutError:
                pass

    def _least(self, replicas: list[Replica]) -> Replica | None:
        if not replicas:
            return None
        self._turn += 1  # equals take turns
        start = self._turn % len(replicas)
        turns = replicas[start:] + replicas[:start]
        return min(turns, key=lambda r: (not r.is_healthy, r.plain + r.background))

    @property
    def is_down(self) -> bool:
        """Whether there is no replica that calls are not kept from."""
        now_s = self._now_s()
        return all(replica.breaker.state(now_s) is not BreakerState.CLOSED for replica in self.replicas)

    def _up(self) -> list[Replica]:
        """Those that jobs may be sent to.

        A doubtful replica is not tried with a job where another one is sure. Where none is, one job at a time
        finds out, and fails if it is still so: the queue is neither lost in a minute nor held up for ever.
        """
        now_s = self._now_s()
        closed = [r for r in self.replicas if r.breaker.state(now_s) is BreakerState.CLOSED]
        if closed:
            return [r for r in closed if r.is_healthy] or closed
        return [r for r in self.replicas if r.breaker.allows(now_s)]

    def _slots(self, replica: Replica) -> int:
        if self.breaker_state(replica) is not BreakerState.CLOSED:
            return replica.background + 1
        return max(0, self._capacity - max(self._reserved, replica.plain))

    # -- what came of it

    @contextmanager
    def call(self, replica: Replica, *, is_background: bool) -> Iterator[None]:
        """Counts a call for as long as it is under way."""
        replica.breaker.called(self._now_s())
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
            self._bell.set()

    def failed(self, replica: Replica) -> None:
        """A call did not get as far as an answer."""
        replica.breaker.failed(self._now_s())

    def checked(self, replica: Replica, *, is_healthy: bool) -> None:
        """A health check has ended."""
        replica.is_healthy = is_healthy
        if is_healthy:
            replica.breaker.checked(self._now_s())
        self._bell.set()

    def breaker_state(self, replica: Replica) -> BreakerState:
        return replica.breaker.state(self._now_s())

    def background_slots(self) -> int:
        """How many background calls may be under way in all: what plain calls, present or reserved, leave.

        A replica that is not up gets no more than it has: while none is, jobs wait in the queue.
        """
        up = self._up()
        return sum(self._slots(r) if r in up else r.background for r in self.replicas)
