"""Keeps the store in order: late and lost jobs are ended, expired ones purged."""

from __future__ import annotations

import asyncio
import logging

from gateway.config import BackgroundSettings, StoreSettings
from gateway.core.call import Backends
from gateway.core.job import StoreUnavailable
from gateway.core.machine import Abandoned, DeadlinePassed, Input
from gateway.engine.clock import Clock
from gateway.engine.closer import Closer
from gateway.observe import Observer, line
from gateway.store.port import JobStore

INTERRUPTED = Abandoned(
    "The response was interrupted by a restart of the gateway; the output so far is kept.",
    "interrupted_by_restart",
)
BACKEND_GONE = Abandoned(
    "The backend that this response was accepted for is no longer configured.", "backend_removed"
)
_TICK_S = 1.0
_LIMIT = 100


class Sweeper:
    """One round a second for what must end, one in `sweep_interval_s` for what must go.

    Args:
        unsettled: Jobs whose run or whose ending could not be stored, and the ending they should get.
    """

    def __init__(
        self,
        store: JobStore,
        backends: Backends,
        closer: Closer,
        unsettled: dict[str, Input],
        clock: Clock,
        background: BackgroundSettings,
        settings: StoreSettings,
        observer: Observer,
    ) -> None:
        self._store = store
        self._backends = backends
        self._closer = closer
        self._unsettled = unsettled
        self._clock = clock
        self._attempts_max = background.attempts_max if background.recovery == "rerun_if_silent" else 1
        self._interval_ms = settings.sweep_interval_s * 1000
        self._observer = observer
        self._swept_at_ms = 0

    async def run(self) -> None:
        """Rounds, until cancelled."""
        while True:
            try:
                await self.run_once()
            except StoreUnavailable as error:
                line("store_unavailable", level=logging.ERROR, doing="sweep", reason=str(error))
            await asyncio.sleep(_TICK_S)

    async def run_once(self) -> None:
        """One round."""
        now_ms = self._clock.now_ms()
        for response_id in await self._store.overdue(now_ms=now_ms, limit=_LIMIT):
            await self._closer.close(response_id, DeadlinePassed())
        for response_id in await self._store.orphans(attempts_max=self._attempts_max, limit=_LIMIT):
            await self._closer.close(response_id, INTERRUPTED)
        for response_id in await self._store.of_other_backends(self._backends.names, limit=_LIMIT):
            await self._closer.close(response_id, BACKEND_GONE)
        for response_id in list(self._unsettled):
            ending = self._unsettled.pop(response_id)  # before the call, which may note it anew
            try:
                await self._closer.close(response_id, ending)
            except StoreUnavailable:
                self._unsettled.setdefault(response_id, ending)
                raise
        if now_ms - self._swept_at_ms >= self._interval_ms:
            self._swept_at_ms = now_ms
            await self.sweep()

    async def sweep(self) -> None:
        """Purge what has expired, in pieces between which other commits get their turn."""
        total = 0
        while purged := await self._store.sweep(now_ms=self._clock.now_ms()):
            total += purged
        if total:
            await self._store.reclaim_space()
            self._observer.swept.inc(total)
