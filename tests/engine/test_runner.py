"""What waits is claimed: when its time has come, and as much as there is room for."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

from gateway.core.job import Status
from gateway.core.reason import Reason
from gateway.core.transcript import CancelRequested
from gateway.core.upstream import UpstreamFailed
from gateway.wire.failures import failure
from tests.support.house import (
    ALL,
    PATIENCE_S,
    Build,
    Hold,
    House,
    Wrapped,
    frames,
)


async def test_a_job_that_is_to_wait_is_run_when_its_time_has_come(house: House) -> None:
    put_off = UpstreamFailed(failure("Busy"), Reason.PUT_OFF, 503, retry_after_s=0.2)
    house.backend.script = [put_off]
    response_id = await house.submit()
    await house.observer.until(response_id, "released")
    assert (await house.shown(response_id))["status"] == "in_progress"
    house.backend.script = ALL
    house.clock.advance(0.25)
    async with asyncio.timeout(0.9):  # nobody rings, and the poll is a second apart
        response = await house.ended(response_id)
    assert response["status"] == "completed"
    job = await house.job(response_id)
    assert (job.attempt, job.put_offs) == (1, 1)


async def test_a_broken_off_job_waits_for_its_turn_in_the_budget_for_retries(house: House) -> None:
    house.backend.script = [UpstreamFailed(failure("Oops"), Reason.ERROR, 502)]
    house.backend.retry_wait_s = 30.0
    response_id = await house.submit()
    await house.observer.until(response_id, "released")
    house.backend.script = ALL
    house.clock.advance(29)
    other = await house.submit()
    assert (await house.ended(other))["status"] == "completed"
    assert len(house.backend.calls_of(response_id)) == 1
    house.clock.advance(1)
    await house.submit()
    assert (await house.ended(response_id))["status"] == "completed"


async def test_what_waits_for_a_backend_that_is_away_for_too_long_fails_whether_it_was_tried_or_not(
    build: Build,
) -> None:
    house = await build(concurrency_max=1)
    unreachable = UpstreamFailed(failure("The backend could not be reached: gone."), Reason.UNREACHABLE)
    hold = Hold()
    house.backend.script = [hold, unreachable]
    tried, untried = await house.submit(), await house.submit()
    await hold.here()
    house.backend.unreached_s = 299
    house.backends.slots_now = 0  # nothing more is started
    hold.go.set()
    await house.observer.until(tried, "released")
    await house.tick()
    assert (await house.shown(tried))["status"] == "in_progress"
    house.clock.advance(300)
    house.backend.unreached_s = 301
    await house.tick()
    for response_id in (tried, untried):
        response = await house.ended(response_id)
        assert response["status"] == "failed"
        assert response["error"] == {
            "code": "server_error",
            "message": "The backend could not be reached for 301 s.",
        }


async def test_no_more_jobs_run_at_once_than_allowed(build: Build) -> None:
    house = await build(concurrency_max=3)
    hold = Hold()
    house.backend.script = [hold, *ALL]
    ids = await asyncio.gather(*(house.submit() for _ in range(20)))
    async with asyncio.timeout(PATIENCE_S):
        while house.backend.open < 3:
            await asyncio.sleep(0)
    hold.go.set()
    for response_id in ids:
        assert (await house.ended(response_id))["status"] == "completed"
    assert house.backend.open_max == 3


async def test_the_third_of_two_waits_until_one_of_the_running_ends(build: Build) -> None:
    house = await build(concurrency_max=2)
    first, second, third = Hold(), Hold(), Hold()
    house.backend.script = [first, *ALL]
    a = await house.submit()
    await first.here()
    house.backend.script = [second, *ALL]
    b = await house.submit()
    await second.here()
    house.backend.script = [third, *ALL]
    c = await house.submit()
    assert (await house.job(c)).status is Status.QUEUED
    first.go.set()
    await third.here()
    assert (await house.job(a)).status is Status.COMPLETED
    assert (await house.job(b)).status is Status.IN_PROGRESS
    assert house.backend.open_max == 2
    second.go.set()
    third.go.set()
    await house.ended(b)
    await house.ended(c)


async def test_a_cancel_that_meets_the_claim_gives_the_place_back(build: Build) -> None:
    """Both in one commit: the run is stopped before its first step."""

    begun, commit = threading.Event(), threading.Event()

    def long_commit(_: Any) -> None:
        begun.set()
        commit.wait(10)

    class Meeting(Wrapped):
        meeting: asyncio.Task[None] | None = None

        async def claim(self, *arguments: Any, **options: Any) -> Any:
            if victim and self.meeting is None:
                busy = asyncio.ensure_future(self.inner._writer.ask(long_commit))
                while not begun.is_set():
                    await asyncio.sleep(0)
                self.meeting = asyncio.create_task(self._meet(busy))
            return await self.inner.claim(*arguments, **options)

        async def _meet(self, busy: asyncio.Future[None]) -> None:
            closing = asyncio.create_task(house.engine._endings.end(victim, CancelRequested()))
            for _ in range(10):  # it has asked for the job, as the runner has, while the writer is busy
                await asyncio.sleep(0)
            commit.set()
            await asyncio.gather(busy, closing)

    victim = ""
    house = await build(wrap=Meeting, concurrency_max=1, is_started=False)
    victim = await house.submit()
    await house.start()
    assert (await house.ended(victim))["status"] == "cancelled"
    other = await house.submit()
    assert (await house.ended(other))["status"] == "completed"
    assert victim not in house.engine._runner._runs


async def test_a_release_and_the_next_claim_in_one_commit_keep_the_run_and_its_slot(
    build: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    soon = 0.004  # of 200 ms: less than a commit
    monkeypatch.setattr("gateway.engine.exchange.random.random", lambda: soon)
    begun, commit = threading.Event(), threading.Event()

    def long_commit(_: Any) -> None:
        begun.set()
        commit.wait(10)

    class Meeting(Wrapped):
        meeting: asyncio.Task[None] | None = None

        async def release(self, *arguments: Any, **options: Any) -> None:
            if self.meeting is None:
                busy = asyncio.ensure_future(self.inner._writer.ask(long_commit))
                while not begun.is_set():
                    await asyncio.sleep(0)
                house.clock.ms += 2
                house.engine._runner.ring()
                self.meeting = asyncio.create_task(self._meet(busy))
            await self.inner.release(*arguments, **options)

        async def _meet(self, busy: asyncio.Future[None]) -> None:
            for _ in range(10):  # the runner has asked for the job while the writer is busy
                await asyncio.sleep(0)
            commit.set()
            await busy

    house = await build(wrap=Meeting, concurrency_max=2)
    hold = Hold()
    house.backend.script = [UpstreamFailed(failure("Oops"), Reason.ERROR, 502)]
    response_id = await house.submit()
    await house.observer.until(response_id, "released")
    house.backend.script = [frames(0, 6), hold, *ALL[1:]]
    async with asyncio.timeout(PATIENCE_S):
        while len(house.backend.calls_of(response_id)) < 2:
            await asyncio.sleep(0.002)
    runner = house.engine._runner
    assert list(runner._runs) == [response_id]
    hold.go.set()
    await house.cancel(response_id)
    async with asyncio.timeout(PATIENCE_S):
        while runner._runs:
            await asyncio.sleep(0.002)
    assert not runner._slots._about["default"].running


async def test_only_the_first_call_of_a_job_enlarges_the_budget_for_retries(build: Build) -> None:
    house = await build(background={"flush_ms": 1000})  # it fails before its first commit
    house.backend.script = [UpstreamFailed(failure("Oops"), Reason.ERROR, 502)]
    response_id = await house.submit()
    await house.observer.until(response_id, "released")
    house.backend.script = ALL
    house.clock.advance(5)
    house.engine._runner.ring()
    await house.ended(response_id)
    assert [call.is_again for call in house.backend.calls_of(response_id)] == [False, True]


async def test_where_none_waits_the_end_of_a_job_asks_for_no_other(build: Build) -> None:
    claims: list[str] = []

    class Counted(Wrapped):
        async def claim(self, limit: int, **wanted: Any) -> Any:
            claims.append(wanted["backend"])
            return await self.inner.claim(limit, **wanted)

    house = await build(wrap=Counted)
    for _ in range(20):
        await house.ended(await house.submit())
    assert len(claims) < 10, "one at the start, and one each second"
