"""Events on their way to receivers: told at least once, put off, given up; nobody holds up somebody else."""

from __future__ import annotations

import asyncio
import base64
from typing import Any

import pytest

from gateway.core.job import StoreUnavailable
from gateway.core.webhooks import CALLERS, Attempt, Delivery, Verdict
from tests.support.house import ALL, Build, Hold, House, ScriptedBackend, SetClock, Wrapped, frames

SECRET = f"whsec_{base64.b64encode(b's' * 32).decode()}"
AGAIN = Attempt(Verdict.AGAIN, "http_500")
DOWN = Attempt(Verdict.DOWN, "unreachable")
TOO_LARGE = Attempt(Verdict.AGAIN, "http_413")
STOP = Attempt(Verdict.STOP, "http_410")
NEVER = Attempt(Verdict.NEVER, "address_denied")
HOOK = {"metadata_key": "hook", "secrets": [SECRET]}


def endpoints(*names: str, **fields: Any) -> dict[str, Any]:
    return {name: {"url": f"http://{name}.test", "secrets": [SECRET], **fields} for name in names}


def counted(house: House, name: str, *labels: str) -> float:
    return float(getattr(house.observer, name).labels(*labels)._value.get())


async def until(house: House, condition: Any) -> None:
    """Rounds are short: a look every quarter of a second."""
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.01)


async def waiting(house: House) -> int:
    return sum(each.count for each in await house.store.outbox.lane_backlogs())


async def emptied(house: House) -> None:
    async with asyncio.timeout(20):
        while await waiting(house):
            await asyncio.sleep(0.01)


async def attempted(house: House, count: int) -> list[Delivery]:
    """What was sent, when so many attempts have been made and their results are stored."""
    await until(house, lambda: len(house.sender.sent) >= count and not house.engine.deliveries._under_way)
    found: list[Delivery] = house.sender.sent
    return found


async def test_every_end_is_told_once(build: Build, backend: ScriptedBackend) -> None:
    house = await build(webhooks={"endpoints": endpoints("x", "y")})
    hold = Hold()
    backend.script = [frames(0, 4), hold]
    cancelled, deleted = await house.submit(), await house.submit()
    await hold.here()
    await house.cancel(cancelled)
    await house.jobs.delete(await house.job(deleted))
    backend.script = ALL
    completed = await house.submit()
    await house.ended(completed)
    sent = await attempted(house, 6)
    await emptied(house)
    expected = {(cancelled, "cancelled"), (deleted, "cancelled"), (completed, "completed")}
    assert sorted((each.response_id, each.status.value, each.lane) for each in sent) == sorted(
        (*each, lane) for each in expected for lane in ("x", "y")
    )
    assert counted(house, "webhook_deliveries", "x", "delivered") == 3
    assert counted(house, "webhook_attempts", "y", "http_2xx") == 3


async def test_an_expired_job_is_told_as_failed(
    build: Build, backend: ScriptedBackend, clock: SetClock
) -> None:
    house = await build(webhooks={"endpoints": endpoints("x")}, background={"deadline_s": 10})
    hold = Hold()
    backend.script = [hold]
    expired = await house.submit()
    await hold.here()
    clock.advance(11)
    await house.tick()
    (sent,) = await attempted(house, 1)
    assert (sent.response_id, sent.status.value) == (expired, "failed")


async def test_without_receivers_nothing_runs_and_nothing_is_kept(build: Build) -> None:
    house = await build()
    await house.ended(await house.submit())
    assert await waiting(house) == 0
    await asyncio.wait_for(house.engine.deliveries.run(), 5)  # over at once
    await house.engine.drain(1)


async def test_what_is_not_taken_is_tried_again_by_the_schedule(build: Build, clock: SetClock) -> None:
    house = await build(
        webhooks={"endpoints": endpoints("x"), "retry_delays_s": [5, 30], "retry_for_s": 3600}
    )
    house.sender.script = [AGAIN] * 5
    await house.ended(await house.submit())
    await attempted(house, 1)
    for attempt, delay_s in enumerate((5, 30, 30, 30), 2):
        clock.advance(delay_s * 0.89)
        await asyncio.sleep(0.3)  # a look finds nothing
        assert len(house.sender.sent) == attempt - 1
        clock.advance(delay_s * 0.22)
        await attempted(house, attempt)
    clock.advance(34)
    sent = await attempted(house, 6)
    await emptied(house)
    assert [each.attempts for each in sent] == [0, 1, 2, 3, 4, 5]
    assert len({each.key for each in sent}) == 1
    assert counted(house, "webhook_attempts", "x", "http_5xx") == 5
    assert counted(house, "webhook_deliveries", "x", "delivered") == 1


