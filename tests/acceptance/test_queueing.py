"""Whose turn it is: priorities, fair shares, slots kept for requests, and jobs that are held back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from tests.acceptance.fleet import (
    MODEL,
    Fleet,
    ModelProcess,
    ask,
    final,
    metrics_of,
    order_of_starts,
    state_of,
    submit,
    until,
)
from tests.acceptance.harness import Gateway, within

LONG = "Count to 100"
ENDLESS = "Count to 10000"


async def one_at_a_time(fleet: Fleet) -> Gateway:
    server = await fleet.server(words_per_second=80)
    return await fleet.gateway({"only": {"url": server.url, "concurrency_max": 1}})


async def test_the_service_tier_decides_who_goes_first(fleet: Fleet) -> None:
    gateway = await one_at_a_time(fleet)
    first = await submit(gateway, input=LONG)
    await gateway.line(id=first, to="in_progress")
    flex = await submit(gateway, service_tier="flex")
    auto = await submit(gateway, service_tier="auto")
    default = await submit(gateway)
    priority = await submit(gateway, service_tier="priority")
    for job in (first, flex, auto, default, priority):
        assert (await final(gateway, job))["status"] == "completed"
    assert order_of_starts(gateway) == [first, priority, auto, default, flex]


async def test_a_higher_tier_of_another_caller_shuts_nobody_out(fleet: Fleet) -> None:
    gateway = await one_at_a_time(fleet)
    many = [await submit(gateway, input=LONG, service_tier="priority")]
    await gateway.line(id=many[0], to="in_progress")
    many += [await submit(gateway, service_tier="priority") for _ in range(8)]
    few = [await submit(gateway, key="sk-b", service_tier="flex") for _ in range(2)]
    for job in many:
        assert (await final(gateway, job))["status"] == "completed"
    order = order_of_starts(gateway)
    assert order.index(few[0]) == 1, "it has nothing running, and came late"
    assert order.index(few[1]) <= 1 + 5 + 1


async def test_a_tier_that_a_caller_may_not_have_is_served_and_shown_as_one_that_it_may(fleet: Fleet) -> None:
    server = await fleet.server(words_per_second=80)
    backend = {"url": server.url, "concurrency_max": 1}
    tenants = {"tiers_allowed": {"*": ["default", "flex"]}}
    gateway = await fleet.gateway({"only": backend}, tenants=tenants)
    first = await submit(gateway, input=LONG)
    await gateway.line(id=first, to="in_progress")
    default, asked = await submit(gateway), await submit(gateway, service_tier="priority")
    shown = await gateway.call("GET", f"/responses/{asked}", key="sk-a")
    assert shown.json()["service_tier"] == "default"
    for job in (first, default, asked):
        assert (await final(gateway, job))["status"] == "completed"
    assert order_of_starts(gateway) == [first, default, asked]


async def test_a_caller_with_one_job_does_not_stand_behind_all_of_another_s(fleet: Fleet) -> None:
    gateway = await one_at_a_time(fleet)
    many = [await submit(gateway, input=LONG)]
    await gateway.line(id=many[0], to="in_progress")
    many += [await submit(gateway) for _ in range(6)]
    few = [await submit(gateway, key="sk-b") for _ in range(2)]
    for job in many:
        assert (await final(gateway, job))["status"] == "completed"
    assert order_of_starts(gateway)[:5] == [many[0], few[0], many[1], few[1], many[2]]


async def test_a_caller_who_sends_a_job_now_and_then_waits_behind_no_flood(fleet: Fleet) -> None:
    server = await fleet.server(words_per_second=20)
    gateway = await fleet.gateway({"only": {"url": server.url, "concurrency_max": 4}})
    few = [await submit(gateway, key="sk-b", input="Count to 1")]
    assert (await final(gateway, few[0], key="sk-b"))["status"] == "completed"
    many = [await submit(gateway, input=ENDLESS) for _ in range(9)]
    await gateway.line(id=many[2], to="in_progress")
    for _ in range(3):
        few.append(await submit(gateway, key="sk-b", input="Count to 1"))
        assert (await final(gateway, few[-1], key="sk-b"))["status"] == "completed"
    assert order_of_starts(gateway) == [few[0], *many[:3], *few[1:]], "none of the flood is over"
    for job in many:
        await gateway.call("DELETE", f"/responses/{job}", key="sk-a")


async def test_requests_pass_a_full_queue_and_reserved_slots_stay_free_for_them(fleet: Fleet) -> None:
    server = await fleet.server(words_per_second=20)
    gateway = await fleet.gateway(
        {"only": {"url": server.url, "concurrency_max": 4, "foreground_reserved": 2}}
    )
    jobs = [await submit(gateway, input=ENDLESS) for _ in range(6)]
    await gateway.line(id=jobs[1], to="in_progress")
    answers = await within(asyncio.gather(*(ask(gateway, input="Count to 2") for _ in range(3))))
    assert {answer.status for answer in answers} == {200}
    assert order_of_starts(gateway) == jobs[:2]
    assert (await metrics_of(gateway, server))["demo:num_requests_running_max"] <= 2 + 3
    for job in jobs:
        cancelled = await gateway.call("POST", f"/responses/{job}/cancel", {}, key="sk-a")
        assert cancelled.json()["status"] == "cancelled"


# -- backfill


class Busy:
    """A gateway whose model server has one slot, taken by others, who came past the gateway."""

    def __init__(self, gateway: Gateway, server: ModelProcess) -> None:
        self.gateway = gateway
        self.server = server

    @asynccontextmanager
    async def others(self) -> AsyncIterator[None]:
        """Three requests: one is worked on, two wait in the server's own queue."""
        body = {"model": MODEL, "input": ENDLESS, "stream": True}
        post = self.gateway.http.post

        async def one() -> None:
            async with post(f"{self.server.url}/responses", json=body) as answer:
                await answer.read()

        requests = [asyncio.create_task(one()) for _ in range(3)]
        try:
            await until(self.has_queue)
            yield
        finally:
            for request in requests:
                request.cancel()
            await asyncio.gather(*requests, return_exceptions=True)

    async def has_queue(self) -> bool:
        return (await metrics_of(self.gateway, self.server))["vllm:num_requests_waiting"] == 2

    async def is_held(self) -> bool:
        held: bool = (await state_of(self.gateway, "busy"))["background_held"]
        return held

    async def runner_has_looked(self) -> None:
        """Since this was called, the gateway has taken from the queue whatever it wanted to."""
        job = await submit(self.gateway, model="free")
        assert (await final(self.gateway, job))["status"] == "completed"


