"""The replicas of one backend: which of them gets the next call, and which are left alone for a while."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager

from yarl import URL

from gateway.config import UpstreamSettings
from gateway.core.retry import UNANSWERED, RetryPolicy, rest_s
from gateway.outbound.breaker import Breaker, BreakerState, Failures

_LOOK_AGAIN_S = 0.25
"""Seconds between two looks for a free replica: no bell rings when a breaker's time is over."""

Monotonic = Callable[[], float]


class Replica:
    """One server.

    Attributes:
        plain, background: Calls under way.
        is_healthy: What the last active check said; True where none is made.
        breaker: Trips by failures, for all calls.
        rest: Trips when the server says that it has no time, for background calls.
        put_offs: How often in a row it said so.
        unreached_since_s, unreached_until_s: Of the first and the last call that could not be made, with none
            since that could.
    """

    def __init__(self, url: str, settings: UpstreamSettings) -> None:
        self.url = url
        self.origin = URL(url).origin()
        self.breaker = Breaker(settings.breaker_open_s)
        self.failures = Failures(settings)
        self.rest = Breaker(settings.breaker_open_s)
        self.put_offs = 0
        self.unreached_since_s: float | None = None
        self.unreached_until_s = 0.0
        self.plain = 0
        self.background = 0
        self.is_healthy = True


