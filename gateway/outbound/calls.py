"""The one loop by which calls are made: replica after replica, until one has answered.

All calls go through it, whoever waits for the answer: a job, a client, or a client's WebSocket.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar

from gateway import loop
from gateway.core.reason import Reason
from gateway.observe import Observer
from gateway.outbound.client import FAILURES, explain
from gateway.outbound.pool import Replica
from gateway.outbound.tries import Failover
from gateway.wire.errors import Refusal

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Unanswered:
    """One replica has not answered."""

    reason: Reason
    refusal: Refusal


async def each_answer(
    tries: Failover,
    connect: Callable[[Replica, loop.timeout], Awaitable[T]],
    limit_s: float,
    kind: str,
    observer: Observer,
) -> AsyncGenerator[tuple[Replica, T | Unanswered], None]:
    """What each replica says; another one is asked only if the last one has not answered. Closing the
    generator ends the call.

    Args:
        connect: Sends the call to a replica, and waits for the head of its answer. It may move the limit.
        kind: For the metrics: `background`, `passthrough` or `lookup`.
    """
    now_s = asyncio.get_running_loop().time
    while (replica := await tries.next()) is not None:
        with tries.pool.call(replica, is_background=tries.is_background):
            started_s = now_s()
            try:
                async with loop.timeout(limit_s) as limit:
                    answer = await connect(replica, limit)
            except FAILURES as error:
                reason, refusal = explain(error, limit_s)
                tries.failed(replica, reason)
                observer.upstream_failed(kind, reason.short)
                yield replica, Unanswered(reason, refusal)
            else:
                observer.upstream_answered(kind, now_s() - started_s)
                yield replica, answer
