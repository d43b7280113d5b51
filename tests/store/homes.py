"""Where the store lies that is held against its model: a file of one process, or a database of several."""

from __future__ import annotations

import shutil
import sqlite3
import tempfile
from pathlib import Path
from typing import Any, Protocol

import asyncpg
from pydantic import SecretStr

from gateway.config import StoreSettings
from gateway.observe import Observer
from gateway.store.port import JobStore
from gateway.store.postgres.store import PostgresStore
from gateway.store.sqlite.store import SqliteStore


class Home(Protocol):
    """One that is empty when it is made.

    Attributes:
        illegal: What its own trigger raises.
        late_elsewhere_ms: How long after its deadline a job that another owner runs counts as overdue.
    """

    illegal: type[Exception]
    late_elsewhere_ms: int

    async def open(self) -> tuple[JobStore, JobStore]:
        """The stores of two owners."""

    async def leave(self, *, is_clean: bool) -> None:
        """The processes end, or are killed."""

    async def move(self, job: str, values: tuple[Any, ...]) -> None:
        """A statement past all code: status, end and expiry of a job. Raises: as `illegal`."""

    async def rows(self) -> set[str]:
        """Ids of all jobs that are there, seen or not."""

    async def close(self) -> None:
        """Nothing is left of it."""


class FileHome:
    illegal: type[Exception] = sqlite3.IntegrityError
    late_elsewhere_ms = 0

    def __init__(self) -> None:
        self._directory = tempfile.TemporaryDirectory()
        self._path = Path(self._directory.name) / "model.db"
        self._store: SqliteStore | None = None

    async def open(self) -> tuple[JobStore, JobStore]:
        # Not flushed to disk: what power loss does is not asked here, and it costs most of the time.
        options = StoreSettings(database=self._path, durability="process", readers=1)
        self._store = await SqliteStore.open(options, Observer())
        return self._store, SqliteStore(self._store._database, Observer())

    async def leave(self, *, is_clean: bool) -> None:
        """Killed, it leaves the file and its log as they lie: that is copied while the process goes on."""
        assert self._store is not None
        before, directory = self._path, Path(self._directory.name)
        self._path = directory / f"model-{len(list(directory.iterdir()))}.db"
        if is_clean:
            await self._store.close()
        for suffix in ("", "-wal"):
            if (left := before.with_name(before.name + suffix)).exists():
                shutil.copy(left, self._path.with_name(self._path.name + suffix))
        await self._store.close()

    async def move(self, job: str, values: tuple[Any, ...]) -> None:
        assert self._store is not None
        statement = "UPDATE job SET status = ?, finished_at_ms = ?, expires_at_ms = ? WHERE id = ?"
        await self._store._writer.ask(lambda raw: raw.execute(statement, (*values, job)) and None)

    async def rows(self) -> set[str]:
        assert self._store is not None
        return await self._store._read(lambda raw: {row["id"] for row in raw.execute("SELECT id FROM job")})

    async def close(self) -> None:
        if self._store is not None:
            await self._store.close()
        self._directory.cleanup()


class DatabaseHome:
    """A database, made empty at the first opening.

    Args:
        url: Nobody else uses it.
    """

    illegal: type[Exception] = asyncpg.CheckViolationError
    late_elsewhere_ms = 5000

    def __init__(self, url: str) -> None:
        self._url = url
        self._is_empty = False
        self._stores: list[PostgresStore] = []

    async def open(self) -> tuple[JobStore, JobStore]:
        if not self._is_empty:
            await self._ask("DROP SCHEMA IF EXISTS backburner CASCADE")
            self._is_empty = True
        options = StoreSettings(url=SecretStr(self._url), readers=1)
        self._stores = [await PostgresStore.open(options, Observer()) for _ in range(2)]
        first, second = self._stores
        return first, second

    async def leave(self, *, is_clean: bool) -> None:
        for store in self._stores:
            if not is_clean:
                store._membership.leave = _nothing  # type: ignore[method-assign]
            await store.close()

    async def move(self, job: str, values: tuple[Any, ...]) -> None:
        statement = (
            "UPDATE backburner.job SET status = $1, finished_at_ms = $2, expires_at_ms = $3 WHERE id = $4"
        )
        await self._ask(statement, *values, job)

    async def rows(self) -> set[str]:
        return {row["id"] for row in await self._ask("SELECT id FROM backburner.job")}

    async def _ask(self, statement: str, *values: Any) -> list[Any]:
        connection = await asyncpg.connect(self._url)
        try:
            found: list[Any] = await connection.fetch(statement, *values)
            return found
        finally:
            await connection.close()

    async def close(self) -> None:
        await self.leave(is_clean=True)


async def _nothing() -> None:
    """Who is killed says no farewell."""
