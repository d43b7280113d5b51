"""Common moments at which runs commit the events that nobody waits for, so that they share commits.

With moments of their own, a thousand runs with one event a second made a thousand commits a second.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

_TICKS_A_WAIT = 8
"""Ticks per wait: an event is committed up to an eighth of the wait early. With fewer ticks, more runs would
be written at once and hold up the event loop for longer."""


class Ticks:
    """Calls many callbacks at once, at the ticks that they share.

    Args:
        wait_s: Longest wait. 0: no wait.
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
