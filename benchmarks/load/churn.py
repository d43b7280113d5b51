"""A day of responses that come and go in a PostgreSQL, in as little time as is asked for.

    python benchmarks/load/churn.py URL SECONDS PARTS

Run by the Python of the gateway that is measured, so that it is that gateway's store: two of them, in this
process. The clock that they are given makes a day of SECONDS. Responses are kept for 60 s of ours, and all
other intervals have the ratio to these that they have to the 600 s of a gateway by default: sweeps,
autovacuum, checkpoints, of which each page that is deleted from has had one since it was written. Prints a
line of JSON after each part.
"""

from __future__ import annotations

import asyncio
import json
import secrets
import statistics
import sys
import time
from collections.abc import Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import asyncpg
from pydantic import SecretStr

from gateway.config.models import StoreSettings
from gateway.core.job import ClaimLost, NewJob, Outcome, Status
from gateway.core.reason import Reason
from gateway.observe.observer import Observer
from gateway.store.port import QueueLimits, Work
from gateway.store.postgres.store import PostgresStore

DAY_S = 86_400
KEPT_S = 60
SWEEP_S = KEPT_S / 120
JOBS_PER_S = 40
PIECES, PIECE_S = 20, KEPT_S / 600
"""Commits of a usual response, and the time between two: it takes a thirtieth of the time that it is kept."""
LONG_EACH, LONG_PIECES, LONG_PIECE_S = 100, 240, KEPT_S / 40
"""One in so many is long: six times that time."""
DELETED_EACH = 20
"""One in so many is deleted by its client once it has ended."""
EVENTS = 5
"""To a commit, as where nobody follows: ten commits a second, fifty events."""
_EVENT = b'event: response.output_text.delta\ndata: {"sequence_number":%d,"delta":"' + b"x" * 160 + b'"}\n\n'
_SAMPLE_S = 0.5
_NO_LIMIT = QueueLimits(10**6, 10**6)
_TABLES = """
SELECT sum(n_dead_tup) FILTER (WHERE is_events)::bigint AS dead_events,
       sum(n_dead_tup) FILTER (WHERE relname = 'job')::bigint AS dead_jobs,
       sum(size) FILTER (WHERE is_events)::bigint AS events_size,
       sum(size) FILTER (WHERE relname = 'job')::bigint AS jobs_size,
       sum(autovacuum_count)::bigint AS vacuums,
       sum(n_tup_upd) FILTER (WHERE relname = 'job')::bigint AS updates,
       sum(n_tup_hot_upd) FILTER (WHERE relname = 'job')::bigint AS hot_updates,
       pg_wal_lsn_diff(pg_current_wal_lsn(), '0/0')::bigint AS wal
FROM (SELECT *, relname LIKE 'segment%' AS is_events, pg_total_relation_size(relid) AS size
      FROM pg_stat_user_tables WHERE schemaname = 'backburner') AS of_table"""


@dataclass
class Part:
    """What has been seen in one part of the day."""

    appends_ms: list[float] = field(default_factory=list)
    creates_ms: list[float] = field(default_factory=list)
    sweeps_ms: list[float] = field(default_factory=list)
    samples: list[Any] = field(default_factory=list)
    events: int = 0
    began_s: float = field(default_factory=time.perf_counter)


