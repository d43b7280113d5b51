"""Several gateways on one PostgreSQL, and what goes wrong: with it, on the way to it, or with one of them."""

from __future__ import annotations

import asyncio
import shutil
import signal
import time
from pathlib import Path

import asyncpg
import pytest

from demo.postgres import Postgres
from tests.acceptance.harness import frames, payload, within
from tests.support.replicas import TAKEN_OVER_S, Replicas, create, read, running_at, state, until_ended
from tests.torture.model import expected_text


async def test_a_replica_that_stood_still_writes_nothing_when_it_goes_on(replicas: Replicas) -> None:
    shown, hidden = await running_at(replicas, 2, 6)
    still, *others = replicas.all
    seen: list[bytes] = []
    reading = asyncio.create_task(read(others[0], shown[0], seen))
    async with asyncio.timeout(10):
        while len(seen) < 20:
            await asyncio.sleep(0.05)
    still.send(signal.SIGSTOP)
    stopped_at_s = time.monotonic()
    await within(reading)
    assert time.monotonic() - stopped_at_s < TAKEN_OVER_S
    ended = {each: await until_ended(others[0], each) for each in (*shown, *hidden)}
    assert [each["status"] for each in ended.values()] == ["failed"] * 2 + ["completed"] * 6
    before = {each: await others[0].replay(each) for each in shown}
    still.send(signal.SIGCONT)
    fresh = await create(still, "fresh", stream=False)
    assert (await until_ended(still, fresh))["status"] == "completed"
    async with asyncio.timeout(10):
        while not all(call.ended_at for call in await replicas.model.calls()):
            await asyncio.sleep(0.05)
    for gateway in replicas.all:
        for response_id in shown:
            assert await gateway.replay(response_id) == before[response_id]
            assert frames(before[shown[0]]) == seen
        for response_id, found in ended.items():
            assert await state(gateway, response_id) == found


@pytest.mark.parametrize(("away_s", "goes_on"), [(0, True), (8, False)])
async def test_a_restart_of_the_database_costs_no_accepted_response_and_no_running_one(
    replicas: Replicas, database_server: Postgres, away_s: float, goes_on: bool
) -> None:
    """Those that nobody has seen output of are run again where it took so long that a replica could not know
    whether it alone had lost its way to the database."""
    gateways = await replicas.start(3)
    tags = {f"r{number}": number % 2 == 0 for number in range(10)}
    ids = {
        tag: await create(gateways[number % 3], tag, stream=shown, deltas=700, pace_ms=10)
        for number, (tag, shown) in enumerate(tags.items())
    }
    seen: list[bytes] = []
    async with gateways[1].events(f"/responses/{ids['r0']}?stream=true") as events:
        async for event in events:
            seen.append(event)
            if len(seen) == 20:
                break
    database_server.stop()
    plain = {"model": "torture-model", "input": "Say it."}
    for gateway in gateways:
        assert (await gateway.call("POST", "/responses", plain)).status == 200, "it needs no store"
        refused = await gateway.call("POST", "/responses", {**plain, "background": True})
        assert refused.status == 503, refused.body
    await asyncio.sleep(away_s)
    database_server.start()
    for tag, response_id in ids.items():
        ended = await until_ended(gateways[2], response_id, 60)
        assert ended["status"] == "completed", (tag, ended["error"])
        runs = (1,) if goes_on or tags[tag] else (1, 2)
        assert any(expected_text(tag, run, 700) in str(ended["output"]) for run in runs)
    for gateway in gateways:
        assert frames(await gateway.replay(ids["r0"]))[:20] == seen
        fresh = await create(gateway, "fresh", stream=False)
        assert (await until_ended(gateway, fresh))["status"] == "completed"
        assert not any(line["event"] in ("task_died", "defect") for line in gateway.lines)


async def test_a_database_that_stands_still_costs_nothing_but_time(
    replicas: Replicas, database_server: Postgres
) -> None:
    gateways = await replicas.start(3)
    ids = [await create(gateways[number % 3], f"p{number}", deltas=400, pace_ms=10) for number in range(6)]
    database_server.pause()
    try:
        plain = {"model": "torture-model", "input": "Say it."}
        for gateway in gateways:
            assert (await gateway.call("POST", "/responses", plain)).status == 200, "it needs no store"
        await asyncio.sleep(9)
    finally:
        database_server.go_on()
    for number, response_id in enumerate(ids):
        ended = await until_ended(gateways[2], response_id, 60)
        assert ended["status"] == "completed", (number, ended["error"])
        assert any(expected_text(f"p{number}", run, 400) in str(ended["output"]) for run in (1, 2))
    for gateway in gateways:
        assert not any(line["event"] in ("task_died", "defect") for line in gateway.lines)