async def test_what_nobody_took_is_given_up_at_the_end_of_the_time(build: Build, clock: SetClock) -> None:
    house = await build(webhooks={"endpoints": endpoints("x"), "retry_delays_s": [50], "retry_for_s": 100})
    house.sender.script = [AGAIN] * 9
    await house.ended(await house.submit())
    await attempted(house, 1)
    clock.advance(56)
    await attempted(house, 2)  # a third would be past the time
    await emptied(house)
    assert counted(house, "webhook_deliveries", "x", "given_up") == 1


async def test_what_no_attempt_can_reach_any_more_is_given_up_too(build: Build, clock: SetClock) -> None:
    house = await build(webhooks={"endpoints": endpoints("x"), "retry_for_s": 1000})
    house.sender.script = [STOP]
    await house.ended(await house.submit())
    await attempted(house, 1)
    clock.advance(1100)
    await emptied(house)
    assert len(house.sender.sent) == 1
    await until(house, lambda: counted(house, "webhook_deliveries", "x", "given_up") == 1)


async def test_of_too_many_the_oldest_are_given_up(build: Build, clock: SetClock) -> None:
    house = await build(webhooks={"endpoints": endpoints("x"), "pending_max": 3})
    house.sender.script = [AGAIN] * 5
    ids = []
    for _ in range(5):
        ids.append(await house.submit())
        await house.ended(ids[-1])
        clock.advance(0.1)
    await attempted(house, 5)
    house.sender.script = [AGAIN] * 9
    clock.advance(61)
    await until(house, lambda: counted(house, "webhook_deliveries", "x", "given_up") == 2)
    assert {each.response_id for each in await house.store.outbox.failing(limit=9)} == set(ids[2:])


async def test_410_disables_an_endpoint_until_it_is_enabled(build: Build, clock: SetClock) -> None:
    house = await build(webhooks={"endpoints": endpoints("x", "y")})
    receivers = house.engine.receivers
    house.sender.script = [STOP, Attempt(Verdict.TAKEN, "http_200")]
    await house.ended(await house.submit())
    first = await attempted(house, 2)
    gone = first[0].lane
    (disabled,) = [each for each in await receivers.all() if each.disabled_for_s is not None]
    assert (disabled.name, disabled.waiting) == (gone, 1)
    await house.ended(await house.submit())
    await attempted(house, 3)
    clock.advance(3600)
    await asyncio.sleep(0.6)
    assert [each.lane for each in house.sender.sent].count(gone) == 1
    assert not await receivers.enable("no such")
    assert await receivers.enable(gone)
    await emptied(house)
    assert [each.lane for each in house.sender.sent].count(gone) == 3


async def test_a_callers_url_is_told_and_given_up_at_once_if_it_may_not_be(build: Build) -> None:
    house = await build(request_webhooks=HOOK)
    house.sender.script = [NEVER]
    await house.ended(await house.submit(webhook="https://10.0.0.1/"))
    await emptied(house)
    await house.ended(await house.submit(webhook="https://hooks.test/"))
    sent = await attempted(house, 2)
    await emptied(house)
    assert [each.url for each in sent] == ["https://10.0.0.1/", "https://hooks.test/"]
    assert counted(house, "webhook_deliveries", CALLERS, "given_up") == 1
    assert counted(house, "webhook_deliveries", CALLERS, "delivered") == 1


async def test_a_receiver_that_hangs_holds_up_no_other(build: Build) -> None:
    house = await build(webhooks={"endpoints": endpoints("x", "y"), "concurrency_max": 2})
    hold = Hold()
    order: list[str] = []
    taken = Attempt(Verdict.TAKEN, "http_200")

    async def send(delivery: Delivery) -> Attempt:
        order.append(delivery.lane)
        if delivery.lane == "x":
            await hold.go.wait()
        return taken

    house.sender.send = send  # type: ignore[method-assign]  # tests stand in its way
    for _ in range(6):
        await house.ended(await house.submit())
    await until(house, lambda: order.count("y") == 6)
    assert order.count("x") == 2
    hold.go.set()
    await emptied(house)
    assert order.count("x") == 6


async def test_what_was_being_sent_when_the_process_died_is_sent_again(build: Build) -> None:
    house = await build(webhooks={"endpoints": endpoints("x")})
    hold = Hold()
    house.sender.script = [hold]
    response_id = await house.submit()
    await house.ended(response_id)
    await hold.here()
    await house.kill()
    second = await build(webhooks={"endpoints": endpoints("x")})
    (sent,) = await attempted(second, 1)
    assert (sent.response_id, sent.attempts) == (response_id, 0)
    await emptied(second)


