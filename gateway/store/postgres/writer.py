"""The one connection by which what happens to jobs is written, in the order asked: group commit.

Whatever is asked for while a commit runs goes into the next ones: the events of all runs by one statement,
other statements of one kind by one round trip. Each such group is a transaction of its own, and none is left
open between two round trips: a process that is stopped holds nobody's lock.

A connection may fail when a commit has been asked for and not confirmed. What became of it, the database is
asked when it is there again; until then whoever asked waits. So `StoreUnavailable` always means that nothing
was written.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Sequence
from typing import Any, TypeVar, cast

import asyncpg

from gateway.core.job import ClaimLost, StoreUnavailable
from gateway.observe import Observer
from gateway.store.postgres.batches import PendingStatement, Statement, columns, groups_of
from gateway.store.postgres.connections import PostgresConnector, closed
from gateway.store.postgres.health import Health, State, is_crossed, is_its_own, is_lost
from gateway.store.postgres.queries import QUERIES
from gateway.store.rows import Appended

T = TypeVar("T")

_BATCH_MAX = 512
_BATCH_BYTES_MAX = 2**20
_CROSSED_MAX = 5
_RECONNECT_S = 0.25


class Writer:
    """Runs statements on the writing connection.

    Args:
        waiting_bytes_max: New work that may wait for its commit; more is refused.
    """

    def __init__(
        self, connector: PostgresConnector, health: Health, observer: Observer, *, waiting_bytes_max: int
    ) -> None:
        self._connector = connector
        self._health = health
        self._observer = observer
        self._waiting_bytes_max = waiting_bytes_max
        self._connection: asyncpg.Connection | None = None
        self._old_pid: int | None = None
        self._pid: int | None = None
        self._failed_at_s = -_RECONNECT_S
        self._asked: deque[PendingStatement] = deque()
        self._waiting_bytes = 0
        self._bell = asyncio.Event()
        self._is_closing = False
        self._task = asyncio.create_task(self._run(), name="store-writer")

    def append(self, run: Appended) -> asyncio.Future[None]:
        """Store the next events of a run, with those of others. Raises: ClaimLost, StoreUnavailable."""
        return self._ask(run, len(run.events), run.id)

    async def accept(self, statement: Statement, kind: type[T]) -> T:
        """The same as `ask` for what is new: refused if too much is waiting already."""
        if self._waiting_bytes and self._waiting_bytes + statement.size > self._waiting_bytes_max:
            raise StoreUnavailable("too much is waiting to be written", "store_busy", "it is too slow")
        return await self.ask(statement, kind)

    async def ask(self, statement: Statement, kind: type[T]) -> T:
        """Run a statement; it is committed when this returns.

        Raises:
            Exception: Whatever its row says, or the statement broke; nothing of it was written.
            StoreUnavailable: Nothing was written.
        """
        return cast(T, await self._ask(statement, statement.size, statement.key))

    def _ask(self, work: Appended | Statement, size: int, key: str) -> asyncio.Future[Any]:
        asked = PendingStatement(work, asyncio.get_running_loop().create_future(), size, key)
        if self._is_closing:
            asked.refuse(StoreUnavailable("the store is closed"))
        else:
            self._asked.append(asked)
            self._waiting_bytes += size
            self._bell.set()
        return asked.done

    async def close(self) -> None:
        """Write what was asked for, as far as that can be done, and take nothing more."""
        self._is_closing = True
        self._bell.set()
        await self._task
        if self._connection is not None:
            await closed(self._connection)

    async def _run(self) -> None:
        while not (self._is_closing and not self._asked):
            await self._bell.wait()
            self._bell.clear()
            while self._asked:
                for group in groups_of(self._next_batch()):
                    await self._commit(group)

    def _next_batch(self) -> list[PendingStatement]:
        batch: list[PendingStatement] = []
        size = 0
        while self._asked and len(batch) < _BATCH_MAX and size < _BATCH_BYTES_MAX:
            asked = self._asked.popleft()
            size += asked.size
            self._waiting_bytes -= asked.size
            batch.append(asked)
        return batch

    async def _commit(self, group: list[PendingStatement]) -> None:
        started_s = time.perf_counter()
        try:
            connection = await self._connected()
        except Exception as error:  # whatever it is: nobody may wait for ever
            failure = self._health.judge(error, is_lost=True)
            for asked in group:
                asked.refuse(failure)
            return
        try:
            await self._perform(connection, group)
        except Exception as error:
            if is_lost(error, connection):
                self._drop(error)
                await self._settle(group)
            elif len(group) > 1:  # one of them has spoilt it for the others
                for asked in group:
                    await self._commit([asked])
                return
            else:
                await self._alone(group[0], error)
        self._observer.committed(len(group), time.perf_counter() - started_s)

    async def _perform(self, connection: asyncpg.Connection, group: list[PendingStatement]) -> None:
        """One transaction, by one round trip; all of them are answered, or none."""
        works = [asked.work for asked in group]
        if isinstance(works[0], Appended):
            runs = cast(Sequence[Appended], works)
            rows = await connection.fetch(QUERIES["append"].text, *columns(runs))
            stored = {row["id"] for row in rows}
            self._health.become(State.OK)
            for asked, run in zip(group, runs, strict=True):
                asked.answer(None) if run.id in stored else asked.refuse(ClaimLost())
            return
        statements = cast(Sequence[Statement], works)
        if len(statements) == 1:
            rows = await connection.fetch(statements[0].query.text, *statements[0].values)
        else:
            rows = await connection.fetchmany(statements[0].query.text, [each.values for each in statements])
        self._health.become(State.OK)
        for asked, row in zip(group, rows, strict=True):
            asked.answer_by(row)

    async def _alone(self, asked: PendingStatement, error: BaseException) -> None:
        """One that has failed by itself: again, if another gateway was in its way."""
        crossed = 0
        while is_crossed(error) and (crossed := crossed + 1) < _CROSSED_MAX:
            connection = self._connection
            assert connection is not None, "it was not lost"
            try:
                return await self._perform(connection, [asked])
            except Exception as again:
                error = again
                if is_lost(error, connection):
                    self._drop(error)
                    return await self._settle([asked])
        if not is_its_own(error):
            error = self._health.judge(error, is_lost=False)
        asked.refuse(error)
        return None

    # -- when the connection has failed

    async def _connected(self) -> asyncpg.Connection:
        if not self._connector.is_usable(self._connection):
            self._connector.drop(self._connection)
            if time.monotonic() - self._failed_at_s < _RECONNECT_S:
                raise ConnectionError("the database could not be reached a moment ago")
            try:
                self._connection = await self._connector.connect()
                await self._cut_off(self._connection)
            except Exception:
                self._drop(None)
                raise
            self._pid = self._connection.get_server_pid()
        return self._connection

    def _drop(self, error: BaseException | None) -> None:
        self._failed_at_s = time.monotonic()
        self._connector.drop(self._connection, error)
        self._connection = None
        if self._pid is not None:
            self._old_pid, self._pid = self._pid, None
        if error is not None:
            self._health.judge(error, is_lost=True)
            self._failed_at_s -= _RECONNECT_S  # one that was cut may be followed by another at once

    async def _cut_off(self, connection: asyncpg.Connection) -> None:
        """What was sent on the old connection has happened by now, or never will."""
        if self._old_pid is not None:
            query = QUERIES["cut_off"]
            given = {"pid": self._old_pid, "name": self._connector.name}
            await connection.fetch(query.text, *query.values(given))
            self._old_pid = None

    async def _settle(self, group: list[PendingStatement]) -> None:
        """Find out what became of a commit that nobody has confirmed; do what was not done."""
        while True:
            try:
                connection = await self._connected()
                rest = await self._undone(connection, group)
                break
            except Exception as error:
                if not is_lost(error, self._connection) and self._connection is not None:
                    for asked in group:
                        asked.refuse(self._health.judge(error, is_lost=False))
                    return
                self._connector.drop(self._connection, error)
                self._drop(None)
                if self._is_closing:
                    for asked in group:
                        asked.refuse(self._health.judge(error, is_lost=True))
                    return
            for waiting in self._asked:  # of these nothing was sent
                waiting.refuse(StoreUnavailable("it has failed", "store_failing", "it cannot be reached"))
            self._asked.clear()
            self._waiting_bytes = 0
            await asyncio.sleep(_RECONNECT_S)
        for asked in rest:
            if not asked.done.done():
                await self._commit([asked])

    async def _undone(
        self, connection: asyncpg.Connection, group: list[PendingStatement]
    ) -> list[PendingStatement]:
        await connection.fetch(QUERIES["fence"].text)
        works = [asked.work for asked in group]
        if isinstance(works[0], Appended):
            query = QUERIES["were_appended"]
            ids, epochs, _, nexts, _, _ = columns(cast(Sequence[Appended], works))
            given = {"ids": ids, "epochs": epochs, "nexts": nexts}
            rows = await connection.fetch(query.text, *query.values(given))
            stored = {row["id"] for row in rows}
            for asked in group:
                if asked.key in stored:
                    asked.answer(None)
            return [asked for asked in group if asked.key not in stored]
        rest = []
        for asked in group:
            settled = cast(Statement, asked.work).settled
            row = None if settled is None else await connection.fetchrow(settled[0].text, *settled[1])
            if row is None:
                rest.append(asked)
            else:
                asked.answer_by(row)
        return rest
