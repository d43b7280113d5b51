"""Fair turns of the event loop, and timeouts that do not blame a peer for the gateway's own halts.

After a halt (SIGSTOP, a paused container, an overloaded machine) timers are due and sockets are full: the
peer may have answered long ago. So no timeout fires before the sockets have been read. Every timeout that
blames a peer uses this module; delays that blame nobody (rounds, heartbeats, open breakers) use asyncio's
own.
"""

from __future__ import annotations

import asyncio
import functools
import math
import time
from collections import deque
from collections.abc import AsyncGenerator, Callable, Collection
from contextlib import suppress
from types import TracebackType
from typing import Any, ClassVar, Final
from weakref import WeakKeyDictionary

_LATE_S: Final = 0.1
"""Seconds. A timer that is later than this is late because of a halt, not because of normal work."""
_GRACE_S: Final = 1.0
"""Extra seconds after a halt: for reading the sockets, and for a round trip such as a handshake."""
_TURNS: Final = 4
"""Turns of the event loop before a timeout fires, as a halt may have ended just before it. The first turn
reads the sockets; the others carry what was read through the tasks to the one that waits for it."""

_PIECE_BYTES: Final = 2**10
_TURN_S: Final = 0.002


async def sleep(seconds: float) -> None:
    """Sleep, then wait until the sockets have been read: for callers that look at a clock afterwards."""
    over = asyncio.get_running_loop().create_future()
    alarm = Alarm(seconds, functools.partial(over.set_result, None))
    try:
        await over
    finally:
        alarm.stop()


async def are_done(tasks: Collection[asyncio.Future[Any]], seconds: float | None) -> bool:
    """Wait until all of them are done, for so long at most; None: for as long as it takes."""
    with suppress(TimeoutError):
        async with timeout(seconds):
            await asyncio.wait(tasks)
    return all(task.done() for task in tasks)


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
            await _Line.of_loop().turn()
            since_s = time.perf_counter()


class _Line:
    """A queue of the tasks that have more to work off. One of them goes on per turn of the event loop, so
    that a hundred of them delay all others no more than one does."""

    _lines: ClassVar[WeakKeyDictionary[asyncio.AbstractEventLoop, _Line]] = WeakKeyDictionary()

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._is_moving = False

    @classmethod
    def of_loop(cls) -> _Line:
        """That of the running loop."""
        loop = asyncio.get_running_loop()
        if (line := cls._lines.get(loop)) is None:
            line = cls._lines[loop] = cls(loop)
        return line

    async def turn(self) -> None:
        """Wait for one of one's own."""
        mine = self._loop.create_future()
        self._waiting.append(mine)
        if not self._is_moving:
            self._is_moving = True
            self._loop.call_soon(self._move)
        await mine

    def _move(self) -> None:
        while self._waiting:
            if not (first := self._waiting.popleft()).done():
                first.set_result(None)
                self._loop.call_soon(self._move)
                return
        self._is_moving = False


class Alarm:
    """Rings once when so much time has passed and the sockets were read, unless stopped or started anew.

    One timer that looks at a clock: to start it anew costs next to nothing, as for each of thousands of
    reads.
    """

    __slots__ = ("_bearable_s", "_due_s", "_look_at_s", "_loop", "_ring", "_seconds", "_timer")

    def __init__(self, seconds: float, ring: Callable[[], None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._ring = ring
        self._bearable_s = _LATE_S
        self._timer: asyncio.Handle | None = None
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
        now_s = self._loop.time()
        if now_s - self._look_at_s > self._bearable_s:
            # While the loop goes on to be late, at most by the grace, the second look is the last.
            self._bearable_s = _GRACE_S
            self._due_s = max(self._due_s, now_s + min(_GRACE_S, self._seconds))
            self._look_when(self._due_s)
        else:
            self._look_again(_TURNS)

    def _look_again(self, turns: int) -> None:
        if self._loop.time() < self._due_s:  # it was started anew
            self._bearable_s = _LATE_S
            self._look_when(self._due_s)
        elif turns:
            self._timer = self._loop.call_soon(self._look_again, turns - 1)
        else:
            self._timer = None
            self._ring()


class Ticker:
    """Rings again and again by such alarms, while there is something to look at: one for many that wait.

    They count its ticks, and look at no time: a halt of ours is one tick, and all of its time is nobody's.

    Args:
        look: Returns whether there is still something.
    """

    __slots__ = ("_alarm", "_look", "seconds")

    def __init__(self, seconds: float, look: Callable[[], bool]) -> None:
        self.seconds = seconds
        self._look = look
        self._alarm: Alarm | None = None

    def wake(self) -> None:
        """There is something."""
        if self._alarm is None:
            self._alarm = Alarm(self.seconds, self._ring)

    def stop(self) -> None:
        if self._alarm is not None:
            self._alarm.stop()
            self._alarm = None

    def ticks(self, seconds: float) -> int:
        """How many of them make up a time, at the least one more than begun."""
        return math.ceil(seconds / self.seconds) + 1

    def _ring(self) -> None:
        self._alarm = None
        if self._look():
            self.wake()


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
