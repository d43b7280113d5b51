"""How a connection is opened, and made ready."""

from __future__ import annotations

import functools
import sqlite3
from collections.abc import Callable

import aiosqlite

from gateway.config import StoreSettings
from gateway.store.sqlite.connection import prepare_reader, prepare_writer
from gateway.store.sqlite.file import Known
from gateway.store.sqlite.writer import on_thread


async def connect_writer(settings: StoreSettings, known: Known) -> aiosqlite.Connection:
    """A connection that writes. Raises: DatabaseRefused, sqlite3.Error."""
    connection = await _connect(
        settings, "rw"
    )  # never made here: an empty one would be taken for all there was
    return await _prepared(connection, functools.partial(prepare_writer, settings=settings, known=known))


async def connect_reader(settings: StoreSettings, known: Known = Known.OURS) -> aiosqlite.Connection:
    """Another connection that reads. Raises: DatabaseRefused, sqlite3.Error."""
    connection = await _connect(settings, "ro")
    return await _prepared(connection, functools.partial(prepare_reader, path=settings.database, known=known))


async def _connect(settings: StoreSettings, mode: str) -> aiosqlite.Connection:
    uri = f"{settings.database.absolute().as_uri()}?mode={mode}"
    return await aiosqlite.connect(uri, uri=True, isolation_level=None, timeout=settings.busy_timeout_s)


async def _prepared(
    connection: aiosqlite.Connection, prepare: Callable[[sqlite3.Connection], None]
) -> aiosqlite.Connection:
    try:
        await on_thread(connection, prepare)
    except BaseException:  # its thread would keep the process alive
        await connection.close()
        raise
    return connection
