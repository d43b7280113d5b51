"""The read side for operators: lists of jobs, how many there are, and how many of them wait for what.

Ended ones are counted by triggers (sql/schema.sql). Those that wait are walked through, in one index: the
settings limit their number.
"""

from __future__ import annotations

import json
import sqlite3
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, fields
from typing import Any

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
from gateway.store.sqlite.queries import QUERIES
from gateway.store.sqlite.read_connections import ReadConnections


class SqliteInsight:
    """The `Insight` of one file."""

    def __init__(self, readers: ReadConnections) -> None:
        self._readers = readers

    async def jobs(
        self, wanted: Wanted, *, limit: int, before: int | None = None, is_oldest_first: bool = False
    ) -> Listing:
        statuses = None if wanted.statuses is None else json.dumps(list(wanted.statuses))
        values = asdict(wanted) | {"statuses": statuses, "limit": limit}
        values["direction"] = 1 if is_oldest_first else -1
        values["cursor"] = before if before is not None else 0 if is_oldest_first else NEWEST

        def operation(raw: sqlite3.Connection) -> Listing:
            values["way"] = _way(raw, wanted, is_oldest_first)
            rows: list[sqlite3.Row] = []
            for looked_at in (min(AT_FIRST, LOOKED_AT), LOOKED_AT):
                values["looked_at"] = looked_at
                rows = raw.execute(QUERIES["list_jobs"], values).fetchall()
                if is_full := len(rows) == limit:
                    break
            last = rows[-1] if is_full else raw.execute(QUERIES["last_looked_at"], values).fetchone()
            return Listing([_facts(row) for row in rows], None if last is None else last["pk"])

        return await self._readers.read(operation)

    async def details(self, response_id: str) -> Details | None:
        def operation(raw: sqlite3.Connection) -> Details | None:
            row = raw.execute(QUERIES["details"], {"id": response_id}).fetchone()
            if row is None:
                return None
            later = raw.execute(QUERIES["later_turns"], {"pk": row["pk"], "limit": LATER_MAX}).fetchall()
            return _details(row, tuple(each["id"] for each in later))

        return await self._readers.read(operation)

    async def crowds(self) -> list[Crowd]:
        def operation(raw: sqlite3.Connection) -> list[Crowd]:
            rows = raw.execute(QUERIES["crowds"], {"limit": CROWDS_MAX}).fetchall()
            return [Crowd(**{**dict(row), "tenant": row["tenant"].hex()}) for row in rows]

        return await self._readers.read(operation)

    async def backlog(self, *, now_ms: int, barred: Mapping[tuple[str, bytes], str] = NOBODY) -> Backlog:
        def operation(raw: sqlite3.Connection) -> Backlog:
            raw.execute("BEGIN")  # all of it from one state of the file
            try:
                return _backlog(raw, now_ms, barred)
            finally:
                if raw.in_transaction:  # not after an interrupted read
                    raw.execute("COMMIT")

        return await self._readers.read(operation)


def _way(raw: sqlite3.Connection, wanted: Wanted, is_oldest_first: bool) -> str:
    """Where the jobs are looked for; the shortest of the ways."""
    if wanted.statuses is not None and LIVE.issuperset(wanted.statuses):
        return "live"
    if wanted.id is not None:
        values = {"id": wanted.id, "looked_at": LOOKED_AT}
        if raw.execute(QUERIES["count_ids"], values).fetchone()[0] < LOOKED_AT:
            return "id"
    return "oldest" if is_oldest_first else "newest"


def _facts(row: sqlite3.Row) -> Facts:
    return Facts(**_values(row, Facts))


def _details(row: sqlite3.Row, later: tuple[str, ...]) -> Details:
    values = _values(row, Details) | {name: bool(row[name]) for name in _FLAGS}
    return Details(**{**values, "previous": row["previous_id"], "later": later})


def _values(row: sqlite3.Row, kind: type[Facts]) -> dict[str, Any]:
    same = {name: row[name] for name in _SAME[kind]}
    told = {"status": Status(row["status"]), "tenant": row["tenant"].hex(), "event_count": row["next_seq"]}
    return {**same, **told}


_SAME = {
    kind: [field.name for field in fields(kind) if field.name not in ("event_count", "later")]
    for kind in (Facts, Details)
}
_FLAGS = frozenset(field.name for field in fields(Details) if field.type == "bool")


def _backlog(raw: sqlite3.Connection, now_ms: int, barred: Mapping[tuple[str, bytes], str]) -> Backlog:
    rows = raw.execute(QUERIES["waiting_jobs"], {"now_ms": now_ms}).fetchall()
    by_status = dict.fromkeys(Status, 0)
    for row in raw.execute(QUERIES["count_ended"], {"now_ms": now_ms}).fetchall():
        by_status[Status(row["status"])] = row["jobs"]
    for row in raw.execute(QUERIES["count_owned"]).fetchall():
        by_status[Status(row["status"])] = row["jobs"]
    by_status[Status.QUEUED] += sum(row["queued"] for row in rows)
    by_status[Status.IN_PROGRESS] += sum(row["jobs"] - row["queued"] for row in rows)
    oldest = [row["oldest_queued_ms"] for row in rows if row["oldest_queued_ms"] is not None]
    waiting = {}
    for row in rows:
        of_barred = _barred(raw, row["backend"], now_ms, barred)
        waiting[row["backend"]] = WaitingJobs(row["jobs"], row["put_off"], row["oldest_ms"], of_barred)
    return Backlog(by_status, min(oldest, default=None), waiting)


def _barred(
    raw: sqlite3.Connection, backend: str, now_ms: int, barred: Mapping[tuple[str, bytes], str]
) -> Mapping[str, int]:
    found: Counter[str] = Counter()
    for (where, tenant), reason in barred.items():
        if where == backend:
            values = {"backend": backend, "tenant": tenant, "now_ms": now_ms}
            found[reason] += raw.execute(QUERIES["waiting_of_caller"], values).fetchone()[0]
    return found
