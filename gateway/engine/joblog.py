"""The events of one run on their way to the store: collected, committed, then shown."""

from __future__ import annotations

import asyncio
from dataclasses import replace

from gateway.config import BackgroundSettings
from gateway.core.job import Claim, Outcome
from gateway.core.machine import Append
from gateway.engine.clock import Clock
from gateway.engine.followers import Followers
from gateway.observe import Observer
from gateway.store.port import JobStore


class Unflushed:
    """How much of all runs together waits for its commit.

    The bounds of single runs do not bound the process: ten thousand of them stay far below theirs.
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
    def is_half_full(self) -> bool:
        return self._bytes * 2 >= self._bytes_max

    async def room(self) -> None:
        """Wait until there is some."""
        await self._has_room.wait()


class JobLog:
    """Commits what a run produces: at once for a response with readers, in larger pieces without.

    Nobody sees an event before its commit. `run` must be running while events are appended.
    """

    def __init__(
        self,
        claim: Claim,
        store: JobStore,
        followers: Followers,
        clock: Clock,
        settings: BackgroundSettings,
        observer: Observer,
        unflushed: Unflushed,
    ) -> None:
        self._unflushed = unflushed
        self._claim = claim
        self._store = store
        self._followers = followers
        self._clock = clock
        self._settings = settings
        self._observer = observer
        self._next_seq = claim.job.next_seq
        self._waiting: list[Append] = []
        self._waiting_bytes = 0
        self._has_some = asyncio.Event()
        self._has_room = asyncio.Event()
        self._has_room.set()
        self._writing = asyncio.Lock()
        self.has_output = False
        """Some of what was appended is output."""

    async def append(self, command: Append) -> None:
        """Take events in; waits while too much is not yet committed, so that the backend waits too."""
        self._waiting.append(command)
        self.has_output = self.has_output or command.has_output
        self._waiting_bytes += len(command.events)
        self._unflushed.add(len(command.events))
        self._has_some.set()
        if self._waiting_bytes >= self._settings.unflushed_bytes_max:
            self._has_room.clear()
            await self._has_room.wait()
        await self._unflushed.room()

    async def run(self) -> None:
        """Commit what has been appended, until cancelled.

        Raises:
            ClaimLost: Somebody else has the job now.
            StoreUnavailable: What was being committed is lost; the run is over.
        """
        with self._followers.arrivals(self._claim.id) as arrival:
            while True:
                await self._has_some.wait()
                if not self._followers.is_watched(self._claim.id):
                    await self._linger(arrival)
                await self.flush()

    async def _linger(self, arrival: asyncio.Event) -> None:
        """Nobody can have seen these events: wait for more, until a reader comes or the time is up."""
        arrival.clear()
        if self._waiting_bytes * 2 >= self._settings.unflushed_bytes_max or self._unflushed.is_half_full:
            return
        try:
            async with asyncio.timeout(self._settings.flush_ms / 1000):
                await arrival.wait()
        except TimeoutError:
            pass

    async def _commit(self) -> None:
        events, count, has_output = self._take()
        if not count:
            return
        first_seq, self._next_seq = self._next_seq, self._next_seq + count
        try:
            await self._store.append(self._claim, first_seq, count, events, has_output=has_output)
        finally:
            self._unflushed.remove(len(events))
        self._observer.events.inc(count)
        self._followers.committed(self._claim.id, first_seq, count, events, is_end=False)

    async def flush(self) -> None:
        """Commit what is waiting, now. Raises: as `run`."""
        async with self._writing:
            await self._commit()

    async def finish(self, outcome: Outcome) -> None:
        """Commit what is left together with the ending.

        Raises:
            ClaimLost, StoreUnavailable: The job has not ended by this.
        """
        async with self._writing:
            events, count, _ = self._take()
            whole = replace(
                outcome,
                first_seq=self._next_seq,
                events=events + outcome.events,
                event_count=count + outcome.event_count,
            )
            now_ms = self._clock.now_ms()
            expires_at_ms = now_ms + int(self._settings.retention_s * 1000)
            try:
                await self._store.finish(self._claim, whole, now_ms=now_ms, expires_at_ms=expires_at_ms)
            finally:
                self._unflushed.remove(len(events))
        self._observer.events.inc(whole.event_count)
        self._followers.committed(
            self._claim.id, whole.first_seq, whole.event_count, whole.events, is_end=True
        )

    def discard(self) -> None:
        """The run is over: what is left is never committed."""
        events, *_ = self._take()
        self._unflushed.remove(len(events))

    def _take(self) -> tuple[bytes, int, bool]:
        taken, self._waiting = self._waiting, []
        self._waiting_bytes = 0
        self._has_some.clear()
        self._has_room.set()
        return (
            b"".join(command.events for command in taken),
            sum(command.count for command in taken),
            any(command.has_output for command in taken),
        )
