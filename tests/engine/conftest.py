"""An engine on a real file, in the house of `tests.support`."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from gateway.config import Settings
from gateway.store.port import JobStore
from gateway.store.sqlite.store import SqliteStore
from tests.support.house import Build, House, ScriptedBackend, SetClock, Signals


@pytest.fixture
def backend() -> ScriptedBackend:
    return ScriptedBackend()


@pytest.fixture
def clock() -> SetClock:
    return SetClock()


@pytest.fixture
async def build(tmp_path: Path, backend: ScriptedBackend, clock: SetClock) -> AsyncIterator[Build]:
    """Builds a house on the one file of the test; the one before must have been killed or closed."""
    houses: list[House] = []
    stores: list[SqliteStore] = []

    async def builder(
        *,
        background: dict[str, Any] | None = None,
        stream: dict[str, Any] | None = None,
        credentials: dict[str, Any] | None = None,
        webhooks: dict[str, Any] | None = None,
        request_webhooks: dict[str, Any] | None = None,
        concurrency_max: int = 256,
        database_bytes_max: int = 4 * 2**30,
        wrap: Callable[[JobStore], Any] = lambda store: store,
        is_started: bool = True,
    ) -> House:
        settings = Settings.model_validate(
            {
                "upstream": {"url": "http://backend.test/v1", "concurrency_max": concurrency_max},
                "background": {"flush_ms": 5, **(background or {})},
                "stream": stream or {},
                "credentials": credentials or {},
                "webhooks": webhooks or {},
                "request_webhooks": request_webhooks or {},
                "store": {"database": tmp_path / "engine.db", "database_bytes_max": database_bytes_max},
            }
        )
        observer = Signals()
        store = await SqliteStore.open(settings.store, observer)
        stores.append(store)  # before anything can fail: the thread of an open one keeps pytest from its end
        house = House(wrap(store), settings, backend, clock, observer)
        houses.append(house)
        if is_started:
            await house.start()
        return house

    yield builder
    for house in houses:
        await house.engine.stop()
    for store in stores:
        await store.close()
    for house in houses:
        assert not house.failed.is_set(), "a task of the engine died"


@pytest.fixture
async def house(build: Build) -> House:
    return await build()


@pytest.fixture(autouse=True)
def _frequent_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    """The clock of a house is moved by hand: nobody rings when it has been."""
    monkeypatch.setattr("gateway.engine.deliveries._LOOK_S", 0.25)
