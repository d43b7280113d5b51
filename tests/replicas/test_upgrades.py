"""Gateways that differ, on one PostgreSQL, as in a rolling deploy: other settings, another version."""

from __future__ import annotations

import asyncio

from tests.acceptance.operator import done
from tests.support.replicas import Replicas, create

HANGS = {"deltas": 50, "fault": "hang", "after": 5}


async def test_of_two_settings_the_larger_number_of_slots_holds_and_an_order_is_above_both(
    replicas: Replicas,
) -> None:
    """As in a rolling deploy that changes `upstream.concurrency_max`."""
    (old,) = await replicas.start(1, BACKBURNER_UPSTREAM__CONCURRENCY_MAX=2)
    first = [await create(old, "first", stream=False, **HANGS) for _ in range(4)]

    async def are_running(count: int) -> None:
        async with asyncio.timeout(10):
            while len([call for call in await replicas.model.calls() if not call.ended_at]) != count:
                await asyncio.sleep(0.05)
        await asyncio.sleep(1.2)  # time for every poll
        assert len([call for call in await replicas.model.calls() if not call.ended_at]) == count

    await are_running(2)
    (new,) = await replicas.start(1, BACKBURNER_UPSTREAM__CONCURRENCY_MAX=3)
    more = [await create(old, "more", stream=False, **HANGS) for _ in range(4)]
    await are_running(3)
    await done(old, "backends/default/slots", {"slots": 5})
    await are_running(5)
    await done(new, "backends/default/slots", {"slots": None})
    for response_id in (*first, *more)[:4]:
        await old.call("POST", f"/responses/{response_id}/cancel")
    await are_running(3)
