"""A job whose stored events cannot be read back, or whose end fails by a defect, stops nothing else."""

from __future__ import annotations

import asyncio
import sqlite3
from typing import Any

import pytest

from gateway.core.job import Claim
from gateway.core.transcript import Transcript
from tests.support.house import Build, Hold, House, Wrapped, frames, parsed

DAMAGED = [b"\x00" * 64 + b"\n\n", b"event: response.output_text.delta\n\n"]
DUBIOUS = [  # the output that can be made out is shown
    b"event: response.output_text.delta\ndata: {\n\n",
    b'event: response.output_text.delta\ndata: {"type":"response.output_text.delta"}\n\n',
    b'event: x\ndata: {"type":"response.output_item.added","output_index":0,"item":7}\n\n',
]


async def lost(build: Build, jobs: int, **options: Any) -> tuple[Any, list[str]]:
    """A house that was killed with so many streamed jobs under way, and the jobs."""
    house = await build(**options)
    holds = [Hold() for _ in range(jobs)]
    ids = []
    for hold in holds:
        house.backend.script = [frames(0, 6), hold]
        ids.append(await house.submit(stream=True))
        await hold.here()
    for response_id in ids:
        async with asyncio.timeout(10):
            while len(await house.stored(response_id)) < 7:
                await asyncio.sleep(0)
    await house.kill()
    return house, ids


def overwrite(house: House, response_id: str, events: bytes) -> None:
    """As a bad disk would: the file is in order, what is in the row is not."""
    raw = sqlite3.connect(house.settings.store.database)
    last = "SELECT max(segment.pk) FROM segment JOIN job ON job.pk = segment.job WHERE job.id = ?"
    raw.execute(f"UPDATE segment SET events = ? WHERE pk = ({last})", (events, response_id))
    raw.commit()
    raw.close()


@pytest.mark.parametrize("damaged", [*DAMAGED, *DUBIOUS])
async def test_a_job_whose_stored_events_are_damaged_fails_and_the_others_go_on(
    build: Build, damaged: bytes
) -> None:
    house, (broken, sound) = await lost(build, 2)
    overwrite(house, broken, damaged)
    house = await build(background={"partial_output": True}, is_started=False)
    assert (await house.shown(broken))["output"] == [] or damaged in DUBIOUS
    await house.start()
    response = await house.ended(broken)
    assert (response["status"], response["error"]["code"]) == ("failed", "server_error")
    assert ("damaged" in response["error"]["message"]) is (damaged in DAMAGED)
    stored = await house.store.all_events(broken)
    assert damaged in stored
    assert parsed(stored[stored.index(damaged) + len(damaged) :])[-1]["response"] == response
    response = await house.ended(sound)
    assert "restart" in response["error"]["message"]
    assert response["output"][0]["content"][0]["text"] == "one two three four"
    assert not house.failed.is_set()


async def test_a_cancel_of_a_job_whose_stored_events_are_damaged_ends_it(build: Build) -> None:
    house, (response_id,) = await lost(build, 1)
    overwrite(house, response_id, DAMAGED[0])
    house = await build(is_started=False)
    assert (await house.cancel(response_id))["status"] == "failed"


class Defective(Wrapped):
    """What it is asked of these jobs fails by a defect.

    Attributes:
        tried: How often that was.
    """

    wicked: frozenset[str] | set[str] = frozenset()
    method = "finish"
    tried = 0

    def _meet(self, method: str, response_id: str) -> None:
        if method == self.method and response_id in self.wicked:
            self.tried += 1
            raise RuntimeError("a defect")

    async def all_events(self, response_id: str) -> bytes:
        self._meet("all_events", response_id)
        found: bytes = await self.inner.all_events(response_id)
        return found

    async def finish(self, claim: Claim, *rest: Any, **more: Any) -> None:
        self._meet("finish", claim.id)
        await self.inner.finish(claim, *rest, **more)


