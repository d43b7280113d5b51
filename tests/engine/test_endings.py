"""Cancels and deletes: each job ends once, whoever comes first."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from gateway.core.upstream import UpstreamClosed
from gateway.wire.errors import Fault, Refusal
from tests.support.house import (
    ALL,
    TENANT,
    Build,
    Hold,
    House,
    Queueing,
    Wrapped,
    frames,
    is_terminal,
    parsed,
    text_of,
    until_noted,
)


async def test_a_queued_response_is_cancelled_before_it_runs(build: Build) -> None:
    house = await build(is_started=False)
    response_id = await house.submit(stream=True)
    response = await house.cancel(response_id)
    assert (response["status"], response["output"]) == ("cancelled", [])
    await house.start()
    await house.ended(await house.submit())  # the runner has been through the queue
    assert house.backend.calls_of(response_id) == []
    assert parsed(await house.stream(response_id)) == await house.stored(response_id)


async def test_cancelling_a_running_response_stops_the_backend_and_keeps_what_was_seen(house: House) -> None:
    hold = Hold()
    house.backend.script = [frames(0, 6), hold]
    response_id = await house.submit(stream=True)
    reader = asyncio.create_task(house.stream(response_id))
    await hold.here()
    await seen_by_store(house, response_id, 6)
    response = await house.cancel(response_id)
    await house.backend.closed(response_id)
    assert response["status"] == "cancelled"
    assert response["error"] is None
    assert text_of(response) == "one two three four"
    assert [item["status"] for item in response["output"]] == ["incomplete"]
    events = parsed(await reader)
    assert events == await house.stored(response_id)
    assert events[-1]["type"] == "response.failed"
    assert events[-1]["response"] == response
    assert house.backend.open == 0


async def seen_by_store(house: House, response_id: str, count: int) -> None:
    """So many events are committed."""
    async with asyncio.timeout(10):
        got = b""
        stream = house.engine.followers.follow(response_id, b"t" * 32, after=-1)
        async for block in stream:
            got += block
            if got.count(b"\n\n") >= count:
                break
        await stream.aclose()


async def test_cancelling_twice_gives_the_same_object(house: House) -> None:
    hold = Hold()
    house.backend.script = [frames(0, 6), hold]
    response_id = await house.submit()
    await hold.here()
    both = await asyncio.gather(house.cancel(response_id), house.cancel(response_id))
    third = await house.cancel(response_id)
    assert both[0] == both[1] == third
    assert third["status"] == "cancelled"
    assert (await house.stored(response_id))[-1]["response"] == third
    assert house.observer.of(response_id).count("finished") == 1


async def test_cancelling_an_ended_response_changes_nothing(house: House) -> None:
    response_id = await house.submit()
    before = await house.ended(response_id)
    assert await house.cancel(response_id) == before


@pytest.mark.parametrize("is_streamed", [False, True])
async def test_a_cancel_that_races_the_end_leaves_one_terminal_event(build: Build, is_streamed: bool) -> None:
    """Fired before and after every call that the run makes of the store, and some turns later."""

    class Racing(Queueing):
        points = at = lag = 0
        is_ready = asyncio.Event()
        cancel: asyncio.Task[Any] | None = None

        async def _point(self) -> None:
            self.points += 1
            if self.points == self.at:
                self.cancel = asyncio.create_task(house.jobs.cancel(job))
                for _ in range(self.lag):
                    await asyncio.sleep(0)

        async def _claim(self, *arguments: Any, **options: Any) -> Any:
            await self.is_ready.wait()
            works = await self.inner.claim(*arguments, **options)
            if works:
                await self._point()
                await asyncio.sleep(0)
                await self._point()
            return works

        def __getattr__(self, name: str) -> Any:
            method = getattr(self.inner, name)
            if name == "claim":
                return self._claim
            if name not in ("append", "finish"):
                return method

            async def between(*arguments: Any, **options: Any) -> Any:
                await self._point()
                result = await method(*arguments, **options)
                await self._point()
                return result

            return lambda *arguments, **options: asyncio.ensure_future(between(*arguments, **options))

    house = await build(wrap=Racing, is_started=False, background={"flush_ms": 0})
    await house.tick()
    endings = []
    running = asyncio.create_task(house.engine._runner.run())
    for lag in (0, 1, 2, 5):
        for at in range(1, 16):
            house.store.points, house.store.at, house.store.lag = 0, at, lag
            house.store.cancel = None
            house.store.is_ready.clear()
            response_id = await house.submit(stream=is_streamed)
            job = await house.job(response_id)
            house.store.is_ready.set()
            reader = asyncio.create_task(house.stream(response_id))
            response = await house.ended(response_id)
            if house.store.cancel is None:
                await house.jobs.cancel(job)
            else:
                assert (await house.store.cancel).status == response["status"]
            events = await house.stored(response_id)
            assert is_terminal(events[-1])
            assert events[-1]["response"] == response == await house.shown(response_id)
            assert parsed(await reader) == events
            assert house.observer.of(response_id).count("finished") == 1
            endings.append(response["status"])
            await until_noted(house, response_id)
    assert set(endings) == {"cancelled", "completed"}, "the race was never one"
    assert house.engine._runner._runs == {}
    assert house.engine._endings.owed == {}
    assert house.backend.open == 0
    running.cancel()
    await asyncio.wait([running])


async def test_a_client_that_asks_for_a_cancel_and_hangs_up_gets_it(build: Build) -> None:
    taken, go = asyncio.Event(), asyncio.Event()

    class Slow(Wrapped):
        async def finish(self, *arguments: Any, **options: Any) -> None:
            taken.set()
            await go.wait()
            await self.inner.finish(*arguments, **options)

    house = await build(wrap=Slow)
    hold = Hold()
    house.backend.script = [frames(0, 6), hold]
    response_id = await house.submit()
    await hold.here()
    client = asyncio.create_task(house.cancel(response_id))
    await taken.wait()
    client.cancel()
    with pytest.raises(asyncio.CancelledError):
        await client
    go.set()
    assert (await house.ended(response_id))["status"] == "cancelled"
    await house.backend.closed(response_id)


async def test_deleting_a_running_response_stops_the_backend_and_ends_the_streams(house: House) -> None:
    hold = Hold()
    house.backend.script = [frames(0, 6), hold, frames(6), UpstreamClosed()]
    response_id = await house.submit(stream=True)
    reader = asyncio.create_task(house.stream(response_id))
    await hold.here()
    await house.jobs.delete(await house.job(response_id))
    await house.backend.closed(response_id)
    assert not any(is_terminal(event) for event in parsed(await reader))
    assert await house.jobs.find(response_id, TENANT) is None
    assert await house.stream(response_id) == b""
    assert response_id not in house.engine._credentials._held


@pytest.mark.parametrize("state", ["queued", "running", "ended"])
async def test_a_delete_of_a_live_job_is_counted_as_its_end_and_of_an_ended_one_is_not(
    build: Build, state: str
) -> None:
    house = await build(is_started=state != "queued")
    hold = Hold()
    house.backend.script = [hold] if state == "running" else ALL
    response_id = await house.submit()
    if state == "running":
        await hold.here()
        house.clock.advance(7)
    if state == "ended":
        await house.ended(response_id)
    await house.jobs.delete(await house.job(response_id))

    def read(name: str, **labels: str) -> float:
        labels = {"backend": "default", "outcome": "cancelled", **labels}
        return house.observer.registry.get_sample_value(f"backburner_{name}", labels) or 0

    assert read("jobs_finished_total", code="") == (state != "ended")
    assert read("run_seconds_sum") == (7 if state == "running" else 0)
    assert house.observer.of(response_id).count("finished") == 1


async def test_deleting_twice_is_not_found(house: House) -> None:
    response_id = await house.submit()
    await house.ended(response_id)
    job = await house.job(response_id)
    await house.jobs.delete(job)
    with pytest.raises(Refusal) as refusal:
        await house.jobs.delete(job)
    assert refusal.value.fault is Fault.NOT_FOUND


async def test_a_response_deleted_while_it_is_cancelled_is_not_found(build: Build) -> None:
    house = await build(is_started=False)
    job = await house.job(await house.submit())
    await house.jobs.delete(job)
    with pytest.raises(Refusal) as refusal:
        await house.jobs.cancel(job)
    assert refusal.value.fault is Fault.NOT_FOUND
