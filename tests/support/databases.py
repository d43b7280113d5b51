"""A PostgreSQL for the tests of one process. Its databases are used again: each is some hundred files, which
take long to make, and minutes to delete at the end."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractContextManager, asynccontextmanager

import asyncpg
import pytest

from demo.postgres import Postgres, binaries, postgres

_CUT_OFF = """
SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity
WHERE datname = current_database() AND pid <> pg_backend_pid()
"""
"""Whoever is connected still: its locks would be waited for."""
_CLEAR = """
DO $$ DECLARE tables text; BEGIN
    SELECT string_agg(format('backburner.%I', tablename), ', ') INTO tables
    FROM pg_tables WHERE schemaname = 'backburner' AND tablename NOT IN ('migration', 'meta', 'drawer');
    IF tables IS NOT NULL THEN
        EXECUTE 'TRUNCATE ' || tables;
        DELETE FROM backburner.meta WHERE key LIKE 'note:%';
    END IF;
END $$
"""


class Databases:
    """Those of one server.

    Attributes:
        server: Where they are.
    """

    def __init__(self, server: Postgres) -> None:
        self.server = server
        self._empty: list[str] = []
        self._cleared: list[str] = []

    @asynccontextmanager
    async def empty(self) -> AsyncIterator[str]:
        """The URL of one in which there is nothing, for the block."""
        url = self._empty.pop() if self._empty else await self.server.new_database()
        yield url
        await _run(url, _CUT_OFF, "DROP SCHEMA IF EXISTS backburner CASCADE")
        self._empty.append(url)

    @asynccontextmanager
    async def cleared(self) -> AsyncIterator[str]:
        """The same; it may have tables, without rows. It must come back with tables as they should be."""
        url = self._cleared.pop() if self._cleared else await self.server.new_database()
        yield url
        await _run(url, _CUT_OFF, _CLEAR)
        self._cleared.append(url)


async def _run(url: str, *statements: str) -> None:
    connection = await asyncpg.connect(url)
    try:
        for statement in statements:
            await connection.execute(statement)
    finally:
        await connection.close()


def a_postgres() -> AbstractContextManager[Postgres]:
    """One for the block, made of the machine's own binaries; without them the test is skipped."""
    if binaries() is None:
        pytest.skip("there is no PostgreSQL on this machine: no initdb in the path or in /usr/lib/postgresql")
    return postgres()


@pytest.fixture(scope="session")
def databases() -> Iterator[Databases]:
    """Databases of one PostgreSQL, used again and again."""
    with a_postgres() as started:
        yield Databases(started)
