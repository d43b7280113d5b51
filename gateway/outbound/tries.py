"""Which replicas one call is sent to, one after the other, until one has answered.

A call that was not sent may go to any replica, the same one again included. One that was sent and cut goes to
another replica only if a client waits for it. All retries count against the backend's budget.
"""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass, field

from aiohttp.client import IDEMPOTENT_METHODS

from gateway.core.reason import Reason
from gateway.core.retry import RetryPolicy
from gateway.observe import Observer
from gateway.outbound.budget import RetryBudget
from gateway.outbound.pool import Pool, Replica


def is_as_if_unsent(method: str, *, is_used: bool, is_unsent: bool) -> bool:
    """Whether a plain call that broke off without an answer may be made again as if it had never been sent.

    It may if its method can be repeated safely (RFC 9110 §9.2.2; aiohttp's client does the same in the other
    lane, by the same table), or if the server had closed the connection before it had the request. Any other
    call may have begun, and is judged like every call that was broken off.

    Args:
        is_used: Its connection had served a call before, and may just have died.
        is_unsent: No byte of the request has reached the server, as far as TCP can tell.
    """
    return is_used and (is_unsent or method in IDEMPOTENT_METHODS)


@dataclass(slots=True)
class Failover:
    """The replicas that one call is sent to, one after the other.

    Args:
        rounds_max: How often all of them may be tried, if none can be reached.
        is_again: The whole call is a retry, and was paid for.
        first: Where it was sent already, and counted.
    """

    backend: str
    pool: Pool
    budget: RetryBudget
    retry_policy: RetryPolicy
    observer: Observer
    rounds_max: int
    is_background: bool
    is_again: bool = False
    first: Replica | None = None
    _round: int = 0
    _tried: list[Replica] = field(default_factory=list)
    _failed: Reason | None = None

    async def next(self) -> Replica | None:
        """The next one; None if there is none, or the call may not be made again. A background call waits for
        its turn there, a plain one goes at once."""
        failed, self._failed = self._failed, None
        if failed is not None:
            replica = await self._pick_another(failed)
        elif self._tried:
            return None  # it was answered
        elif self.first is not None:
            replica = self.first
        else:
            if not self.is_again:
                self.budget.called()
            replica = await self._pick()
        if replica is not None:
            self._tried.append(replica)
        return replica

    def failed(self, replica: Replica, reason: Reason) -> None:
        """It has not answered."""
        if self.is_background or reason is not Reason.TIMEOUT:  # how long a client waits is its own affair
            self.pool.failed(replica, was_reached=reason is not Reason.UNREACHABLE)
        self._failed = reason

    def put_off(self) -> None:
        """It has answered that it has no time."""
        self._failed = Reason.PUT_OFF

    async def _pick(self) -> Replica | None:
        if self.is_background:
            return await self.pool.room_for_background(tried=self._tried)
        return self.pool.pick(tried=self._tried)

    async def _pick_another(self, failed: Reason) -> Replica | None:
        if failed is Reason.TIMEOUT or (failed is Reason.CUT and self.is_background):
            return None  # it may have begun: whether a job is run again is not decided here
        if failed is Reason.PUT_OFF:  # the queue is as good a place to wait as any
            replica = self.pool.pick_for_background(tried=self._tried)
        else:
            replica = await self._pick()
        if replica is None and failed is Reason.UNREACHABLE and self._round + 1 < self.rounds_max:
            replica = await self._pick_again()
        if replica is None:
            return None
        if not self.budget.spend():
            self.observer.retry_refused(self.backend)
            return None
        self.observer.retried(self.backend, failed.short)
        return replica

    async def _pick_again(self) -> Replica | None:
        """All have been tried: once more, a little later."""
        if self.pool.is_down:
            return None
        await asyncio.sleep(self.retry_policy.backoff_s(self._round, random.random()))  # noqa: S311  not a secret
        self._round += 1
        self._tried.clear()
        return await self._pick()
