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
from typing import Protocol

from gateway.observe import Observer

_LOOKS = 6
"""Checks per `after_s`, so a silence is reported at most a sixth of it late."""


class BackendWait(Protocol):
    """A run, as far as it waits for its backend.

    Attributes:
        since_s: Since when, by the monotonic clock; None while it does not.
        is_told: That wait was named in the log.
    """

    response_id: str
    backend: str
    since_s: float | None
    is_told: bool


class Silence:
    """All runs.

    Args:
        after_s: A shorter silence is nothing to speak of.
    """

    def __init__(self, after_s: float, observer: Observer) -> None:
        self._after_s = after_s
        self._observer = observer
        self._all: set[BackendWait] = set()

    @contextmanager
    def watched(self, waiting: BackendWait) -> Iterator[None]:
        """For as long as it runs; it says itself since when it waits."""
        self._all.add(waiting)
        try:
            yield
        finally:
            self._all.discard(waiting)

    async def run(self) -> None:
        """Look and tell, until cancelled."""
        while True:
            await asyncio.sleep(self._after_s / _LOOKS)
            self.look()

    def look(self) -> None:
        """Name those that are new, and count."""
        now_s, silent = time.monotonic(), Counter[str]()
        for waiting in self._all:
            silence_s = 0.0 if waiting.since_s is None else now_s - waiting.since_s
            if silence_s < self._after_s:
                waiting.is_told = False
                continue
            silent[waiting.backend] += 1
            if not waiting.is_told:
                waiting.is_told = True
                self._observer.job_silent(waiting.response_id, silence_s)
        self._observer.jobs_silent(silent)
