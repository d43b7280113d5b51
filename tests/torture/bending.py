"""Things done to a gateway in its own process that are neither an end nor a missing guard: see `launch`."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import Callable, Coroutine
from contextlib import suppress
from pathlib import Path
from typing import Any

from gateway.core.job import StoreUnavailable
from gateway.engine import clock
from gateway.store.sqlite import filesystem, upkeep
from gateway.store.sqlite.connector import connect_reader
from gateway.store.sqlite.database import Database
from tests.torture.guards import replace

_ENDLESS = """
WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE is_held())
SELECT count(*) FROM n, (SELECT count(*) FROM job)
"""
_LOOK_S = 0.005
_PAUSE_S = 0.2


def set_wall_clock(path: Path) -> None:
    """The wall clock is off by as many seconds as the file says; without the file it is right."""

    def wall_ns() -> int:
        offset_s = float(path.read_text()) if path.exists() else 0.0
        return time.time_ns() + int(offset_s * 1e9)

    build: Callable[..., None] = clock.Clock.__init__
    replace(clock.Clock, "__init__", lambda self, *_: build(self, wall_ns))


def set_filesystem(magic: int) -> None:
    """Every directory seems to lie on the kind of file system that the kernel calls by this number."""
    replace(filesystem, "filesystem_magic", lambda _: magic)


def hold_reads(path: Path) -> None:
    """While the file exists, a read goes on without an end, on a connection of its own, as the check of a
    large file does; soon after it is broken off, the next one begins."""
    run: Callable[[Any], Coroutine[Any, Any, None]] = upkeep.Upkeep.run

    def is_held() -> bool:
        time.sleep(_LOOK_S)
        return path.exists()

    def read(raw: sqlite3.Connection) -> None:
        raw.create_function("is_held", 0, is_held)
        raw.execute(_ENDLESS).fetchone()

    async def read_on(database: Database) -> None:
        while True:
            if path.exists():
                with suppress(StoreUnavailable):
                    await database.readers.read_apart(await connect_reader(database.settings), read)
            await asyncio.sleep(_PAUSE_S)

    async def run_beside(self: Any) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(run(self))
            group.create_task(read_on(self._database))

    replace(upkeep.Upkeep, "run", run_beside)
