"""What a client can do with a response, from its acceptance to its end."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import orjson
import pytest

from gateway.core.job import Status, StoreUnavailable
from gateway.core.reason import Reason
from gateway.core.transcript import CancelRequested
from gateway.core.upstream import UpstreamAnswer, UpstreamClosed, UpstreamFailed
from gateway.wire.conversation.replay import ReplayTarget
from gateway.wire.errors import Fault, Refusal
from gateway.wire.failures import failure
from gateway.wire.http.head import Credential
from tests.support.house import (
    ALL,
    OTHER,
    PATIENCE_S,
    TENANT,
    Build,
    Hold,
    House,
    Wrapped,
    frames,
    is_terminal,
    parsed,
)

TEXT = "one two three four five"


def sent_back(output: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The items of an answer as a later call has them: a field that is null may be one that must not be."""
    return [{name: value for name, value in item.items() if value is not None} for item in output]


def text_of(response: dict[str, Any]) -> str:
    return "".join(part["text"] for item in response["output"] for part in item["content"])


# -- running


async def test_what_was_accepted_is_run_to_its_end(house: House) -> None:
    key = Credential("Authorization", "Bearer caller")
    response_id = await house.submit(metadata={"k": "v"}, credential=key)
    response = await house.ended(response_id)
    assert (response["id"], response["status"], response["background"]) == (response_id, "completed", True)
    assert response["metadata"] == {"k": "v"}
    assert text_of(response).startswith(TEXT)
    (call,) = house.backend.calls
    assert (call.job_id, call.target, call.credential) == (response_id, "/v1/responses", key)
    assert call.headers == {"user-agent": "test", "x-held": "1"}
    sent = orjson.loads(call.body)
    assert sent["stream"] is True
    assert "background" not in sent or sent["background"] is False
    types = [event["type"] for event in await house.stored(response_id)]
    assert types[:3] == ["response.created", "response.queued", "response.in_progress"]
    assert types[-1] == "response.completed"
    assert house.observer.of(response_id) == ["started", "upstream_ended", "finished"]
    assert response_id not in house.engine._credentials._held, "held no longer than needed"


async def test_an_answer_that_is_no_stream_completes_too(house: House) -> None:
    answer = orjson.loads(frames(-1).frames[0].data)["response"]
    house.backend.script = [UpstreamAnswer(orjson.dumps(answer))]
    response = await house.ended(await house.submit())
    assert response["status"] == "completed"
    assert text_of(response).startswith(TEXT)


async def test_a_backend_that_breaks_off_fails_the_response_with_its_partial_output(house: House) -> None:
    house.backend.script = [frames(0, 6), UpstreamClosed()]
    response = await house.ended(await house.submit(stream=True))
    assert (response["status"], response["error"]["code"]) == ("failed", "server_error")
    assert text_of(response) == "one two three four"
    assert response["output"][0]["status"] == "incomplete"


async def test_a_break_that_nobody_saw_is_run_again_from_the_start(house: House) -> None:
    house.backend.script = [frames(0, 6), UpstreamClosed()]
    response_id = await house.submit()
    await house.observer.until(response_id, "released")
    house.backend.script = ALL
    house.clock.advance(1)
    response = await house.ended(response_id)
    assert response["status"] == "completed"
    assert len(house.backend.calls_of(response_id)) == 2


async def test_a_break_in_every_attempt_fails_the_response_in_the_end(house: House) -> None:
    house.backend.script = [frames(0, 6), UpstreamClosed()]
    response_id = await house.submit()
    await house.observer.until(response_id, "released")
    house.clock.advance(1)
    response = await house.ended(response_id)
    assert (response["status"], text_of(response)) == ("failed", "one two three four")
    assert len(house.backend.calls_of(response_id)) == 2


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


async def test_all_runs_together_hold_no_more_than_the_process_may(build: Build) -> None:
    """None of them is over its own limit; together they are, until the store has caught up."""
    stuck = asyncio.Event()

    class Slow(Wrapped):
        async def append(self, claim: Any, first_seq: int, *rest: Any, **more: Any) -> None:
            if first_seq > 2:
                await stuck.wait()
            await self.inner.append(claim, first_seq, *rest, **more)

    house = await build(
        wrap=Slow, background={"unflushed_bytes_max": 4096, "unflushed_total_bytes_max": 4096, "flush_ms": 0}
    )
    house.backend.script = [*(frames(n, n + 1) for n in range(3)), *ALL[1:]]
    jobs = [await house.submit() for _ in range(40)]
    unflushed = house.engine._runner._unflushed
    async with asyncio.timeout(PATIENCE_S):
        while unflushed._bytes < 4096:
            await asyncio.sleep(0)
    for _ in range(50):
        await asyncio.sleep(0)
    one = 1500  # what a run may add before it finds that there is no room; alone it may have 4096
    assert unflushed._bytes <= 4096 + len(jobs) * one
    before = unflushed._bytes
    for _ in range(50):
        await asyncio.sleep(0)
    assert unflushed._bytes == before, "nobody reads on"
    stuck.set()
    for job in jobs:
        assert (await house.ended(job))["status"] == "completed"
    assert unflushed._bytes == 0


