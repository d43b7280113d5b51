"""A store that is away for a while: what runs waits for it, and no longer than the settings say."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from gateway.core.job import Claim, Status, StoreUnavailable
from gateway.core.reason import Reason
from gateway.core.upstream import UpstreamFailed
from gateway.observe import Observer
from gateway.store.sqlite.store import SqliteStore
from gateway.wire.errors import Refusal
from gateway.wire.failures import failure
from tests.support.house import ALL, Build, Hold, House, Wrapped, frames, parsed


def away(*names: str) -> Any:
    """A store whose calls of these names fail for as long as `is_away`."""

    class Away(Wrapped):
        is_away = False
        refused = 0

        def __getattr__(self, name: str) -> Any:
            if self.is_away and name in names:
                return lambda *_, **__: asyncio.ensure_future(self._refuse())
            return super().__getattr__(name)

        async def _refuse(self) -> None:
            self.refused += 1
            raise StoreUnavailable("disk full", "store_full", "it is full")

    return Away


async def until_refused(house: House) -> None:
    async with asyncio.timeout(10):
        while not house.store.refused:
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("name", ["append", "finish"])
async def test_a_run_waits_for_its_store_and_loses_nothing(build: Build, stream: bool, name: str) -> None:
    house = await build(wrap=away(name), background={"store_wait_s": 60, "flush_ms": 5})
    hold, last = Hold(), Hold()
    house.backend.script = [frames(0, 6), hold, frames(6, 9), last, frames(9), ALL[-1]]
    response_id = await house.submit(stream=stream)
    reader = asyncio.create_task(house.stream(response_id)) if stream else None
    await hold.here()
    house.store.is_away = True
    hold.go.set()
    if name == "append":
        await until_refused(house)
    last.go.set()
    await until_refused(house)
    house.store.is_away = False
    response = await house.ended(response_id)
    assert response["status"] == "completed"
    if reader:
        assert parsed(await reader) == await house.stored(response_id)


async def test_a_run_fails_by_a_precise_reason_when_its_store_stays_away_for_too_long(build: Build) -> None:
    house = await build(wrap=away("append", "finish"), background={"store_wait_s": 0.4})
    hold = Hold()
    house.backend.script = [frames(0, 6), hold, frames(6, 9), Hold()]
    response_id = await house.submit(stream=True)
    await hold.here()
    async with asyncio.timeout(10):
        while len(await house.stored(response_id)) < 7:
            await asyncio.sleep(0)
    house.store.is_away = True
    hold.go.set()
    await house.backend.closed(response_id)
    assert house.store.refused >= 2, "it was tried more than once"
    assert (await house.shown(response_id))["status"] == "in_progress"
    house.store.is_away = False
    await house.tick()
    response = await house.ended(response_id)
    assert response["status"] == "failed"
    assert response["error"] == {
        "code": "server_error",
        "message": "The gateway could not store the events of this response (it is full).",
    }
    assert response["output"][0]["content"][0]["text"] == "one two three four"


async def test_backends_are_not_read_while_what_they_sent_cannot_be_stored(build: Build) -> None:
    """All runs together keep no more than so much in memory; each has its own share besides."""
    limits = {"unflushed_total_bytes_max": 4096, "unflushed_bytes_max": 2048, "store_wait_s": 60}
    house = await build(wrap=away("append"), background=limits)
    holds = [Hold() for _ in range(6)]
    ids = []
    for hold in holds:
        house.backend.script = [
            frames(0, 6),
            hold,
            *(frames(n, n + 1) for n in range(6, 30)),
            ALL[-1],
        ]
        ids.append(await house.submit())
        await hold.here()
    house.store.is_away = True
    for hold in holds:
        hold.go.set()
    for _ in range(3):
        house.store.refused = 0
        await until_refused(house)
    largest = max(len(frame.data) for frame in frames().frames) + 200
    held = [run.log._bytes for run in house.engine._runner._runs.values()]
    assert len(held) == 6
    assert max(held) <= 2048 + largest
    assert sum(held) <= 4096 + 6 * largest
    house.store.is_away = False
    for response_id in ids:
        assert (await house.ended(response_id))["status"] == "completed"
    assert house.engine._runner._unflushed._bytes == 0


@pytest.mark.parametrize("verb", ["create", "start"])
async def test_a_create_is_refused_with_what_ails_the_store(build: Build, verb: str) -> None:
    house = await build(wrap=away(verb), is_started=verb == "start")
    house.store.is_away = True
    with pytest.raises(Refusal) as refusal:
        await house.submit()
    assert refusal.value.code == "store_full"
    assert "it is full" in refusal.value.message
    assert refusal.value.retry_after_s == 10


async def test_what_has_expired_is_purged_though_nothing_can_be_ended(build: Build) -> None:
    house = await build(wrap=away("take_over"), is_started=False, background={"deadline_s": 60})
    late = await house.submit()
    gone = await house.submit()
    await house.jobs.delete(await house.job(gone))
    house.clock.advance(60)
    house.store.is_away = True
    await house.start()
    await until_refused(house)
    async with asyncio.timeout(10):
        while await house.store.request_of(gone) is not None:
            await asyncio.sleep(0.01)
    house.store.is_away = False
    assert (await house.ended(late))["status"] == "failed"


async def test_jobs_of_owners_of_before_are_freed_as_soon_as_the_store_can(
    build: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.engine.handover._BEAT_S", 0.05)
    house = await build()
    hold = Hold()
    house.backend.script = [hold]
    response_id = await house.submit()
    await hold.here()
    await house.kill()
    house.backend.script = ALL
    house = await build(wrap=away("abandon"), is_started=False)
    house.store.is_away = True
    await house.start()
    assert house.store.refused == 1
    house.store.refused = 0
    await until_refused(house)
    assert (await house.shown(response_id))["status"] == "in_progress"
    house.store.is_away = False
    assert (await house.ended(response_id))["status"] == "completed"


async def owing(build: Build) -> tuple[House, str, Claim]:
    """A house whose one job could not be given back, the sweeper not having looked yet; and its claim."""
    house = await build(wrap=away("release"), is_started=False)
    await house.tick()
    house.backend.script = [UpstreamFailed(failure("Busy"), Reason.PUT_OFF, 503)]
    house.store.is_away = True
    running = asyncio.create_task(house.engine._runner.run())
    house.engine._tasks.append(running)
    response_id = await house.submit()
    await until_refused(house)
    async with asyncio.timeout(10):
        while house.engine._runner._runs:
            await asyncio.sleep(0)
    house.store.is_away = False
    return house, response_id, house.engine._endings.owed[response_id].claim


async def test_a_run_that_could_not_be_given_back_is_ended_by_its_own_claim(build: Build) -> None:
    house, response_id, claim = await owing(build)
    await house.tick()
    response = await house.ended(response_id)
    assert "could not store" in response["error"]["message"]
    assert (await house.job(response_id)).epoch == claim.epoch, "it was ours already"
    assert house.engine._endings.owed == {}


async def test_a_job_that_was_freed_and_runs_again_is_owed_no_ending_of_its_former_run(build: Build) -> None:
    house, response_id, _ = await owing(build)
    hold = Hold()
    house.backend.script = [frames(0, 6), hold, frames(6), ALL[-1]]
    await house.store.abandon(dead_after_s=0)  # as after a lease that has lapsed
    house.engine._runner.ring()
    await hold.here()
    await house.tick()
    assert house.engine._endings.owed == {}
    hold.go.set()
    assert (await house.ended(response_id))["status"] == "completed"


async def test_a_job_that_was_freed_and_runs_elsewhere_is_owed_no_ending_of_its_former_run(
    build: Build,
) -> None:
    house, response_id, _ = await owing(build)
    house.backends.slots_now = 0
    other = SqliteStore(house.store._database, Observer())
    await house.store.abandon(dead_after_s=0)
    (theirs,) = await other.claim(1, attempts_max=5, now_ms=house.clock.now_ms())
    await house.tick()
    assert house.engine._endings.owed == {}
    job = await house.job(response_id)
    assert (job.status, job.epoch) == (Status.IN_PROGRESS, theirs.epoch)


async def test_what_is_owed_is_kept_until_it_can_be_stored_and_forgotten_with_any_end(build: Build) -> None:
    house = await build(wrap=away("finish"), background={"store_wait_s": 0})
    first, second = Hold(), Hold()
    house.backend.script = [frames(0, 6), first]
    cancelled = await house.submit()
    await first.here()
    house.backend.script = [frames(0, 6), second]
    deleted = await house.submit()
    await second.here()
    house.store.is_away = True
    for response_id in (cancelled, deleted):
        with pytest.raises(Refusal):
            await house.cancel(response_id)
    with pytest.raises(StoreUnavailable):
        await house.tick()
    assert set(house.engine._endings.owed) == {cancelled, deleted}
    await house.jobs.delete(await house.job(deleted))
    assert set(house.engine._endings.owed) == {cancelled}
    house.store.is_away = False
    assert (await house.cancel(cancelled))["status"] == "cancelled"
    assert house.engine._endings.owed == {}
