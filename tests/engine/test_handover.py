"""From one process to the next: what a kill, a stop and a start do to jobs, and what their readers see."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from gateway.core.job import ClaimLost, NewJob, Status, StoreUnavailable
from gateway.core.reason import Reason
from gateway.core.upstream import UpstreamClosed, UpstreamFailed
from gateway.engine.handover import Lease, hand_over
from gateway.store.port import QueueLimits, Work
from gateway.wire.errors import Fault, Refusal
from gateway.wire.failures import failure
from gateway.wire.http.head import Credential
from tests.support.house import ALL, Build, Hold, House, Queueing, Wrapped, frames, parsed

KEY = Credential("Authorization", "Bearer caller")


async def running(house: House, *, output: int = 6, **options: Any) -> str:
    """A job whose backend has stopped after some of its frames, all of them committed."""
    hold = Hold()
    house.backend.script = [frames(0, output), hold]
    response_id: str = await house.submit(**options)
    await hold.here()
    committed = 3 + max(0, output - 2)
    async with asyncio.timeout(10):
        while len(await house.stored(response_id)) < committed:
            await asyncio.sleep(0)
    house.backend.script = ALL
    return response_id


# -- killed and started again


async def test_a_queued_response_runs_after_a_kill(build: Build) -> None:
    first = await build(is_started=False)
    response_id = await first.submit()
    await first.kill()
    second = await build()
    assert (await second.ended(response_id))["status"] == "completed"
    assert len(second.backend.calls) == 1


async def test_a_silent_run_is_made_again_and_its_client_notices_nothing(build: Build) -> None:
    first = await build()
    response_id = await running(first)
    before = await first.stored(response_id)
    assert len(before) == 7
    await first.kill()
    second = await build(is_started=False)
    assert (await second.shown(response_id))["status"] == "in_progress"
    hold = Hold()
    second.backend.script = [hold, *ALL]
    await second.start()
    await hold.here()
    assert (await second.shown(response_id))["status"] == "in_progress"
    assert await second.stored(response_id) == before  # what is left of it goes with the first new events
    hold.go.set()
    response = await second.ended(response_id)
    assert response["status"] == "completed"
    events = await second.stored(response_id)
    assert events[:3] == before[:3]
    types = [event["type"] for event in events]
    assert types.count("response.in_progress") == types.count("response.created") == 1
    assert sum(event["type"] == "response.output_item.added" for event in events) == 1
    assert len(second.backend.calls_of(response_id)) == 2


async def test_a_streamed_response_that_had_no_output_yet_is_run_again_for_the_same_reader(
    build: Build,
) -> None:
    first = await build()
    response_id = await running(first, output=2, stream=True)
    seen = await first.store.all_events(response_id)
    assert len(parsed(seen)) == 3
    await first.kill()
    second = await build()
    rest = await second.stream(response_id, after=2)
    assert parsed(seen + rest) == await second.stored(response_id)
    assert (await second.ended(response_id))["status"] == "completed"


async def test_a_run_whose_output_was_shown_fails_with_it_and_is_not_made_again(build: Build) -> None:
    first = await build()
    response_id = await running(first, stream=True)
    seen = await first.store.all_events(response_id)
    await first.kill()
    second = await build()
    response = await second.ended(response_id)
    assert (response["status"], response["error"]["code"]) == ("failed", "server_error")
    assert "interrupted by a restart" in response["error"]["message"]
    assert response["output"][0]["content"][0]["text"] == "one two three four"
    assert response["output"][0]["status"] == "incomplete"
    assert (await second.store.all_events(response_id)).startswith(seen)
    assert len(await second.stored(response_id)) == 8
    assert parsed(await second.stream(response_id, after=6))[0]["type"] == "response.failed"
    assert len(second.backend.calls) == 1


@pytest.mark.parametrize("setting", [{"resume": "any"}, {"partial_output": True}], ids=str)
async def test_output_that_the_settings_let_readers_see_counts_as_shown(
    build: Build, setting: dict[str, Any]
) -> None:
    first = await build(background=setting)
    response_id = await running(first)
    if "partial_output" in setting:
        shown = await first.shown(response_id)
        assert shown["output"][0]["content"][0]["text"] == "one two three four"
    await first.kill()
    second = await build(background=setting)
    assert (await second.ended(response_id))["status"] == "failed"


async def test_partial_output_is_not_shown_of_a_response_that_may_be_run_again(build: Build) -> None:
    """Accepted when the settings were others: what is shown now might be thrown away later."""
    first = await build()
    response_id = await running(first)
    await first.kill()
    second = await build(background={"partial_output": True}, is_started=False)
    assert (await second.shown(response_id))["output"] == []


async def test_with_recovery_never_nothing_is_run_twice(build: Build) -> None:
    first = await build(background={"recovery": "never"})
    response_id = await running(first)
    await first.kill()
    second = await build(background={"recovery": "never"}, is_started=False)
    queued = await second.submit()
    await second.start()
    assert (await second.ended(response_id))["status"] == "failed"
    assert len(second.backend.calls_of(response_id)) == 1
    assert (await second.ended(queued))["status"] == "completed"


async def test_a_job_that_takes_the_process_with_it_fails_after_its_last_attempt(build: Build) -> None:
    house = await build()
    poison = await running(house)
    for _ in range(1):
        await house.kill()
        house = await build(is_started=False)
        hold = Hold()
        house.backend.script = [hold]
        await house.start()
        await hold.here()
    assert (await house.job(poison)).attempt == 2
    await house.kill()
    last = await build()
    last.backend.script = ALL
    assert (await last.ended(poison))["status"] == "failed"
    assert len(last.backend.calls_of(poison)) == 2
    assert (await last.ended(await last.submit()))["status"] == "completed"


async def test_tools_with_effects_outside_are_not_called_twice(build: Build) -> None:
    first = await build()
    tools = [{"type": "mcp", "server_label": "s", "server_url": "https://tools.test"}]
    response_id = await running(first, tools=tools)
    await first.kill()
    second = await build()
    assert (await second.ended(response_id))["status"] == "failed"
    assert len(second.backend.calls_of(response_id)) == 1


async def test_a_cancelled_response_stays_so_after_a_kill(build: Build) -> None:
    first = await build()
    response_id = await running(first)
    cancelled = await first.cancel(response_id)
    await first.kill()
    second = await build()
    await second.ended(await second.submit())
    assert await second.shown(response_id) == cancelled
    assert len(second.backend.calls_of(response_id)) == 1


async def test_a_deadline_goes_on_while_nobody_runs(build: Build) -> None:
    first = await build(background={"deadline_s": 60})
    response_id = await running(first)
    await first.kill()
    first.clock.advance(60)
    second = await build(background={"deadline_s": 60})
    response = await second.ended(response_id)
    assert response["status"] == "failed"
    assert "deadline" in response["error"]["message"]


# -- lost credentials


async def test_a_rerun_goes_without_the_credential_that_was_lost(build: Build) -> None:
    first = await build()
    response_id = await running(first, credential=KEY)
    await first.kill()
    second = await build()
    assert (await second.ended(response_id))["status"] == "completed"
    before, after = second.backend.calls_of(response_id)
    assert (before.credential, after.credential) == (KEY, None)
    assert before.headers["x-held"] == "1"
    assert "x-held" not in after.headers
    assert after.headers["user-agent"] == "test"
    assert before.body == after.body


@pytest.mark.parametrize("status", [401, 403])
async def test_a_backend_that_wants_the_lost_credential_fails_the_response_and_the_message_says_so(
    build: Build, status: int
) -> None:
    refused = UpstreamFailed(failure("Who are you?"), Reason.REFUSED, status)
    first = await build(is_started=False)
    response_id = await first.submit(credential=KEY)
    await first.kill()
    second = await build(is_started=False)
    second.backend.script = [refused]
    fresh = await second.submit(credential=KEY)
    await second.start()
    response = await second.ended(response_id)
    assert (response["status"], response["error"]["code"]) == ("failed", "server_error")
    assert "credential was kept in memory only and was lost" in response["error"]["message"]
    assert "credential_lost" in second.observer.of(response_id)
    assert (await second.ended(fresh))["error"]["message"] == "Who are you?"


async def test_other_errors_after_a_restart_are_told_as_they_are(build: Build) -> None:
    first = await build(is_started=False)
    response_id = await first.submit(credential=KEY)
    await first.kill()
    second = await build(is_started=False)
    second.backend.script = [UpstreamFailed(failure("Broken."), Reason.REFUSED, 500)]
    await second.start()
    assert (await second.ended(response_id))["error"]["message"] == "Broken."


# -- stopped in good order


async def test_a_drain_lets_what_runs_end_and_starts_nothing_more(build: Build) -> None:
    house = await build(concurrency_max=1)
    hold = Hold()
    house.backend.script = [frames(0, 6), hold, frames(6), UpstreamClosed()]
    response_id = await house.submit()
    await hold.here()
    waiting = await house.submit()
    drain = asyncio.create_task(house.engine.drain(30))
    await asyncio.sleep(0)
    with pytest.raises(Refusal) as refusal:
        await house.submit()
    assert (refusal.value.fault, refusal.value.code) == (Fault.UNAVAILABLE, "shutting_down")
    assert (await house.shown(response_id))["status"] == "in_progress"  # GET is still served
    hold.go.set()
    await drain
    assert (await house.shown(response_id))["status"] == "completed"
    await house.kill()
    assert house.backend.calls_of(waiting) == []
    second = await build()
    assert (await second.ended(waiting))["status"] == "completed"


async def test_a_silent_run_is_handed_over_and_the_attempt_does_not_count(build: Build) -> None:
    house = await build()
    response_id = await running(house)
    for _ in range(3):  # more often than there are attempts
        await house.engine.drain(0)
        await house.backend.closed(response_id)
        job = await house.job(response_id)
        assert (job.status, job.attempt) == (Status.IN_PROGRESS, 0)
        assert "released" in house.observer.of(response_id)
        await house.kill()
        house = await build(is_started=False)
        hold = Hold()
        house.backend.script = [frames(0, 4), hold, *ALL[1:]]
        await house.start()
        await hold.here()
    house.backend.script = ALL
    hold.go.set()
    assert (await house.ended(response_id))["status"] == "completed"
    await house.stored(response_id)


@pytest.mark.parametrize(
    ("setting", "options"),
    [({}, {"stream": True}), ({"recovery": "never"}, {})],
    ids=["output was shown", "recovery never"],
)
async def test_a_run_that_cannot_be_handed_over_fails_with_what_it_had(
    build: Build, setting: dict[str, Any], options: dict[str, Any]
) -> None:
    house = await build(background=setting)
    response_id = await running(house, **options)
    reader = asyncio.create_task(house.stream(response_id))
    await asyncio.sleep(0)
    await house.engine.drain(0)
    await house.backend.closed(response_id)
    response = await house.ended(response_id)
    assert response["status"] == "failed"
    assert "shut down" in response["error"]["message"]
    assert response["output"][0]["content"][0]["text"] == "one two three four"
    events = await house.stored(response_id)
    assert events[: len(parsed(await reader))] == parsed(reader.result())
    await house.kill()
    second = await build()
    assert await second.shown(response_id) == response


async def test_what_is_being_claimed_when_the_drain_begins_is_handed_over_too(build: Build) -> None:
    asked, go = asyncio.Event(), asyncio.Event()

    class Slow(Queueing):
        async def claim(self, *arguments: Any, **options: Any) -> Any:
            claims = await self.inner.claim(*arguments, **options)
            if claims:
                asked.set()
                await go.wait()
            return claims

    house = await build(wrap=Slow)
    house.backend.script = [Hold()]
    response_id = await house.submit()
    await asked.wait()
    drain = asyncio.create_task(house.engine.drain(0))
    await asyncio.sleep(0)
    go.set()
    await drain
    job = await house.job(response_id)
    assert (job.status, job.attempt) == (Status.IN_PROGRESS, 0)
    assert house.engine._runner._runs == {}


async def test_what_is_claimed_with_its_create_when_the_drain_begins_is_handed_over_too(build: Build) -> None:
    asked, go = asyncio.Event(), asyncio.Event()

    class Slow(Wrapped):
        async def start(self, job: NewJob, limits: QueueLimits) -> tuple[str, Work | None]:
            accepted_id, work = await self.inner.start(job, limits)
            assert work is not None
            asked.set()
            await go.wait()
            return accepted_id, work

    house = await build(wrap=Slow)
    house.backend.script = [Hold()]
    create = asyncio.create_task(house.submit())
    await asked.wait()
    drain = asyncio.create_task(house.engine.drain(0))
    await asyncio.sleep(0)
    go.set()
    await drain
    job = await house.job(await create)
    assert (job.status, job.attempt) == (Status.IN_PROGRESS, 0)
    assert house.engine._runner._runs == {}


async def test_a_job_that_another_has_taken_meanwhile_is_left_to_it(build: Build) -> None:
    house = await build()
    hold = Hold()
    house.backend.script = [hold]
    response_id = await house.submit()
    await hold.here()
    stopped = await house.engine._runner.drain(0)
    theirs = await house.store.take_over(response_id)
    await hand_over(stopped, house.store, house.engine._endings, house.settings.background, house.observer)
    job = await house.job(response_id)
    assert (job.status, job.epoch, job.attempt) == (Status.IN_PROGRESS, theirs.epoch, 1)


async def test_a_store_that_fails_while_all_is_handed_over_does_not_stop_the_stop(build: Build) -> None:
    class Failing(Wrapped):
        victim = ""

        async def take_over(self, response_id: str, **options: Any) -> Any:
            if response_id == self.victim:
                raise StoreUnavailable("disk full")
            return await self.inner.take_over(response_id, **options)

    house = await build(wrap=Failing)
    house.store.victim = await running(house)
    other = await running(house)
    watched = await running(house, stream=True)
    reader = asyncio.create_task(house.stream(watched))
    await house.engine.drain(0)
    await reader
    assert (await house.job(other)).attempt == 0
    assert (await house.job(watched)).status is Status.FAILED
    victim = house.store.victim
    await house.kill()
    second = await build()
    assert (await second.ended(victim))["status"] == "completed"
    assert (await second.ended(other))["status"] == "completed"


# -- the lease of a process


class _Beating:
    """What a store says to beats: an answer, or that it is not there."""

    def __init__(self, *answers: bool | None) -> None:
        self._answers = list(answers)
        self.released: list[Any] = []

    async def beat(self) -> bool:
        answer = self._answers.pop(0) if self._answers else None
        if answer is None:
            raise StoreUnavailable("away")
        return answer

    async def abandon(self, *, dead_after_s: float) -> None:
        assert dead_after_s > 0

    async def release(self, claim: Any, *, attempts_returned: int) -> None:
        assert attempts_returned == 1
        if claim == "taken":
            raise ClaimLost
        self.released.append(claim)


def _lease(store: _Beating, stops: list[str]) -> Lease:
    def everything() -> Any:
        stops.append("all")
        return ["claimed since", "taken"]

    def silent() -> Any:
        stops.append("silent")
        return ["claim", "taken"]

    return Lease(store, everything, silent)  # type: ignore[arg-type]


async def test_whoever_was_taken_for_dead_stops_all_that_it_runs_and_frees_what_nobody_has_taken() -> None:
    stops: list[str] = []
    store = _Beating(True, False)
    lease = _lease(store, stops)
    await lease.renew()
    assert stops == []
    await lease.renew()
    assert stops == ["all"]
    assert store.released == ["claimed since"]


async def test_a_run_that_was_stopped_with_its_process_taken_for_dead_is_made_again(build: Build) -> None:
    class Doubted(Wrapped):
        is_doubted = False

        async def beat(self) -> bool:
            return not self.is_doubted

    house = await build(wrap=Doubted)
    hold = Hold()
    house.backend.script = [hold]
    response_id = await house.submit()
    await hold.here()
    house.backend.script = ALL
    house.store.is_doubted = True
    await house.engine._lease.renew()
    house.store.is_doubted = False
    assert (await house.ended(response_id))["status"] == "completed"
    assert len(house.backend.calls_of(response_id)) == 2
    assert (await house.job(response_id)).attempt == 1


async def test_whoever_cannot_renew_its_lease_stops_what_others_would_begin_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stops: list[str] = []
    lease = _lease(_Beating(True), stops)
    await lease.renew()
    await lease.renew()
    assert stops == [], "others still take it for alive"
    monkeypatch.setattr("gateway.engine.handover._STOP_AFTER_S", -1)
    await _lease(_Beating(), stops).renew()
    assert stops == ["silent"]


@pytest.mark.parametrize("is_alive", [True, False])
async def test_what_was_stopped_for_the_want_of_a_lease_goes_back_if_nobody_has_taken_it(
    monkeypatch: pytest.MonkeyPatch, is_alive: bool
) -> None:
    store = _Beating(None, is_alive)
    monkeypatch.setattr("gateway.engine.handover._STOP_AFTER_S", -1)
    lease = _lease(store, [])
    await lease.renew()
    monkeypatch.setattr("gateway.engine.handover._STOP_AFTER_S", 60)
    await lease.renew()
    assert store.released == ["claim"] if is_alive else ["claimed since", "claim"]


async def test_a_defect_in_one_hand_over_keeps_no_other_job_from_its_own(build: Build) -> None:
    ids: list[str] = []

    class Bad(Wrapped):
        async def finish(self, claim: Any, *rest: Any, **more: Any) -> None:
            if claim.id == ids[0]:
                raise RuntimeError("a defect")
            await self.inner.finish(claim, *rest, **more)

    house = await build(wrap=Bad)
    for _ in range(3):
        hold = Hold()
        house.backend.script = [frames(0, 6), hold]
        ids.append(await house.submit(stream=True))
        await hold.here()
    async with asyncio.timeout(10):
        while not (await house.job(ids[-1])).output_shown:
            await asyncio.sleep(0.002)
    await house.engine.drain(0.05)
    assert [(await house.shown(each))["status"] for each in ids] == ["in_progress", "failed", "failed"]
