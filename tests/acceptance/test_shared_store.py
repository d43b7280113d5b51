"""Three gateways on one PostgreSQL: any of them answers for any response, and none is missed when it dies."""

from __future__ import annotations

import asyncio
import shutil
import signal
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import asyncpg
import pytest

from demo.postgres import Postgres, binaries, postgres
from tests.acceptance.harness import Gateway, frames, numbers, payload, within
from tests.support.replicas import Replicas, create, replicas_of
from tests.torture.model import expected_text

ENDINGS = ("response.completed", "response.failed", "response.incomplete", "response.cancelled")
NEVER_ENDS_AT_FIRST = {"deltas": 50, "fault": "hang", "after": 5, "calls": 1}
TAKEN_OVER_S = 10.0
"""From the death of a replica to the end, or the new start, of its last job."""


@pytest.fixture(scope="module")
def server() -> Iterator[Postgres]:
    if binaries() is None:
        pytest.skip("there is no PostgreSQL on this machine: no initdb in the path or in /usr/lib/postgresql")
    with postgres() as started:
        yield started


@pytest.fixture
async def replicas(tmp_path: Path, server: Postgres) -> AsyncIterator[Replicas]:
    async with replicas_of(tmp_path, server, await server.new_database()) as made:
        yield made


async def state(gateway: Gateway, response_id: str) -> dict[str, object]:
    reply = await gateway.call("GET", f"/responses/{response_id}")
    assert reply.status == 200, reply.body
    found: dict[str, object] = reply.json()
    return found


async def until_ended(gateway: Gateway, response_id: str, seconds: float = 30) -> dict[str, object]:
    async with asyncio.timeout(seconds):
        while (found := await state(gateway, response_id))["status"] in ("queued", "in_progress"):
            await asyncio.sleep(0.1)
    return found


async def read(gateway: Gateway, response_id: str, seen: list[bytes]) -> None:
    """Follow a stream to its end."""
    async with gateway.events(f"/responses/{response_id}?stream=true") as events:
        async for event in events:
            seen.append(event)  # noqa: PERF401  (whoever asks meanwhile sees how far it is)


async def running_at(replicas: Replicas, shown: int, hidden: int) -> tuple[list[str], list[str]]:
    """Responses that the first replica runs, since it was the only one; then there are three."""
    (first,) = await replicas.start(1)
    followed = [await create(first, f"s{number}", deltas=3000, pace_ms=10) for number in range(shown)]
    polled = [
        await create(first, f"h{number}", stream=False, **NEVER_ENDS_AT_FIRST) for number in range(hidden)
    ]
    async with asyncio.timeout(20):
        while len(await replicas.model.calls()) < shown + hidden:
            await asyncio.sleep(0.05)
    await replicas.start(2)
    return followed, polled


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
    replicas: Replicas, server: Postgres, away_s: float, goes_on: bool
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
    server.stop()
    plain = {"model": "torture-model", "input": "Say it."}
    for gateway in gateways:
        assert (await gateway.call("POST", "/responses", plain)).status == 200, "it needs no store"
        refused = await gateway.call("POST", "/responses", {**plain, "background": True})
        assert refused.status == 503, refused.body
    await asyncio.sleep(away_s)
    server.start()
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
    replicas: Replicas, server: Postgres
) -> None:
    gateways = await replicas.start(3)
    ids = [await create(gateways[number % 3], f"p{number}", deltas=400, pace_ms=10) for number in range(6)]
    server.pause()
    try:
        plain = {"model": "torture-model", "input": "Say it."}
        for gateway in gateways:
            assert (await gateway.call("POST", "/responses", plain)).status == 200, "it needs no store"
        await asyncio.sleep(9)
    finally:
        server.go_on()
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
    replicas: Replicas, server: Postgres
) -> None:
    if shutil.which("pgbouncer") is None and not Path("/usr/sbin/pgbouncer").exists():
        pytest.skip("there is no PgBouncer on this machine")
    with server.pooled() as pooler:
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


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ({"BACKBURNER_CREDENTIALS__SEALING_KEYS_FILE": ""}, "credentials.sealing_keys"),
        ({"BACKBURNER_STORE__DATABASE": "other.db"}, "store.database is for the SQLite file"),
        ({"BACKBURNER_STORE__BALLAST_BYTES": "0"}, "store.ballast_bytes is for the SQLite file"),
        ({"BACKBURNER_TENANTS__PEPPER": "p" * 32}, "another value of tenants.pepper"),
    ],
)
async def test_a_replica_whose_settings_do_not_fit_is_refused(
    replicas: Replicas, given: dict[str, str], why: str
) -> None:
    await replicas.start(1)
    refused = replicas.make(**given)
    if given.get("BACKBURNER_CREDENTIALS__SEALING_KEYS_FILE") == "":
        del refused._environ["BACKBURNER_CREDENTIALS__SEALING_KEYS_FILE"]
    await refused.spawn()
    assert await refused.exit_status() == 78
    assert why in refused.stderr.decode()