class Day:
    """The load, and what is noted of it."""

    def __init__(self, stores: list[PostgresStore], seconds: float) -> None:
        self._stores = stores
        self._faster = DAY_S / seconds
        self._began_s = time.monotonic()
        self._made = 0
        self.part = Part()

    def now_ms(self) -> int:
        return 1_700_000_000_000 + int((time.monotonic() - self._began_s) * 1000 * self._faster)

    async def make_jobs(self) -> None:
        """At an even pace, whatever becomes of them, until cancelled."""
        async with asyncio.TaskGroup() as group:
            due_s = time.monotonic()
            while True:
                group.create_task(self._job(self._made))
                self._made += 1
                due_s += 1 / JOBS_PER_S
                await asyncio.sleep(max(0.0, due_s - time.monotonic()))

    async def _job(self, number: int) -> None:
        store, part, tenant = self._stores[number % len(self._stores)], self.part, bytes([number % 7]) * 32
        started = time.perf_counter()
        await store.create(self._new(number, tenant), _NO_LIMIT)
        part.creates_ms.append((time.perf_counter() - started) * 1000)
        for work in await store.claim(1, attempts_max=2, now_ms=self.now_ms()):
            with suppress(ClaimLost):
                await self._run(store, work, is_long=number % LONG_EACH == 0)
            if number % DELETED_EACH == 1:
                await store.delete(work.id, work.job.tenant, now_ms=self.now_ms())

    def _new(self, number: int, tenant: bytes) -> NewJob:
        now_ms = self.now_ms()
        return NewJob(
            id=f"resp_{secrets.token_hex(24)}",
            tenant=tenant,
            previous_id=None,
            created_at_ms=now_ms,
            deadline_ms=now_ms + DAY_S * 1000,
            response=b'{"object":"response"%b}' % (b" " * 700),
            request=b'{"model":"m"}',
            input=b'"' + secrets.token_hex(1000).encode() + b'"',
            target="/v1/responses",
            headers=b"{}",
            is_streamed=True,
            is_followable=True,
            is_rerunnable=True,
            events=_events(0, 2),
            next_seq=2,
        )

    async def _run(self, store: PostgresStore, work: Work, *, is_long: bool) -> None:
        pieces, piece_s = (LONG_PIECES, LONG_PIECE_S) if is_long else (PIECES, PIECE_S)
        seq, due_s = work.job.next_seq, time.monotonic()
        for _ in range(pieces):
            due_s += piece_s
            await asyncio.sleep(max(0.0, due_s - time.monotonic()))
            started = time.perf_counter()
            await store.append(work, seq, EVENTS, _events(seq, EVENTS), has_output=True)
            seq += EVENTS
            self.part.appends_ms.append((time.perf_counter() - started) * 1000)
            self.part.events += EVENTS
        final = secrets.token_hex(1500).encode()
        outcome = Outcome(Status.COMPLETED, final, seq, _events(seq, 1), 1, None, Reason.ENDED)
        now_ms = self.now_ms()
        await store.finish(
            work, outcome, now_ms=now_ms, expires_at_ms=now_ms + int(KEPT_S * 1000 * self._faster)
        )
        page = await store.page(work.id, work.job.tenant, after=-1, bytes_max=2**15, now_ms=now_ms)
        assert page is not None, "it was kept"

    async def sweep(self, store: PostgresStore) -> None:
        while True:
            started = time.perf_counter()
            await store.sweep(now_ms=self.now_ms())
            self.part.sweeps_ms.append((time.perf_counter() - started) * 1000)
            await asyncio.sleep(SWEEP_S)

    async def look(self, connection: asyncpg.Connection) -> None:
        while True:
            self.part.samples.append(await connection.fetchrow(_TABLES))
            await asyncio.sleep(_SAMPLE_S)

    def take(self) -> Part:
        """What has been seen since the last time."""
        taken, self.part = self.part, Part()
        return taken


def _events(seq: int, count: int) -> bytes:
    return b"".join(_EVENT % number for number in range(seq, seq + count))


def told(part: Part, last: Any) -> dict[str, float]:
    """Of one part: measures by their names. `last`: the last sample of the part before."""
    took_s = time.perf_counter() - part.began_s
    end = part.samples[-1]
    return {
        "append p50": statistics.median(part.appends_ms),
        "append p99": _rank(part.appends_ms),
        "create p99": _rank(part.creates_ms),
        "sweep": sum(part.sweeps_ms) / took_s / 10,
        "sweep p99": _rank(part.sweeps_ms),
        "dead events": max(sample["dead_events"] for sample in part.samples),
        "dead jobs": max(sample["dead_jobs"] for sample in part.samples),
        "events size": max(sample["events_size"] for sample in part.samples) / 2**20,
        "jobs size": max(sample["jobs_size"] for sample in part.samples) / 2**20,
        "vacuums": (end["vacuums"] - last["vacuums"]) / took_s * 60,
        "hot": 100 * (end["hot_updates"] - last["hot_updates"]) / max(1, end["updates"] - last["updates"]),
        "wal": (end["wal"] - last["wal"]) / part.events,
        "events": part.events,
    }


def _rank(values: list[float]) -> float:
    return sorted(values)[int(len(values) * 0.99)] if values else 0.0


@asynccontextmanager
async def _until_end(*works: Any) -> Any:
    tasks = [asyncio.create_task(work) for work in works]
    try:
        yield tasks
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _pauses(seconds: float, parts: int) -> Iterator[float]:
    """Until the end of each part."""
    began_s = time.monotonic()
    for number in range(1, parts + 1):
        yield max(0.0, began_s + seconds * number / parts - time.monotonic())


async def main(url: str, seconds: float, parts: int) -> None:
    settings = StoreSettings(url=SecretStr(url))
    connection = await asyncpg.connect(url)
    stores = [await PostgresStore.open(settings, Observer()) for _ in range(2)]
    day = Day(stores, seconds)
    last = await connection.fetchrow(_TABLES)
    async with _until_end(day.make_jobs(), day.look(connection), *map(day.sweep, stores)) as tasks:
        for pause_s in _pauses(seconds, parts):
            done, _ = await asyncio.wait(tasks, timeout=pause_s, return_when=asyncio.FIRST_EXCEPTION)
            for task in done:
                task.result()
            part = day.take()
            print(json.dumps(told(part, last)), flush=True)
            last = part.samples[-1]
    for store in stores:
        await store.close()
    await connection.close()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], float(sys.argv[2]), int(sys.argv[3])))
