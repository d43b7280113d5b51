"""Writes a database that was deleted while it is open to its path again, and goes on with that.

The open connection still has all of it, and is the only one that ever will. It is copied whole, and nothing
is committed until every connection has the copy.
"""

from __future__ import annotations

import functools
import os
import sqlite3
from contextlib import AsyncExitStack, closing
from pathlib import Path

import aiosqlite

from gateway.config import StoreSettings
from gateway.store.sqlite.connector import connect_reader, connect_writer, on_thread
from gateway.store.sqlite.file import DatabaseLock, FileCondition, beside, sync_directory
from gateway.store.sqlite.location import FileLocation
from gateway.store.sqlite.read_connections import ReadConnections
from gateway.store.sqlite.writer import Writer


async def restore(
    settings: StoreSettings, lock: DatabaseLock, place: FileLocation, writer: Writer, readers: ReadConnections
) -> None:
    """Fill the place, which must be free for it.

    Raises:
        OSError, sqlite3.Error, DatabaseRefused, DatabaseInUse, StoreUnavailable: All is as it was.
    """

    async def go_on_with_a_copy(old: aiosqlite.Connection) -> aiosqlite.Connection:
        await on_thread(old, functools.partial(_copy, path=settings.database, lock=lock))
        async with AsyncExitStack() as stack:
            stack.callback(_take_back, settings.database, lock)
            writing = await connect_writer(settings, FileCondition.OURS)
            stack.push_async_callback(writing.close)
            reading: list[aiosqlite.Connection] = []
            while len(reading) < settings.readers:
                reading.append(await connect_reader(settings))
                stack.push_async_callback(reading[-1].close)
            stack.pop_all()
        place.settle()
        await readers.replace(reading)
        return writing

    await writer.replace(go_on_with_a_copy)
    lock.let_go_of_earlier()


def _copy(raw: sqlite3.Connection, path: Path, lock: DatabaseLock) -> None:
    """In one piece: a part of it never stands at the path."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    lock.renew()
    copy = beside(path, ".restored")
    copy.unlink(missing_ok=True)
    lock.hold(copy)
    try:
        with closing(sqlite3.connect(f"{copy.absolute().as_uri()}?mode=rw", uri=True)) as target:
            raw.backup(target)
        for suffix in ("-wal", "-shm"):  # of the old one
            beside(path, suffix).unlink(missing_ok=True)
        os.replace(copy, path)
    except BaseException:
        _take_back(copy, lock)
        raise
    sync_directory(path)


def _take_back(copy: Path, lock: DatabaseLock) -> None:
    copy.unlink(missing_ok=True)
    lock.let_go_of_the_last()
