"""Jobs and events in one SQLite file."""

from __future__ import annotations

import asyncio
import itertools
import json
import secrets
import sqlite3
from collections.abc import Callable, Collection
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import aiosqlite

from gateway.config import StoreSettings
from gateway.core.job import Claim, ClaimLost, Idempotency, IdTaken, Job, NewJob, Outcome, Sealed, Status
from gateway.store import operations
from gateway.store.file import DatabaseLock
from gateway.store.opening import prepare_reader, prepare_writer, reclaim_pages, truncate_wal
from gateway.store.port import Backlog, Call, Page, QueueLimits
from gateway.store.queries import QUERIES
from gateway.store.writer import Writer, on_thread, unavailable
from gateway.wire.items import Turn

T = TypeVar("T")
Row = sqlite3.Row

_SWEEP_ROWS = 500
_NEVER_MS = 2**62


class SqliteStore:
    """The `JobStore` of one process. Open it with `open`; it must be closed."""

    def __init__(
        self,
        path: Path,
        lock: DatabaseLock,
        writer: Writer,
        writing: aiosqlite.Connection,
        readers: list[aiosqlite.Connection],
        pepper: bytes,
    ) -> None:
        self._path = path
        self._lock = lock
        self._writer = writer
        self._writing = writing
        self._readers = readers
        self._next_reader = itertools.cycle(readers)
        self._is_closed = False
        self._owner = secrets.token_hex(8)
        self.pepper = pepper
        """Random bytes of this file, from which tenants are derived."""

    @classmethod
    async def open(cls, settings: StoreSettings, *, on_commit: Callable[[int, float], None]) -> SqliteStore:
        """Open the file, or make it.

        Args:
            on_commit: Told the number of operations and the seconds of every commit.

        Raises:
            DatabaseInUse: Another process has it.
            DatabaseRefused: It is not ours, of another version, damaged, or readable by others.
        """
        path, timeout_s = settings.database, settings.busy_timeout_s
        lock = DatabaseLock(path)
        uri = path.absolute().as_uri()
        opened: list[aiosqlite.Connection] = []
        try:
            writing = await aiosqlite.connect(path, isolation_level=None, timeout=timeout_s)
            opened.append(writing)
            pepper = await on_thread(writing, lambda raw: prepare_writer(raw, settings))
            for _ in range(settings.readers):
                reader = await aiosqlite.connect(
                    f"{uri}?mode=ro",
                    uri=True,
                    isolation_level=None,
                    timeout=timeout_s,
                )
                opened.append(reader)
                await on_thread(reader, prepare_reader)
        except BaseException:
            for connection in reversed(opened):
                await connection.close()
            lock.release()
            raise
        return cls(path, lock, Writer(writing, on_commit), writing, opened[1:], pepper)

    async def close(self) -> None:
        if self._is_closed:
            return
        self._is_closed = True
        try:
            await self._writer.close()
            for reader in self._readers:
                await reader.close()
            with suppress(
                sqlite3.Error
            ):  # all is committed; what stays in the log is there at the next start
                await on_thread(self._writing, truncate_wal)
        finally:  # the thread of a connection that is not closed would keep the process alive
            for connection in (*self._readers, self._writing):
                await connection.close()
            self._lock.release()

    # -- accepting and reading

    async def create(self, job: NewJob, limits: QueueLimits) -> str:
        return await self._writer.ask(lambda raw: operations.create(raw, job, limits))

    async def record(
        self, job: NewJob, status: Status, final: bytes, *, finished_at_ms: int, expires_at_ms: int
    ) -> None:
        def operation(raw: sqlite3.Connection) -> None:
            operations.record(raw, job, status, final, finished_at_ms, expires_at_ms)

        try:
            await self._writer.ask(operation)
        except sqlite3.IntegrityError:
            raise IdTaken from None

    async def repeated(self, tenant: bytes, idempotency: Idempotency, *, now_ms: int) -> str | None:
        return await self._read(lambda raw: operations.repeated(raw, tenant, idempotency, now_ms=now_ms))

    async def unacked(self, tenant: bytes, fingerprint: bytes, *, since_ms: int, now_ms: int) -> list[str]:
        values = {"tenant": tenant, "fingerprint": fingerprint, "since_ms": since_ms, "now_ms": now_ms}
        return [row["id"] for row in await self._all("unacked", **values)]

    async def forget_unacked(self, ids: Collection[str], *, before_ms: int) -> None:
        values = {"ids": json.dumps(list(ids)), "before_ms": before_ms}
        await self._writer.ask(lambda raw: raw.execute(QUERIES["forget_unacked"], values) and None)

    async def find(self, response_id: str, tenant: bytes, *, now_ms: int) -> Job | None:
        row = await self._one("find_job", id=response_id, tenant=tenant, now_ms=now_ms)
        return operations.to_job(row) if row else None

    async def call_of(self, response_id: str) -> Call | None:
        row = await self._one("call_by_id", id=response_id)
        if row is None:
            return None
        sealed = None if row["sealed"] is None else Sealed(row["key_id"], row["sealed"])
        return Call(row["request"], row["input"], row["target"], row["headers"], sealed)

    async def turns_before(self, response_id: str, tenant: bytes) -> list[Turn]:
        rows = await self._all("turns_before", id=response_id, tenant=tenant)
        return [Turn(row["id"], row["input"], row["final"]) for row in rows]

    async def page(
        self, response_id: str, tenant: bytes, *, after: int, bytes_max: int, now_ms: int
    ) -> Page | None:
        values = {"id": response_id, "tenant": tenant, "after": after, "now_ms": now_ms}
        return await self._read(lambda raw: operations.page(raw, values, after, bytes_max))

    async def all_events(self, response_id: str) -> bytes:
        rows = await self._all("all_events", id=response_id)
        return b"".join(row["events"] for row in rows)

    async def backlog(self, *, now_ms: int) -> Backlog:
        rows = await self._all("count_by_status", now_ms=now_ms)
        counts = dict.fromkeys(Status, 0) | {Status(row[0]): row[1] for row in rows}
        oldest = next((row[2] for row in rows if row[0] == Status.QUEUED), None)
        return Backlog(counts, oldest)

    async def sizes(self) -> dict[str, int]:
        return await asyncio.to_thread(_sizes, self._path)

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
    ) -> list[Claim]:
        wanted = {
            "backend": backend,
            "attempts_max": attempts_max,
            "now_ms": now_ms,
            "accepted_before_ms": _NEVER_MS if accepted_before_ms is None else accepted_before_ms,
            "resting": json.dumps([tenant.hex() for tenant in resting]),
        }
        return await self._writer.ask(lambda raw: operations.claim(raw, self._owner, limit, wanted))

    async def append(
        self, claim: Claim, first_seq: int, count: int, events: bytes, *, has_output: bool
    ) -> None:
        def operation(raw: sqlite3.Connection) -> None:
            row = raw.execute(
                QUERIES["append"],
                {
                    "id": claim.id,
                    "epoch": claim.epoch,
                    "first_seq": first_seq,
                    "next_seq": first_seq + count,
                    "has_output": int(has_output),
                },
            ).fetchone()
            if row is None:
                raise ClaimLost
            operations.insert_segment(raw, row["pk"], first_seq, count, events)

        await self._writer.ask(operation)

    async def finish(self, claim: Claim, outcome: Outcome, *, now_ms: int, expires_at_ms: int) -> None:
        def operation(raw: sqlite3.Connection) -> None:
            row = raw.execute(
                QUERIES["finish"],
                {
                    "id": claim.id,
                    "epoch": claim.epoch,
                    "status": outcome.status.value,
                    "first_seq": outcome.first_seq,
                    "next_seq": outcome.first_seq + outcome.event_count,
                    "now_ms": now_ms,
                    "expires_at_ms": expires_at_ms,
                },
            ).fetchone()
            if row is None:
                raise ClaimLost
            operations.insert_segment(raw, row["pk"], outcome.first_seq, outcome.event_count, outcome.events)
            raw.execute(QUERIES["insert_result"], {"pk": row["pk"], "final": outcome.final})

        await self._writer.ask(operation)

    async def take_over(self, response_id: str) -> Claim | None:
        def operation(raw: sqlite3.Connection) -> Claim | None:
            taken = raw.execute(QUERIES["take_over"], {"id": response_id, "owner": self._owner}).fetchone()
            return Claim(operations.job_by_id(raw, response_id)) if taken else None

        return await self._writer.ask(operation)

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

    async def void_owners(self) -> None:
        await self._writer.ask(lambda raw: raw.execute(QUERIES["void_owners"]) and None)

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

    async def delete(self, response_id: str, tenant: bytes, *, now_ms: int) -> bool:
        values = {"id": response_id, "tenant": tenant, "now_ms": now_ms}

        def operation(raw: sqlite3.Connection) -> bool:
            live = raw.execute(QUERIES["delete_live"], values).fetchone()
            return live is not None or raw.execute(QUERIES["delete_ended"], values).fetchone() is not None

        return await self._writer.ask(operation)

    async def sweep(self, *, now_ms: int) -> int:
        values = {"now_ms": now_ms, "limit": _SWEEP_ROWS}

        def operation(raw: sqlite3.Connection) -> int:
            if raw.execute(QUERIES["purge_segments"], values).rowcount == _SWEEP_ROWS:
                return 1  # more to do before any row can go
            return raw.execute(QUERIES["purge_jobs"], values).rowcount

        return await self._writer.ask(operation)

    async def reclaim_space(self) -> None:
        await self._writer.outside_transaction(reclaim_pages)

    # -- reading

    async def _read(self, operation: Callable[[sqlite3.Connection], T]) -> T:
        try:
            return await on_thread(next(self._next_reader), operation)
        except sqlite3.Error as error:
            raise unavailable(error) from None

    async def _one(self, query: str, **values: Any) -> Row | None:
        return await self._read(lambda raw: raw.execute(QUERIES[query], values).fetchone())

    async def _all(self, query: str, **values: Any) -> list[Row]:
        return await self._read(lambda raw: raw.execute(QUERIES[query], values).fetchall())


def _sizes(path: Path) -> dict[str, int]:
    files = {"db": path, "wal": path.with_name(path.name + "-wal")}
    return {name: file.stat().st_size if file.exists() else 0 for name, file in files.items()}
