"""Several replicas of one model: shared work, and what happens when one of them is killed."""

from __future__ import annotations

import asyncio
from typing import Any

import aiohttp
import pytest

from tests.acceptance.fleet import (
    MODEL,
    Fleet,
    ModelProcess,
    ask,
    asked_of,
    final,
    metrics_of,
    state_of,
    submit,
    until,
)
from tests.acceptance.harness import KEY, Gateway, frames, numbers, payload, within

BUSY = "Count to 40"


def replicated(*servers: ModelProcess, **settings: Any) -> dict[str, dict[str, Any]]:
    first, *others = servers
    return {"pool": {"url": first.url, "replicas": [server.url for server in others], **settings}}


async def replica_state(gateway: Gateway, number: int) -> tuple[bool, str, float]:
    """Whether it is healthy and what its breaker does, by /readyz; whether it is up, by the metrics."""
    state = (await state_of(gateway, "pool"))["replicas"][number]
    up = await gateway.metric(f'backburner_replica_up{{backend="pool",replica="{number}"}}')
    return state["healthy"], state["breaker"], up


async def is_up(gateway: Gateway, number: int) -> bool:
    return await replica_state(gateway, number) == (True, "closed", 1)


async def test_requests_and_jobs_are_shared_by_the_replicas(fleet: Fleet) -> None:
    servers = [await fleet.server(words_per_second=100) for _ in range(2)]
    gateway = await fleet.gateway(replicated(*servers))
    plain = asyncio.gather(*(ask(gateway, input=BUSY) for _ in range(20)))
    jobs = await asyncio.gather(*(submit(gateway, input=BUSY) for _ in range(20)))
    assert {answer.status for answer in await within(plain)} == {200}
    assert {(await final(gateway, job))["status"] for job in jobs} == {"completed"}
    shares = [await asked_of(gateway, server) for server in servers]
    assert sum(shares) == 40
    assert min(shares) >= 15


async def test_each_replica_has_its_own_limit_of_jobs_and_none_of_requests(fleet: Fleet) -> None:
    servers = [await fleet.server(words_per_second=100) for _ in range(2)]
    gateway = await fleet.gateway(replicated(*servers, concurrency_max=2))
    jobs = await asyncio.gather(*(submit(gateway, input="Count to 20") for _ in range(12)))
    assert {(await final(gateway, job))["status"] for job in jobs} == {"completed"}
    assert [(await metrics_of(gateway, server))["demo:num_requests_running_max"] for server in servers] == [
        2,
        2,
    ]
    answers = await asyncio.gather(*(ask(gateway, input=BUSY) for _ in range(12)))
    assert {answer.status for answer in answers} == {200}
    assert [(await metrics_of(gateway, server))["demo:num_requests_running_max"] for server in servers] == [
        6,
        6,
    ]


async def test_with_one_of_two_replicas_down_the_other_keeps_its_limit(fleet: Fleet) -> None:
    gone, alive = await fleet.server(), await fleet.server(words_per_second=100)
    await gone.kill9()
    gateway = await fleet.gateway(replicated(gone, alive, concurrency_max=2))
    jobs = await asyncio.gather(*(submit(gateway, input="Count to 10") for _ in range(10)))
    assert {(await final(gateway, job))["status"] for job in jobs} == {"completed"}
    assert (await metrics_of(gateway, alive))["demo:num_requests_running_max"] == 2


@pytest.mark.parametrize("api", ["responses", "chat"])
async def test_a_replica_that_cannot_be_reached_is_noticed_by_nobody(fleet: Fleet, api: str) -> None:
    gone, alive = await fleet.server(), await fleet.server()
    await gone.kill9()
    gateway = await fleet.gateway(
        replicated(gone, alive, health_interval_s=600, api=api)
    )  # only calls can tell
    for number in range(12):
        assert (await ask(gateway, stream=bool(number % 2))).status == 200
        chat = {"model": MODEL, "messages": [{"role": "user", "content": "Count to 2"}]}
        assert (await gateway.call("POST", "/chat/completions", chat)).status == 200
        assert (await gateway.call("GET", "/models")).status == 200
    jobs = [await submit(gateway) for _ in range(6)]
    assert {(await final(gateway, job))["status"] for job in jobs} == {"completed"}


@pytest.mark.parametrize("api", ["responses", "chat"])
async def test_requests_in_the_queue_of_a_server_that_dies_are_answered_by_another(
    fleet: Fleet, api: str
) -> None:
    full, other = await fleet.server(words_per_second=20, slots=1), await fleet.server()
    gateway = await fleet.gateway(replicated(full, other, api=api))

    async def taking_the_slot() -> None:
        body = {"model": MODEL, "input": "Count to 10000", "stream": True}
        async with gateway.http.post(f"{full.url}/responses", json=body) as answer:
            await answer.read()

    taker = asyncio.create_task(taking_the_slot())

    async def is_taken() -> bool:
        return (await metrics_of(gateway, full))["demo:num_requests_running"] == 1

    await until(is_taken)
    plain = [asyncio.create_task(ask(gateway, stream=bool(number % 2))) for number in range(8)]

    async def has_queue() -> bool:
        return (await metrics_of(gateway, full))["vllm:num_requests_waiting"] >= 2

    await until(has_queue)
    await full.kill9()
    await asyncio.gather(taker, return_exceptions=True)
    for answer in await within(asyncio.gather(*plain)):
        assert answer.status == 200, answer.body
        assert b'"completed"' in answer.body


