"""A primary with a synchronous standby, and what becomes of what was accepted when the primary is gone."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import asyncpg
import pytest

from demo.postgres import Postgres, binaries, postgres
from tests.acceptance.harness import frames, numbers, payload, within
from tests.support.replicas import Replica, Replicas, create, read, replicas_of, state, until_ended
from tests.torture.model import expected_text

PLAIN = {"model": "torture-model", "input": "Say it."}


class Pair:
    """A primary and its standby, which has whatever the primary has confirmed."""

    def __init__(self, primary: Postgres, standby: Postgres, database: str) -> None:
        self.primary = primary
        self.standby = standby
        self.database = database

    @property
    def url(self) -> str:
        user, _, _ = self.primary.url("").removeprefix("postgresql://").partition("@")
        hosts = ",".join(f"127.0.0.1:{each.port}" for each in (self.primary, self.standby))
        return f"postgresql://{user}@{hosts}/{self.database}?target_session_attrs=read-write"


@pytest.fixture
async def pair() -> AsyncIterator[Pair]:
    if binaries() is None:
        pytest.skip("there is no PostgreSQL on this machine")
    with postgres() as primary:
        url = await primary.new_database()
        standby = await asyncio.to_thread(lambda: Postgres(primary=primary))
        try:
            connection = await asyncpg.connect(url)
            await connection.execute("ALTER SYSTEM SET synchronous_standby_names = '*'")
            await connection.execute("SELECT pg_reload_conf()")
            async with asyncio.timeout(20):
                while not await connection.fetchval(
                    "SELECT count(*) FROM pg_stat_replication WHERE sync_state = 'sync'"
                ):
                    await asyncio.sleep(0.05)
            await connection.close()
            yield Pair(primary, standby, url.rpartition("/")[2])
        finally:
            if primary.is_running:
                primary.go_on()
            standby.go_on()
            standby.remove()


@pytest.fixture
async def paired(pair: Pair, tmp_path: Path) -> AsyncIterator[Replicas]:
    """What gateways stand on that know both."""
    async with replicas_of(tmp_path, pair.primary, pair.url) as made:
        yield made


async def keep_creating(gateway: Replica, told: list[str]) -> None:
    """Until cancelled; what was told was confirmed, all else was refused in words."""
    for number in range(100_000):
        tag = f"c{len(told)}-{number}"
        reply = await gateway.call("POST", "/responses", {**PLAIN, "input": tag, "background": True})
        assert reply.status in (200, 503), reply.body
        if reply.status == 200:
            told.append(str(reply.json()["id"]))
        await asyncio.sleep(0.02)


@pytest.mark.timeout(180)
@pytest.mark.parametrize(("how", "away_s"), [("killed", 0), ("killed", 8), ("silent", 0)])
async def test_a_promoted_standby_goes_on_with_all_that_was_accepted_and_fails_no_run(
    paired: Replicas, pair: Pair, how: str, away_s: float, record_property: Callable[[str, object], None]
) -> None:
    """A silent primary keeps its connections open, takes new ones, and answers none; later it is back."""
    gateways = await paired.start(3)
    tags = {f"r{number}": number % 2 == 0 for number in range(10)}
    ids = {
        tag: await create(gateways[number % 3], tag, stream=shown, deltas=900, pace_ms=10)
        for number, (tag, shown) in enumerate(tags.items())
    }
    seen: list[bytes] = []
    reading = asyncio.create_task(read(gateways[1], ids["r0"], seen))
    told: list[str] = []
    creating = [asyncio.create_task(keep_creating(each, told)) for each in gateways]
    async with asyncio.timeout(20):
        while len(seen) < 50 or len(told) < 30:
            await asyncio.sleep(0.02)
    (pair.primary.kill9 if how == "killed" else pair.primary.pause)()
    gone_s, before = time.monotonic(), len(told)
    for gateway in gateways:
        assert (await gateway.call("POST", "/responses", PLAIN)).status == 200, "it needs no store"
    await asyncio.sleep(away_s)
    await asyncio.to_thread(pair.standby.promote)
    promoted_s = time.monotonic()
    async with asyncio.timeout(45):
        while len(told) < before + 10:
            await asyncio.sleep(0.02)
    record_property("accepting again after the promotion, s", round(time.monotonic() - promoted_s, 1))
    record_property("without a database, s", round(promoted_s - gone_s, 1))
    for task in creating:
        task.cancel()
    await asyncio.gather(*creating, return_exceptions=True)
    assert all(isinstance(task.exception(), type(None)) for task in creating if not task.cancelled())
    if how == "silent":
        pair.primary.go_on()
        await asyncio.sleep(3)
    for tag, response_id in ids.items():
        ended = await until_ended(gateways[2], response_id, 60)
        assert ended["status"] == "completed", (tag, ended["error"])
        runs = (1,) if tags[tag] else (1, 2)
        assert any(expected_text(tag, run, 900) in str(ended["output"]) for run in runs)
    await within(reading)
    assert numbers(seen) == list(range(len(seen)))
    assert payload(seen[-1])["type"] == "response.completed"
    for gateway in gateways:
        assert frames(await gateway.replay(ids["r0"])) == seen
        assert not any(line["event"] in ("task_died", "defect") for line in gateway.lines)
    for response_id in told:
        assert (await until_ended(gateways[0], response_id))["status"] == "completed"
    record_property("accepted, none lost", len(told) + len(ids))


@pytest.mark.timeout(120)
async def test_nothing_is_accepted_that_a_standby_does_not_have(paired: Replicas, pair: Pair) -> None:
    """It stands still: commits are on the primary only, which then is gone."""
    gateways = await paired.start(2)
    await create(gateways[0], "first", stream=False)
    pair.standby.pause()
    told: list[str] = []
    creating = [asyncio.create_task(keep_creating(each, told)) for each in gateways]
    await asyncio.sleep(12)  # longer than any limit on a statement
    assert told == []
    pair.primary.kill9()
    pair.standby.go_on()
    await asyncio.to_thread(pair.standby.promote)
    async with asyncio.timeout(30):
        while len(told) < 20:
            await asyncio.sleep(0.02)
    for task in creating:
        task.cancel()
    await asyncio.gather(*creating, return_exceptions=True)
    for response_id in told:
        assert (await until_ended(gateways[0], response_id))["status"] == "completed"
        assert await state(gateways[1], response_id) == await state(gateways[0], response_id)