async def busy_house(fleet: Fleet, **backfill: Any) -> Busy:
    server, free = await fleet.server(words_per_second=20, slots=1), await fleet.server()
    backends: dict[str, dict[str, Any]] = {
        "busy": {"url": server.url, "models": [MODEL], "backfill": "vllm", **backfill},
        "free": {"url": free.url, "models": ["free"], "rename": {"free": MODEL}},
    }
    return Busy(await fleet.gateway(backends), server)


async def test_jobs_are_held_back_while_the_server_s_own_queue_is_not_empty(fleet: Fleet) -> None:
    house = await busy_house(fleet)
    gateway = house.gateway
    async with house.others():
        await until(house.is_held)
        job = await submit(gateway)
        await house.runner_has_looked()
        assert (await gateway.call("GET", f"/responses/{job}", key="sk-a")).json()["status"] == "queued"
        assert (await metrics_of(gateway, house.server))["demo:requests_total"] == 3
    assert (await final(gateway, job))["status"] == "completed"
    released = gateway.lines.index(await gateway.line(event="backfill", held=False))
    assert gateway.lines.index(await gateway.line(id=job, to="in_progress")) > released


async def test_a_job_that_was_held_for_long_enough_goes_however_busy_the_server_is(fleet: Fleet) -> None:
    house = await busy_house(fleet, backfill_hold_s=1)
    async with house.others():
        await until(house.is_held)
        job = await submit(house.gateway)
        went = await house.gateway.line(id=job, to="in_progress")
        assert went["waited_s"] >= 1
        assert await house.is_held()
    assert (await final(house.gateway, job))["status"] == "completed"


@pytest.mark.parametrize("page", ["/health", "/nowhere"])
async def test_nothing_is_held_back_by_metrics_that_do_not_tell(fleet: Fleet, page: str) -> None:
    house = await busy_house(fleet, backfill_metrics_path=page)
    async with house.others():
        job = await submit(house.gateway)
        await house.gateway.line(id=job, to="in_progress")
        assert not await house.is_held()
    assert (await final(house.gateway, job))["status"] == "completed"


async def test_backfill_lets_jobs_in_a_few_at_a_time(fleet: Fleet) -> None:
    """Twenty at once would fill the server's queue, and the next request would wait behind them."""
    house = await busy_house(fleet)
    gateway = house.gateway
    async with house.others():
        await until(house.is_held)
        jobs = [await submit(gateway, input="Count to 4") for _ in range(20)]
    for job in jobs:
        assert (await final(gateway, job))["status"] == "completed"
    longest = (await metrics_of(gateway, house.server))["demo:num_requests_waiting_max"]
    assert longest == 2, "as many as the others were"
