"""A change of many whose store fails in the middle stops there, and the log says to how many it was done."""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from gateway.api.admin.changes import Changes
from gateway.config import StoreSettings
from gateway.core.job import StoreUnavailable
from gateway.engine.actions import Actions
from gateway.engine.clock import Clock
from gateway.observe import Observer
from gateway.store.sqlite.store import SqliteStore
from gateway.wire.errors import Fault, Refusal
from tests.store.exercise import create

_LASTS = 3


class Failing:
    """A store that moves so many jobs, and then fails at one while others are under way."""

    def __init__(self, store: SqliteStore) -> None:
        self._store = store
        self.asked = 0
        self.moved = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    async def set_priority(self, response_id: str, priority: int) -> bool:
        self.asked += 1
        if self.asked == _LASTS + 1:
            raise StoreUnavailable("the disk is gone")
        is_moved = await self._store.set_priority(response_id, priority)
        self.moved += is_moved
        return is_moved


async def test_a_change_of_many_that_the_store_breaks_off_goes_no_further_and_is_in_the_log(
    tmp_path: Path,
) -> None:
    opened = await SqliteStore.open(StoreSettings(database=tmp_path / "bulk.db"), Observer())
    try:
        store = Failing(opened)
        names = [f"j{number}" for number in range(40)]
        for name in names:
            await create(opened, name)
        around = SimpleNamespace(backends=None, controls=None, orders=None)
        endings = SimpleNamespace(store=store, insight=opened.insight, clock=Clock())
        actions = Actions(cast(Any, around), cast(Any, endings), cast(Any, None))
        changes = Changes(actions, cast(Any, None), Clock().now_ms, lambda: None)

        async def asked(said: dict[str, Any]) -> Any:
            return await changes.of(["jobs", "tier"], said, "req", None)()

        preview, _ = await asked({"dry_run": True, "ids": names, "tier": "flex"})
        refusal, audit = await asked({"token": preview["token"]})
        moved, tried = store.moved, store.asked
        assert isinstance(refusal, Refusal)
        assert refusal.fault is Fault.UNAVAILABLE
        assert 0 < moved < len(names)
        assert audit == {"doing": "tier many", "chosen": "ids", "tier": "flex", "count": moved}
        assert f"done to {moved};" in refusal.message
        await asyncio.sleep(0.1)
        assert (store.moved, store.asked) == (moved, tried)  # nothing goes on behind that answer
        with pytest.raises(Refusal):
            await asked({"token": preview["token"]})
    finally:
        await opened.close()
