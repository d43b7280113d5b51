"""A small job, as it is accepted."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from gateway.core.job import NewJob
from gateway.wire.sse import encode

NOW = 1_000_000
TENANT = b"t" * 32


def new_job(name: str, **changes: Any) -> NewJob:
    """One of `TENANT`, accepted at `NOW`, and whatever else a test wants of it."""
    job = NewJob(
        id=name,
        tenant=TENANT,
        previous_id=None,
        created_at_ms=NOW,
        deadline_ms=NOW + 3_600_000,
        response=b"{}",
        request=b"{}",
        input=b'"input of %b"' % name.encode(),
        target="/v1/responses",
        headers=b"{}",
        is_streamed=False,
        is_followable=False,
        is_rerunnable=True,
        events=encode("response.created", b"{}") + encode("response.queued", b"{}"),
        next_seq=2,
    )
    return replace(job, **changes)
