"""A store on a file of its own, and small jobs to put into it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from gateway.config import StoreSettings
from gateway.core.job import NewJob
from gateway.observe import Observer
from gateway.store import factory
from gateway.store.port import JobStore
from gateway.store.sqlite.store import SqliteStore
from tests.store.jobs import NOW, TENANT, new_job
from tests.support.databases import Databases, databases
from tests.torture.disk import Disk, Faults, break_disk, mend_disk

__all__ = ["databases"]

Open = Callable[[], Awaitable[JobStore]]
OpenStore = Callable[..., Awaitable[SqliteStore]]


class BreakableDisk:
    """What lies under the files that are opened in this test."""

    def __init__(self, control: Path) -> None:
        self._control = control

    def breaks(self, **fault: Any) -> None:
        break_disk(self._control, **fault)

    def is_mended(self) -> None:
        mend_disk(self._control)


class StoreKit:
    """For the tests: a conftest cannot be imported."""

    NOW = NOW
    TENANT = TENANT

    @staticmethod
    def job(name: str, *, size: int = 0, **changes: Any) -> NewJob:
        return new_job(name, **{"input": b"x" * size, **changes})


@pytest.fixture
def store_kit() -> type[StoreKit]:
    return StoreKit


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[BreakableDisk]:
    """Take it before `open_store`: it lies under what is opened after it."""
    control = tmp_path / "fault"
    installed = Disk(Faults(control))
    installed.install()
    yield BreakableDisk(control)
    mend_disk(control)
    installed.remove()


class Counting(Observer):
    """Notes the number of operations of every commit."""

    def __init__(self, commits: list[int]) -> None:
        super().__init__()
        self.commits = commits

    def committed(self, operations: int, seconds: float) -> None:
        self.commits.append(operations)


@pytest.fixture
def commits() -> list[int]:
    """The number of operations of every commit so far."""
    return []


@pytest.fixture
async def url(databases: Databases) -> AsyncIterator[str]:
    """An empty database."""
    async with databases.empty() as made:
        yield made


@pytest.fixture
async def opened(request: pytest.FixtureRequest, tmp_path: Path, commits: list[int]) -> AsyncIterator[Open]:
    """Opens the store; again on the same data if it was closed in between. A test that is given `kind` by
    its module asks for another one than SQLite."""
    kind = getattr(request.module, "KIND", "sqlite")
    settings = StoreSettings(database=tmp_path / "test.db")
    async with AsyncExitStack() as stack:
        if kind == "postgres":
            databases: Databases = request.getfixturevalue("databases")
            url = await stack.enter_async_context(databases.cleared())
            settings = StoreSettings(url=SecretStr(url))

        async def open_it() -> JobStore:
            store = await factory.open_store(settings, Counting(commits))
            stack.push_async_callback(store.close)
            return store

        yield open_it


@pytest.fixture
async def store(opened: Open) -> JobStore:
    return await opened()


@pytest.fixture
async def open_store(tmp_path: Path) -> AsyncIterator[OpenStore]:
    """Opens `jobs.db` with these settings; the one before must have been closed."""
    async with AsyncExitStack() as stack:

        async def opener(**settings: Any) -> SqliteStore:
            given = {"database": tmp_path / "jobs.db", "readers": 1, **settings}
            store = await SqliteStore.open(StoreSettings(**given), Observer())
            stack.push_async_callback(store.close)
            return store

        yield opener
