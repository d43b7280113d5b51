"""The one connection that writes: group commit, and every checkpoint.

Whatever is asked for while a commit runs goes into the next one, so that one fsync serves many jobs. Events
alone wait a moment for more of them. A batch is one function on the connection's thread: cancelling whoever
waits for it cannot leave half of it behind. One writer also keeps a known corruption of SQLite before 3.51.3
(two connections that write and checkpoint at once) out of reach.
"""

from __future__ import annotations

import asyncio
import functools
import sqlite3
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, TypeVar, cast

import aiosqlite

from gateway.core.job import ClaimLost, StoreUnavailable
from gateway.observe import Observer
from gateway.store.rows import Appended
from gateway.store.sqlite.connection import fence
from gateway.store.sqlite.connector import on_thread
from gateway.store.sqlite.health import Health, State, is_everybodys, state_after
from gateway.store.sqlite.operations import append

T = TypeVar("T")
Operation = Callable[[sqlite3.Connection], Any]

# A batch is committed when it has this much: what is in it waits for all of it.
_BATCH_OPERATIONS_MAX = 512
_BATCH_BYTES_MAX = 2**20
_BATCH_S_MAX = 0.010
"""Of the thread's own time: on a busy machine, more commits would make matters worse."""
_REST_MAX_S = 0.005
"""Seconds. After a commit events wait for as long as it took, but no longer than this or until something else
is asked for. Commit upon commit fills a core however little is written, and holds up whoever makes events."""


@dataclass(slots=True)
class _Asked:
    operation: Operation
    size: int
    done: asyncio.Future[Any]
    run: Appended | None = None  # events that can be stored together with those of others
    is_settled: bool = False
    result: Any = None
    error: BaseException | None = None