async def test_a_drain_lets_what_is_under_way_end_and_tries_what_has_just_ended(build: Build) -> None:
    house = await build(webhooks={"endpoints": endpoints("x")})
    hold = Hold()
    house.sender.script = [hold]
    await house.ended(await house.submit())
    await hold.here()
    await house.ended(await house.submit())
    draining = asyncio.create_task(house.engine.drain(10))
    await attempted_without_settling(house, 2)
    assert not draining.done()
    hold.go.set()
    await asyncio.wait_for(draining, 5)
    assert await waiting(house) == 0


async def attempted_without_settling(house: House, count: int) -> None:
    await until(house, lambda: len(house.sender.sent) >= count)


async def test_a_drain_waits_for_no_receiver_longer_than_its_time(build: Build) -> None:
    house = await build(webhooks={"endpoints": endpoints("x")})
    hold = Hold()
    house.sender.script = [hold]
    await house.ended(await house.submit())
    await hold.here()
    await asyncio.wait_for(house.engine.drain(0.2), 5)
    await house.kill()
    second = await build(webhooks={"endpoints": endpoints("x")})
    await emptied(second)
    assert len(second.sender.sent) == 1


async def test_a_result_that_cannot_be_stored_is_not_a_reason_to_send_again(build: Build) -> None:
    broken = asyncio.Event()

    class Store(Wrapped):
        @property
        def outbox(self) -> Any:
            return Outbox(self.inner.outbox)

    class Outbox(Wrapped):
        async def remove(self, *args: Any) -> Any:
            if not broken.is_set():
                broken.set()
                raise StoreUnavailable("as scripted")
            return await self.inner.remove(*args)

    house = await build(webhooks={"endpoints": endpoints("x")}, wrap=Store)
    await house.ended(await house.submit())
    await emptied(house)
    assert broken.is_set()
    assert len(house.sender.sent) == 1


async def test_a_defect_of_the_sender_is_one_failed_attempt(build: Build, clock: SetClock) -> None:
    house = await build(webhooks={"endpoints": endpoints("x")})
    house.sender.script = [RuntimeError("as scripted")]
    await house.ended(await house.submit())
    await attempted(house, 1)
    (failing,) = await house.store.outbox.failing(limit=2)
    assert failing.failure == "defect"
    clock.advance(6)
    await emptied(house)


async def test_what_waits_is_measured_by_endpoint(build: Build, clock: SetClock) -> None:
    house = await build(webhooks={"endpoints": endpoints("x", "y")}, request_webhooks=HOOK)
    house.sender.script = [AGAIN] * 2
    await house.ended(await house.submit())
    await attempted(house, 2)
    clock.advance(3)
    await house.engine.gauges.measure()
    assert counted(house, "webhook_waiting", "x") == 1
    assert counted(house, "webhook_oldest", "x") == pytest.approx(3, abs=0.1)
    assert counted(house, "webhook_is_disabled", "x") == 0
    assert counted(house, "webhook_waiting", CALLERS) == 0


async def test_retry_tries_again_now(build: Build) -> None:
    house = await build(webhooks={"endpoints": endpoints("x", "y")})
    house.sender.script = [AGAIN] * 2
    response_id = await house.submit()
    await house.ended(response_id)
    await attempted(house, 2)
    assert len(await house.engine.receivers.failing()) == 2
    assert await house.engine.receivers.retry(response_id) == (2, [])
    await emptied(house)
    assert await house.engine.receivers.retry(response_id) == (0, [])


def lines_about(caplog: pytest.LogCaptureFixture, event: str) -> list[dict[str, Any]]:
    return [
        {key: value for key, value in record.fields.items() if key != "id"}  # type: ignore[attr-defined]
        for record in caplog.records
        if record.message == event
    ]


async def ended(house: House, count: int) -> list[str]:
    """So many responses have ended."""
    ids = [await house.submit() for _ in range(count)]
    for response_id in ids:
        await house.ended(response_id)
    return ids


