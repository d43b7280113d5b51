"""Three gateways on one PostgreSQL: any of them answers for any response, and none is missed when it dies."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

from tests.acceptance.harness import Gateway, frames, numbers, payload, within
from tests.acceptance.operator import done, post, seen
from tests.support.replicas import (
    ENDINGS,
    TAKEN_OVER_S,
    Replica,
    Replicas,
    create,
    read,
    running_at,
    state,
    until_ended,
)
from tests.torture.model import expected_text

HANGS = {"deltas": 50, "fault": "hang", "after": 5}


async def test_any_replica_answers_for_a_response_that_another_one_runs(replicas: Replicas) -> None:
    gateways = await replicas.start(3)
    response_id = await create(gateways[0], "one", deltas=60, pace_ms=20)
    seen: list[list[bytes]] = [[], [], []]
    await within(
        asyncio.gather(*(read(each, response_id, into) for each, into in zip(gateways, seen, strict=True)))
    )
    assert seen[0] == seen[1] == seen[2]
    assert numbers(seen[0]) == list(range(len(seen[0])))
    assert payload(seen[0][-1])["type"] == "response.completed"
    for gateway in gateways:
        assert b"".join(frames(await gateway.replay(response_id))) == b"".join(seen[0])
        assert (await state(gateway, response_id))["status"] == "completed"
        items = await gateway.call("GET", f"/responses/{response_id}/input_items")
        assert items.json()["data"][0]["content"][0]["text"] == "Say one."
    assert len(await replicas.model.calls()) == 1
    assert (await gateways[2].call("DELETE", f"/responses/{response_id}")).status == 200
    for gateway in gateways:
        assert (await gateway.call("GET", f"/responses/{response_id}")).status == 404


async def test_a_response_is_cancelled_by_any_replica_and_the_backend_is_told_to_stop(
    replicas: Replicas,
) -> None:
    first, second, _ = await replicas.start(3)
    for number, canceller in enumerate((first, second)):
        response_id = await create(first, f"c{number}", deltas=3000, pace_ms=10)
        reply = await canceller.call("POST", f"/responses/{response_id}/cancel")
        assert reply.json()["status"] == "cancelled"
        async with asyncio.timeout(5):
            while not all(call.gone_at for call in await replicas.model.calls()):
                await asyncio.sleep(0.05)
        replayed = [await gateway.replay(response_id) for gateway in replicas.all]
        assert replayed[0] == replayed[1] == replayed[2]


async def test_a_conversation_goes_on_and_a_key_means_one_response_at_whichever_replica(
    replicas: Replicas,
) -> None:
    gateways = await replicas.start(3)
    body = {"model": "torture-model", "input": "Say it.", "background": True}
    keyed = {"Idempotency-Key": "only-once"}
    made = await asyncio.gather(*(each.call("POST", "/responses", body, more=keyed) for each in gateways * 3))
    assert {reply.status for reply in made} == {200}
    (response_id,) = {reply.json()["id"] for reply in made}
    await until_ended(gateways[1], response_id)
    chained = {**body, "previous_response_id": response_id}
    reply = await gateways[2].call("POST", "/responses", chained)
    assert reply.status == 200, reply.body
    assert (await until_ended(gateways[0], reply.json()["id"]))["status"] == "completed"


async def test_what_a_killed_replica_ran_is_taken_over_and_every_seen_event_stays(replicas: Replicas) -> None:
    shown, hidden = await running_at(replicas, 4, 8)
    _, *others = replicas.all
    seen: dict[str, list[bytes]] = {response_id: [] for response_id in shown}
    reading = [asyncio.create_task(read(others[0], each, seen[each])) for each in shown]
    async with asyncio.timeout(10):
        while min(map(len, seen.values())) < 20:
            await asyncio.sleep(0.05)
    killed_at_s = time.monotonic()
    await replicas.all[0].kill9()
    await within(asyncio.gather(*reading))
    assert time.monotonic() - killed_at_s < TAKEN_OVER_S
    for response_id in shown:
        replayed = [frames(await gateway.replay(response_id)) for gateway in others]
        assert replayed[0] == replayed[1] == seen[response_id]
        kinds = [payload(event)["type"] for event in replayed[0]]
        assert [kind for kind in kinds if kind in ENDINGS] == ["response.failed"]
    for number, response_id in enumerate(hidden):
        ended = await until_ended(others[1], response_id)
        assert ended["status"] == "completed", ended
        assert expected_text(f"h{number}", 2, 50) in str(ended["output"]), "the second run alone"


async def test_a_replica_that_knows_its_callers_by_another_pepper_is_refused(replicas: Replicas) -> None:
    await replicas.start(1)
    refused = replicas.make(BACKBURNER_TENANTS__PEPPER="p" * 32)
    await refused.spawn()
    assert await refused.exit_status() == 78
    assert "another value of tenants.pepper" in refused.stderr.decode()


async def test_what_all_replicas_have_in_common_is_measured_by_one_of_them(replicas: Replicas) -> None:
    gateways = await replicas.start(3, BACKBURNER_UPSTREAM__CONCURRENCY_MAX=1)
    for number in range(3):
        await create(gateways[number], f"m{number}", stream=False, **HANGS)

    async def measured_by() -> list[Replica]:
        pages = [await metrics_page(each) for each in replicas.all if each.is_running]
        living = [each for each in replicas.all if each.is_running]
        for name in ("jobs{", "jobs_waiting{", "jobs_waiting_oldest_seconds{", "database_bytes{"):
            found = [each for each, page in zip(living, pages, strict=True) if f"\nbackburner_{name}" in page]
            if name == "jobs{":
                firsts = found
            assert len(found) < 2, name
        demands = [
            line.rpartition(" ")[2] for page in pages for line in page.splitlines() if "_demand{" in line
        ]
        # Pages are read one after the other, and what a dead owner ran is nobody's until it is taken over:
        # what waits is counted once as soon as nothing moves.
        return firsts if sum(map(float, demands)) == 3 else []

    async with asyncio.timeout(2 * TAKEN_OVER_S):
        while len(first := await measured_by()) != 1:
            await asyncio.sleep(0.1)
        await first[0].kill9()
        while len(await measured_by()) != 1:
            await asyncio.sleep(0.1)


async def until_all_see(
    gateways: list[Replica], seen_by: Callable[[dict[str, Any]], bool], seconds: float = 5
) -> None:
    """Until it is so at each of them, of the one backend."""
    async with asyncio.timeout(seconds):
        for gateway in gateways:
            while not seen_by((await seen(gateway, "overview"))["backends"][0]):
                await asyncio.sleep(0.02)


async def test_a_pause_and_changed_slots_hold_at_every_replica_and_at_one_that_comes_later(
    replicas: Replicas,
) -> None:
    one, two = await replicas.start(2)
    await done(one, "backends/default/pause")
    await until_all_see([one, two], lambda found: found["paused"])
    waits = [await create(each, "waits", stream=False, deltas=3) for each in (one, two)]
    await one.kill9()
    (late,) = await replicas.start(1)
    await until_all_see([two, late], lambda found: found["waiting"] == 2)
    for gateway in (two, late):
        (backend,) = (await seen(gateway, "overview"))["backends"]
        assert backend["halted"] == "paused"
        assert [(each["doing"], each["by"]) for each in backend["orders"]] == [("pause", "127.0.0.1")]
    assert not await replicas.model.calls()
    await done(late, "backends/default/slots", {"slots": 1})
    await until_all_see([two, late], lambda found: found["slots_per_replica"] == 1)
    await done(two, "backends/default/resume")
    for response_id in waits:
        assert (await until_ended(late, response_id))["status"] == "completed"
    calls = sorted(await replicas.model.calls(), key=lambda call: call.started_at)
    assert (calls[0].ended_at or 0) <= calls[1].started_at, "one slot, whoever runs it"


async def test_what_one_replica_has_previewed_another_cancels_and_once(replicas: Replicas) -> None:
    one, two = await replicas.start(2)
    await done(one, "backends/default/pause")
    await until_all_see([one, two], lambda found: found["paused"])
    shown = {await create(each, "shown", stream=False) for each in (one, two)}
    preview = await done(one, "jobs/cancel", {"dry_run": True, "filter": {"state": "queued"}})
    later = await create(two, "later", stream=False)
    assert await done(two, "jobs/cancel", {"token": preview["token"]}) == {"cancelled": 2, "over": 0}
    assert {(await state(one, each))["status"] for each in shown} == {"cancelled"}
    assert (await state(one, later))["status"] == "queued"
    for gateway in (one, two):
        again = await post(gateway, "jobs/cancel", {"token": preview["token"]})
        assert (again.status, "was confirmed already" in again.error["message"]) == (400, True)


async def metrics_page(gateway: Gateway) -> str:
    async with gateway.http.get(f"{gateway.admin}/metrics") as answer:
        return await answer.text()