class Pool:
    """The replicas of one backend, and what each has to do.

    Attributes:
        capacity: How many calls may be under way at each.

    Args:
        monotonic: Seconds from any start, that never go back.
    """

    def __init__(self, settings: UpstreamSettings, monotonic: Monotonic = time.monotonic) -> None:
        self._default_capacity = self.capacity = settings.concurrency_max
        self._kept_percent = settings.slots_kept_percent
        self._open_s = settings.breaker_open_s
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
        usable = [r for r in self.replicas if r.breaker.allows(now_s) and r not in tried]
        return self._least(usable)

    def pick_for_background(self, *, tried: Collection[Replica] = ()) -> Replica | None:
        """The same for a background call, which goes only where one of its slots is free."""
        return self._least([r for r in self._up() if r not in tried and r.background < self._slots(r)])

    async def room_for_background(self, *, tried: Collection[Replica] = ()) -> Replica | None:
        """As `pick_for_background`, but waits for a slot of a replica that is only busy. None if none takes
        jobs at the moment, or only such as have been tried."""
        while True:
            self._bell.clear()
            if (replica := self.pick_for_background(tried=tried)) is not None:
                return replica
            if all(replica in tried for replica in self._up()):
                return None
            try:
                async with asyncio.timeout(_LOOK_AGAIN_S):
                    await self._bell.wait()
            except TimeoutError:
                pass

    def _least(self, replicas: list[Replica]) -> Replica | None:
        if len(replicas) < 2:
            return replicas[0] if replicas else None
        self._turn += 1  # equals take turns
        start = self._turn % len(replicas)
        turns = replicas[start:] + replicas[:start]
        return min(turns, key=lambda r: (not r.is_healthy, r.plain + r.background))

    @property
    def is_down(self) -> bool:
        """Whether the breaker of no replica is closed."""
        now_s = self._now_s()
        return all(replica.breaker.state(now_s) is not BreakerState.CLOSED for replica in self.replicas)

    @property
    def unreached_s(self) -> float:
        """For how long none of them could be reached; 0 if one was, or none was tried. What nobody has tried
        since is not known: while the process is stopped, nobody does."""
        since = [replica.unreached_since_s for replica in self.replicas]
        known = [since_s for since_s in since if since_s is not None]
        if len(known) < len(since):
            return 0.0
        return max(replica.unreached_until_s for replica in self.replicas) - max(known)

    def _up(self) -> list[Replica]:
        """Those that jobs may be sent to.

        A doubtful replica is not tried with a job where another one is sure. Where none is, one job at a time
        finds out: the others stay in the queue.
        """
        now_s = self._now_s()
        usable = [r for r in self.replicas if r.rest.allows(now_s)]
        closed = [r for r in usable if r.breaker.state(now_s) is BreakerState.CLOSED]
        if closed:
            return [r for r in closed if r.is_healthy] or closed
        return [r for r in usable if r.breaker.allows(now_s)]

    def _is_tried(self, replica: Replica) -> bool:
        """Whether the replica is on trial: one call finds out whether it takes more."""
        now_s = self._now_s()
        closed = BreakerState.CLOSED
        return not (replica.breaker.state(now_s) is closed and replica.rest.state(now_s) is closed)

    def _slots(self, replica: Replica) -> int:
        if self._is_tried(replica):
            return replica.background + 1
        return max(0, self.capacity - max(self._reserved, replica.plain))

    def resize(self, capacity: int | None) -> None:
        """Let so many calls be under way at each replica, but `capacity_min` at least; None: as many as the
        settings say."""
        self.capacity = self._default_capacity if capacity is None else max(capacity, self.capacity_min)
        self._bell.set()

    @property
    def capacity_min(self) -> int:
        """With less, no background call could be made while plain ones have what is theirs."""
        return self._reserved + 1

    # -- what came of it

    @contextmanager
    def call(self, replica: Replica, *, is_background: bool) -> Iterator[None]:
        """Counts a call for as long as it is under way."""
        self.begin(replica, is_background=is_background)
        try:
            yield
        finally:
            self.end(replica, is_background=is_background)

    def begin(self, replica: Replica, *, is_background: bool) -> None:
        """A call begins; whoever says so also says when it has ended."""
        now_s = self._now_s()
        replica.breaker.called(now_s)
        if is_background:
            replica.rest.called(now_s)
            replica.background += 1
        else:
            replica.plain += 1

    def end(self, replica: Replica, *, is_background: bool) -> None:
        if is_background:
            replica.background -= 1
        else:
            replica.plain -= 1
        self._bell.set()

    def answered(self, replica: Replica, status: int, *, takes_jobs: bool) -> None:
        """The head of an answer has come.

        Args:
            takes_jobs: It was that of a background call, and the server has not sent it away.
        """
        now_s = self._now_s()
        replica.unreached_since_s = None
        is_failure = status in UNANSWERED
        replica.failures.answered(now_s, is_failure=is_failure)
        if is_failure:
            self._judge(replica, now_s)
        elif replica.breaker.state(now_s) is BreakerState.PROBING:
            replica.breaker.close()
            replica.failures.forgive()
        if takes_jobs and replica.rest.state(now_s) is not BreakerState.OPEN:
            replica.rest.close()
            replica.put_offs = 0

    def failed(self, replica: Replica, *, was_reached: bool) -> None:
        """A call did not get as far as an answer.

        Args:
            was_reached: There was a connection.
        """
        now_s = self._now_s()
        if not was_reached:
            replica.unreached_until_s = now_s
            if replica.unreached_since_s is None:
                replica.unreached_since_s = now_s
        replica.failures.unanswered(now_s)
        self._judge(replica, now_s)

    def put_off(self, replica: Replica, asked_s: float | None, retry_policy: RetryPolicy) -> float:
        """A server has no time for background calls, and perhaps said for how long. Returns the seconds that
        its jobs should wait; for about as long it gets no others."""
        now_s = self._now_s()
        if replica.rest.state(now_s) is not BreakerState.OPEN:  # else: one of many that it sent away together
            replica.put_offs += 1
        wait_s = retry_policy.put_off_s(asked_s, replica.put_offs - 1)
        replica.rest.trip(now_s + rest_s(wait_s))
        return wait_s

    def checked(self, replica: Replica, *, is_healthy: bool) -> None:
        """Take in the result of a health check.

        A healthy replica gets calls again, and the first one that is not answered opens the breaker again.
        Failures in a row stay counted: a server whose engine has died still lists its models, and each check
        would otherwise forgive all the calls that it broke off before.
        """
        now_s = self._now_s()
        replica.is_healthy = is_healthy
        if is_healthy:
            replica.unreached_since_s = None
            if replica.breaker.state(now_s) is BreakerState.PROBING:
                replica.breaker.close()
                replica.failures.forgive(but_one=True)
        else:
            replica.unreached_until_s = now_s
        self._bell.set()

    def _judge(self, replica: Replica, now_s: float) -> None:
        """Trip the breaker after a failed trial call, or after too many failures."""
        is_doubted = replica.breaker.state(now_s) is not BreakerState.CLOSED
        if is_doubted or replica.failures.are_too_many(now_s):
            replica.breaker.trip(now_s + self._open_s)

    def breaker_state(self, replica: Replica) -> BreakerState:
        return replica.breaker.state(self._now_s())

    def rests(self, replica: Replica) -> bool:
        """Whether it gets no background calls, having said that it has no time."""
        return replica.rest.state(self._now_s()) is BreakerState.OPEN

    def halted(self) -> str | None:
        """Why no job may be sent to any replica: `breaker`, calls failed, or `rest`, it said that it has no
        time."""
        closed = [r for r in self.replicas if self.breaker_state(r) is BreakerState.CLOSED]
        if not closed:
            return "breaker"
        return "rest" if all(self.rests(replica) for replica in closed) else None

    def background_slots(self) -> int:
        """How many background calls may be under way in all: what plain calls, present or reserved, leave.

        A replica that is not up gets no more than it has: while none is, jobs wait in the queue.
        """
        up = self._up()
        return sum(self._slots(r) if r in up else r.background for r in self.replicas)

    def slots_kept(self) -> int:
        """How many of these are for callers who have less than their share: of one alone, none."""
        slots = sum(self._slots(replica) for replica in self._up() if not self._is_tried(replica))
        return min(slots - 1, math.ceil(slots * self._kept_percent / 100)) if slots else 0
