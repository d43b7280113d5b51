"""The events of one run on their way to the store: collected, committed, then shown.

A store that cannot take them for a while is waited for; the backend is kept waiting with it, so that no more
than so much is in memory.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
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

    Nobody sees an event before its commit. Events are appended within `open`. A usual commit needs no task;
    after one that has failed, and before one that rewinds, there is one.
    """

    def __init__(self, claim: Claim, endings: Endings, unflushed: Unflushed, ticks: Ticks) -> None:
        self._claim = claim
        self._id = claim.id
        self._endings = endings
        self._followers = endings.followers
        self._settings = endings.settings
        self._unflushed = unflushed
        self._ticks = ticks
        self._next_seq = claim.job.next_seq
        self._rewind_to: int | None = None
        self._waiting: list[Append] = []
        self._committing: Append | None = None
        self._commit: asyncio.Future[None] | None = None  # the one that is under way, or the last one
        self._bytes = 0  # of what waits and what is being committed
        self._is_called_later = False
        self._is_over = False
        self._group: asyncio.TaskGroup | None = None
        self._helper: asyncio.Task[None] | None = None
        self._has_room = asyncio.Event()
        self._has_room.set()
        self._writing = asyncio.Lock()  # held by whoever waits for its own commit

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
        size = len(command.events)
        self._bytes += size
        self._unflushed.add(size)
        if self._bytes >= self._settings.unflushed_bytes_max:
            self._has_room.clear()
        if self._committing is None:
            self._call()

    def _call(self) -> None:
        """Commit what waits: now or, if nobody reads, at a tick or when a reader comes. What comes while a
        commit is under way waits for the next one."""
        if self._is_busy or not self._waiting:
            return
        if (
            not self._ticks.wait_s
            or self._followers.is_watched(self._id)
            or self._bytes * 2 >= self._settings.unflushed_bytes_max
            or self._unflushed.is_half_full
        ):
            self._send()
        elif not self._is_called_later:
            self._is_called_later = True
            self._ticks.call(self._due)

    def _due(self) -> None:
        self._is_called_later = False
        if self._waiting and not self._is_busy:
            self._send()

    @property
    def _is_busy(self) -> bool:
        """Whether whoever is at work sees to what waits."""
        return self._committing is not None or self._writing.locked() or self._helper is not None

    @property
    def has_room(self) -> bool:
        """Whether `room` would not wait."""
        return self._has_room.is_set() and self._unflushed.has_room

    async def room(self) -> None:
        """Wait while too much is not yet committed, of this run or of all, so that the backend waits too."""
        await self._has_room.wait()
        await self._unflushed.room()

    @contextmanager
    def open(self, group: asyncio.TaskGroup) -> Iterator[None]:
        """Take events within the block.

        Args:
            group: Fails by ClaimLost if somebody else has the job, and by StoreUnavailable if that lasts for
                too long: what was not committed is lost then, and the run is over.
        """
        self._group = group
        try:
            with self._followers.arrivals(self._id, self._due):
                yield
        finally:
            self._group = None
            if self._helper is not None:
                self._helper.cancel()

    def _get_help(self) -> None:
        # Without a group the run is over: whoever ends it sees to what waits, if anybody does.
        if self._group is not None:
            self._helper = self._group.create_task(self._help(), name=f"commit-{self._id}")

    async def _help(self) -> None:
        await self._until_stored(self.flush)
        self._helper = None
        self._call()

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

    # -- commits

    def _send(self) -> None:
        """Ask the store for a commit of all that waits."""
        if self._rewind_to is not None:
            self._get_help()
            return
        block = _joined(self._waiting)
        self._commit = self._endings.store.append(
            self._claim, self._next_seq, block.count, block.events, has_output=block.has_output
        )
        self._commit.add_done_callback(self._committed)
        self._committing = block
        self._waiting.clear()

    def _committed(self, commit: asyncio.Future[None]) -> None:
        """It is over."""
        block, self._committing = self._committing, None
        assert block is not None
        if commit.cancelled() or commit.exception() is not None:
            self._waiting.insert(0, block)
            if self._is_over:
                self._drop()
            elif self._helper is None:
                self._get_help()
            return
        first_seq, self._next_seq = self._next_seq, self._next_seq + block.count
        self._forget(len(block.events))
        if self._waiting:
            self._call()
        self._endings.observer.events.inc(block.count)
        self._followers.committed(self._id, first_seq, block.count, block.events, is_end=False)

    async def flush(self) -> None:
        """Commit what is waiting, now.

        Raises:
            ClaimLost: Somebody else has the job now.
            StoreUnavailable: It is waiting still.
        """
        try:
            async with self.quiet():
                await self._flush()
        except StoreUnavailable:
            self._call()  # after a rewind that failed there is no commit yet that would see to what waits
            raise

    async def _flush(self) -> None:
        await self._rewind()
        if not self._waiting:
            return
        self._send()
        assert self._commit is not None
        await asyncio.wait((self._commit,))  # if nobody waits for it any more, it is made all the same
        self._commit.result()

    async def finish(self, outcome: Outcome) -> None:
        """Commit what is left together with the ending.

        Raises:
            ClaimLost, StoreUnavailable: The job has not ended by this.
        """
        await self._until_stored(functools.partial(self._finish, outcome))

    async def stop(self, ending: Callable[[], Outcome]) -> None:
        """End it from outside, within `quiet`: commit what is left, and an ending that is made then.

        Args:
            ending: Makes it; large ones of several runs one after the other.

        Raises:
            ClaimLost, StoreUnavailable: The job has not ended by this.
        """
        await self._flush()
        await self._unflushed.room()
        await self._end(ending())

    @asynccontextmanager
    async def quiet(self) -> AsyncIterator[None]:
        """Hold off commits: none is under way within the block, and none begins but those that it makes."""
        async with self._writing:
            while self._committing is not None:
                assert self._commit is not None
                await asyncio.wait((self._commit,))
            yield
        self._call()

    async def _finish(self, outcome: Outcome) -> None:
        async with self.quiet():
            await self._end(outcome)

    async def _rewind(self) -> None:
        if self._rewind_to is not None:
            await self._endings.store.rewind(self._claim, self._rewind_to)
            self._next_seq, self._rewind_to = self._rewind_to, None

    async def _end(self, outcome: Outcome) -> None:
        await self._rewind()
        left = _joined(self._waiting)
        whole = replace(
            outcome,
            first_seq=self._next_seq,
            events=left.events + outcome.events,
            event_count=left.count + outcome.event_count,
        )
        size = len(outcome.events) + len(outcome.final)
        self._unflushed.add(size)
        try:
            await self._endings.commit(self._claim, whole)
        finally:
            self._unflushed.remove(size)
        self._drop()

    def discard(self) -> None:
        """The run is over: what is left is never committed, but for what is being committed."""
        self._is_over = True
        self._drop()

    def _drop(self) -> None:
        size = sum(len(command.events) for command in self._waiting)
        self._waiting.clear()
        self._forget(size)

    def _forget(self, size: int) -> None:
        """So many bytes need not wait any more."""
        self._bytes -= size
        self._unflushed.remove(size)
        if self._bytes < self._settings.unflushed_bytes_max:
            self._has_room.set()


def _joined(commands: list[Append]) -> Append:
    if len(commands) == 1:
        return commands[0]
    return Append(
        b"".join(command.events for command in commands),
        sum(command.count for command in commands),
        any(command.has_output for command in commands),
    )
