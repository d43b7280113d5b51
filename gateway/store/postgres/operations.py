"""What is asked of the writing connection: the statements, and what their rows say."""

from __future__ import annotations

from typing import Any

from gateway.core.job import (
    Claim,
    ClaimLost,
    IdTaken,
    KeyReused,
    NewJob,
    Outcome,
    PreviousGone,
    QueueFull,
    Status,
)
from gateway.core.webhooks import own_lane
from gateway.store.item_keys import keys_of
from gateway.store.port import DeletedJob, QueueLimits
from gateway.store.postgres.batches import Statement
from gateway.store.postgres.queries import QUERIES
from gateway.store.rows import to_job


def size_of(job: NewJob) -> int:
    return len(job.request) + len(job.input) + len(job.response) + len(job.events)


def create(job: NewJob, limits: QueueLimits) -> Statement:
    key, sealed = job.idempotency, job.sealed
    given = _new(job) | {
        "events": job.events,
        "key_id": sealed.key_id if sealed else None,
        "sealed": sealed.text if sealed else None,
        "key": key.key if key else None,
        "key_fingerprint": key.fingerprint if key else None,
        "total_max": limits.total_max,
        "per_tenant_max": limits.per_tenant_max,
    }
    return _statement("create", job.id, given, _accepted, size_of(job), settled="was_created")


def _accepted(row: Any) -> str:
    match row["verdict"]:
        case "full":
            raise QueueFull(is_tenant=False)
        case "full_of_tenant":
            raise QueueFull(is_tenant=True)
        case "reused":
            raise KeyReused
        case "gone":
            raise PreviousGone  # it expired since it was looked up: never run without the context
    return str(row["accepted_id"])


def record(
    job: NewJob, status: Status, final: bytes, finished_ms: int, expires_ms: int, item_ids: tuple[str, ...]
) -> Statement:
    given = _new(job) | {
        "status": status.value,
        "finished_at_ms": finished_ms,
        "expires_at_ms": expires_ms,
        "final": final,
        "output_keys": keys_of(item_ids),
    }
    return _statement("record", job.id, given, _recorded, size_of(job) + len(final), settled="was_recorded")


def _recorded(row: Any) -> None:
    match row["verdict"]:
        case "gone":
            raise PreviousGone
        case "taken":
            raise IdTaken


def _new(job: NewJob) -> dict[str, Any]:
    return {
        "id": job.id,
        "tenant": job.tenant,
        "previous_id": job.previous_id,
        "fingerprint": job.fingerprint,
        "backend": job.backend,
        "model": job.model,
        "priority": job.priority,
        "next_seq": job.next_seq,
        "is_background": job.is_background,
        "is_streamed": job.is_streamed,
        "is_followable": job.is_followable,
        "is_rerunnable": job.is_rerunnable,
        "created_at_ms": job.created_at_ms,
        "deadline_ms": job.deadline_ms,
        "response": job.response,
        "request": job.request,
        "input": job.input,
        "target": job.target,
        "headers": job.headers,
        "webhook": job.webhook,
        "lane": None if job.webhook is None else own_lane(job.tenant, job.webhook),
        "input_keys": keys_of(job.item_ids),
    }


def finish(claim: Claim, outcome: Outcome, now_ms: int, expires_ms: int) -> Statement:
    given = {
        "id": claim.id,
        "epoch": claim.epoch,
        "status": outcome.status.value,
        "error": outcome.code,
        "first_seq": outcome.first_seq,
        "next_seq": outcome.first_seq + outcome.event_count,
        "now_ms": now_ms,
        "expires_at_ms": expires_ms,
        "events": outcome.events,
        "final": outcome.final,
        "output_keys": keys_of(outcome.item_ids),
    }
    size = len(outcome.events) + len(outcome.final)
    return _statement("finish", claim.id, given, _still_ours, size, settled="was_finished")


def release(claim: Claim, attempts_returned: int, put_offs: int, not_before_ms: int) -> Statement:
    given = {
        "id": claim.id,
        "epoch": claim.epoch,
        "attempts_returned": attempts_returned,
        "put_offs": put_offs,
        "not_before_ms": not_before_ms,
    }
    return _statement("release", claim.id, given, _still_ours, settled="was_released")


def _still_ours(row: Any) -> None:
    if not row["is_done"]:
        raise ClaimLost


def take_over(response_id: str, owner: str, epoch: int | None) -> Statement:
    given = {"id": response_id, "owner": owner, "epoch": epoch}
    return _statement("take_over", response_id, given, _taken)


def _taken(row: Any) -> Claim | None:
    return None if row["id"] is None else Claim(to_job(row))


def delete(response_id: str, tenant: bytes, now_ms: int) -> Statement:
    given = {"id": response_id, "tenant": tenant, "now_ms": now_ms}
    return _statement("delete", response_id, given, _deleted, settled="was_deleted")


def _deleted(row: Any) -> DeletedJob | None:
    if not row["is_done"]:
        return None
    return DeletedJob(None if row["id"] is None else to_job(row))


def _is_done(row: Any) -> bool:
    return bool(row["is_done"])


def name(response_id: str) -> Statement:
    return _statement("name", response_id, {"id": response_id}, lambda _: None)


def set_priority(response_id: str, priority: int) -> Statement:
    return _statement("set_priority", response_id, {"id": response_id, "priority": priority}, _is_done)


def claim(given: dict[str, Any]) -> Statement:
    """Row numbers of the jobs that it takes, in the order in which they are to start."""
    key = f"claim {given['backend']}"
    return _statement("claim", key, given, lambda row: row["taken"], settled="was_claimed")


def _statement(
    query: str,
    key: str,
    given: dict[str, Any],
    read: Any,
    size: int = 0,
    *,
    settled: str | None = None,
) -> Statement:
    check = None if settled is None else (QUERIES[settled], QUERIES[settled].values(given))
    return Statement(QUERIES[query], QUERIES[query].values(given), key, read, size, check)
