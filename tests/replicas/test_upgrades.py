"""Gateways that differ, on one PostgreSQL, as in a rolling deploy: other settings, another version.

`make replicas OLD=/path/of/a/checkout ARGS="-k rolling"` rolls from the gateway of that checkout to this one,
and back; without, both are this one, of other settings.
"""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import pytest
import yaml

from tests.acceptance.operator import done
from tests.support.replicas import Replica, Replicas, create, state, until_ended
from tests.support.watching import watched
from tests.torture import journal, oracle
from tests.torture.clients import Crowd, Mix
from tests.torture.journal import Journal

OLD = os.environ.get("OLD")
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


async def test_a_backend_that_a_rolling_deploy_adds_is_not_failed_by_the_gateways_that_do_not_have_it_yet(
    replicas: Replicas, tmp_path: Path
) -> None:
    (old,) = await replicas.start(1)
    settings = {
        "backends": {
            "default": {"url": replicas.model.url},
            "added": {"url": replicas.model.url, "models": ["new"]},
        },
        "default_backend": "default",
        "store": {"url": replicas.url},
        "credentials": {"sealing_keys_file": str(replicas.directory / "sealing-keys")},
    }
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(settings))
    path.chmod(0o600)
    place = tmp_path / "new"
    place.mkdir()
    new = Replica("", place / "unused.db", "--config", str(path))
    replicas.all.append(new)
    await new.start()
    await done(new, "backends/added/pause")
    body: dict[str, Any] = {"model": "new", "input": "Say it.", "background": True}
    response_id = (await new.call("POST", "/responses", body)).json()["id"]
    await asyncio.sleep(3.5)  # three rounds of the sweeper of either
    assert (await state(old, response_id))["status"] == "queued"
    await done(new, "backends/added/resume")
    assert (await until_ended(old, response_id))["status"] == "completed"
    await done(new, "backends/added/pause")
    last = (await new.call("POST", "/responses", body)).json()["id"]
    await new.stop()
    ended = await until_ended(old, last)
    assert (ended["status"], "no longer configured" in str(ended["error"])) == ("failed", True)


class Roll:
    """Three gateways; clients come to any that runs."""

    def __init__(self, members: list[Replica]) -> None:
        self.members = members

    @property
    def url(self) -> str:
        return random.choice([each for each in self.members if each.is_running]).url


@pytest.mark.timeout(300)
async def test_rolling_to_another_version_and_back_under_load_takes_nothing_back(
    replicas: Replicas, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    olds: dict[str, object] = {"BACKBURNER_UPSTREAM__CONCURRENCY_MAX": 100}
    if OLD is not None:
        olds["PYTHONPATH"] = OLD
    roll = Roll(await replicas.start(3, **olds))
    database = await watched(replicas.url)
    await database.install()
    mix = Mix(deltas=(20, 150), paces_ms=(5, 20, 50))
    async with Journal(tmp_path / "journal") as notes, Crowd(roll, notes, 10, mix):
        for kind in ({}, olds):
            for number in range(3):
                await asyncio.sleep(random.uniform(1, 2))
                leaving = roll.members[number]
                assert await leaving.stop() == 0
                (roll.members[number],) = await replicas.start(1, **kind)
        await asyncio.sleep(1)
    stories = list(journal.read(notes.path).stories.values())
    for each in roll.members:
        verdict = await oracle.audit(each, stories)
        assert verdict.problems == []
    assert await database.stale_writes() == 0
    assert await database.double_ends() == 0
    assert await database.gaps() == 0
    await database.close()
    statuses = [
        orjson.loads(story.final)["status"]
        for story in stories
        if story.final is not None and not story.is_streamed
    ]
    assert set(statuses) <= {"completed", "cancelled"}, "what nobody had seen is handed over, and run again"
    for each in replicas.all:
        assert not any(line["event"] in ("task_died", "defect") for line in each.lines)
    record_property("responses", len(stories))
    record_property("events seen, and compared", verdict.events)
