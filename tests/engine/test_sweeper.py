"""Time and trouble: deadlines, retention, and runs whose ending could not be stored."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from gateway.core.job import StoreUnavailable
from gateway.core.reason import Reason
from gateway.core.upstream import UpstreamClosed, UpstreamFailed
from gateway.wire.errors import Refusal
from gateway.wire.failures import failure
from tests.support.house import ALL, TENANT, Build, Hold, House, Wrapped, frames, parsed


async def test_a_response_past_its_deadline_fails_with_its_partial_output(build: Build) -> None:
    house = await build(background={"deadline_s": 60})
    hold = Hold()
    house.backend.script = [frames(0, 6), hold]
    response_id = await house.submit(stream=True)
    reader = asyncio.create_task(house.stream(response_id))
    await hold.here()
    async with asyncio.timeout(10):
        while len(await house.stored(response_id)) < 7:
            await asyncio.sleep(0)
    await house.tick()
    assert (await house.shown(response_id))["status"] == "in_progress"
    house.clock.advance(60)
    await house.tick()
    response = await house.ended(response_id)
    assert (response["status"], response["error"]["code"]) == ("failed", "server_error")
    assert "deadline" in response["error"]["message"]
    assert response["output"][0]["content"][0]["text"] == "one two three four"
    await house.backend.closed(response_id)
    assert parsed(await reader) == await house.stored(response_id)


async def test_a_response_that_waited_past_its_deadline_fails_without_a_call(build: Build) -> None:
    house = await build(is_started=False)
    response_id = await house.submit()
    house.clock.advance(house.settings.background.deadline_s)
    await house.start()
    assert (await house.ended(response_id))["status"] == "failed"
    assert house.backend.calls == []


async def test_a_response_is_gone_when_its_retention_is_over_and_then_its_bytes(house: House) -> None:
    response_id = await house.submit()
    await house.ended(response_id)
    house.clock.advance(house.settings.background.retention_s - 0.001)
    await house.tick()
    assert await house.jobs.find(response_id, TENANT) is not None
    house.clock.advance(0.001)
    assert await house.jobs.find(response_id, TENANT) is None
    assert await house.stream(response_id) == b""
    assert await house.store.all_events(response_id) != b""
    house.clock.advance(house.settings.store.sweep_interval_s)
    await house.tick()
    assert await house.store.all_events(response_id) == b""
    assert await house.store.request_of(response_id) is None
    assert house.observer.registry.get_sample_value("backburner_responses_swept_total") == 1


async def test_a_running_response_is_not_swept_however_long_it_takes(build: Build) -> None:
    house = await build(background={"deadline_s": 604_800})
    hold = Hold()
    house.backend.script = [hold, *ALL]
    response_id = await house.submit()
    await hold.here()
    house.clock.advance(600_000)
    await house.tick()
    hold.go.set()
    assert (await house.ended(response_id))["status"] == "completed"
    house.clock.advance(house.settings.background.retention_s - 1)  # counted from its end
    await house.tick()
    assert (await house.shown(response_id))["status"] == "completed"


async def test_a_run_that_could_not_store_its_events_fails_when_the_store_is_back(build: Build) -> None:
    class Failing(Wrapped):
        is_full = False
        refused = asyncio.Event()

        async def append(self, *arguments: Any, **options: Any) -> None:
            if self.is_full:
                self.refused.set()
                raise StoreUnavailable("disk full")
            await self.inner.append(*arguments, **options)

        async def finish(self, *arguments: Any, **options: Any) -> None:
            if self.is_full:
                raise StoreUnavailable("disk full")
            await self.inner.finish(*arguments, **options)

    house = await build(wrap=Failing, background={"store_wait_s": 0})
    hold = Hold()
    house.backend.script = [frames(0, 6), hold, frames(6, 9), Hold()]
    response_id = await house.submit(stream=True)
    reader = asyncio.create_task(house.stream(response_id))
    await hold.here()
    async with asyncio.timeout(10):
        while len(await house.stored(response_id)) < 7:
            await asyncio.sleep(0)
    house.store.is_full = True
    hold.go.set()
    await house.store.refused.wait()
    await house.backend.closed(response_id)
    async with asyncio.timeout(10):
        while response_id in house.engine._runner._runs:
            await asyncio.sleep(0)
    with pytest.raises(StoreUnavailable):
        await house.tick()
    assert (await house.shown(response_id))["status"] == "in_progress"
    house.store.is_full = False
    await house.tick()
    response = await house.ended(response_id)
    assert response["status"] == "failed"
    assert "could not store" in response["error"]["message"]
    assert response["output"][0]["content"][0]["text"] == "one two three four"
    assert parsed(await reader) == await house.stored(response_id)
    await house.tick()
    assert house.observer.of(response_id).count("finished") == 1


async def test_a_cancel_that_the_store_could_not_take_changes_nothing(build: Build) -> None:
    """The run goes on, and keeps what it had received when the cancel wanted to have it stored."""

    class Failing(Wrapped):
        is_full = False

        def __getattr__(self, name: str) -> Any:
            if self.is_full and name in ("append", "take_over"):
                return lambda *_, **__: asyncio.ensure_future(refuses())
            return super().__getattr__(name)

    async def refuses() -> None:
        raise StoreUnavailable("disk full")

    house = await build(wrap=Failing, background={"flush_ms": 10_000})
    hold = Hold()
    house.backend.script = [frames(0, 6), hold, *ALL[2:]]
    response_id = await house.submit()
    await hold.here()
    house.store.is_full = True
    with pytest.raises(Refusal):
        await house.cancel(response_id)
    house.store.is_full = False
    hold.go.set()
    response = await house.ended(response_id)
    assert response["status"] == "completed"
    assert response["output"][0]["content"][0]["text"].startswith("one two three four five six seven")


@pytest.mark.parametrize("method", ["finish", "all_events"])
async def test_a_cancel_that_could_not_be_stored_is_refused_and_carried_out_later(
    build: Build, method: str
) -> None:
    class Failing(Wrapped):
        broken = ""

        async def finish(self, *arguments: Any, **options: Any) -> None:
            if self.broken == "finish":
                raise StoreUnavailable("disk full")
            await self.inner.finish(*arguments, **options)

        async def all_events(self, *arguments: Any) -> Any:
            if self.broken == "all_events":
                raise StoreUnavailable("disk")
            return await self.inner.all_events(*arguments)

    house = await build(wrap=Failing)
    hold = Hold()
    house.backend.script = [frames(0, 6), hold]
    is_running = method == "finish"  # one that waits is ended by what the store has of it
    house.backends.slots_now = int(is_running)
    response_id = await house.submit()
    if is_running:
        await hold.here()
    house.store.broken = method
    with pytest.raises(Refusal) as refusal:
        await house.cancel(response_id)
    assert refusal.value.code == "store_unavailable"
    if is_running:
        await house.backend.closed(response_id)  # stopped it is, all the same
    house.store.broken = ""
    await house.tick()
    assert (await house.ended(response_id))["status"] == "cancelled"


async def test_a_store_that_fails_while_the_gateway_runs_does_not_end_it(build: Build) -> None:
    class Failing(Wrapped):
        is_broken = False
        asked = 0

        def __getattr__(self, name: str) -> Any:
            if self.__dict__.get("is_broken") and name in ("claim", "overdue", "orphans", "sweep"):

                async def fails(*_: Any, **__: Any) -> Any:
                    raise StoreUnavailable("disk")

                return fails
            return super().__getattr__(name)

    house = await build(wrap=Failing)
    house.store.is_broken = True
    response_id = await house.submit()
    with pytest.raises(StoreUnavailable):
        await house.tick()
    house.store.is_broken = False
    assert (await house.ended(response_id))["status"] == "completed"  # by the poll behind the bell
    assert not house.failed.is_set()


async def test_the_gauges_tell_what_waits_and_for_how_long(build: Build) -> None:
    house = await build(is_started=False)
    await house.submit()
    house.clock.advance(7)
    await house.submit()
    await house.engine.gauges.measure()
    read = house.observer.registry.get_sample_value
    assert read("backburner_jobs", {"status": "queued"}) == 2
    assert read("backburner_jobs", {"status": "completed"}) == 0
    assert read("backburner_queue_oldest_seconds") == 7


async def test_the_gauges_tell_what_jobs_wait_for_and_the_wait_of_each_is_counted_once(build: Build) -> None:
    house = await build(concurrency_max=1)

    async def read(name: str, **labels: str) -> float | None:
        await house.engine.gauges.measure()
        found: float | None = house.observer.registry.get_sample_value(name, {"backend": "default", **labels})
        return found

    hold = Hold()
    house.backend.script = [hold, UpstreamFailed(failure("Busy"), Reason.PUT_OFF, 503, retry_after_s=20)]
    first = await house.submit()
    await hold.here()
    await house.submit()
    house.clock.advance(7)
    await house.submit()
    assert await read("backburner_jobs_waiting", reason="slot") == 2
    assert await read("backburner_jobs_waiting_oldest_seconds") == 7
    house.backends.why_halted = "breaker"
    assert await read("backburner_jobs_waiting", reason="breaker") == 2
    assert await read("backburner_jobs_waiting", reason="slot") == 0
    house.backends.slots_now = 0
    hold.go.set()
    await house.observer.until(first, "released")
    assert await read("backburner_jobs_waiting", reason="retry") == 1
    house.backends.why_halted, house.backends.slots_now, house.backend.script = None, 1, ALL
    house.clock.advance(21)
    await house.ended(await house.submit())
    await house.ended(first)
    assert await read("backburner_jobs_waiting", reason="retry") == 0
    assert await read("backburner_jobs_waiting", reason="slot") == 0
    assert await read("backburner_jobs_waiting_oldest_seconds") == 0
    assert await read("backburner_queue_wait_seconds_count") == 4
    assert house.observer.seen.count((first, "started")) == 2


async def test_a_full_file_refuses_new_responses_and_goes_on_with_the_rest(build: Build) -> None:
    """Real, by the page limit of SQLite: what is there can be read and deleted, and then there is room."""
    house = await build(
        background={"body_bytes_max": 1024 * 1024, "events_bytes_max": 1024**2, "event_bytes_max": 1024**2},
        database_bytes_max=1024 * 1024,
    )
    done = await house.submit()
    await house.ended(done)
    fillers: list[str] = []
    refusal = None
    while refusal is None and len(fillers) < 100:
        try:
            fillers.append(await house.submit(input="x" * 100_000))
        except Refusal as error:
            refusal = error
    assert refusal is not None
    assert refusal.code == "store_full"
    assert (await house.shown(done))["status"] == "completed"
    for response_id in fillers:
        await house.jobs.delete(await house.job(response_id))
    await house.engine._sweeper.sweep()
    house.backend.script = [*ALL[:-1], UpstreamClosed()]
    assert (await house.ended(await house.submit()))["status"] == "completed"
