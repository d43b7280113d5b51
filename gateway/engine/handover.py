"""From one process to the next: what is done with live jobs at a start and at a stop."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from contextlib import suppress

from gateway.config import BackgroundSettings
from gateway.core.job import Claim, ClaimLost, StoreUnavailable, may_run
from gateway.core.reason import Reason
from gateway.core.transcript import Abandoned
from gateway.engine.endings import Endings
from gateway.observe import Observer, line
from gateway.store.port import ClaimStore, LeaseStore

_SHUT_DOWN = Abandoned(
    "The gateway was shut down before the response was complete; the output so far is kept.",
    Reason.SHUTDOWN,
)


_BEAT_S = 2.0
_AGAIN_S = 0.5
"""Seconds to the next beat after one that failed."""
_STOP_AFTER_S = 5.0
"""Seconds without a successful beat; then this process stops the runs that others may soon take over."""
_DEAD_AFTER_S = 6.5


class Lease:
    """Renews the lease of this process, and frees the jobs of processes whose lease has run out.

    Freed jobs are claimed again; the sweeper ends those that must not run again.

    Args:
        lost: Stops every run, and returns their claims: others have the jobs, but for what was claimed since.
        unsure: Stops the runs that others may soon begin again, and returns their claims.
    """

    def __init__(
        self, store: LeaseStore, lost: Callable[[], Sequence[Claim]], unsure: Callable[[], Sequence[Claim]]
    ) -> None:
        self._store = store
        self._lost = lost
        self._unsure = unsure
        self._stopped: list[Claim] = []
        self._until_s = time.monotonic() + _STOP_AFTER_S
        self._has_failed = False

    async def run(self) -> None:
        """Renew it, until cancelled."""
        while True:
            await asyncio.sleep(_AGAIN_S if self._has_failed else _BEAT_S)
            await self.renew()

    async def renew(self) -> None:
        """One beat."""
        asked_s, self._has_failed = time.monotonic(), True
        try:
            if await self._store.beat():
                self._until_s = asked_s + _STOP_AFTER_S
            else:
                self._stopped += self._lost()
            await self._give_back()
            await self._store.abandon(dead_after_s=_DEAD_AFTER_S)
            self._has_failed = False
        except StoreUnavailable as error:
            line("store_unavailable", level=logging.ERROR, doing="renew the lease", reason=str(error))
        if time.monotonic() > self._until_s:
            self._stopped += self._unsure()

    async def _give_back(self) -> None:
        """Release stopped runs that nobody took; their attempts do not count. Raises: StoreUnavailable."""
        while self._stopped:
            with suppress(ClaimLost):
                await self._store.release(self._stopped[-1], attempts_returned=1)
            self._stopped.pop()


async def hand_over(
    claims: list[Claim], store: ClaimStore, endings: Endings, settings: BackgroundSettings, observer: Observer
) -> None:
    """At shutdown, after the runs have stopped: return silent jobs to the queue, without counting their
    attempt, and fail the others with the output so far."""
    for stopped in claims:
        try:
            claim = await store.take_over(stopped.id, epoch=stopped.epoch)
            if claim is None:
                continue
            job, most = claim.job, settings.handed_over_max
            if not may_run(job.attempt, most, is_rerunnable=job.is_rerunnable, output_shown=job.output_shown):
                await endings.end_claimed(claim, _SHUT_DOWN)
                continue
            await store.release(claim, attempts_returned=1)
        except ClaimLost:
            continue
        except StoreUnavailable as error:  # as after a crash, the next start sees to it
            line("store_unavailable", level=logging.ERROR, doing="hand over", reason=str(error))
            continue
        except Exception:  # a defect that one job brings to light must not keep others from being handed over
            line("defect", level=logging.ERROR, id=stopped.id, exc_info=True)
            continue
        observer.job_released(claim.id, "shutdown", 0)