async def test_one_of_two_replicas_killed_under_load_costs_no_request_and_no_job(fleet: Fleet) -> None:
    """Forty clients that wait for a whole answer have no byte of it yet; a poller has seen nothing either."""
    victim, survivor = await fleet.server(words_per_second=20), await fleet.server(words_per_second=20)
    gateway = await fleet.gateway(replicated(victim, survivor, concurrency_max=64))
    streamed = [asyncio.create_task(ask(gateway, input=BUSY, background=True, stream=True)) for _ in range(6)]
    plain = [asyncio.create_task(ask(gateway, input=BUSY)) for _ in range(40)]
    polled = await asyncio.gather(*(submit(gateway, input=BUSY) for _ in range(20)))

    async def is_busy() -> bool:
        found = [await metrics_of(gateway, server) for server in (victim, survivor)]
        spoken = min(each["demo:tokens_generated_total"] for each in found)
        return spoken > 150 and min(each["demo:num_requests_running"] for each in found) >= 30

    await until(is_busy)
    await victim.kill9()
    late = [asyncio.create_task(ask(gateway)) for _ in range(10)]
    answers = await within(asyncio.gather(*plain, *late))
    assert [answer.status for answer in answers] == [200] * 50
    assert {answer.json()["status"] for answer in answers} == {"completed"}
    for job in polled:
        assert (await final(gateway, job))["status"] == "completed"
    ends = []
    for stream in streamed:
        events = frames((await within(stream)).body)
        assert numbers(events) == list(range(len(events)))
        end = payload(events[-1])["response"]
        ends.append(end["status"])
        if end["status"] == "failed":  # a reader may have seen some of it: it cannot be started anew
            assert "connection to the backend broke" in end["error"]["message"]
            shown = "".join(payload(event).get("delta", "") for event in events)
            assert shown
            assert end["output"][0]["content"][0]["text"] == shown
    assert set(ends) == {"completed", "failed"}
    assert await gateway.metric('backburner_jobs{status="in_progress"}') == 0


async def test_an_answer_that_had_begun_is_broken_off_and_not_begun_again(fleet: Fleet) -> None:
    one, two = await fleet.server(words_per_second=20), await fleet.server(words_per_second=20)
    gateway = await fleet.gateway(replicated(one, two))
    body = {"model": MODEL, "input": "Count to 200", "stream": True}
    headers = {"Authorization": f"Bearer {KEY}"}
    async with gateway.http.post(f"{gateway.url}/responses", json=body, headers=headers) as answer:
        begun = b""
        while b"delta" not in begun:
            begun += await within(answer.content.readany())
        used, other = (one, two) if await asked_of(gateway, one) else (two, one)
        await used.kill9()
        with pytest.raises(aiohttp.ClientPayloadError):
            await within(answer.content.read())
    assert await asked_of(gateway, other) == 0


async def test_a_breaker_opens_for_a_dead_replica_and_closes_when_it_is_back(fleet: Fleet) -> None:
    mortal, other = await fleet.server(), await fleet.server()
    gateway = await fleet.gateway(replicated(mortal, other, breaker_failures=3))
    await until(lambda: is_up(gateway, 0))
    await mortal.kill9()
    await gateway.line(event="replica", healthy=False)

    async def is_down() -> bool:
        return await replica_state(gateway, 0) == (False, "closed", 0)

    await until(is_down)
    assert await is_up(gateway, 1)
    assert {(await ask(gateway)).status for _ in range(8)} == {200}
    await mortal.start()
    await gateway.line(event="replica", healthy=True)
    await until(lambda: is_up(gateway, 0))
    before = await asked_of(gateway, mortal)
    assert {(await ask(gateway)).status for _ in range(8)} == {200}
    assert await asked_of(gateway, mortal) > before


async def test_calls_alone_open_a_breaker_and_close_it(fleet: Fleet) -> None:
    """No health check helps here: they are too far apart."""
    mortal, other = await fleet.server(), await fleet.server()
    await mortal.kill9()
    gateway = await fleet.gateway(replicated(mortal, other, breaker_failures=3, health_interval_s=600))
    await gateway.line(event="replica", healthy=False)
    await mortal.start()
    gateway_saw = await replica_state(gateway, 0)
    assert gateway_saw == (False, "closed", 0)
    await other.kill9()
    assert {(await ask(gateway)).status for _ in range(4)} == {200}  # an unhealthy one is better than none

    async def is_open() -> bool:
        await ask(gateway)
        return (await replica_state(gateway, 1))[1] != "closed"

    await until(is_open)
    assert await gateway.metric('backburner_replica_up{backend="pool",replica="1"}') == 0
    await mortal.kill9()
    refused = await ask(gateway)
    while refused.error["code"] == "backend_unreachable":
        refused = await ask(gateway)
    assert (refused.status, refused.error["code"]) == (503, "backend_unavailable")
    assert "retry-after" in refused.headers
    await other.start()

    async def is_closed() -> bool:
        await ask(gateway)
        return (await replica_state(gateway, 1))[1] == "closed"

    await until(is_closed)
    assert (await ask(gateway)).status == 200


async def test_jobs_wait_while_the_only_model_server_is_away(fleet: Fleet) -> None:
    server = await fleet.server()
    await server.kill9()
    gateway = await fleet.gateway(replicated(server, breaker_failures=2))

    async def is_left_alone() -> bool:
        await ask(gateway)
        breaker: str = (await state_of(gateway, "pool"))["replicas"][0]["breaker"]
        return breaker != "closed"

    await until(is_left_alone)
    jobs = [await submit(gateway) for _ in range(5)]
    assert await gateway.metric('backburner_jobs_accepted_total{backend="pool"}') == 5
    await server.start()
    for job in jobs:
        ended = await final(gateway, job)
        assert (ended["status"], ended["error"]) == ("completed", None)
