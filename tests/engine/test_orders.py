"""What an operator orders of a backend holds at every gateway of a store, whichever was asked."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from gateway.config import StoreSettings
from gateway.core.job import StoreUnavailable
from gateway.engine.clock import Clock
from gateway.engine.orders import PAUSE, SLOTS, Order, Orders
from gateway.observe import Observer
from gateway.store.sqlite.store import SqliteStore


class Backends:
    """Those of one gateway, as far as orders go."""

    def __init__(self) -> None:
        self.paused: set[str] = set()
        self.sizes_now: dict[str, int | None] = {}
        self.rung = 0

    def pause(self, name: str, *, is_paused: bool) -> None:
        (self.paused.add if is_paused else self.paused.discard)(name)

    def is_paused(self, name: str) -> bool:
        return name in self.paused

    def resize(self, name: str, slots: int | None) -> None:
        self.sizes_now[name] = slots

    def slots_min(self, name: str) -> int:
        return 1

    def sizes(self, name: str) -> tuple[int, int]:
        return self.sizes_now.get(name) or 8, 8

    def state(self) -> dict[str, Any]:
        return {}

    def ring(self) -> None:
        self.rung += 1


class Heard(Observer):
    def __init__(self) -> None:
        super().__init__()
        self.orders: list[tuple[str, str, str | None, int | None]] = []

    def order_heard(self, doing: str, backend: str, *, peer: str | None, limit: int | None) -> None:
        self.orders.append((doing, backend, peer, limit))


class One:
    """A gateway with some backends."""

    def __init__(self, store: SqliteStore, *names: str) -> None:
        self.backends, self.heard = Backends(), Heard()
        self.orders = Orders(store, self.backends, names, Clock(), self.heard, self.backends.ring)


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqliteStore]:
    opened = await SqliteStore.open(StoreSettings(database=tmp_path / "orders.db"), Observer())
    yield opened
    await opened.close()


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0.01)


async def while_it_runs(one: One, doing: Callable[[], Awaitable[None]]) -> None:
    task = asyncio.create_task(one.orders.run())
    await asyncio.sleep(0)
    try:
        await doing()
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def test_an_order_is_heard_where_it_was_not_given_and_logged_there_only(store: SqliteStore) -> None:
    asked, other = One(store, "gpu", "cpu"), One(store, "gpu")

    async def doing() -> None:
        await asked.orders.give(PAUSE, "gpu", by="10.0.0.7")
        assert asked.backends.paused == {"gpu"}, "it holds when it was answered"
        await asked.orders.give(SLOTS, "cpu", by="10.0.0.7", slots=3)
        await until(lambda: other.backends.paused == {"gpu"})
        (order,) = other.orders.of("gpu")
        assert (order.doing, order.by, order.slots) == (PAUSE, "10.0.0.7", None)
        assert other.orders.of("cpu") == []
        assert other.backends.sizes_now == {}, "it does not have that one"
        await asked.orders.take_back(PAUSE, "gpu")
        await until(lambda: other.backends.paused == set())

    await while_it_runs(other, doing)
    assert asked.backends.sizes_now == {"cpu": 3}
    assert asked.heard.orders == []
    assert other.heard.orders == [("pause", "gpu", "10.0.0.7", None), ("resume", "gpu", None, None)]
    assert other.backends.rung == 2


async def test_one_that_starts_later_obeys_at_its_first_look(store: SqliteStore) -> None:
    asked = One(store, "gpu")
    await asked.orders.give(SLOTS, "gpu", by=None, slots=3)
    await asked.orders.give(SLOTS, "gpu", by=None, slots=5)
    late = One(store, "gpu")
    await late.orders.look()
    assert late.backends.sizes_now == {"gpu": 5}
    assert late.heard.orders == [("slots", "gpu", None, 5)]
    await late.orders.look()
    assert late.heard.orders == [("slots", "gpu", None, 5)], "nothing is new"


async def test_an_order_that_cannot_be_stored_holds_nowhere(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fails(*_: Any) -> None:
        raise StoreUnavailable("it is away")

    asked = One(store, "gpu")
    monkeypatch.setattr(store.notes, "put", fails)
    with pytest.raises(StoreUnavailable):
        await asked.orders.give(PAUSE, "gpu", by=None)
    assert asked.backends.paused == set()
    assert asked.orders.of("gpu") == []


async def test_what_was_missed_while_the_store_was_away_is_made_up_for(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.engine.orders._LOOK_S", 0.05)
    monkeypatch.setattr(type(store.bells), "look_s", 1.0)
    other = One(store, "gpu")
    reads, tried = store.notes.all, 0

    async def fails(kind: str) -> dict[str, Any]:
        nonlocal tried
        tried += 1
        raise StoreUnavailable("it is away")

    monkeypatch.setattr(store.notes, "all", fails)

    async def doing() -> None:
        await store.notes.put(PAUSE, "gpu", {"by": None, "since_ms": 5, "slots": None})
        await until(lambda: tried > 1)
        assert other.orders.of("gpu") == []
        monkeypatch.setattr(store.notes, "all", reads)
        await until(lambda: other.orders.of("gpu") == [Order(PAUSE, None, 5, None)])

    await while_it_runs(other, doing)