def defects(caplog: pytest.LogCaptureFixture) -> int:
    return sum(record.getMessage() == "defect" for record in caplog.records)


async def test_a_defect_in_ending_one_job_does_not_keep_the_others_from_their_ends(build: Build) -> None:
    _, (wicked, *others) = await lost(build, 3)
    house = await build(wrap=Defective, is_started=False)
    house.store.wicked = {wicked}
    await house.start()
    for response_id in others:
        assert (await house.ended(response_id))["status"] == "failed"
    await house.tick()
    assert not house.failed.is_set()
    assert (await house.shown(wicked))["status"] == "in_progress"
    house.store.wicked = set()
    house.clock.advance(60)
    async with asyncio.timeout(10):  # a round of the engine's own may have it just now
        while (await house.shown(wicked))["status"] != "failed":
            await house.tick()


async def test_a_job_whose_events_cannot_be_had_ends_without_them_at_the_second_try(build: Build) -> None:
    _, (wicked,) = await lost(build, 1)
    house = await build(wrap=Defective, is_started=False)
    house.store.wicked, house.store.method = {wicked}, "all_events"
    await house.store.abandon(dead_after_s=0)
    await house.tick()
    response = await house.shown(wicked)
    assert response["error"]["message"] == "The gateway failed while it ran or ended this response."
    assert house.store.tried == 1
    house.store.wicked = set()
    await house.stored(wicked)


async def test_an_end_that_is_a_defect_is_tried_less_and_less_often_and_told_once_each_time(
    build: Build, caplog: pytest.LogCaptureFixture
) -> None:
    _, (wicked,) = await lost(build, 1)
    house = await build(wrap=Defective, is_started=False)
    house.store.wicked = {wicked}
    await house.store.abandon(dead_after_s=0)
    await house.tick()
    epoch = (await house.job(wicked)).epoch
    seconds = []
    for second in range(1, 200):
        house.clock.advance(1)
        tried = house.store.tried
        await house.tick()
        seconds += [second] * (house.store.tried - tried)
    assert seconds == [1, 3, 7, 15, 31, 63, 123, 183]
    assert defects(caplog) == house.store.tried
    assert (await house.job(wicked)).epoch == epoch, "it was ours all the time"
    house.store.wicked = set()
    house.clock.advance(60)
    await house.tick()
    assert (await house.shown(wicked))["status"] == "failed"
    assert house.engine._endings.owed == {}


async def test_jobs_that_cannot_be_ended_do_not_stand_before_others_whose_time_is_up(
    build: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.engine.sweeper._LIMIT", 2)
    house = await build(wrap=Defective, is_started=False, background={"deadline_s": 60})
    house.store.wicked = {await house.submit() for _ in range(5)}
    sound = await house.submit()
    house.clock.advance(60)
    for _ in range(4):
        await house.tick()
    assert (await house.shown(sound))["status"] == "failed"
    assert set(house.engine._endings.owed) == house.store.wicked


async def test_a_job_whose_end_cannot_be_made_fails_without_it_and_once(
    build: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, (response_id,) = await lost(build, 1)

    def restored(*_: object, **__: object) -> Transcript:
        raise RuntimeError("a defect")

    monkeypatch.setattr(Transcript, "restored", restored)
    house = await build(is_started=False)
    assert (await house.cancel(response_id))["error"]["message"].startswith(
        "The gateway failed while it ran or ended"
    )
    stored = parsed(await house.store.all_events(response_id))
    assert [event["sequence_number"] for event in stored] == list(range(len(stored)))
    assert house.engine._endings.owed == {}


async def test_however_many_runs_a_crash_broke_off_one_round_ends_them_all(build: Build) -> None:
    _, ids = await lost(build, 130)  # more than one look at the store finds
    house = await build(is_started=False)
    await house.store.abandon(dead_after_s=0)
    await house.tick()
    assert {(await house.shown(response_id))["status"] for response_id in ids} == {"failed"}
