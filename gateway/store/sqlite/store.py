"""Jobs and events in one SQLite file."""

from __future__ import annotations

import asyncio
import functools
import json
import secrets
import sqlite3
import time
from collections.abc import Callable, Collection, Mapping
from typing import Any, TypeVar

from gateway.config import StoreSettings
from gateway.core.job import Claim, ClaimLost, Idempotency, IdTaken, Job, NewJob, Outcome, Status
from gateway.observe import Observer
from gateway.store import bells
from gateway.store.bells import OUTBOX, LocalBells
from gateway.store.port import DeletedJob, Page, QueueLimits, StoredRequest, Work
from gateway.store.pushes import NoPushes
from gateway.store.rows import Appended, to_call, to_job
from gateway.store.sqlite import items, operations
from gateway.store.sqlite.database import Database
from gateway.store.sqlite.health import State
from gateway.store.sqlite.insight import SqliteInsight
from gateway.store.sqlite.notes import SqliteNotes
from gateway.store.sqlite.outbox import SqliteOutbox
from gateway.store.sqlite.queries import QUERIES
from gateway.store.sqlite.startup import open_database
from gateway.store.sqlite.upkeep import Upkeep
from gateway.wire.conversation.items import Turn

T = TypeVar("T")
Row = sqlite3.Row

_NEVER_MS = 2**62


