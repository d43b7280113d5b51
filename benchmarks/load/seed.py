"""Fills a database with jobs that have ended, through the store's own interface.

    python benchmarks/load/seed.py DATABASE COUNT

Run by the Python of the gateway that is measured. They are recorded as ended, many at once, so
that they share commits; they have an output and no events.
"""

from __future__ import annotations

import asyncio
import secrets
import sys

from gateway.config.models import StoreSettings
from gateway.core.job import NewJob, Status
from gateway.observe.observer import Observer
from gateway.store.sqlite.store import SqliteStore

AT_ONCE = 2000
KEPT_MS = 7 * 24 * 3_600_000
_TENANTS = [secrets.token_bytes(32) for _ in range(100)]
_FINAL = b'{"id":"%b","object":"response","status":"completed","output":[{"type":"message","content":[]}]%b}'


async def _ended(store: SqliteStore, number: int) -> None:
    now_ms = store.wall_ns() // 1_000_000
    response_id = f"resp_{secrets.token_hex(24)}"
    final = _FINAL % (response_id.encode(), b" " * 600)
    job = NewJob(
        id=response_id,
        tenant=_TENANTS[number % len(_TENANTS)],
        previous_id=None,
        created_at_ms=now_ms,
        deadline_ms=now_ms + 3_600_000,
        response=final,
        request=b'{"model":"m"}',
        input=b'"Good day"',
        target="/v1/responses",
        headers=b"{}",
        is_streamed=True,
        is_followable=True,
        is_rerunnable=True,
        events=b"",
        next_seq=0,
    )
    await store.record(job, Status.COMPLETED, final, finished_at_ms=now_ms, expires_at_ms=now_ms + KEPT_MS)


async def main(database: str, count: int) -> None:
    settings = StoreSettings(database=database, durability="process", database_bytes_max=2**36)
    store = await SqliteStore.open(settings, Observer())
    for first in range(0, count, AT_ONCE):
        await asyncio.gather(*(_ended(store, number) for number in range(first, min(count, first + AT_ONCE))))
    await store.close()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2])))