class Writer:
    """Runs operations on the writing connection, in the order asked, many to a transaction.

    Args:
        connection: The first one.
        connect: Opens the next one, if the disk fails under this one: such a connection is never used again.
    """

    def __init__(
        self,
        connection: aiosqlite.Connection,
        connect: Callable[[], Awaitable[aiosqlite.Connection]],
        health: Health,
        observer: Observer,
    ) -> None:
        self._connection: aiosqlite.Connection | None = connection
        self._connect = connect
        self._health = health
        self._observer = observer
        self._loop = asyncio.get_running_loop()
        self._asked: deque[_Asked] = deque()
        self.waiting_bytes = 0
        """What waits for its commit."""
        self._bell = asyncio.Event()
        self._reopening = asyncio.Lock()
        self._may_commit = asyncio.Event()
        self._may_commit.set()
        self._is_closing = False
        self._holds_events = False
        self._resting: asyncio.TimerHandle | None = None
        self._task = asyncio.create_task(self._run(), name="store-writer")

    def append(self, run: Appended) -> asyncio.Future[None]:
        """Store the next events of a run, with those of others. Raises: ClaimLost, StoreUnavailable."""
        return self._ask(functools.partial(_append_alone, run), len(run.events), run)

    async def ask(self, operation: Callable[[sqlite3.Connection], T], size: int = 0) -> T:
        """Run `operation` in a transaction; it is committed when this returns.

        Args:
            operation: May run more than once: if there is no room for all of a batch, it is tried in parts.
            size: Bytes that it writes, about.

        Raises:
            Exception: Whatever the operation raised; nothing of it was written.
            StoreUnavailable: Nothing was written.
        """
        return cast(T, await self._ask(operation, size))

    def _ask(self, operation: Operation, size: int, run: Appended | None = None) -> asyncio.Future[Any]:
        done: asyncio.Future[Any] = self._loop.create_future()
        try:
            if self._is_closing:
                raise StoreUnavailable("the store is closed")
            self._health.require_below(State.FAILING)
        except StoreUnavailable as why:
            done.set_exception(why)
            return done
        self._asked.append(_Asked(operation, size, done, run))
        self.waiting_bytes += size
        if run is None or not self._holds_events:
            self._bell.set()
        return done

    async def outside_transaction(self, operation: Callable[[sqlite3.Connection], T]) -> T:
        """Run `operation` between two commits, for what SQLite allows in no transaction.

        Raises:
            StoreUnavailable: It failed.
        """
        self._health.require_below(State.FAILING)
        await self._may_commit.wait()
        try:
            return await on_thread(self._connection, operation)
        except (sqlite3.Error, OSError, ValueError) as error:
            raise self._health.judge(error) from None

    async def reopen(self) -> None:
        """Put a new connection in place of one that failed. What had been acknowledged is there; what had
        not, is not, and never will be.

        Raises:
            sqlite3.Error, DatabaseRefused, DatabaseUnreachable: It fails still.
        """
        async with self._reopening:
            old, self._connection = self._connection, None
            if old is not None:
                with suppress(sqlite3.Error):
                    await old.close()
            new = await self._connect()
            try:
                await on_thread(new, fence)
            except BaseException:
                with suppress(sqlite3.Error):
                    await new.close()
                raise
            self._connection = new

    async def replace(self, make: Callable[[aiosqlite.Connection], Awaitable[aiosqlite.Connection]]) -> None:
        """Put another connection in place of this one: the one that `make` makes of it. Nothing is committed
        meanwhile; what is asked for waits.

        Raises:
            Exception: Whatever `make` raised; all is as it was.
        """
        async with self._reopening:
            old = self._connection
            if old is None:
                raise StoreUnavailable("it has failed, and is not open")
            self._may_commit.clear()
            try:
                self._connection = await make(old)
            finally:
                self._may_commit.set()
        await old.close()

    async def finish(self) -> None:
        """Commit what was asked for, and take nothing more."""
        self._is_closing = True
        self._bell.set()
        await self._task

    async def close(self, last: Operation) -> None:
        """Run `last`, whether or not it can be done, and close the connection."""
        if self._connection is not None:
            with suppress(sqlite3.Error):
                await on_thread(self._connection, last)
            with suppress(sqlite3.Error):
                await self._connection.close()

    async def _run(self) -> None:
        while not (self._is_closing and not self._asked):
            await self._bell.wait()
            self._bell.clear()
            await self._may_commit.wait()
            if self._asked:
                self._hold_events()
                started_s = time.perf_counter()
                await self._commit(self._next_batch())
                self._resting = self._loop.call_later(
                    min(time.perf_counter() - started_s, _REST_MAX_S), self._rested
                )

    def _hold_events(self) -> None:
        """Until the commit is over, and for as long again: see `_REST_MAX_S`."""
        self._holds_events = True
        if self._resting is not None:
            self._resting.cancel()

    def _rested(self) -> None:
        self._holds_events = False
        if self._asked:
            self._bell.set()

    def _next_batch(self) -> list[_Asked]:
        batch: list[_Asked] = []
        size = 0
        while self._asked and len(batch) < _BATCH_OPERATIONS_MAX and size < _BATCH_BYTES_MAX:
            asked = self._asked.popleft()
            size += asked.size
            batch.append(asked)
        if self._asked:
            self._bell.set()
        return batch

    async def _commit(self, batch: list[_Asked]) -> None:
        failure: StoreUnavailable | None = None
        started = time.perf_counter()
        try:
            self._health.require_below(State.FAILING)  # it may have failed while these waited
            await on_thread(self._connection, functools.partial(_commit, batch))
        except StoreUnavailable as error:
            failure = error
        except Exception as error:  # whatever it is: nobody may wait for ever
            failure = self._health.judge(error)
            if self._health.state is State.FAILING:
                # At once, and before anybody is told: after a flush that failed, the batch lies in the log as
                # if it were committed. Even a fence that fails in its turn has written over it.
                with suppress(Exception):  # whatever it is: upkeep tries again, and nobody may wait for ever
                    await self.reopen()
        if failure is None:
            while not batch[-1].is_settled:  # there was no time for these
                self._asked.appendleft(batch.pop())
                self._bell.set()
        self._observer.committed(len(batch), time.perf_counter() - started)
        for asked in batch:
            self.waiting_bytes -= asked.size
            self._answer(asked, asked.error if asked.is_settled else failure)

    def _answer(self, asked: _Asked, error: BaseException | None) -> None:
        if asked.done.done():  # whoever asked has gone; what was asked for has happened all the same
            return
        if error is None:
            asked.done.set_result(asked.result)
        elif isinstance(error, sqlite3.Error) and not isinstance(error, sqlite3.IntegrityError):
            asked.done.set_exception(self._health.judge(error))
        else:
            asked.done.set_exception(error)