class SqliteStore:
    """The `JobStore` of one process. Open it with `open`; it must be closed."""

    def __init__(self, database: Database, observer: Observer) -> None:
        self._database = database
        self._writer = database.writer
        self._upkeep = Upkeep(database, observer)
        self._owner = secrets.token_hex(8)
        self.bells = LocalBells()
        self.pushes = NoPushes()
        self.insight = SqliteInsight(database.readers)
        self.outbox = SqliteOutbox(database, self.bells)
        self.notes = SqliteNotes(database, self.bells)
        self._is_heir = False  # the jobs of owners of before are free
        self.pepper = database.pepper
        self.wall_ns = time.time_ns

    @classmethod
    async def open(cls, settings: StoreSettings, observer: Observer) -> SqliteStore:
        """Open the file, or make it. Raises: see `open_database`."""
        return cls(await open_database(settings, observer), observer)

    async def close(self) -> None:
        await self._database.close()

    async def tend(self) -> None:
        await self._upkeep.run()

    def state(self) -> str:
        return self._database.health.state.name.lower()

    # -- accepting and reading

    async def create(self, job: NewJob, limits: QueueLimits) -> str:
        def operation(raw: sqlite3.Connection) -> str:
            return operations.create(raw, job, limits)

        accepted_id = await self._database.accept(operation, _size(job))
        self.bells.ring(bells.queue(job.backend))
        return accepted_id

    async def start(self, job: NewJob, limits: QueueLimits) -> tuple[str, Work | None]:
        def operation(raw: sqlite3.Connection) -> tuple[str, Work | None]:
            return operations.start(raw, self._owner, job, limits)

        accepted_id, work = await self._database.accept(operation, _size(job))
        if work is None:
            self.bells.ring(bells.queue(job.backend))
        return accepted_id, work

    async def record(
        self,
        job: NewJob,
        status: Status,
        final: bytes,
        *,
        finished_at_ms: int,
        expires_at_ms: int,
        item_ids: tuple[str, ...] = (),
    ) -> None:
        def operation(raw: sqlite3.Connection) -> None:
            operations.record(raw, job, status, final, item_ids, finished_at_ms, expires_at_ms)

        try:
            await self._database.record(operation, _size(job) + len(final))
        except sqlite3.IntegrityError:
            raise IdTaken from None

    async def repeated(self, tenant: bytes, idempotency: Idempotency, *, now_ms: int) -> str | None:
        return await self._read(lambda raw: operations.repeated(raw, tenant, idempotency, now_ms=now_ms))

    async def unnamed(self, tenant: bytes, fingerprint: bytes, *, since_ms: int, now_ms: int) -> str | None:
        values = {"tenant": tenant, "fingerprint": fingerprint, "since_ms": since_ms, "now_ms": now_ms}
        row = await self._one("unnamed", **values)
        return None if row is None else str(row["id"])

    async def name(self, response_id: str) -> None:
        await self._writer.ask(lambda raw: raw.execute(QUERIES["name"], {"id": response_id}) and None)

    async def find(self, response_id: str, tenant: bytes, *, now_ms: int) -> Job | None:
        row = await self._one("find_job", id=response_id, tenant=tenant, now_ms=now_ms)
        return to_job(row) if row else None

    async def request_of(self, response_id: str) -> StoredRequest | None:
        row = await self._one("call_by_id", id=response_id)
        return to_call(row) if row else None

    async def turns_before(self, response_id: str, tenant: bytes) -> list[Turn]:
        return await self._read(lambda raw: operations.turns_before(raw, response_id, tenant))

    async def turns_with(
        self, item_ids: Collection[str], tenant: bytes, *, now_ms: int, bytes_max: int
    ) -> list[Turn]:
        def operation(raw: sqlite3.Connection) -> list[Turn]:
            return items.turns_with(raw, item_ids, tenant, now_ms=now_ms, bytes_max=bytes_max)

        return await self._read(operation)

    async def page(
        self, response_id: str, tenant: bytes, *, after: int, bytes_max: int, now_ms: int
    ) -> Page | None:
        values = {"id": response_id, "tenant": tenant, "after": after, "now_ms": now_ms}
        return await self._read(lambda raw: operations.page(raw, values, after, bytes_max))

    async def all_events(self, response_id: str) -> bytes:
        rows = await self._all("all_events", id=response_id)
        return b"".join(row["events"] for row in rows)

    async def events_bytes(self, response_id: str) -> int:
        row = await self._one("events_bytes", id=response_id)
        return 0 if row is None else int(row["bytes"])

    async def sizes(self) -> dict[str, int]:
        return await asyncio.to_thread(self._database.sizes)

    # -- running

    async def claim(
        self,
        limit: int,
        *,
        attempts_max: int,
        now_ms: int,
        backend: str = "default",
        accepted_before_ms: int | None = None,
        resting: Collection[bytes] = (),
        bytes_max: int = 2**20,
        running_max: int | None = None,
    ) -> list[Work]:
        wanted = {
            "backend": backend,
            "attempts_max": attempts_max,
            "now_ms": now_ms,
            "accepted_before_ms": _NEVER_MS if accepted_before_ms is None else accepted_before_ms,
            "resting": json.dumps([tenant.hex() for tenant in resting]),
        }
        self._database.health.require_below(State.FULL)  # what it produced could not be stored

        def operation(raw: sqlite3.Connection) -> list[Work]:
            room = limit if running_max is None else min(limit, operations.room(raw, backend, running_max))
            return operations.claim(raw, self._owner, room, bytes_max, wanted)

        return await self._writer.ask(operation)

    def append(
        self, claim: Claim, first_seq: int, count: int, events: bytes, *, has_output: bool
    ) -> asyncio.Future[None]:
        return self._writer.append(
            Appended(claim.id, claim.epoch, first_seq, first_seq + count, has_output, events)
        )

    async def rewind(self, claim: Claim, seq: int) -> None:
        await self._writer.ask(lambda raw: operations.rewind(raw, claim, seq))

    async def finish(self, claim: Claim, outcome: Outcome, *, now_ms: int, expires_at_ms: int) -> None:
        def operation(raw: sqlite3.Connection) -> None:
            row = raw.execute(
                QUERIES["finish"],
                {
                    "id": claim.id,
                    "epoch": claim.epoch,
                    "status": outcome.status.value,
                    "error": outcome.code,
                    "first_seq": outcome.first_seq,
                    "next_seq": outcome.first_seq + outcome.event_count,
                    "now_ms": now_ms,
                    "expires_at_ms": expires_at_ms,
                },
            ).fetchone()
            if row is None:
                raise ClaimLost
            operations.insert_segment(raw, row["pk"], outcome.first_seq, outcome.event_count, outcome.events)
            operations.insert_result(raw, row["pk"], claim.job.tenant, outcome.final, outcome.item_ids)

        await self._writer.ask(operation, len(outcome.events) + len(outcome.final))
        self.bells.ring(OUTBOX)

    async def take_over(self, response_id: str, *, epoch: int | None = None) -> Claim | None:
        def operation(raw: sqlite3.Connection) -> Claim | None:
            values = {"id": response_id, "owner": self._owner, "epoch": epoch}
            taken = raw.execute(QUERIES["take_over"], values).fetchone()
            return Claim(operations.job_by_id(raw, response_id)) if taken else None

        taken = await self._writer.ask(operation)
        self.bells.ring(bells.claim(response_id))
        return taken

    async def release(
        self, claim: Claim, *, attempts_returned: int, put_offs: int = 0, not_before_ms: int = 0
    ) -> None:
        def operation(raw: sqlite3.Connection) -> None:
            values = {
                "id": claim.id,
                "epoch": claim.epoch,
                "attempts_returned": attempts_returned,
                "put_offs": put_offs,
                "not_before_ms": not_before_ms,
            }
            if raw.execute(QUERIES["release"], values).fetchone() is None:
                raise ClaimLost

        await self._writer.ask(operation)

    async def set_priority(self, response_id: str, priority: int) -> bool:
        values = {"id": response_id, "priority": priority}
        return await self._writer.ask(
            lambda raw: raw.execute(QUERIES["set_priority"], values).fetchone() is not None
        )

    @property
    def is_first(self) -> bool:
        return True

    async def beat(self) -> bool:
        return True  # whoever holds the file's lock lives

    async def agree(self, facts: Mapping[str, str], backends: Collection[str]) -> None:
        """There is no other."""

    async def abandon(self, *, dead_after_s: float) -> None:
        if self._is_heir and dead_after_s > 0:
            return
        values = {"owner": self._owner, "is_all": int(dead_after_s <= 0)}
        await self._writer.ask(lambda raw: raw.execute(QUERIES["abandon"], values) and None)
        self._is_heir = True

    async def orphans(self, *, attempts_max: int, limit: int) -> list[str]:
        rows = await self._all("orphans", attempts_max=attempts_max, limit=limit)
        return [row["id"] for row in rows]

    async def of_other_backends(self, names: Collection[str], *, limit: int) -> list[str]:
        rows = await self._all("of_other_backends", backends=json.dumps(list(names)), limit=limit)
        return [row["id"] for row in rows]

    async def waiting_since(self, accepted_before_ms: int, *, backend: str, limit: int) -> list[str]:
        rows = await self._all(
            "waiting_since", accepted_before_ms=accepted_before_ms, backend=backend, limit=limit
        )
        return [row["id"] for row in rows]

    async def overdue(self, *, now_ms: int, limit: int) -> list[str]:
        return [row["id"] for row in await self._all("overdue", now_ms=now_ms, limit=limit)]

    async def sealing_keys(self) -> dict[str, int]:
        return {row["key_id"]: row["jobs"] for row in await self._all("sealing_keys")}

    # -- going

    async def delete(self, response_id: str, tenant: bytes, *, now_ms: int) -> DeletedJob | None:
        values = {"id": response_id, "tenant": tenant, "now_ms": now_ms}

        def operation(raw: sqlite3.Connection, _bytes_max: int) -> DeletedJob | None:
            if raw.execute(QUERIES["delete_live"], values).fetchone():
                return DeletedJob(operations.job_by_id(raw, response_id))
            return DeletedJob(None) if raw.execute(QUERIES["delete_ended"], values).fetchone() else None

        deleted = await self._database.delete(operation)
        for topic in (bells.claim(response_id), OUTBOX):
            self.bells.ring(topic)
        return deleted

    async def sweep(self, *, now_ms: int) -> int:
        await self._purge("expired_segments", "purge_segment", now_ms)
        return await self._purge("expired_jobs", "purge_job", now_ms)

    async def _purge(self, search: str, query: str, now_ms: int) -> int:
        """In pieces, between which others write. What is to go is searched for on a reading connection."""
        total = 0
        while found := await self._all(search, now_ms=now_ms, limit=operations.PURGE_ROWS_MAX):
            purge = functools.partial(operations.purge, query=query, found=found, now_ms=now_ms)
            purged = await self._database.delete(purge)
            if not purged:
                break
            total += purged
        return total

    async def reclaim_space(self) -> None:
        await self._database.reclaim()

    # -- reading

    async def _one(self, query: str, **values: Any) -> Row | None:
        return await self._read(lambda raw: raw.execute(QUERIES[query], values).fetchone())

    async def _all(self, query: str, **values: Any) -> list[Row]:
        return await self._read(lambda raw: raw.execute(QUERIES[query], values).fetchall())

    async def _read(self, operation: Callable[[sqlite3.Connection], T]) -> T:
        return await self._database.readers.read(operation)


def _size(job: NewJob) -> int:
    return len(job.request) + len(job.input) + len(job.response) + len(job.events)
