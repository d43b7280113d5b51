"""Pages are read together: what each reader gets, and how often the database is asked."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from pydantic import SecretStr

from gateway.config import StoreSettings
from gateway.core.job import StoreUnavailable
from gateway.observe import Observer
from gateway.store.postgres.connections import Connections, PostgresConnector
from gateway.store.postgres.health import Health
from gateway.store.postgres.pages import Pages
from gateway.store.postgres.queries import Query
from gateway.store.postgres.store import PostgresStore
from tests.store.exercise import OTHER, block, create, ending, started
from tests.store.jobs import NOW, TENANT


class Counted(Connections):
    """Notes how many pages each statement was asked for; fails instead, if it is told to."""

    def __init__(self, settings: StoreSettings) -> None:
        super().__init__(PostgresConnector(settings, "counted"), 2, Health(Observer()))
        self.asked: list[int] = []
        self.fails = False

    async def all(self, query: Query, **given: Any) -> list[Any]:
        self.asked.append(len(given["ids"]))
        if self.fails:
            raise StoreUnavailable("it is away")
        return await super().all(query, **given)


@pytest.fixture
async def store(url: str) -> AsyncIterator[PostgresStore]:
    opened = await PostgresStore.open(StoreSettings(url=SecretStr(url)), Observer())
    yield opened
    await opened.close()


@pytest.fixture
async def reading(url: str) -> AsyncIterator[Counted]:
    made = Counted(StoreSettings(url=SecretStr(url)))
    yield made
    await made.close()


async def test_pages_that_are_asked_for_at_once_are_read_by_one_statement(
    store: PostgresStore, reading: Counted
) -> None:
    for name in ("a", "b"):
        claimed = await started(store, name)
        await store.append(claimed, 3, 4, block(3, 4), has_output=True)
    await store.finish(claimed, ending(7), now_ms=NOW, expires_at_ms=NOW + 1000)
    await create(store, "c")
    pages = Pages(reading, 1)

    async def page(name: str, after: int, tenant: bytes = TENANT, bytes_max: int = 2**16) -> Any:
        return await pages.page(name, tenant, after=after, bytes_max=bytes_max, now_ms=NOW)

    whole, cut, small, ended, nothing, hers, unknown = await asyncio.gather(
        page("a", -1),
        page("a", 4),
        page("a", 2, bytes_max=1),
        page("b", -1),
        page("c", 9),
        page("a", -1, OTHER),
        page("d", -1),
    )
    assert reading.asked == [7]
    assert (whole.events, whole.last_seq, whole.is_end) == (block(0, 7), 6, False)
    assert (cut.events, cut.last_seq) == (block(5, 2), 6)
    assert (small.events, small.last_seq) == (block(3, 1), 3)
    assert ended.is_end
    assert (nothing.events, nothing.last_seq) == (b"", 9)
    assert (hers, unknown) == (None, None)


async def test_what_is_asked_for_while_a_statement_runs_waits_for_the_next_and_no_page_for_many(
    store: PostgresStore, reading: Counted
) -> None:
    names = [f"j{number}" for number in range(150)]
    for name in names:
        await create(store, name)
    pages = Pages(reading, 1)
    found = await asyncio.gather(
        *(pages.page(name, TENANT, after=-1, bytes_max=2**16, now_ms=NOW) for name in names)
    )
    assert {page.events for page in found if page} == {block(0, 2)}
    assert reading.asked == [64, 64, 22]


async def test_whoever_goes_takes_no_page_from_the_others_and_a_failure_is_told_to_all(
    store: PostgresStore, reading: Counted
) -> None:
    await create(store, "a")
    pages = Pages(reading, 1)
    asked = [
        asyncio.create_task(pages.page("a", TENANT, after=-1, bytes_max=2**16, now_ms=NOW)) for _ in range(3)
    ]
    await asyncio.sleep(0)
    asked[1].cancel()
    assert [page.events for page in (await asked[0], await asked[2]) if page] == [block(0, 2)] * 2
    reading.fails = True
    failed = await asyncio.gather(
        *(pages.page("a", TENANT, after=-1, bytes_max=9, now_ms=NOW) for _ in range(3)),
        return_exceptions=True,
    )
    assert [type(each) for each in failed] == [StoreUnavailable] * 3
    reading.fails = False
    assert await pages.page("a", TENANT, after=-1, bytes_max=2**16, now_ms=NOW) is not None
