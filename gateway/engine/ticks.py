"""Moments at which runs commit what nobody waits for: the same for all of them, so that they share commits.

With a moment for each, a thousand runs that have one event a second made a thousand commits a second.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

_TICKS_A_WAIT = 8
"""So a wait is up to an eighth shorter than it may be. With fewer ticks more runs would be written at once,
and hold up the event loop for longer."""


class Ticks:
    """Calls whoever waits, many at once.

    Args:
        wait_s: Nobody waits for longer. 0: nobody waits.
    """

    def __init__(self, wait_s: float) -> None:
        self.wait_s = wait_s
        self._grain_s = wait_s / _TICKS_A_WAIT
        self._waiting: dict[int, list[Callable[[], None]]] = {}

    def call(self, due: Callable[[], None]) -> None:
        """Have it called at the last tick within the wait. It must not raise."""
        loop = asyncio.get_running_loop()
        tick = int(loop.time() / self._grain_s) + _TICKS_A_WAIT
        if (waiting := self._waiting.get(tick)) is None:
            waiting = self._waiting[tick] = []
            loop.call_at(tick * self._grain_s, self._ring, tick)
        waiting.append(due)

    def _ring(self, tick: int) -> None:
        for due in self._waiting.pop(tick):
            due()
