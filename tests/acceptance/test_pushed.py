"""Gateways that push events to each other: what readers get, also when the one that pushes is killed."""

from __future__ import annotations

import asyncio
import time

from tests.acceptance.harness import frames, numbers, payload, within
from tests.support.replicas import TAKEN_OVER_S, Replica, Replicas, create, read

PEERS = {"BACKBURNER_STORE__PEER_LISTEN": "127.0.0.1:0"}
PUSHED = "backburner_pushed_responses"


async def until_pushed(gateway: Replica, count: int) -> None:
    async with asyncio.timeout(5):
        while await gateway.metric(PUSHED) != count:
            await asyncio.sleep(0.02)


async def test_readers_at_any_gateway_get_the_same_bytes_pushed_or_not(replicas: Replicas) -> None:
    (owner,) = await replicas.start(1, **PEERS)
    response_id = await create(owner, "one", deltas=150, pace_ms=20)
    (pushed,) = await replicas.start(1, **PEERS)
    (told,) = await replicas.start(1)
    gateways = (owner, pushed, pushed, told)
    seen: list[list[bytes]] = [[] for _ in gateways]
    reading = asyncio.gather(
        *(read(each, response_id, into) for each, into in zip(gateways, seen, strict=True))
    )
    await until_pushed(pushed, 1)
    assert await told.metric(PUSHED) == 0
    await within(reading)
    assert seen[0] == seen[1] == seen[2] == seen[3]
    assert numbers(seen[0]) == list(range(len(seen[0])))
    assert payload(seen[0][-1])["type"] == "response.completed"
    for gateway in gateways:
        assert frames(await gateway.replay(response_id)) == seen[0]
    await until_pushed(pushed, 0)


async def test_when_the_gateway_that_pushes_is_killed_readers_go_on_from_the_table(
    replicas: Replicas,
) -> None:
    (owner,) = await replicas.start(1, **PEERS)
    ids = [await create(owner, f"k{number}", deltas=3000, pace_ms=10) for number in range(3)]
    first, second = await replicas.start(2, **PEERS)
    seen: dict[str, list[bytes]] = {response_id: [] for response_id in ids}
    reading = asyncio.gather(*(read(first, each, seen[each]) for each in ids))
    await until_pushed(first, 3)
    counted = {each: len(seen[each]) for each in ids}
    async with asyncio.timeout(5):
        while any(len(seen[each]) < counted[each] + 20 for each in ids):
            await asyncio.sleep(0.02)
    killed_at_s = time.monotonic()
    await owner.kill9()
    await until_pushed(first, 0)
    await within(reading)
    assert time.monotonic() - killed_at_s < TAKEN_OVER_S
    for response_id in ids:
        assert payload(seen[response_id][-1])["type"] == "response.failed"
        for gateway in (first, second):
            assert frames(await gateway.replay(response_id)) == seen[response_id]
