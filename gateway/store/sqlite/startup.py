"""From a path to an open database: what is checked, what is made, and what is refused."""

from __future__ import annotations

import functools
import sqlite3
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from typing import TypeVar

import aiosqlite

from gateway.config import StoreSettings
from gateway.observe import Observer
from gateway.store.refused import DatabaseDamaged, DatabaseRefused, DatabaseUnreachable
from gateway.store.sqlite import schema
from gateway.store.sqlite.ballast import Ballast
from gateway.store.sqlite.connection import (
    damage,
    pepper_of,
    refused,
    schema_number,
)
from gateway.store.sqlite.connector import connect_reader, connect_writer, on_thread, upgrade
from gateway.store.sqlite.database import Database
from gateway.store.sqlite.file import DatabaseLock, FileCondition, make_file, set_aside
from gateway.store.sqlite.filesystem import unfit
from gateway.store.sqlite.health import Health, State
from gateway.store.sqlite.location import FileLocation
from gateway.store.sqlite.read_connections import ReadConnections
from gateway.store.sqlite.writer import Writer

T = TypeVar("T")


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
    reading: list[aiosqlite.Connection] = []
    async with AsyncExitStack() as stack:
        try:
            make_file(path, lock)
            known, is_checked = lock.known, True
            ballast = Ballast(settings)
            if known is not FileCondition.MAKING:
                # By one that only reads, before anything writes: what is refused stays as it was found. As it
                # is also the last one to be closed then, the log is not copied into the file.
                reading.append(await _with_room(lambda: connect_reader(settings, known), ballast))
                stack.push_async_callback(reading[0].close)
                is_checked = known is FileCondition.DAMAGED or path.stat().st_size <= settings.check_bytes_max
                if is_checked and (found := await on_thread(reading[0], damage)):
                    raise DatabaseDamaged(f"{path} is damaged: {found}")
                await on_thread(reading[0], pepper_of)
                if (number := await on_thread(reading[0], schema_number)) < schema.CURRENT.number:
                    await _with_room(lambda: upgrade(settings), ballast)
                    observer.store_upgraded(was=number, to=schema.CURRENT.number)
            writing = await _with_room(lambda: connect_writer(settings, known), ballast)
            stack.push_async_callback(writing.close)
            pepper = await on_thread(writing, pepper_of)
            while len(reading) < settings.readers:
                reading.append(await connect_reader(settings, known))
                stack.push_async_callback(reading[-1].close)
        except sqlite3.Error as error:
            raise refused(error, path, lock.known) from None
        except ValueError as error:
            raise DatabaseDamaged(f"{path} is damaged: {error}") from None
        lock.remember(FileCondition.OURS)
        health = Health(observer)
        if not ballast.make():
            health.worsen(State.FULL)
        place = FileLocation(path, settings.found_within_ms / 1000)
        place.settle()
        writer = Writer(writing, functools.partial(_connect_again, settings, place), health, observer)
        stack.pop_all()
    return Database(
        settings,
        lock,
        ballast,
        health,
        writer,
        ReadConnections(reading, health),
        place,
        observer,
        pepper,
        is_checked=is_checked,
    )


async def _with_room(connect: Callable[[], Awaitable[T]], ballast: Ballast) -> T:
    """Opening a log takes some room. On a full volume it is that of the ballast."""
    try:
        return await connect()
    except sqlite3.OperationalError:
        if not ballast.size:
            raise
    ballast.give_up()
    return await connect()


async def _connect_again(settings: StoreSettings, place: FileLocation) -> aiosqlite.Connection:
    if (lost := place.lost()) is not None:  # what lies there now is another one
        raise DatabaseUnreachable(f"{settings.database} was taken away: {lost}")
    return await connect_writer(settings, FileCondition.OURS)
