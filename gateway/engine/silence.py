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

from gateway.observe import Observer

_LOOKS = 6
"""In the time after which a silence is told of."""


class Waiting:
    """One run.

    Attributes:
        since_s: Since when it waits for its backend, by the monotonic clock; None while it works.
        is_told: It was named.
    """

    __slots__ = ("backend", "is_told", "response_id", "since_s")

    def __init__(self, response_id: str, backend: str) -> None:
        self.response_id = response_id
        self.backend = backend
        self.since_s: float | None = None
        self.is_told = False


class Silence:
    """All runs.

    Args:
        after_s: A shorter silence is nothing to speak of.
    """

    def __init__(self, after_s: float, observer: Observer) -> None:
        self._after_s = after_s
        self._observer = observer
        self._all: set[Waiting] = set()

    @contextmanager
    def watched(self, response_id: str, backend: str) -> Iterator[Waiting]:
        """For as long as it runs; it says itself when it waits."""
        waiting = Waiting(response_id, backend)
        self._all.add(waiting)
        try:
            yield waiting
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
