"""What one operation does on a connection: pieces of a transaction, and rows into values."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Sequence
from contextlib import closing
from typing import Any

import orjson

from gateway.core.job import (
    Claim,
    ClaimLost,
    Idempotency,
    Job,
    KeyReused,
    NewJob,
    PreviousGone,
    QueueFull,
    Status,
)
from gateway.core.webhooks import own_lane
from gateway.store.port import Page, QueueLimits, StoredRequest, Work
from gateway.store.rows import Appended, to_call, to_job, to_page
from gateway.store.sqlite.items import note_items
from gateway.store.sqlite.queries import QUERIES
from gateway.wire.conversation.items import Turn
from gateway.wire.item_ids import ItemPosition
from gateway.wire.sse import split_frames

# What one piece of a sweep may hold up others for.
PURGE_ROWS_MAX = 500
_PURGE_S_MAX = 0.010


def create(raw: sqlite3.Connection, job: NewJob, limits: QueueLimits) -> str:
    """Store a job as queued, with its first events. Returns its id, or that of the one it repeats."""
    return start(raw, None, job, limits)[0]


def start(
    raw: sqlite3.Connection, owner: str | None, job: NewJob, limits: QueueLimits
) -> tuple[str, Work | None]:
    """The same; with an owner it is claimed at once, unless others wait at its backend: theirs may be the
    next turn. Returns what to do for it as well, if it was."""
    if job.idempotency is not None:
        earlier = repeated(raw, job.tenant, job.idempotency, now_ms=job.created_at_ms)
        if earlier is not None:
            return earlier, None
    at = {"tenant": job.tenant, "backend": job.backend}
    total, of_tenant, others_wait = raw.execute(QUERIES["count_queued"], at).fetchone()
    if total >= limits.total_max:
        raise QueueFull(is_tenant=False)
    if of_tenant >= limits.per_tenant_max:
        raise QueueFull(is_tenant=True)
    if others_wait:
        owner = None
    if owner is not None:
        job = job.begun()
    pk = _insert(raw, job, Status.QUEUED if owner is None else Status.IN_PROGRESS, owner=owner)
    insert_segment(raw, pk, 0, job.next_seq, job.events)
    if job.sealed is not None:
        values = {"pk": pk, "key_id": job.sealed.key_id, "sealed": job.sealed.text}
        raw.execute(QUERIES["insert_secret"], values)
    if job.idempotency is not None:
        key, fingerprint = job.idempotency.key, job.idempotency.fingerprint
        values = {"tenant": job.tenant, "key": key, "fingerprint": fingerprint, "pk": pk}
        raw.execute(QUERIES["put_idempotent"], values)
    if owner is None:
        return job.id, None
    raw.execute(QUERIES["take_turn"], {**at, "priority": job.priority})
    raw.execute(QUERIES["forget_turns"], at)
    return job.id, _work_of(raw, job)


def repeated(raw: sqlite3.Connection, tenant: bytes, idempotency: Idempotency, *, now_ms: int) -> str | None:
    """The job that the same key made, while it can be seen. Raises: KeyReused."""
    values = {"tenant": tenant, "key": idempotency.key, "now_ms": now_ms}
    row = raw.execute(QUERIES["find_idempotent"], values).fetchone()
    if row is None or not row["is_there"]:
        return None
    if row["fingerprint"] != idempotency.fingerprint:
        raise KeyReused
    return str(row["id"])


def record(
    raw: sqlite3.Connection,
    job: NewJob,
    status: Status,
    final: bytes,
    item_ids: tuple[str, ...],
    finished_ms: int,
    expires_ms: int,
) -> None:
    """Store a response that has ended already."""
    pk = _insert(raw, job, status, finished_at_ms=finished_ms, expires_at_ms=expires_ms)
    insert_result(raw, pk, job.tenant, final, item_ids)


def insert_result(
    raw: sqlite3.Connection, pk: int, tenant: bytes, final: bytes, item_ids: tuple[str, ...]
) -> None:
    raw.execute(QUERIES["insert_result"], {"pk": pk, "final": final})
    note_items(raw, pk, tenant, ItemPosition.OUTPUT, item_ids)


def _insert(
    raw: sqlite3.Connection,
    job: NewJob,
    status: Status,
    *,
    owner: str | None = None,
    finished_at_ms: int | None = None,
    expires_at_ms: int | None = None,
) -> int:
    row = raw.execute(
        QUERIES["insert_job"],
        {
            "id": job.id,
            "tenant": job.tenant,
            "previous_id": job.previous_id,
            "backend": job.backend,
            "model": job.model,
            "fingerprint": job.fingerprint,
            "priority": job.priority,
            "status": status.value,
            "owner": owner,
            "is_claimed": int(owner is not None),
            "next_seq": job.next_seq,
            "is_background": int(job.is_background),
            "is_streamed": int(job.is_streamed),
            "is_followable": int(job.is_followable),
            "is_rerunnable": int(job.is_rerunnable),
            "created_at_ms": job.created_at_ms,
            "deadline_ms": job.deadline_ms,
            "finished_at_ms": finished_at_ms,
            "expires_at_ms": expires_at_ms,
        },
    ).fetchone()
    if job.previous_id is not None and row["previous"] is None:
        raise PreviousGone  # it expired since it was looked up: never run without the context
    raw.execute(
        QUERIES["insert_call"],
        {
            "pk": row["pk"],
            "response": job.response,
            "request": job.request,
            "input": job.input,
            "target": job.target,
            "headers": job.headers,
            "webhook": job.webhook,
            "lane": None if job.webhook is None else own_lane(job.tenant, job.webhook),
        },
    )
    note_items(raw, row["pk"], job.tenant, ItemPosition.INPUT, job.item_ids)
    return int(row["pk"])


def insert_segment(raw: sqlite3.Connection, pk: int, first_seq: int, count: int, events: bytes) -> None:
    values = {"pk": pk, "first_seq": first_seq, "last_seq": first_seq + count - 1, "events": events}
    raw.execute(QUERIES["insert_segment"], values)


def append(raw: sqlite3.Connection, runs: Sequence[Appended]) -> set[str]:
    """Store the events of several runs, one to a job. Returns those that still have theirs."""
    rows, start = [], 1
    for run in runs:
        size = len(run.events)
        rows.append((run.id, run.epoch, run.first_seq, run.next_seq, int(run.has_output), start, size))
        start += size
    given = {"rows": orjson.dumps(rows).decode()}
    raw.execute(QUERIES["append_segments"], {**given, "events": b"".join(run.events for run in runs)})
    return {row["id"] for row in raw.execute(QUERIES["append"], given).fetchall()}


def claim(
    raw: sqlite3.Connection, owner: str, limit: int, bytes_max: int, wanted: dict[str, Any]
) -> list[Work]:
    """Take waiting jobs, one turn after the other (sql/tally.sql has their order)."""
    works: list[Work] = []
    while limit > 0 and bytes_max > 0 and (turn := raw.execute(QUERIES["next_job"], wanted).fetchone()):
        values = {**dict(turn), "backend": wanted["backend"], "owner": owner, "now_ms": wanted["now_ms"]}
        raw.execute(QUERIES["take_turn"], values)
        claimed = raw.execute(QUERIES["claim"], values).fetchone()
        works.append(_work(raw, claimed["id"]))
        limit, bytes_max = limit - 1, bytes_max - works[-1].size
    if works:
        raw.execute(QUERIES["forget_turns"], {"backend": wanted["backend"]})
    return works


def room(raw: sqlite3.Connection, backend: str, running_max: int) -> int:
    """How many more jobs of a backend may run."""
    row = raw.execute(QUERIES["count_running"], {"backend": backend}).fetchone()
    return running_max - int(row["jobs"])


def _work_of(raw: sqlite3.Connection, job: NewJob) -> Work:
    """Of the job that was stored just now: it is not read back."""
    call = StoredRequest(job.request, job.input, job.target, job.headers, job.sealed)
    has_previous = job.previous_id is not None
    turns_before_it = turns_before(raw, job.id, job.tenant) if has_previous else []
    return Work(
        Job(
            id=job.id,
            tenant=job.tenant,
            status=Status.IN_PROGRESS,
            epoch=1,
            attempt=1,
            next_seq=job.next_seq,
            created_at_ms=job.created_at_ms,
            started_at_ms=job.created_at_ms,
            deadline_ms=job.deadline_ms,
            is_streamed=job.is_streamed,
            is_followable=job.is_followable,
            is_rerunnable=job.is_rerunnable,
            output_shown=False,
            backend=job.backend,
            priority=job.priority,
            has_previous=has_previous,
            is_unnamed=job.fingerprint is not None,
            response=job.response,
            final=None,
        ),
        call,
        turns_before_it,
    )


def _work(raw: sqlite3.Connection, response_id: str) -> Work:
    row = raw.execute(QUERIES["work_by_id"], {"id": response_id}).fetchone()
    job = to_job(row)
    return Work(job, to_call(row), turns_before(raw, response_id, job.tenant) if job.has_previous else [])


def turns_before(raw: sqlite3.Connection, response_id: str, tenant: bytes) -> list[Turn]:
    """The turns that a job goes on from, oldest first."""
    rows = raw.execute(QUERIES["turns_before"], {"id": response_id, "tenant": tenant}).fetchall()
    return [Turn(row["id"], row["input"], row["final"], row["backend"]) for row in rows]


def rewind(raw: sqlite3.Connection, claim: Claim, seq: int) -> None:
    """Throw the events from `seq` on away; those before it stay, also of a shared segment."""
    row = raw.execute(QUERIES["rewind"], {"id": claim.id, "epoch": claim.epoch, "seq": seq}).fetchone()
    if row is None:
        raise ClaimLost
    for segment in raw.execute(QUERIES["segments_from"], {"pk": row["pk"], "seq": seq}).fetchall():
        raw.execute(QUERIES["delete_segment"], {"pk": segment["pk"]})
        kept = split_frames(segment["events"])[: max(0, seq - segment["first_seq"])]
        if kept:
            insert_segment(raw, row["pk"], segment["first_seq"], len(kept), b"".join(kept))


def purge(
    raw: sqlite3.Connection, bytes_max: int, *, query: str, found: list[sqlite3.Row], now_ms: int
) -> int:
    """Delete some of these rows, one at least and as many as there is time for. Returns how many."""
    deadline, size, count = time.perf_counter() + _PURGE_S_MAX, 0, 0
    for row in found:
        count += raw.execute(QUERIES[query], {"pk": row["pk"], "now_ms": now_ms}).rowcount
        size += row["size"]
        if size >= bytes_max or time.perf_counter() > deadline:
            break
    return count


def page(raw: sqlite3.Connection, values: dict[str, Any], after: int, bytes_max: int) -> Page | None:
    # One statement, and no cursor survives this function: it would pin an old snapshot.
    with closing(raw.execute(QUERIES["events_after"], values)) as rows:
        return to_page(rows, after, bytes_max)


def job_by_id(raw: sqlite3.Connection, response_id: str) -> Job:
    return to_job(raw.execute(QUERIES["job_by_id"], {"id": response_id}).fetchone())
