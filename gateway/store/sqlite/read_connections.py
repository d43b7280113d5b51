"""The connections that read. Each read is one function on a thread, and gives a whole result: a cursor that
stayed open would pin an old state of the file, and with it the log."""

from __future__ import annotations

import functools
import sqlite3
import time
from collections.abc import Callable
from operator import attrgetter
from typing import TypeVar

import aiosqlite

from gateway.store.sqlite.connector import on_thread
from gateway.store.sqlite.health import Health

T = TypeVar("T")

_INTERRUPTED_AFTER_S = 1.0
"""Seconds after which a read may be interrupted. A shorter one cannot be what keeps the log from being
emptied."""


class _ReadConnection:
    def __init__(self, connection: aiosqlite.Connection) -> None:
        self.connection = connection
        self.waiting = 0
        self.since_s: float | None = None
        """When the read that it does at present began, by the monotonic clock."""

    def run(self, operation: Callable[[sqlite3.Connection], T], raw: sqlite3.Connection) -> T:
        self.since_s = time.monotonic()
        try:
            return operation(raw)
        finally:
            self.since_s = None


class ReadConnections:
    """Some connections; a read goes to the one with the least to do."""

    def __init__(self, connections: list[aiosqlite.Connection], health: Health) -> None:
        self._all = [_ReadConnection(connection) for connection in connections]
        self._apart: list[_ReadConnection] = []
        self._health = health

    async def read(self, operation: Callable[[sqlite3.Connection], T]) -> T:
        """Run `operation`. Raises: StoreUnavailable."""
        return await self._read(min(self._all, key=attrgetter("waiting")), operation)

    async def read_apart(
        self, connection: aiosqlite.Connection, operation: Callable[[sqlite3.Connection], T]
    ) -> T:
        """Run `operation`, which takes long, on a connection of its own, and close that.

        Raises:
            StoreUnavailable: Also if it stood in the way for too long.
        """
        reader = _ReadConnection(connection)
        self._apart.append(reader)
        try:
            return await self._read(reader, operation)
        finally:
            self._apart.remove(reader)
            await connection.interrupt()  # whoever waited for it may have been cancelled
            await connection.close()

    async def _read(self, reader: _ReadConnection, operation: Callable[[sqlite3.Connection], T]) -> T:
        reader.waiting += 1
        try:
            return await on_thread(reader.connection, functools.partial(reader.run, operation))
        except (sqlite3.Error, ValueError) as error:
            raise self._health.judge(error, was_reading=True) from None
        finally:
            reader.waiting -= 1

    async def interrupt_oldest(self) -> bool:
        """Break off the read that has been under way for longest; False if none has been for long."""
        oldest, since_s = None, time.monotonic() - _INTERRUPTED_AFTER_S
        for reader in (*self._all, *self._apart):
            if reader.since_s is not None and reader.since_s < since_s:
                oldest, since_s = reader, reader.since_s
        if oldest is not None:
            await oldest.connection.interrupt()
        return oldest is not None

    async def replace(self, connections: list[aiosqlite.Connection]) -> None:
        """Read by these from now on; reads that are under way end first."""
        old, self._all = self._all, [_ReadConnection(connection) for connection in connections]
        for reader in old:
            await reader.connection.close()

    async def close(self) -> None:
        await self.replace([])