async def test_connections_that_are_killed_again_and_again_cost_no_response(replicas: Replicas) -> None:
    gateways = await replicas.start(2)
    kinds = {f"k{number}": number % 2 == 0 for number in range(8)}
    ids = {
        tag: await create(gateways[number % 2], tag, stream=shown, deltas=500, pace_ms=10)
        for number, (tag, shown) in enumerate(kinds.items())
    }
    killer = await asyncpg.connect(replicas.url)
    killed = 0
    for _ in range(12):
        await asyncio.sleep(0.3)
        killed += await killer.fetchval(
            "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity "
            "WHERE application_name LIKE 'backburner %'"
        )
    await killer.close()
    assert killed > 24
    for tag, response_id in ids.items():
        ended = await until_ended(gateways[0], response_id)
        assert ended["status"] == "completed", (tag, ended["error"])
        assert expected_text(tag, 1, 500) in str(ended["output"]), "the same run went on"
        assert await state(gateways[1], response_id) == ended
        if kinds[tag]:
            assert await gateways[0].replay(response_id) == await gateways[1].replay(response_id)
    for gateway in gateways:
        assert not any(line["event"] in ("task_died", "defect") for line in gateway.lines)


async def test_a_replica_that_is_told_to_stop_hands_its_silent_jobs_over_at_once(replicas: Replicas) -> None:
    shown, hidden = await running_at(replicas, 1, 6)
    leaving, *others = replicas.all
    stopping = asyncio.create_task(leaving.stop())
    for number, response_id in enumerate(hidden):
        ended = await until_ended(others[0], response_id)
        assert ended["status"] == "completed"
        assert expected_text(f"h{number}", 2, 50) in str(ended["output"])
    failed = await until_ended(others[1], shown[0])
    assert failed["status"] == "failed"
    assert "shut down" in str(failed["error"])
    assert await stopping == 0


async def test_followers_see_all_events_also_where_a_pooler_takes_the_notifications_away(
    replicas: Replicas, database_server: Postgres
) -> None:
    if shutil.which("pgbouncer") is None and not Path("/usr/sbin/pgbouncer").exists():
        pytest.skip("there is no PgBouncer on this machine")
    with database_server.pooled() as pooler:
        replicas.url = f"{pooler}/{replicas.url.rpartition('/')[2]}"
        gateways = await replicas.start(2, BACKBURNER_STORE__POOLER=True)
        response_id = await create(gateways[0], "one", deltas=100, pace_ms=10)
        seen: list[list[bytes]] = [[], []]
        following = (read(each, response_id, into) for each, into in zip(gateways, seen, strict=True))
        await within(asyncio.gather(*following))
        assert seen[0] == seen[1]
        assert payload(seen[0][-1])["type"] == "response.completed"
        cancelled = await create(gateways[0], "two", deltas=3000, pace_ms=10)
        reply = await gateways[1].call("POST", f"/responses/{cancelled}/cancel")
        assert reply.json()["status"] == "cancelled"
        async with asyncio.timeout(5):
            while not all(call.ended_at for call in await replicas.model.calls()):
                await asyncio.sleep(0.05)
        await replicas.close()


async def test_a_database_that_takes_no_more_connections_costs_nothing_but_time(replicas: Replicas) -> None:
    gateways = await replicas.start(2)
    ids = [await create(gateways[number % 2], f"x{number}", deltas=700, pace_ms=10) for number in range(6)]
    others = [await asyncpg.connect(replicas.url)]
    ours = "FROM pg_stat_activity WHERE application_name LIKE 'backburner %'"

    async def take_all() -> None:
        while True:
            try:
                others.append(await asyncpg.connect(replicas.url))
            except asyncpg.TooManyConnectionsError:
                return

    async with asyncio.timeout(20):
        quiet = 0
        while quiet < 5:  # a place that one was driven from is free a moment later, and may be taken again
            await take_all()
            is_there = await others[0].fetchval(f"SELECT count(pg_terminate_backend(pid)) {ours}")
            quiet = 0 if is_there else quiet + 1
            await asyncio.sleep(0.05)
    plain = {"model": "torture-model", "input": "Say it."}
    for gateway in gateways:
        assert (await gateway.call("POST", "/responses", plain)).status == 200, "it needs no store"
        refused = await gateway.call("POST", "/responses", {**plain, "background": True})
        assert refused.status == 503, refused.body
    await asyncio.gather(*(each.close() for each in others))
    for number, response_id in enumerate(ids):
        ended = await until_ended(gateways[1], response_id, 60)
        assert ended["status"] == "completed", (number, ended["error"])
        assert await gateways[0].replay(response_id) == await gateways[1].replay(response_id)
    for gateway in gateways:
        assert not any(line["event"] in ("task_died", "defect") for line in gateway.lines)
