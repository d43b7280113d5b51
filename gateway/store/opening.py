"""From a path to an open database: what is checked, what is made, and what is refused."""

from __future__ import annotations

import functools
import sqlite3
from collections.abc import Callable
from contextlib import AsyncExitStack

import aiosqlite

from gateway.config import StoreSettings
from gateway.observe import Observer
from gateway.store.ballast import Ballast
from gateway.store.connection import (
    damage,
    pepper_of,
    prepare_reader,
    prepare_writer,
    refused,
)
from gateway.store.database import Database
from gateway.store.file import (
    DatabaseDamaged,
    DatabaseLock,
    DatabaseRefused,
    Known,
    make_file,
    set_aside,
)
from gateway.store.filesystem import unfit
from gateway.store.health import Health, State
from gateway.store.readers import Readers
from gateway.store.writer import Writer, on_thread


async def open_database(settings: StoreSettings, observer: Observer) -> Database:
    """Open the file, or make it.

    Raises:
        DatabaseInUse: Another process has it.
        DatabaseUnreachable: The disk is full, or reports errors.
        DatabaseDamaged: It was ours, and something happened to it.
        DatabaseRefused: It is not ours, of another version, readable by others, or lies where locks and
            flushes cannot be relied on.
    """
    path = settings.database
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    if reason := unfit(path.parent, allow_fuse=settings.allow_fuse):
        raise DatabaseRefused(f"{path} {reason}")
    lock = DatabaseLock(path)
    try:
        try:
            return await _open(settings, lock, observer)
        except DatabaseDamaged as error:
            if settings.on_corrupt == "refuse":
                todo = "restore it or move it away, or let store.on_corrupt: recreate do that"
                raise DatabaseDamaged(f"{error}; {todo}") from None
            observer.store_recreated(str(set_aside(path)), str(error))
            return await _open(settings, lock, observer)
    except BaseException:
        lock.release()
        raise


async def _open(settings: StoreSettings, lock: DatabaseLock, observer: Observer) -> Database:
    path = settings.database
    async with AsyncExitStack() as stack:
        try:
            make_file(path, lock)
            ballast = Ballast(settings)
            writing = await _connect_with_room(settings, ballast)
            stack.push_async_callback(writing.close)
            is_checked = lock.known is Known.DAMAGED or path.stat().st_size <= settings.check_bytes_max
            if is_checked and (found := await on_thread(writing, damage)):
                raise DatabaseDamaged(f"{path} is damaged: {found}")
            pepper = await on_thread(writing, pepper_of)
            reading = []
            for _ in range(settings.readers):
                reading.append(await connect_reader(settings))
                stack.push_async_callback(reading[-1].close)
        except sqlite3.Error as error:
            raise refused(error, path, lock.known) from None
        lock.remember(Known.OURS)
        health = Health(observer)
        if not ballast.make():
            health.worsen(State.FULL)
        writer = Writer(writing, functools.partial(_connect_writer, settings), health, observer)
        stack.pop_all()
    return Database(
        settings, lock, ballast, health, writer, Readers(reading, health), pepper, is_checked=is_checked
    )


async def _connect_with_room(settings: StoreSettings, ballast: Ballast) -> aiosqlite.Connection:
    """Opening a log takes some room. On a full volume it is that of the ballast."""
    try:
        return await _connect_writer(settings)
    except sqlite3.OperationalError:
        if not ballast.size:
            raise
    ballast.give_up()
    return await _connect_writer(settings)


async def _connect_writer(settings: StoreSettings) -> aiosqlite.Connection:
    timeout_s = settings.busy_timeout_s
    connection = await aiosqlite.connect(settings.database, isolation_level=None, timeout=timeout_s)
    return await _prepared(connection, functools.partial(prepare_writer, settings=settings))


async def connect_reader(settings: StoreSettings) -> aiosqlite.Connection:
    """Another connection that reads. Raises: sqlite3.Error."""
    uri, timeout_s = f"{settings.database.absolute().as_uri()}?mode=ro", settings.busy_timeout_s
    connection = await aiosqlite.connect(uri, uri=True, isolation_level=None, timeout=timeout_s)
    return await _prepared(connection, prepare_reader)


async def _prepared(
    connection: aiosqlite.Connection, prepare: Callable[[sqlite3.Connection], None]
) -> aiosqlite.Connection:
    try:
        await on_thread(connection, prepare)
    except BaseException:  # its thread would keep the process alive
        await connection.close()
        raise
    return connection
