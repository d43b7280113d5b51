"""Things done to a gateway in its own process that are neither an end nor a missing guard: see `launch`."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from gateway.engine import clock
from gateway.store import filesystem, readers
from tests.torture.guards import replace

_ENDLESS = """
WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n)
SELECT count(*) FROM n, (SELECT count(*) FROM job) WHERE pause(0.02) IS NULL
"""


def set_wall_clock(path: Path) -> None:
    """The wall clock is off by as many seconds as the file says; without the file it is right."""

    def wall_ns() -> int:
        offset_s = float(path.read_text()) if path.exists() else 0.0
        return time.time_ns() + int(offset_s * 1e9)

    build: Callable[..., None] = clock.Clock.__init__
    replace(clock.Clock, "__init__", lambda self: build(self, wall_ns))


def set_filesystem(magic: int) -> None:
    """Every directory seems to lie on the kind of file system that the kernel calls by this number."""
    replace(filesystem, "filesystem_magic", lambda _: magic)


def hold_reads(path: Path) -> None:
    """While the file exists, one of the reading connections goes on reading after it has done, until it is
    broken off."""
    run: Callable[..., Any] = readers._Reader.run
    holding: list[object] = []

    def run_and_hold(reader: Any, operation: Any, raw: sqlite3.Connection) -> Any:
        def then_hold(raw: sqlite3.Connection) -> Any:
            result = operation(raw)
            if path.exists() and not holding:
                holding.append(reader)
                raw.create_function("pause", 1, time.sleep)
                try:
                    raw.execute(_ENDLESS).fetchone()
                finally:
                    holding.clear()
            return result

        return run(reader, then_hold, raw)

    replace(readers._Reader, "run", run_and_hold)
