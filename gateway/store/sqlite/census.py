"""How many jobs there are, and how many of them wait for what, without looking at each.

Ended ones are counted by triggers (sql/schema.sql). Those that wait are walked through, in one index: the
settings limit their number.
"""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Mapping

from gateway.core.job import Status
from gateway.store.port import Backlog, WaitingJobs
from gateway.store.sqlite.queries import QUERIES


def backlog(raw: sqlite3.Connection, now_ms: int, barred: Mapping[tuple[str, bytes], str]) -> Backlog:
    """All of it, from one state of the file."""
    raw.execute("BEGIN")
    try:
        return _backlog(raw, now_ms, barred)
    finally:
        if raw.in_transaction:  # not after an interrupted read
            raw.execute("COMMIT")


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
