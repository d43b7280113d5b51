"""The read side for operators: lists of jobs, how many there are, and how many of them wait for what."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import asdict, fields
from typing import Any, TypeVar

import asyncpg

from gateway.core.job import LIVE, Status
from gateway.store.insight import (
    AT_FIRST,
    CROWDS_MAX,
    LATER_MAX,
    LOOKED_AT,
    NEWEST,
    NOBODY,
    Backlog,
    Crowd,
    Details,
    Facts,
    Listing,
    WaitingJobs,
    Wanted,
)
from gateway.store.postgres.connections import Connections, rows_of
from gateway.store.postgres.queries import QUERIES

T = TypeVar("T")


class PostgresInsight:
    """The `Insight` of one database."""

    def __init__(self, reading: Connections) -> None:
        self._reading = reading

    async def jobs(
        self, wanted: Wanted, *, limit: int, before: int | None = None, is_oldest_first: bool = False
    ) -> Listing:
        given = asdict(wanted) | {"limit": limit, "direction": 1 if is_oldest_first else -1}
        given["statuses"] = None if wanted.statuses is None else [each.value for each in wanted.statuses]
        given["cursor"] = before if before is not None else 0 if is_oldest_first else NEWEST

        async def operation(connection: asyncpg.Connection) -> Listing:
            given["way"] = await _way(connection, wanted, is_oldest_first)
            rows: list[Any] = []
            for looked_at in (min(AT_FIRST, LOOKED_AT), LOOKED_AT):
                given["looked_at"] = looked_at
                rows = await rows_of(connection, QUERIES["list_jobs"], **given)
                if is_full := len(rows) == limit:
                    break
            ends = rows if is_full else await rows_of(connection, QUERIES["last_looked_at"], **given)
            return Listing([_facts(row) for row in rows], ends[-1]["pk"] if ends else None)

        return await self._seen(operation)

    async def details(self, response_id: str) -> Details | None:
        async def operation(connection: asyncpg.Connection) -> Details | None:
            for row in await rows_of(connection, QUERIES["details"], id=response_id):
                later = await rows_of(connection, QUERIES["later_turns"], pk=row["pk"], limit=LATER_MAX)
                return _details(row, tuple([each["id"] for each in later]))
            return None

        return await self._seen(operation)

    async def crowds(self) -> list[Crowd]:
        rows = await self._reading.all(QUERIES["crowds"], limit=CROWDS_MAX)
        return [Crowd(**{**dict(row), "tenant": row["tenant"].hex()}) for row in rows]

    async def backlog(self, *, now_ms: int, barred: Mapping[tuple[str, bytes], str] = NOBODY) -> Backlog:
        return await self._seen(lambda connection: _backlog(connection, now_ms, barred))

    async def _seen(self, operation: Callable[[asyncpg.Connection], Awaitable[T]]) -> T:
        """What `operation` sees of one state of the database, whatever is written meanwhile."""

        async def whole(connection: asyncpg.Connection) -> T:
            async with connection.transaction(isolation="repeatable_read", readonly=True):
                return await operation(connection)

        return await self._reading.use(whole)


async def _way(connection: asyncpg.Connection, wanted: Wanted, is_oldest_first: bool) -> str:
    """Where the jobs are looked for; the shortest of the ways."""
    if wanted.statuses is not None and LIVE.issuperset(wanted.statuses):
        return "live"
    if wanted.id is not None:
        [begun] = await rows_of(connection, QUERIES["count_ids"], id=wanted.id, looked_at=LOOKED_AT)
        if begun["jobs"] < LOOKED_AT:
            return "id"
    return "oldest" if is_oldest_first else "newest"


def _facts(row: Any) -> Facts:
    return Facts(**_values(row, _SAME[Facts]))


def _details(row: Any, later: tuple[str, ...]) -> Details:
    return Details(**{**_values(row, _SAME[Details]), "previous": row["previous_id"], "later": later})


def _values(row: Any, names: list[str]) -> dict[str, Any]:
    same = {name: row[name] for name in names}
    told = {"status": Status(row["status"]), "tenant": row["tenant"].hex(), "event_count": row["next_seq"]}
    return {**same, **told}


_SAME = {
    kind: [field.name for field in fields(kind) if field.name not in ("event_count", "later")]
    for kind in (Facts, Details)
}


async def _backlog(
    connection: asyncpg.Connection, now_ms: int, barred: Mapping[tuple[str, bytes], str]
) -> Backlog:
    rows = await connection.fetch(QUERIES["waiting_jobs"].text, now_ms)
    by_status = dict.fromkeys(Status, 0)
    for row in await connection.fetch(QUERIES["count_ended"].text, now_ms):
        by_status[Status(row["status"])] = row["jobs"]
    for row in await connection.fetch(QUERIES["count_owned"].text):
        by_status[Status(row["status"])] = row["jobs"]
    by_status[Status.QUEUED] += sum(row["queued"] for row in rows)
    by_status[Status.IN_PROGRESS] += sum(row["jobs"] - row["queued"] for row in rows)
    oldest = [row["oldest_queued_ms"] for row in rows if row["oldest_queued_ms"] is not None]
    of_barred: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for (backend, _), reason in barred.items():
        of_barred[backend][reason] += 0
    if barred:
        tenants = list({tenant for _, tenant in barred})
        for row in await connection.fetch(QUERIES["waiting_of_callers"].text, tenants, now_ms):
            if (whose := (row["backend"], row["tenant"])) in barred:
                of_barred[row["backend"]][barred[whose]] += row["jobs"]
    waiting = {
        row["backend"]: WaitingJobs(row["jobs"], row["put_off"], row["oldest_ms"], of_barred[row["backend"]])
        for row in rows
    }
    return Backlog(by_status, min(oldest, default=None), waiting)
