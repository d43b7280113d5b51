"""From a valid create request to the job that is stored."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import orjson

from gateway.core import tiers
from gateway.core.job import Idempotency, Job, NewJob, Status
from gateway.core.transcript import BACKGROUND
from gateway.wire import events, responses, stored_requests
from gateway.wire.conversation.items import as_list
from gateway.wire.failures.redaction import name_shown
from gateway.wire.item_ids import FIRST_INPUT, to_be_looked_up
from gateway.wire.requests import is_rerunnable


def new_job(
    body: dict[str, Any],
    *,
    response_id: str,
    tenant: bytes,
    previous_id: str | None,
    backend: str,
    target: str,
    headers: dict[str, str],
    idempotency: Idempotency | None,
    shows_output: bool,
    opening: tuple[str, str],
    now_ms: int,
    deadline_s: float,
    fingerprint: bytes | None = None,
    webhook: str | None = None,
    tools: Sequence[dict[str, Any]] | None = None,
) -> NewJob:
    """The job for a validated body, with its first two events.

    Args:
        previous_id: Of this gateway; a `previous_response_id` of the backend's own stays in the body.
        headers: Those of the caller that may lie on disk.
        webhook: URL of the caller's own to tell of the end.
        opening: The types of the first two events.
        shows_output: The settings let readers see output that is not finished.
        tools: Those that the backend is told of, if it is not told of all.
    """
    accepted = responses.accepted(body, response_id=response_id, created_at=now_ms // 1000, tools=tools)
    response = orjson.dumps(accepted)
    first = [{"type": name, "response": orjson.Fragment(response)} for name in opening]
    begun = {"type": BACKGROUND[len(first)], "response": {**accepted, "status": Status.IN_PROGRESS}}
    kept = dict(body)
    if previous_id is not None:
        kept.pop("previous_response_id", None)
    return NewJob(
        id=response_id,
        tenant=tenant,
        previous_id=previous_id,
        idempotency=idempotency,
        fingerprint=fingerprint,
        webhook=webhook,
        backend=backend,
        priority=tiers.rank(body),
        created_at_ms=now_ms,
        deadline_ms=now_ms + int(deadline_s * 1000),
        response=response,
        request=stored_requests.request_bytes(kept),
        input=stored_requests.input_bytes(body),
        target=target,
        headers=stored_requests.headers_bytes(headers),
        is_streamed=body.get("stream") is True,
        is_followable=shows_output or body.get("stream") is True,
        is_rerunnable=is_rerunnable(body if tools is None else {**body, "tools": list(tools)}),
        events=b"".join(events.frame(event, number) for number, event in enumerate(first)),
        next_seq=len(first),
        beginning=events.frame(begun, len(first)),
        item_ids=to_be_looked_up(response_id, as_list(body.get("input")), FIRST_INPUT),
        model=name_shown(body.get("model")),
    )


def kept_turn(
    body: dict[str, Any],
    *,
    response_id: str,
    tenant: bytes,
    previous_id: str | None,
    backend: str,
    now_ms: int,
) -> NewJob:
    """A plain response that has been answered, as a turn to go on from."""
    return NewJob(
        id=response_id,
        tenant=tenant,
        previous_id=previous_id,
        backend=backend,
        is_background=False,
        created_at_ms=now_ms,
        deadline_ms=now_ms,
        response=b"{}",
        request=b"{}",
        input=stored_requests.input_bytes(body),
        target="",
        headers=b"{}",
        is_streamed=False,
        is_followable=False,
        is_rerunnable=False,
        events=b"",
        next_seq=0,
        item_ids=to_be_looked_up(response_id, as_list(body.get("input")), FIRST_INPUT),
    )


def foreground_job(
    body: dict[str, Any],
    *,
    response_id: str,
    tenant: bytes,
    now_ms: int,
    tools: Sequence[dict[str, Any]] | None = None,
) -> Job:
    """The run of a plain request, which is answered while it lasts and waits in no queue."""
    response = responses.accepted(
        body, response_id=response_id, created_at=now_ms // 1000, background=False, tools=tools
    )
    return Job(
        id=response_id,
        tenant=tenant,
        status=Status.IN_PROGRESS,
        epoch=0,
        attempt=1,
        next_seq=0,
        created_at_ms=now_ms,
        started_at_ms=now_ms,
        deadline_ms=0,
        is_streamed=body.get("stream") is True,
        is_followable=True,
        is_rerunnable=False,
        output_shown=False,
        is_background=False,
        backend="",
        response=orjson.dumps(response),
        final=None,
    )
