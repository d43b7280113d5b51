"""How connections are opened and used: each by one call at a time, whole results only, and never cancelled in
the middle, which would leave an answer behind for the next one."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from typing import Any, TypeGuard, TypeVar
from weakref import WeakKeyDictionary

import asyncpg

from gateway.config import StoreSettings
from gateway.core.job import StoreUnavailable
from gateway.store.postgres.health import FAILURES, Health, State, is_crossed, is_lost
from gateway.store.postgres.queries import Query

T = TypeVar("T")

_CROSSED_MAX = 5
"""Attempts at an operation that fails because another gateway was in its way (a deadlock, say)."""


class PostgresConnector:
    """Opens connections of one gateway.

    Where the address names several hosts, it is one of those that take writes: a standby that was promoted
    is found without a word from anybody. The one that answered last is asked first, and connections to others
    are used no more: who was a primary may come back, and would show what it had then.

    Attributes:
        timeout_s: Longest wait for one answer.
    """

    def __init__(self, settings: StoreSettings, gateway_id: str) -> None:
        self._settings = settings
        assert settings.url is not None, "the settings name a database"
        self._urls = one_by_one(settings.url.get_secret_value())
        self._next = 0
        self._present = self._urls[0]
        self._urls_of: WeakKeyDictionary[asyncpg.Connection, str] = WeakKeyDictionary()
        self.name = f"backburner {gateway_id}"
        self.timeout_s = settings.busy_timeout_s

    async def connect(self, **session: str) -> asyncpg.Connection:
        """Args: session: More of its settings, where no pooler is between.

        Raises: OSError, asyncpg.PostgresError, asyncpg.InternalClientError, ValueError.
        """
        start, count = self._next, len(self._urls)
        for number in range(start, start + count):
            url = self._urls[number % count]
            try:
                connection = await self._connect(url, session)
            except BaseException as error:  # also that whoever asked has no time to wait for this one
                self._doubt(url)
                if number == start + count - 1 or not isinstance(error, FAILURES):
                    raise
            else:
                self._next = number % count
                self._present = self._urls_of[connection] = url
                return connection
        raise AssertionError("there is one at least")

    def drop(self, connection: asyncpg.Connection | None, error: BaseException | None = None) -> None:
        """It is of no more use. If its host has not answered in time, another one is asked first."""
        if connection is not None:
            connection.terminate()
            if isinstance(error, TimeoutError):
                self._doubt(self._urls_of.get(connection))

    def _doubt(self, url: str | None) -> None:
        if url == self._urls[self._next]:
            self._next = (self._next + 1) % len(self._urls)

    def is_usable(self, connection: asyncpg.Connection | None) -> TypeGuard[asyncpg.Connection]:
        """Whether it is open, and leads to the host that answered last."""
        return (
            connection is not None
            and not connection.is_closed()
            and self._urls_of.get(connection) == self._present
        )

    async def _connect(self, url: str, session: Mapping[str, str]) -> asyncpg.Connection:
        settings = self._settings
        return await asyncpg.connect(
            url,
            timeout=settings.connect_timeout_s,
            command_timeout=self.timeout_s,
            statement_cache_size=0 if settings.pooler else 200,
            server_settings={"application_name": self.name}
            if settings.pooler
            else {**self._session(), **session},
            target_session_attrs="read-write" if len(self._urls) > 1 else None,
        )

    def _session(self) -> dict[str, str]:
        """Nothing that this gateway began holds others up for long, whatever becomes of it. Statements are
        planned once, and by an index: also where a table was small when that was done, and is not now."""
        wait_ms = str(int(self.timeout_s * 500))  # before we give the answer up
        return {
            "application_name": self.name,
            "lock_timeout": wait_ms,
            "statement_timeout": str(int(self.timeout_s * 2000)),
            "idle_in_transaction_session_timeout": wait_ms,
            "jit": "off",
            "plan_cache_mode": "force_generic_plan",
            "enable_seqscan": "off",
        }


class Connections:
    """Some connections for whatever needs no order. One that fails is opened anew when it is needed next."""

    def __init__(self, connector: PostgresConnector, count: int, health: Health) -> None:
        self._connector = connector
        self._health = health
        self._free: asyncio.LifoQueue[asyncpg.Connection | None] = asyncio.LifoQueue()
        self._under_way: set[asyncio.Task[Any]] = set()
        self._is_closed = False
        for _ in range(count):
            self._free.put_nowait(None)

    async def all(self, query: Query, **given: Any) -> list[Any]:
        """The rows of a statement. Raises: StoreUnavailable."""
        values = query.values(given)
        return await self.use(lambda connection: connection.fetch(query.text, *values))

    async def one(self, query: Query, **given: Any) -> Any:
        """Its first row; None if there is none. Raises: StoreUnavailable."""
        values = query.values(given)
        return await self.use(lambda connection: connection.fetchrow(query.text, *values))

    async def transact(self, operation: Callable[[asyncpg.Connection], Awaitable[T]]) -> T:
        """Run `operation` in a transaction. It may run more than once.

        Raises:
            Exception: Whatever the operation raised; nothing of it was written.
            StoreUnavailable: It may have been written all the same, if the connection failed at its end.
        """

        async def whole(connection: asyncpg.Connection) -> T:
            async with connection.transaction():
                return await operation(connection)

        return await self.use(whole)

    async def use(self, operation: Callable[[asyncpg.Connection], Awaitable[T]]) -> T:
        """Run `operation`, which may run again on a new connection, to its end: also if whoever asked goes.

        Raises: as `transact`.
        """
        if self._is_closed:
            raise StoreUnavailable("the store is closed")
        task = asyncio.create_task(self._use(operation))
        self._under_way.add(task)
        task.add_done_callback(self._done)
        return await asyncio.shield(task)

    def _done(self, task: asyncio.Task[Any]) -> None:
        self._under_way.discard(task)
        if not task.cancelled():
            task.exception()  # whoever asked may have gone

    async def _use(self, operation: Callable[[asyncpg.Connection], Awaitable[T]]) -> T:
        connection = await self._free.get()
        was_open, crossed = connection is not None, 0
        try:
            while True:
                try:
                    if not self._connector.is_usable(connection):
                        self._connector.drop(connection)
                        connection = await self._connector.connect()
                    result = await operation(connection)
                except FAILURES as error:
                    if is_lost(error, connection) or connection is None:
                        self._connector.drop(connection, error)
                        connection = None
                        if was_open and not isinstance(error, TimeoutError):
                            was_open = False  # it was cut while nobody used it: a new one says how it is
                            continue
                        raise self._health.judge(error, is_lost=True) from None
                    if is_crossed(error) and (crossed := crossed + 1) < _CROSSED_MAX:
                        continue
                    raise self._health.judge(error, is_lost=False) from None
                self._health.become(State.OK)
                return result
        finally:
            self._free.put_nowait(connection)

    async def close(self) -> None:
        """Let what is under way end, then close."""
        self._is_closed = True
        if self._under_way:
            await asyncio.wait(self._under_way)
        while not self._free.empty():
            if (connection := self._free.get_nowait()) is not None:
                await closed(connection)


def one_by_one(url: str) -> list[str]:
    """The addresses of the hosts that one names, separated by commas. Each is asked by itself: together they
    would share one time limit, which the first, when it is gone, would use up."""
    scheme, _, rest = url.partition("://")
    # What follows the hosts is for each of them, and begins with the path, or without one with the query.
    place = re.split(r"[/?#]", rest, maxsplit=1)[0]
    user, at, hosts = place.rpartition("@")
    return [f"{scheme}://{user}{at}{host}{rest.removeprefix(place)}" for host in hosts.split(",")]


async def rows_of(connection: asyncpg.Connection, query: Query, **given: Any) -> list[Any]:
    """The rows of a statement, as a part of what `use` or `transact` runs."""
    rows: list[Any] = await connection.fetch(query.text, *query.values(given))
    return rows


async def closed(connection: asyncpg.Connection) -> None:
    """Close it, however it is."""
    with suppress(*FAILURES):
        await connection.close(timeout=1)