async def test_what_a_stopped_run_had_not_committed_is_given_back(house: House) -> None:
    hold = Hold()
    house.backend.script = [frames(0, 6), hold]
    slow = house.settings.background.model_copy(update={"flush_ms": 10_000})
    house.engine._runner._endings = replace(house.engine._endings, settings=slow)
    response_id = await house.submit()
    await hold.here()
    assert house.engine._runner._unflushed._bytes > 0
    await house.jobs.delete(await house.job(response_id))
    await house.backend.closed(response_id)
    async with asyncio.timeout(PATIENCE_S):
        while house.engine._runner._unflushed._bytes:
            await asyncio.sleep(0)


@pytest.mark.parametrize("after_output", [False, True])
async def test_a_defect_in_a_run_fails_its_response_and_no_other(house: House, after_output: bool) -> None:
    head = [frames(0, 6)] if after_output else []
    hold = Hold()
    house.backend.script = [*head, hold, RuntimeError("secret detail")]
    broken = await house.submit()
    await hold.here()
    hold.go.set()
    house.backend.script = ALL
    fine = await house.submit()
    assert (await house.ended(fine))["status"] == "completed"
    await house.backend.closed(broken)
    await until_noted(house, broken)
    await house.tick()
    response = await house.ended(broken)
    assert response["status"] == "failed"
    assert response["error"]["message"] == "The gateway failed while it ran this response."
    await house.stored(broken)


async def until_noted(house: House, response_id: str) -> None:
    """The run is over; its ending is left to the sweeper, which may have been there already."""
    async with asyncio.timeout(10):
        while response_id in house.engine._runner._runs:
            await asyncio.wait([house.engine._runner._runs[response_id].task])


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


async def test_a_full_queue_refuses_and_says_when_to_come_back(build: Build) -> None:
    house = await build(background={"queue_max": 2, "queue_per_tenant_max": 1}, is_started=False)
    await house.submit()
    with pytest.raises(Refusal) as own:
        await house.submit()
    assert (own.value.fault, own.value.retry_after_s) == (Fault.OVERLOADED, 120)  # nothing has started yet
    await house.submit(tenant=OTHER)
    with pytest.raises(Refusal) as everybody:
        await house.submit(tenant=b"3" * 32)
    assert everybody.value.fault is Fault.OVERLOADED
    with pytest.raises(Refusal):
        house.jobs.check_room(b"4" * 32)  # the next one is not even looked at
    assert len(house.engine._credentials._held) == 2, "those of the refused are not kept"


async def test_a_client_that_hangs_up_while_it_is_accepted_leaves_a_job_that_runs(build: Build) -> None:
    asked = asyncio.Event()
    go = asyncio.Event()

    class Slow(Wrapped):
        async def create(self, *arguments: Any) -> Any:
            asked.set()
            await go.wait()
            return await self.inner.create(*arguments)

    house = await build(wrap=Slow)
    key = Credential("Authorization", "Bearer caller")
    client = asyncio.create_task(house.submit(credential=key))
    await asked.wait()
    client.cancel()
    with pytest.raises(asyncio.CancelledError):
        await client
    go.set()
    async with asyncio.timeout(10):
        while not house.observer.seen or house.observer.seen[-1][1] != "finished":
            house.observer._news.clear()
            await house.observer._news.wait()
    (call,) = house.backend.calls
    assert call.credential == key
    assert (await house.job(call.job_id)).status is Status.COMPLETED


# -- cancelling


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

    class Racing(Wrapped):
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

            return between

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


async def test_a_client_that_asks_for_a_cancel_and_hangs_up_gets_it(build: Build) -> None:
    taken, go = asyncio.Event(), asyncio.Event()

    class Slow(Wrapped):
        async def take_over(self, response_id: str) -> Any:
            claim = await self.inner.take_over(response_id)
            taken.set()
            await go.wait()
            return claim

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


# -- deleting


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


