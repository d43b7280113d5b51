"""The events of one run on their way to the store: collected, committed, then shown.

A store that cannot take them for a while is waited for; the backend is kept waiting with it, so that no more
than so much is in memory.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace

from gateway import loop
from gateway.core.job import Claim, Outcome, StoreUnavailable
from gateway.core.transcript import Append
from gateway.engine.endings import Endings
from gateway.engine.ticks import Ticks

_RETRY_S = 0.25
"""Seconds between two attempts at a commit."""


class Unflushed:
    """Bytes of events, of all runs together, that wait for their commit.

    The limit of each run does not bound the process: ten thousand runs below it can fill the memory.
    """

    def __init__(self, bytes_max: int) -> None:
        self._bytes_max = bytes_max
        self._bytes = 0
        self._has_room = asyncio.Event()
        self._has_room.set()

    def add(self, size: int) -> None:
        self._bytes += size
        if self._bytes >= self._bytes_max:
            self._has_room.clear()

    def remove(self, size: int) -> None:
        self._bytes -= size
        if self._bytes < self._bytes_max:
            self._has_room.set()

    @property
    def has_room(self) -> bool:
        return self._has_room.is_set()

    @property
    def is_half_full(self) -> bool:
        return self._bytes * 2 >= self._bytes_max

    async def room(self) -> None:
        """Wait until there is some: whoever is woken first may take it all."""
        while not self._has_room.is_set():
            await self._has_room.wait()


class JobLog:
    """Commits what a run produces: at once for a response with readers, in larger pieces without.

    Nobody sees an event before its commit. `run` must be running while events are appended.
    """

    def __init__(self, claim: Claim, endings: Endings, unflushed: Unflushed, ticks: Ticks) -> None:
        self._claim = claim
        self._endings = endings
        self._followers = endings.followers
        self._settings = endings.settings
        self._unflushed = unflushed
        self._ticks = ticks
        self._next_seq = claim.job.next_seq
        self._rewind_to: int | None = None
        self._waiting: list[Append] = []
        self._waiting_bytes = 0
        self._has_some = asyncio.Event()  # that is to be committed now
        self._is_called_later = False
        self._has_room = asyncio.Event()
        self._has_room.set()
        self._writing = asyncio.Lock()

    @property
    def next_seq(self) -> int:
        """The number of the first event that is not stored yet."""
        return self._next_seq

    def rewind(self, seq: int) -> None:
        """Let the next commit begin with throwing away what is stored from `seq` on."""
        self._rewind_to = seq

    def append(self, command: Append) -> None:
        """Queue events for the next commit. It never waits, so no ending leaves out what was told before."""
        self._waiting.append(command)
        self._waiting_bytes += len(command.events)
        self._unflushed.add(len(command.events))
        if self._waiting_bytes >= self._settings.unflushed_bytes_max:
            self._has_room.clear()
        if not self._has_some.is_set():
            self._call()

    def _call(self) -> None:
        """Schedule the next commit: now or, if nobody reads, at a tick or when a reader comes."""
        if (
            not self._ticks.wait_s
            or self._followers.is_watched(self._claim.id)
            or self._waiting_bytes * 2 >= self._settings.unflushed_bytes_max
            or self._unflushed.is_half_full
        ):
            self._has_some.set()
        elif not self._is_called_later:
            self._is_called_later = True
            self._ticks.call(self._due)

    def _due(self) -> None:
        self._is_called_later = False
        if self._waiting:
            self._has_some.set()

    @property
    def has_room(self) -> bool:
        """Whether `room` would not wait."""
        return self._has_room.is_set() and self._unflushed.has_room

    async def room(self) -> None:
        """Wait while too much is not yet committed, of this run or of all, so that the backend waits too."""
        await self._has_room.wait()
        await self._unflushed.room()

    async def run(self) -> None:
        """Commit what has been appended, until cancelled.

        Raises:
            ClaimLost: Somebody else has the job now.
            StoreUnavailable: For too long; what was not committed is lost, and the run is over.
        """
        with self._followers.arrivals(self._claim.id, self._due):
            while True:
                await self._has_some.wait()
                await self._until_stored(self.flush)

    async def _until_stored(self, attempt: Callable[[], Awaitable[None]]) -> None:
        """Make attempts until one succeeds, for as long as the settings say. Raises: as the last attempt,
        which is made when the time is up: it may have been the process that stood still."""
        alarm, is_over = None, asyncio.Event()
        try:
            while True:
                try:
                    return await attempt()
                except StoreUnavailable:
                    if is_over.is_set():
                        raise
                alarm = alarm or loop.Alarm(self._settings.store_wait_s, is_over.set)
                await asyncio.sleep(_RETRY_S)
        finally:
            if alarm is not None:
                alarm.stop()

    async def flush(self) -> None:
        """Commit what is waiting, now.

        Raises:
            ClaimLost: Somebody else has the job now.
            StoreUnavailable: It is waiting still.
        """
        async with self._writing:
            await self._flush()

    async def _flush(self) -> None:
        waiting = self._waiting[:]
        if not waiting:
            return
        await self._rewind()
        events, count = _joined(waiting)
        has_output = any(command.has_output for command in waiting)
        await self._endings.store.append(self._claim, self._next_seq, count, events, has_output=has_output)
        first_seq, self._next_seq = self._next_seq, self._next_seq + count
        self._forget(len(waiting), len(events))
        self._endings.observer.events.inc(count)
        self._followers.committed(self._claim.id, first_seq, count, events, is_end=False)

    async def finish(self, outcome: Outcome) -> None:
        """Commit what is left together with the ending.

        Raises:
            ClaimLost, StoreUnavailable: The job has not ended by this.
        """
        await self._until_stored(functools.partial(self._finish, outcome))

    async def stop(self, ending: Callable[[], Outcome]) -> None:
        """End it from outside: commit what is left, and an ending that is made then.

        Args:
            ending: Makes it; large ones of several runs one after the other.

        Raises:
            ClaimLost, StoreUnavailable: The job has not ended by this.
        """
        await self._flush()
        await self._unflushed.room()
        await self._commit(ending())

    @asynccontextmanager
    async def quiet(self) -> AsyncIterator[None]:
        """Hold off commits: none is under way within the block, and none begins."""
        async with self._writing:
            yield

    async def _finish(self, outcome: Outcome) -> None:
        async with self._writing:
            await self._commit(outcome)

    async def _rewind(self) -> None:
        if self._rewind_to is not None:
            await self._endings.store.rewind(self._claim, self._rewind_to)
            self._next_seq, self._rewind_to = self._rewind_to, None

    async def _commit(self, outcome: Outcome) -> None:
        await self._rewind()
        waiting = self._waiting[:]
        events, count = _joined(waiting)
        whole = replace(
            outcome,
            first_seq=self._next_seq,
            events=events + outcome.events,
            event_count=count + outcome.event_count,
        )
        size = len(outcome.events) + len(outcome.final)
        self._unflushed.add(size)
        try:
            await self._endings.commit(self._claim, whole)
        finally:
            self._unflushed.remove(size)
        self._forget(len(waiting), len(events))

    def discard(self) -> None:
        """The run is over: what is left is never committed."""
        self._forget(len(self._waiting), self._waiting_bytes)

    def _forget(self, count: int, size: int) -> None:
        """The first `count` of what is waiting, of so many bytes, need not wait any more."""
        del self._waiting[:count]
        self._waiting_bytes -= size
        self._unflushed.remove(size)
        self._has_some.clear()
        if self._waiting:
            self._call()
        if self._waiting_bytes < self._settings.unflushed_bytes_max:
            self._has_room.set()


def _joined(commands: list[Append]) -> tuple[bytes, int]:
    return b"".join(command.events for command in commands), sum(command.count for command in commands)
