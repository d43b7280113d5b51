"""Which store the settings name, and how it is opened: the only place that knows that there are several."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass

from gateway.config import StoreSettings
from gateway.observe import Observer
from gateway.store.port import JobStore
from gateway.store.refused import DatabaseRefused


@dataclass(frozen=True, slots=True)
class Described:
    """Where a store is, and by which SQLite (None: by none)."""

    database: str
    sqlite: str | None


async def open_store(settings: StoreSettings, observer: Observer) -> JobStore:
    """It must be closed.

    Raises:
        DatabaseInUse, DatabaseUnreachable, DatabaseRefused, StoreUnavailable: It cannot be used.
    """
    if not settings.is_shared:
        from gateway.store.sqlite.store import SqliteStore

        return await SqliteStore.open(settings, observer)
    try:
        from gateway.store.postgres.store import PostgresStore
    except ModuleNotFoundError as error:
        if error.name != "asyncpg":
            raise
        raise DatabaseRefused("store.url needs the package asyncpg: install backburner[postgres]") from None
    return await PostgresStore.open(settings, observer)


def described(settings: StoreSettings) -> Described:
    """For the log."""
    if settings.is_shared:
        return Described("postgresql", None)
    return Described(str(settings.database), sqlite3.sqlite_version)
