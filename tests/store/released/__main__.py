"""Keeps a database of a release, as SQL, with a job of every kind in it.

    python -m tests.store.released 0.2.0

Once, at the release: what it wrote then is what that release left to those who upgrade.
"""

from __future__ import annotations

import asyncio
import sqlite3
import sys
import tempfile
from contextlib import closing
from pathlib import Path

from gateway.config import StoreSettings
from gateway.core.job import Idempotency, Outcome, Sealed, Status
from gateway.core.reason import Reason
from gateway.core.webhooks import Endpoint
from gateway.observe import Observer
from gateway.store.port import QueueLimits
from gateway.store.sqlite.schema import CURRENT
from gateway.store.sqlite.store import SqliteStore
from gateway.wire.sse import encode
from tests.store.jobs import NOW, new_job

PLENTY = QueueLimits(100, 100)


def block(first: int, count: int) -> bytes:
    numbers = range(first, first + count)
    return b"".join(encode("response.test", b'{"sequence_number":%d}' % number) for number in numbers)


async def fill(database: Path) -> None:
    store = await SqliteStore.open(StoreSettings(database=database, ballast_bytes=0), Observer())
    everybody = Endpoint("billing", frozenset(Status), frozenset(), b"fingerprint")
    await store.outbox.set_endpoints([everybody])
    for status in (Status.COMPLETED, Status.FAILED, Status.INCOMPLETE, Status.CANCELLED):
        named = {"webhook": "https://hooks.test/own"} if status is Status.COMPLETED else {}
        item_ids = ("msg_1", "fc_1") if status is Status.COMPLETED else ()
        await store.create(new_job(status, events=block(0, 2), item_ids=item_ids, model="m", **named), PLENTY)
        (claim,) = await store.claim(1, attempts_max=2, now_ms=NOW)
        await store.append(claim, 2, 2, block(2, 2), has_output=True)
        final = b'{"id":"%b","output":[]}' % status.encode()
        outcome = Outcome(status, final, 4, block(4, 1), 1, None, Reason.ENDED, item_ids=item_ids)
        await store.finish(claim, outcome, now_ms=NOW + 1000, expires_at_ms=NOW + 600_000)
    plain = new_job("plain", is_background=False, events=b"", next_seq=0)
    await store.record(
        plain, Status.COMPLETED, b'{"id":"plain"}', finished_at_ms=NOW + 1000, expires_at_ms=NOW + 600_000
    )
    await store.create(new_job("runs", events=block(0, 2), is_streamed=True, is_followable=True), PLENTY)
    (claim,) = await store.claim(1, attempts_max=2, now_ms=NOW)
    await store.append(claim, 2, 3, block(2, 3), has_output=True)
    waits = new_job(
        "waits",
        events=block(0, 2),
        previous_id="completed",
        priority=2,
        idempotency=Idempotency("key", b"asked"),
        fingerprint=b"asked",
        sealed=Sealed("key-1", b"sealed"),
    )
    await store.create(waits, PLENTY)
    await store.close()


def main() -> None:
    [release] = sys.argv[1:]
    with tempfile.TemporaryDirectory() as place:
        database = Path(place) / "backburner.db"
        asyncio.run(fill(database))
        with closing(sqlite3.connect(database)) as raw:
            [application] = raw.execute("PRAGMA application_id").fetchone()
            lines = [*raw.iterdump(), f"PRAGMA application_id = {application};"]
    target = Path(__file__).with_name(f"{release}.sql")
    target.write_text("\n".join([*lines, f"PRAGMA user_version = {CURRENT.number};", ""]))


if __name__ == "__main__":
    main()