def _append_alone(run: Appended, raw: sqlite3.Connection) -> None:
    if not append(raw, [run]):
        raise ClaimLost


def _commit(batch: list[_Asked], connection: sqlite3.Connection) -> None:
    """Settle the first operations of a batch, as many as there is time for.

    Without room SQLite rolls all of a transaction back. Then it is tried by halves, so that what fits is
    written, and only what does not fit fails.
    """
    try:
        _transaction(batch, connection)
    except _SpoiltError:
        _commit(batch, connection)
    except sqlite3.Error as error:
        if state_after(error) is not State.FULL:
            raise
        if len(batch) == 1:
            batch[0].error, batch[0].is_settled = error, True
            return
        half = len(batch) // 2
        _commit(batch[:half], connection)
        if batch[half - 1].is_settled:
            _commit(batch[half:], connection)


def _transaction(batch: list[_Asked], connection: sqlite3.Connection) -> None:
    started_s, deadline_s = time.thread_time(), time.perf_counter() + _BATCH_S_MAX
    count = 0
    # IMMEDIATE: a deferred transaction that reads and then writes fails at once when it meets another writer.
    connection.execute("BEGIN IMMEDIATE")
    try:
        for group in _groups(batch):
            _run_all(group, connection)
            count += len(group)
            # The second question costs ten times the first.
            if time.perf_counter() > deadline_s and time.thread_time() - started_s > _BATCH_S_MAX:
                break
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
    for asked in batch[:count]:
        asked.is_settled = True


def _groups(batch: list[_Asked]) -> Iterable[list[_Asked]]:
    """Events of several jobs are written together, all else one after the other, in the order asked."""
    group: list[_Asked] = []
    jobs: set[str] = set()
    for asked in batch:
        job = asked.run.id if asked.run is not None else None
        if group and (job is None or job in jobs):
            yield group
            group, jobs = [], set()
        if job is None:
            yield [asked]
        else:
            group.append(asked)
            jobs.add(job)
    if group:
        yield group


def _run_all(group: list[_Asked], connection: sqlite3.Connection) -> None:
    """A group, without a savepoint if it is one of events: those are refused before anything is written.

    Raises:
        _SpoiltError: They were not; each is to be run alone.
    """
    runs = [asked.run for asked in group if asked.run is not None]
    if not runs:
        _run(group[0], connection)
        return
    try:
        stored = append(connection, runs)
    except Exception as error:
        if isinstance(error, sqlite3.Error) and is_everybodys(error):
            raise
        for asked in group:
            asked.run = None
        raise _SpoiltError from error
    for asked, run in zip(group, runs, strict=True):
        asked.error = None if run.id in stored else ClaimLost()


class _SpoiltError(Exception):
    """One of several runs whose events were written together has failed by its own fault."""


def _run(asked: _Asked, connection: sqlite3.Connection) -> None:
    """One operation, in a savepoint: one that fails by its own fault spoils nothing for the others."""
    asked.error = None
    connection.execute("SAVEPOINT operation")
    try:
        asked.result = asked.operation(connection)
    except Exception as error:
        if isinstance(error, sqlite3.Error) and is_everybodys(error):
            raise
        connection.execute("ROLLBACK TO operation")
        asked.error = error
    connection.execute("RELEASE operation")
