"""How a connection is opened, made ready, and given work: one hop to its thread for a whole function."""

from __future__ import annotations

import functools
import sqlite3
from collections.abc import Callable
from typing import TypeVar

import aiosqlite

from gateway.config import StoreSettings
from gateway.store.sqlite.connection import migrate, prepare_reader, prepare_writer
from gateway.store.sqlite.file import FileCondition

T = TypeVar("T")


class _Connection(sqlite3.Connection):
    """Calls a function that it is given to trace with, once.

    aiosqlite passes each call on to the connection's thread, at 30 µs a hop. So a whole transaction makes one
    hop, by a method that takes a function.
    """

    def set_trace_callback(self, trace_callback: Callable[[sqlite3.Connection], None], /) -> None:  # type: ignore[override]
        trace_callback(self)


async def on_thread(
    connection: aiosqlite.Connection | None, operation: Callable[[sqlite3.Connection], T]
) -> T:
    """Run a function with the raw connection, on the thread of that."""
    if connection is None:
        raise ValueError("no connection")
    results: list[T] = []
    await connection.set_trace_callback(lambda raw: results.append(operation(raw)))
    return results[0]


async def connect_writer(settings: StoreSettings, known: FileCondition) -> aiosqlite.Connection:
    """A connection that writes. Raises: DatabaseRefused, sqlite3.Error."""
    # Never made here: an empty one would be taken for all there was.
    connection = await _connect(settings, "rw")
    return await _prepared(connection, functools.partial(prepare_writer, settings=settings, known=known))


async def upgrade(settings: StoreSettings) -> None:
    """Bring a file of an earlier release up to date, by a connection of its own. Raises: see `migrate`."""
    connection = await _connect(settings, "rw")
    try:
        await on_thread(connection, functools.partial(migrate, path=settings.database))
    finally:
        await connection.close()


async def connect_reader(
    settings: StoreSettings, known: FileCondition = FileCondition.OURS
) -> aiosqlite.Connection:
    """Another connection that reads. Raises: DatabaseRefused, sqlite3.Error."""
    connection = await _connect(settings, "ro")
    return await _prepared(connection, functools.partial(prepare_reader, path=settings.database, known=known))


async def _connect(settings: StoreSettings, mode: str) -> aiosqlite.Connection:
    uri = f"{settings.database.absolute().as_uri()}?mode={mode}"
    return await aiosqlite.connect(
        uri, uri=True, isolation_level=None, timeout=settings.busy_timeout_s, factory=_Connection
    )


async def _prepared(
    connection: aiosqlite.Connection, prepare: Callable[[sqlite3.Connection], None]
) -> aiosqlite.Connection:
    try:
        await on_thread(connection, prepare)
    except BaseException:  # its thread would keep the process alive
        await connection.close()
        raise
    return connection
