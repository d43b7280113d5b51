"""What the admin API shows, as JSON: from the engine's values to the names that page and commands read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from gateway.core.outlook import Outlook
from gateway.core.webhooks import Delivery
from gateway.engine.followers import Watching
from gateway.engine.operators import JobRow, OneJob
from gateway.engine.overviews import Overview

_WATCHING_MAX = 50


def overview(found: Overview, *, shows_addresses: bool) -> dict[str, Any]:
    """Backends with their replicas and orders; addresses are only for those who may change things."""
    shown = asdict(found)
    for backend in shown["backends"] if not shows_addresses else ():
        for replica in backend["replicas"]:
            replica.pop("url", None)
        for order in backend["orders"]:
            order.pop("by", None)
    return shown


def row(found: JobRow) -> dict[str, Any]:
    """A job in a list."""
    facts = found.facts
    return {
        "id": facts.id,
        "status": facts.status,
        "is_running": found.is_running,
        "waits_for": found.waits_for,
        "backend": facts.backend,
        "model": facts.model,
        "tenant": facts.tenant[:8],
        "tier": found.tier,
        "error": facts.error,
        "attempt": facts.attempt,
        "put_offs": facts.put_offs,
        "event_count": found.event_count,
        "events_per_s": found.events_per_s,
        "silent_s": found.silent_s,
        "created_at_ms": facts.created_at_ms,
        "started_at_ms": facts.started_at_ms,
        "finished_at_ms": facts.finished_at_ms,
    }


def job(
    found: OneJob, deliveries: Sequence[tuple[Delivery, float]], now_ms: int, *, shows_addresses: bool
) -> dict[str, Any]:
    """All about one; where its readers are only for those who may change things."""
    details = found.details
    return {
        **row(found.row),
        "now_ms": now_ms,
        "deadline_ms": details.deadline_ms,
        "expires_at_ms": details.expires_at_ms,
        "is_streamed": details.is_streamed,
        "is_followable": details.is_followable,
        "is_rerunnable": details.is_rerunnable,
        "output_shown": details.output_shown,
        "events_bytes": details.events_bytes,
        "replica": found.replica,
        "request": found.request,
        "upstream_request": found.upstream_request,
        "upstream_status": found.upstream_status,
        "readers": len(found.watching),
        "watching": [_watching(each, now_ms, shows_addresses) for each in found.watching[:_WATCHING_MAX]],
        "timeline": _timeline(found, now_ms),
        "waits": _told(found.waits),
        "if_killed": _told(found.if_killed),
        "chain": {"previous": details.previous, "later": details.later},
        "tells_caller": details.is_told,
        "deliveries": [delivery(each, due_in_s) for each, due_in_s in deliveries],
        "told": [{"at_ms": each.at_ms, "to": each.to, **each.facts} for each in found.told],
    }


def _watching(found: Watching, now_ms: int, shows_addresses: bool) -> dict[str, Any]:
    shown = {
        "for_s": max(0, now_ms - found.since_ms) / 1000,
        "last_seq": found.cursor,
        "tenant": found.tenant,
    }
    return {**shown, "peer": found.peer} if shows_addresses else shown


def delivery(found: Delivery, due_in_s: float) -> dict[str, Any]:
    """An event that waits to be told."""
    return {
        "endpoint": found.receiver,
        "event": f"response.{found.status.value}",
        "attempts": found.attempts,
        "failure": found.failure,
        "due_in_s": max(0.0, due_in_s) if found.due_at_ms else 0.0,
    }


def _told(found: Outlook | None) -> dict[str, str] | None:
    return None if found is None else asdict(found)


def _timeline(found: OneJob, now_ms: int) -> list[dict[str, Any]]:
    """The states that it went through, each until the next: what is remembered, or else what is stored."""
    facts = found.details
    moves = [{"at_ms": move.at_ms, "to": move.to, **move.facts} for move in found.moves]
    is_whole = bool(moves) and moves[0]["to"] == "queued"
    steps = moves if is_whole else [{"at_ms": facts.created_at_ms, "to": "queued"}, *_stored(found), *moves]
    if facts.finished_at_ms is not None and steps[-1]["to"] != facts.status:
        steps.append({"at_ms": facts.finished_at_ms, "to": facts.status.value, "code": facts.error})
    last_ms = facts.finished_at_ms or now_ms
    ends = [each["at_ms"] for each in steps[1:]] + [last_ms]
    return [
        {**step, "for_s": max(0, end_ms - step["at_ms"]) / 1000}
        for step, end_ms in zip(steps, ends, strict=True)
    ]


def _stored(found: OneJob) -> list[dict[str, Any]]:
    """What the process that ran it before is known to have done."""
    facts = found.details
    first_ms = found.moves[0].at_ms if found.moves else None
    if facts.started_at_ms is None or (first_ms is not None and facts.started_at_ms >= first_ms):
        return []
    return [{"at_ms": facts.started_at_ms, "to": "in_progress", "is_earlier_process": True}]