@pytest.mark.parametrize("method", ["find", "take_over", "delete"])
async def test_a_store_that_does_not_answer_is_a_refusal_and_no_defect(build: Build, method: str) -> None:
    async def fails(*_: Any, **__: Any) -> Any:
        raise StoreUnavailable("disk")

    house = await build(is_started=False)
    response_id = await house.submit()
    job = await house.job(response_id)
    setattr(house.store, method, fails)
    acts: dict[str, Callable[[], Awaitable[Any]]] = {
        "find": lambda: house.jobs.find(response_id, TENANT),
        "take_over": lambda: house.jobs.cancel(job),
        "delete": lambda: house.jobs.delete(job),
    }
    with pytest.raises(Refusal) as refusal:
        await acts[method]()
    assert refusal.value.fault is Fault.UNAVAILABLE


# -- chaining


async def test_a_later_turn_carries_the_earlier_ones_but_not_their_instructions(house: House) -> None:
    first = await house.submit(input="first question", instructions="Be brief.")
    answer = await house.ended(first)
    second = await house.submit(input=[{"role": "user", "content": "second"}], previous=first)
    await house.ended(second)
    third = await house.submit(input="third", previous=second, instructions="Be long.")
    await house.ended(third)
    (call,) = house.backend.calls_of(third)
    sent = orjson.loads(call.body)
    again = (await house.shown(second))["output"]
    assert sent["input"] == [
        {"role": "user", "content": "first question"},
        *sent_back(answer["output"]),
        {"role": "user", "content": "second"},
        *sent_back(again),
        {"role": "user", "content": "third"},
    ]
    assert sent["instructions"] == "Be long."
    assert "previous_response_id" not in sent
    (call,) = house.backend.calls_of(second)
    assert orjson.loads(call.body).get("instructions") is None
    assert (await house.shown(third))["previous_response_id"] == second


async def test_a_plain_request_is_expanded_with_the_earlier_turns(house: House) -> None:
    first = await house.submit(input="first question")
    answer = await house.ended(first)
    expanded = await house.jobs.turns.expand(first, TENANT, "now", ReplayTarget())
    question = {"role": "user", "content": "first question"}
    assert expanded == [question, *sent_back(answer["output"]), {"role": "user", "content": "now"}]
    with pytest.raises(Refusal):
        await house.jobs.turns.expand(first, OTHER, "now", ReplayTarget())


async def test_a_turn_whose_context_only_the_backend_has_cannot_be_continued(house: House) -> None:
    first = await house.submit(previous_response_id="resp_of_the_backend")
    await house.ended(first)
    with pytest.raises(Refusal, match="backend's own"):
        await house.submit(previous=first)
    with pytest.raises(Refusal, match="backend's own"):
        await house.jobs.turns.expand(first, TENANT, "now", ReplayTarget())


@pytest.mark.parametrize("state", ["queued", "in_progress"])
async def test_a_response_that_still_runs_cannot_be_continued(build: Build, state: str) -> None:
    house = await build(is_started=False)
    hold = Hold()
    house.backend.script = [hold]
    first = await house.submit()
    if state == "in_progress":
        await house.start()
        await hold.here()
    with pytest.raises(Refusal, match=f"is still {state}") as refusal:
        await house.submit(previous=first)
    assert refusal.value.code == "previous_response_not_ready"
    assert refusal.value.param == "previous_response_id"


@pytest.mark.parametrize("state", ["failed", "cancelled"])
async def test_a_response_that_went_wrong_cannot_be_continued(house: House, state: str) -> None:
    hold = Hold()
    house.backend.script = [hold, UpstreamFailed(failure("No."), Reason.REFUSED, 400)]
    first = await house.submit()
    await hold.here()
    if state == "cancelled":
        await house.cancel(first)
    hold.go.set()
    assert (await house.ended(first))["status"] == state
    with pytest.raises(Refusal, match=f"is {state}") as refusal:
        await house.submit(previous=first)
    assert refusal.value.code == "previous_response_not_usable"


@pytest.mark.parametrize("case", ["unknown", "foreign", "deleted", "expired"])
async def test_previous_responses_that_are_not_there_are_refused_alike(house: House, case: str) -> None:
    first = await house.submit(tenant=OTHER if case == "foreign" else TENANT)
    await house.observer.until(first, "finished")
    if case == "unknown":
        first = "resp_" + "f" * 48
    elif case == "deleted":
        await house.jobs.delete(await house.job(first))
    elif case == "expired":
        house.clock.advance(house.settings.background.retention_s)
    with pytest.raises(Refusal) as refusal:
        await house.submit(previous=first)
    assert refusal.value.code == "previous_response_not_found"
    assert refusal.value.message == f"Previous response with id '{first}' not found."
