"""Keeps the store in order: late and lost jobs are ended, expired ones purged."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator

from gateway import loop
from gateway.config import BackgroundSettings, StoreSettings
from gateway.core.backends import JobBackends
from gateway.core.job import StoreUnavailable
from gateway.core.reason import Reason
from gateway.core.transcript import Abandoned, DeadlinePassed, Stop
from gateway.engine.clock import Clock
from gateway.engine.endings import Endings
from gateway.observe import Observer, line
from gateway.store.port import SweepStore

INTERRUPTED = Abandoned(
    "The response was interrupted by a restart of the gateway; the output so far is kept.",
    Reason.RESTART,
)
BACKEND_GONE = Abandoned(
    "The backend that this response was accepted for is no longer configured.", Reason.BACKEND_REMOVED
)
_TICK_S = 1.0
_LIMIT = 100
_AT_ONCE = 8
"""Endings at a time: they share commits, and each may hold all events of a job in memory."""


class Sweeper:
    """One round a second for what must end, one in `sweep_interval_s` for what must go."""

    def __init__(
        self,
        store: SweepStore,
        backends: JobBackends,
        endings: Endings,
        clock: Clock,
        background: BackgroundSettings,
        settings: StoreSettings,
        observer: Observer,
    ) -> None:
        self._store = store
        self._backends = backends
        self._endings = endings
        self._clock = clock
        self._attempts_max = background.calls_max
        self._interval_ms = settings.sweep_interval_s * 1000
        self._observer = observer
        self._swept_at_ms = 0

    async def run(self) -> None:
        """Rounds, until cancelled. Neither waits for the other: a full store cannot end, but has to purge."""
        async with asyncio.TaskGroup() as group:
            for work in (self.end, self.purge):
                group.create_task(self._rounds(work), name=f"sweeper-{work.__name__}")

    async def _rounds(self, work: Callable[[], Awaitable[None]]) -> None:
        while True:
            try:
                await work()
            except StoreUnavailable as error:
                line("store_unavailable", level=logging.DEBUG, doing=work.__name__, reason=str(error))
            await loop.sleep(_TICK_S)  # what has come by the deadline is read before it is judged

    async def end(self) -> None:
        """End the jobs that are late, lost, or could not be ended before."""
        if (jumped_s := self._clock.resync()) is not None:
            self._observer.clock_jumped(jumped_s)
        now_ms = self._clock.now_ms()
        store, names = self._store, self._backends.names
        attempts_max = self._attempts_max
        await self._end_all(lambda limit: store.overdue(now_ms=now_ms, limit=limit), DeadlinePassed())
        await self._end_all(lambda limit: store.orphans(attempts_max=attempts_max, limit=limit), INTERRUPTED)
        await self._end_all(lambda limit: store.of_other_backends(names, limit=limit), BACKEND_GONE)
        for name in names:
            await self._end_what_waits_in_vain(name, now_ms)
        await self._endings.settle()

    async def purge(self) -> None:
        """Purge what has expired, if it is time to."""
        now_ms = self._clock.now_ms()
        if now_ms - self._swept_at_ms >= self._interval_ms:
            self._swept_at_ms = now_ms
            await self.sweep()

    async def _end_all(self, find: Callable[[int], Awaitable[list[str]]], ending: Stop) -> None:
        """End what is found, until nothing is, or nothing more can be ended: after a crash with thousands
        under way, too, nobody waits for the next round. What is owed an end already waits for that, and is in
        nobody's way.

        Args:
            find: Given how many, at most.
        """
        has_ended, owed = True, self._endings.owed
        while has_ended and (found := [each for each in await find(_LIMIT + len(owed)) if each not in owed]):
            waiting = iter(found)
            ended = await asyncio.gather(*(self._end_each(waiting, ending) for _ in range(_AT_ONCE)))
            has_ended = any(ended)

    async def _end_each(self, waiting: Iterator[str], ending: Stop) -> bool:
        ended = [await self._endings.try_to_end(response_id, ending) for response_id in waiting]
        return any(ended)

    async def _end_what_waits_in_vain(self, name: str, now_ms: int) -> None:
        """Jobs that have waited for long enough for a backend that nobody can reach."""
        backend = self._backends.get(name)
        if backend is None or backend.unreached_s < backend.retry_policy.down_wait_s:
            return
        accepted_before_ms = now_ms - int(backend.retry_policy.down_wait_s * 1000)
        ending = Abandoned(
            f"The backend could not be reached for {backend.unreached_s:.0f} s.", Reason.UNREACHABLE
        )
        store = self._store
        await self._end_all(
            lambda limit: store.waiting_since(accepted_before_ms, backend=name, limit=limit), ending
        )

    async def sweep(self) -> None:
        """Purge what has expired."""
        now_ms = self._clock.now_ms()
        if total := await self._store.sweep(now_ms=now_ms):
            await self._store.reclaim_space()
            self._observer.swept.inc(total)
