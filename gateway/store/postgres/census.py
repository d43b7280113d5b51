"""The read side for operators: lists of jobs, how many there are, and how many of them wait for what."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import asdict, fields
from types import MappingProxyType
from typing import Any

import asyncpg

from gateway.core.job import Status
from gateway.store.insight import Backlog, Facts, Listing, WaitingJobs, Wanted
from gateway.store.postgres.connecting import Connections
from gateway.store.postgres.queries import QUERIES

_LOOKED_AT = 10_000
"""So many jobs one look goes through: some milliseconds."""
_NEWEST = 2**62
_NOBODY: Mapping[tuple[str, bytes], str] = MappingProxyType({})
_NAMES = {field.name for field in fields(Facts)}


class PostgresInsight:
    """The `Insight` of one database."""

    def __init__(self, reading: Connections) -> None:
        self._reading = reading

    async def jobs(self, wanted: Wanted, *, limit: int, before: int | None = None) -> Listing:
        given = asdict(wanted) | {"limit": limit, "looked_at": _LOOKED_AT}
        given["statuses"] = None if wanted.statuses is None else [each.value for each in wanted.statuses]
        given["before"] = _NEWEST if before is None else before
        rows = await self._reading.all(QUERIES["list_jobs"], **given)
        is_full = len(rows) == limit
        last = rows[-1] if is_full else await self._reading.one(QUERIES["last_looked_at"], **given)
        return Listing([_facts(row) for row in rows], None if last is None else last["pk"])

    async def backlog(self, *, now_ms: int, barred: Mapping[tuple[str, bytes], str] = _NOBODY) -> Backlog:
        async def operation(connection: asyncpg.Connection) -> Backlog:
            async with connection.transaction(isolation="repeatable_read", readonly=True):  # one state of all
                return await _backlog(connection, now_ms, barred)

        return await self._reading.use(operation)


def _facts(row: Any) -> Facts:
    same = {name: value for name, value in row.items() if name in _NAMES}
    own = {"status": Status(row["status"]), "tenant": row["tenant"].hex(), "event_count": row["next_seq"]}
    return Facts(**{**same, **own})


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
