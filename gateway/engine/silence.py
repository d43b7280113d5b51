"""Which backends say nothing to runs that wait for them: named in the log once, and counted.

It judges nothing. What ends a run that hears nothing is the backend's `idle_timeout_s`, which is long, since
a prompt may be; whoever carries the pager wants to know before.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from gateway.engine.exchange import Exchange
from gateway.observe import Observer

_LOOKS = 6
"""In the time after which a silence is told of."""


class Silence:
    """All runs.

    Args:
        after_s: A shorter silence is nothing to speak of.
    """

    def __init__(self, after_s: float, observer: Observer) -> None:
        self._after_s = after_s
        self._observer = observer
        self._all: set[Exchange] = set()

    @contextmanager
    def watched(self, exchange: Exchange) -> Iterator[None]:
        """For as long as it runs; it says itself since when it waits."""
        self._all.add(exchange)
        try:
            yield
        finally:
            self._all.discard(exchange)

    async def run(self) -> None:
        """Look and tell, until cancelled."""
        while True:
            await asyncio.sleep(self._after_s / _LOOKS)
            self.look()

    def look(self) -> None:
        """Name those that are new, and count."""
        now_s, silent = time.monotonic(), Counter[str]()
        for exchange in self._all:
            silence_s = 0.0 if exchange.since_s is None else now_s - exchange.since_s
            if silence_s < self._after_s:
                exchange.is_told = False
                continue
            silent[exchange.job.backend] += 1
            if not exchange.is_told:
                exchange.is_told = True
                self._observer.job_silent(exchange.job.id, silence_s)
        self._observer.jobs_silent(silent)
