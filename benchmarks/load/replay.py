"""Reads a job's pages from a database, again and again, and says how many events a second that is.

    python benchmarks/load/replay.py DATABASE RESPONSE_ID SECONDS

Run by the Python of the gateway that is measured, so that it is that gateway's store.
"""

from __future__ import annotations

import asyncio
import json
import sqlite3
import sys
import time

from gateway.config.models import StoreSettings, StreamSettings
from gateway.observe.observer import Observer
from gateway.store.sqlite.store import SqliteStore

PAGE_BYTES = StreamSettings().page_bytes_max


async def main(database: str, response_id: str, seconds: float) -> None:
    with sqlite3.connect(database) as raw:
        (tenant,) = raw.execute("SELECT tenant FROM job WHERE id = ?", (response_id,)).fetchone()
    raw.close()
    store = await SqliteStore.open(StoreSettings(database=database), Observer())
    events, started, cpu = 0, time.perf_counter(), time.process_time()
    while time.perf_counter() - started < seconds:
        after, is_end = -1, False
        while not is_end:
            now_ms = store.wall_ns() // 1_000_000
            page = await store.page(response_id, tenant, after=after, bytes_max=PAGE_BYTES, now_ms=now_ms)
            assert page is not None
            events += page.last_seq - after
            after, is_end = page.last_seq, page.is_end
    took, cpu = time.perf_counter() - started, time.process_time() - cpu
    await store.close()
    print(json.dumps({"events": events / took, "cpu": cpu / events * 1e6}))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], float(sys.argv[3])))