async def test_a_receiver_that_is_down_is_tried_with_one_event_at_a_time(
    build: Build, clock: SetClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", logger="backburner")
    house = await build(
        webhooks={"endpoints": endpoints("x"), "retry_delays_s": [5, 30], "concurrency_max": 4}
    )
    hear, is_deaf, together = house.sender.send, True, [0, 0]

    async def send(delivery: Delivery) -> Attempt:
        together[0] += 1
        together[1] = max(together)
        await asyncio.sleep(0)
        heard: Attempt = await hear(delivery)
        together[0] -= 1
        return DOWN if is_deaf else heard

    house.sender.send = send  # type: ignore[method-assign]  # tests stand in its way
    ids = await ended(house, 40)
    await until(house, lambda: counted(house, "webhook_attempts", "x", "unreachable") >= 3)
    await settled(house)
    first = len(house.sender.sent)
    assert first <= 3 + 4
    together[1] = 0
    for probe, delay_s in enumerate((5, 30, 30), 1):
        clock.advance(delay_s * 1.11)
        await attempted(house, first + probe)
        await asyncio.sleep(0.3)  # a look finds nothing
        assert len(house.sender.sent) == first + probe
    assert together[1] == 1
    tried = [each.response_id for each in house.sender.sent]
    assert len(set(tried)) == len(tried), "a different one each time"
    await house.engine.gauges.measure()
    assert counted(house, "webhook_waiting", "x") == len(ids)
    assert counted(house, "webhook_is_down", "x") == 1
    is_deaf = False
    clock.advance(34)
    await emptied(house)
    assert {each.response_id for each in house.sender.sent} == set(ids)
    assert together[1] <= 4
    await house.engine.gauges.measure()
    assert counted(house, "webhook_is_down", "x") == 0
    states = lines_about(caplog, "webhook_endpoint")
    assert [(each["to"], each.get("reason")) for each in states] == [("down", "unreachable"), ("up", None)]
    assert sum(each["to"] == "waiting" for each in lines_about(caplog, "webhook")) <= 2


async def settled(house: House) -> None:
    await until(house, lambda: not house.engine.deliveries._under_way)


async def test_an_event_that_a_receiver_will_not_have_holds_up_no_other(
    build: Build, clock: SetClock
) -> None:
    house = await build(webhooks={"endpoints": endpoints("x"), "retry_delays_s": [5]})
    poison: list[str] = []
    hear = house.sender.send

    async def send(delivery: Delivery) -> Attempt:
        heard: Attempt = await hear(delivery)
        is_poison = (
            not poison or delivery.response_id in poison
        )  # the first may be sent before its id is here
        return Attempt(Verdict.DOWN, "http_500") if is_poison else heard

    house.sender.send = send  # type: ignore[method-assign]  # tests stand in its way
    poison += await ended(house, 1)
    for number in range(4):  # so often that it alone makes the receiver look as if it were down
        await attempted(house, number + 1)
        clock.advance(5.6)
    assert [each.down for each in await house.engine.receivers.all()] == [1]
    well = await ended(house, 5)
    clock.advance(5.6)
    await until(house, lambda: {each.response_id for each in house.sender.sent} >= set(well))
    await settled(house)
    assert await waiting(house) == 1


async def test_what_a_receiver_refuses_now_and_then_is_tried_again_by_itself(
    build: Build, clock: SetClock
) -> None:
    house = await build(webhooks={"endpoints": endpoints("x"), "retry_delays_s": [5]})
    house.sender.script = [TOO_LARGE] * 5
    await ended(house, 10)
    await attempted(house, 10)
    assert await waiting(house) == 5
    assert [each.down for each in await house.engine.receivers.all()] == [0]
    clock.advance(5.6)
    await emptied(house)


async def test_whoever_refuses_every_event_is_tried_with_one_at_a_time_too(
    build: Build, clock: SetClock
) -> None:
    house = await build(webhooks={"endpoints": endpoints("x"), "retry_delays_s": [5], "concurrency_max": 4})
    house.sender.script = [TOO_LARGE] * 1000
    await ended(house, 60)
    await until(house, lambda: len(house.sender.sent) >= 30)
    await asyncio.sleep(0.3)
    await settled(house)
    assert len(house.sender.sent) <= 30 + 4
    house.sender.script = []
    clock.advance(5.6)
    await emptied(house)


async def test_a_receiver_is_down_still_for_the_next_process_which_says_so(
    build: Build, clock: SetClock, caplog: pytest.LogCaptureFixture
) -> None:
    house = await build(webhooks={"endpoints": endpoints("x"), "concurrency_max": 1})
    house.sender.script = [DOWN] * 9
    await ended(house, 9)
    await attempted(house, 3)
    await house.kill()
    caplog.clear()
    second = await build(webhooks={"endpoints": endpoints("x"), "concurrency_max": 1})
    second.sender.script = [DOWN] * 9
    await attempted(second, 1)  # at once: it may be well since
    await asyncio.sleep(0.3)
    assert len(second.sender.sent) == 1
    states = lines_about(caplog, "webhook_endpoint")
    assert [(each["to"], each["reason"]) for each in states] == [("down", "still_down")]
    second.sender.script = []
    clock.advance(34)
    await emptied(second)


async def test_one_attempt_after_the_other_waits_for_no_look(build: Build, backend: ScriptedBackend) -> None:
    house = await build(webhooks={"endpoints": endpoints("x"), "concurrency_max": 1})
    hold = Hold()
    house.sender.script = [hold]
    ids = [await house.submit() for _ in range(120)]
    for response_id in ids:
        await house.ended(response_id)
    await hold.here()
    hold.go.set()
    await emptied(house)  # at a look for each it would take longer than that waits
    assert len(house.sender.sent) == len(ids)
