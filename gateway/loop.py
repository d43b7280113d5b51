"""Turns of the event loop: others get theirs while much is worked off, and its own delays are nobody else's
fault.

A process that was stopped (SIGSTOP, a paused container, a machine without time for it) finds its timers due
and its sockets full. Whoever was waited for may have answered long ago: so a timer that comes late judges
nothing, until what has arrived was read. All timeouts that blame somebody are made of what is here.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable
from types import TracebackType
from typing import Final

LATE_S: Final = 0.1
"""Lateness of a timer that is no more than work of the loop."""
GRACE_S: Final = 1.0
"""For reading, after a timer that was later than that."""

_PIECE_BYTES: Final = 2**10
_TURN_S: Final = 0.002


def lost_s(due_s: float) -> float:
    """Seconds that the loop has lost, where a timer that was due then comes only now; 0 if it is about in
    time."""
    late_s = asyncio.get_running_loop().time() - due_s
    return late_s if late_s > LATE_S else 0.0


async def sleep(seconds: float) -> None:
    """Sleep, and on after a halt, until the sockets have been read."""
    loop = asyncio.get_running_loop()
    due_s = loop.time() + seconds
    await asyncio.sleep(seconds)
    while lost_s(due_s) > 0:
        due_s = loop.time() + GRACE_S
        await asyncio.sleep(GRACE_S)


async def pieces(chunk: bytes) -> AsyncGenerator[bytes, None]:
    """What has arrived at once, in pieces, with turns for all others in between; to be looped over to its
    end."""
    if len(chunk) <= _PIECE_BYTES:
        yield chunk
        return
    since_s = time.perf_counter()
    for start in range(0, len(chunk), _PIECE_BYTES):
        yield chunk[start : start + _PIECE_BYTES]
        if time.perf_counter() - since_s > _TURN_S:
            await asyncio.sleep(0)
            since_s = time.perf_counter()


class Alarm:
    """Rings once when so much time has passed, unless it is stopped or started anew.

    One timer that looks at a clock: to start it anew costs next to nothing, as for each of thousands of
    reads.
    """

    __slots__ = ("_bearable_s", "_due_s", "_look_at_s", "_loop", "_ring", "_seconds", "_timer")

    def __init__(self, seconds: float, ring: Callable[[], None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._ring = ring
        self._bearable_s = LATE_S
        self._timer: asyncio.TimerHandle | None = None
        self.start(seconds)

    def start(self, seconds: float) -> None:
        """From now on, for so long."""
        self._seconds = seconds
        self._due_s = self._loop.time() + seconds
        if self._timer is not None and self._look_at_s > self._due_s:
            self.stop()
        if self._timer is None:
            self._look_when(self._due_s)

    def restart(self) -> None:
        """From now on, for as long as before."""
        self._due_s = self._loop.time() + self._seconds
        if self._timer is None:
            self._look_when(self._due_s)

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look_when(self, at_s: float) -> None:
        self._look_at_s = at_s
        self._timer = self._loop.call_at(at_s, self._look)

    def _look(self) -> None:
        self._timer = None
        now_s = self._loop.time()
        if now_s - self._look_at_s > self._bearable_s:
            # While the loop goes on to be late, at most by the grace, the second look is the last.
            self._bearable_s = GRACE_S
            self._due_s = max(self._due_s, now_s + min(GRACE_S, self._seconds))
        if now_s < self._due_s:
            self._look_when(self._due_s)
        else:
            self._ring()


class timeout:  # noqa: N801  used as asyncio's function is
    """As `asyncio.timeout`, by such an alarm."""

    def __init__(self, seconds: float | None) -> None:
        self._seconds = seconds
        self._alarm: Alarm | None = None
        self._inner = asyncio.timeout(None)

    async def __aenter__(self) -> timeout:
        await self._inner.__aenter__()
        self.start(self._seconds)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.start(None)
        await self._inner.__aexit__(kind, error, trace)

    def start(self, seconds: float | None) -> None:
        """From now on, for so long; None: for ever."""
        if self._alarm is not None and seconds is not None:
            self._alarm.start(seconds)
        elif self._alarm is not None:
            self._alarm.stop()
            self._alarm = None
        elif seconds is not None:
            self._alarm = Alarm(seconds, self._ring)

    def restart(self) -> None:
        """From now on, for as long as before."""
        if self._alarm is not None:
            self._alarm.restart()

    def _ring(self) -> None:
        self._inner.reschedule(asyncio.get_running_loop().time())
