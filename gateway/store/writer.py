"""The one connection that writes: group commit, and every checkpoint.

Whatever is asked for while a commit runs goes into the next one, so that one fsync serves many jobs and the
wait is never longer than one commit. A batch is one function on the connection's thread: cancelling whoever
waits for it cannot leave half of it behind. One writer also keeps a known corruption of SQLite before 3.51.3
(two connections that write and checkpoint at once) out of reach.
"""

from __future__ import annotations

import asyncio
import functools
import sqlite3
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar, cast

import aiosqlite

from gateway.core.job import StoreUnavailable

T = TypeVar("T")
Operation = Callable[[sqlite3.Connection], Any]

_BATCH_MAX = 512


@dataclass(slots=True)
class _Asked:
    operation: Operation
    done: asyncio.Future[Any]
    result: Any = None
    error: BaseException | None = None


class Writer:
    """Runs operations on the writing connection, in the order asked, many to a transaction.

    Args:
        on_commit: Told the number of operations and the seconds of every commit.
    """

    def __init__(self, connection: aiosqlite.Connection, on_commit: Callable[[int, float], None]) -> None:
        self._connection = connection
        self._on_commit = on_commit
        self._asked: list[_Asked] = []
        self._bell = asyncio.Event()
        self._is_closing = False
        self._task = asyncio.create_task(self._run(), name="store-writer")

    async def ask(self, operation: Callable[[sqlite3.Connection], T]) -> T:
        """Run `operation` in a transaction; it is committed when this returns.

        Raises:
            Exception: Whatever the operation raised; nothing of it was written.
            StoreUnavailable: Nothing was written.
        """
        if self._is_closing:
            raise StoreUnavailable("the store is closed")
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._asked.append(_Asked(operation, future))
        self._bell.set()
        return cast(T, await future)

    async def outside_transaction(self, operation: Callable[[sqlite3.Connection], T]) -> T:
        """Run `operation` between two commits, for what SQLite allows in no transaction.

        Raises:
            StoreUnavailable: It failed.
        """
        try:
            return await on_thread(self._connection, operation)
        except sqlite3.Error as error:
            raise unavailable(error) from None

    async def close(self) -> None:
        """Commit what was asked for, then stop."""
        self._is_closing = True
        self._bell.set()
        await self._task

    async def _run(self) -> None:
        while not (self._is_closing and not self._asked):
            await self._bell.wait()
            self._bell.clear()
            while self._asked:
                batch, self._asked = self._asked[:_BATCH_MAX], self._asked[_BATCH_MAX:]
                started = time.perf_counter()
                failure: StoreUnavailable | None = None
                try:
                    await on_thread(self._connection, functools.partial(_commit, batch))
                except sqlite3.Error as error:
                    failure = unavailable(error)
                self._on_commit(len(batch), time.perf_counter() - started)
                for asked in batch:
                    _answer(asked, failure)


def _answer(asked: _Asked, failure: StoreUnavailable | None) -> None:
    if asked.done.done():  # whoever asked has gone; what was asked for has happened all the same
        return
    error = failure or asked.error
    if error is None:
        asked.done.set_result(asked.result)
    else:
        asked.done.set_exception(error)


def _commit(batch: list[_Asked], connection: sqlite3.Connection) -> None:
    # IMMEDIATE: a deferred transaction that reads and then writes fails at once when it meets another writer.
    connection.execute("BEGIN IMMEDIATE")
    try:
        for asked in batch:
            connection.execute("SAVEPOINT operation")
            try:
                asked.result = asked.operation(connection)
            except Exception as error:
                if isinstance(error, sqlite3.Error) and not isinstance(error, sqlite3.IntegrityError):
                    raise  # the file's fault, and so everybody's
                connection.execute("ROLLBACK TO operation")  # this one's own fault: the others go on
                asked.error = error
            connection.execute("RELEASE operation")
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def unavailable(error: sqlite3.Error) -> StoreUnavailable:
    """What the rest of the gateway gets to see of it."""
    return StoreUnavailable(f"{type(error).__name__}: {error}")


async def on_thread(connection: aiosqlite.Connection, operation: Callable[[sqlite3.Connection], T]) -> T:
    """Run a function with the raw connection on its own thread, in one hop.

    aiosqlite has a public call for each statement, a hop of 20 µs each; for a whole function only this.
    """
    raw = connection._conn
    return cast(T, await connection._execute(operation, raw))  # type: ignore[no-untyped-call]
