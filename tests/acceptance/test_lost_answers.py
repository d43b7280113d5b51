"""`adopt_unacked_retry`: a create whose answer was lost, and that is asked again, is one response."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import orjson
import pytest

from tests.acceptance.conftest import StartGateway
from tests.acceptance.harness import KEY, WAIT_S, Gateway, frames, payload, within
from tests.acceptance.replay import ReplayServer
from tests.torture.proxy import Proxy

ASK: dict[str, Any] = {"model": "tiny", "input": "Count to 5.", "background": True}


@pytest.fixture
async def gateway(start_gateway: StartGateway) -> Gateway:
    return await start_gateway(BACKBURNER_BACKGROUND__ADOPT_UNACKED_RETRY="true")


@pytest.fixture
async def proxy(gateway: Gateway) -> AsyncIterator[Proxy]:
    host, port = gateway.url.split("/")[2].split(":")
    async with Proxy(host, int(port)) as proxy:
        yield proxy


async def lose(gateway: Gateway, body: dict[str, Any] = ASK, *, key: str = KEY, headers: str = "") -> str:
    """A create by a client that hangs up as soon as it is accepted. Returns the id, which the log knows."""
    before = len(gateway.lines)
    host, port = gateway.url.split("/")[2].split(":")
    data = orjson.dumps(body)
    _, writer = await asyncio.open_connection(host, int(port))
    head = f"POST /v1/responses HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {key}\r\n{headers}"
    writer.write(f"{head}Content-Length: {len(data)}\r\n\r\n".encode() + data)
    async with asyncio.timeout(WAIT_S):
        while True:
            for line in gateway.lines[before:]:
                if line.get("to") == "queued" or line["event"] == "adopted":
                    writer.close()
                    return str(line["id"])
            await gateway.more_lines()


async def ask(gateway: Gateway, body: dict[str, Any] = ASK, *, key: str = KEY, retry: int = 0) -> str:
    more = {"X-Stainless-Retry-Count": str(retry)}
    answer = await gateway.call("POST", "/responses", body, key=key, more=more)
    assert answer.status == 200, answer.body
    found = payload(frames(answer.body)[0])["response"] if body.get("stream") else answer.json()
    return str(found["id"])


@pytest.mark.parametrize("cut_after", [0, 1, 200, 1000])
async def test_the_sdks_retry_of_a_create_whose_answer_was_cut_is_the_same_response(
    gateway: Gateway, proxy: Proxy, replay_server: ReplayServer, cut_after: int
) -> None:
    await proxy.infect({"kind": "limit_data", "stream": "down", "bytes": cut_after})
    client = gateway.client().with_options(base_url=f"http://127.0.0.1:{proxy.port}/v1", max_retries=2)
    asking = asyncio.create_task(client.responses.create(model="tiny", input="Count.", background=True))
    accepted = await gateway.line(event="job", to="queued")
    async with asyncio.timeout(WAIT_S):
        while (await proxy.tell())["open"]:
            await asyncio.sleep(0.01)
    await proxy.infect()
    created = await within(asking)
    assert created.id == accepted["id"]
    await gateway.line(event="adopted", id=created.id)
    await gateway.ended(created.id)
    assert len(replay_server.creates) == 1
    assert await gateway.metric("backburner_jobs_adopted_total") == 1


async def test_a_retry_is_a_response_of_its_own_where_nothing_is_adopted(start_gateway: StartGateway) -> None:
    gateway = await start_gateway()
    lost = await lose(gateway)
    assert await ask(gateway, retry=1) != lost


async def test_only_what_says_that_it_is_a_retry_adopts(gateway: Gateway) -> None:
    lost = await lose(gateway)
    newest = await ask(gateway)
    assert newest != lost
    assert await ask(gateway, retry=1) == newest


async def test_another_request_and_another_caller_adopt_nothing(gateway: Gateway) -> None:
    lost = await lose(gateway)
    assert await ask(gateway, {**ASK, "input": "Count to 6."}, retry=1) != lost
    assert await ask(gateway, key="sk-other", retry=1) != lost
    keyed = await lose(gateway, headers="Idempotency-Key: k\r\n", body={**ASK, "input": "With a key."})
    assert await ask(gateway, {**ASK, "input": "With a key."}, retry=1) != keyed
    assert await ask(gateway, retry=1) == lost


async def test_a_retry_gets_the_newest_until_a_client_names_it_by_whatever_request(gateway: Gateway) -> None:
    named = [await ask(gateway) for _ in range(6)]
    answers = [
        await gateway.call("GET", f"/responses/{named[5]}"),
        await gateway.call("POST", f"/responses/{named[4]}/cancel"),
        await gateway.call("GET", f"/responses/{named[3]}/input_items"),
        await gateway.call("DELETE", f"/responses/{named[2]}"),
    ]
    assert {answer.status for answer in answers} <= {200, 400}, "one may have ended before its cancel"
    assert await ask(gateway, retry=1) == named[1]
    await gateway.ended(named[1])
    await ask(gateway, {**ASK, "previous_response_id": named[1]})
    assert await ask(gateway, retry=1) == named[0]


async def test_a_request_of_another_caller_names_nothing(gateway: Gateway) -> None:
    lost = await lose(gateway)
    assert (await gateway.call("GET", f"/responses/{lost}", key="sk-other")).status == 404
    assert await ask(gateway, retry=1) == lost


async def test_a_response_that_was_accepted_too_long_ago_is_not_adopted(start_gateway: StartGateway) -> None:
    gateway = await start_gateway(
        BACKBURNER_BACKGROUND__ADOPT_UNACKED_RETRY="true", BACKBURNER_BACKGROUND__ADOPT_WITHIN_S="0.001"
    )
    lost = await lose(gateway)
    await gateway.ended(await ask(gateway, {**ASK, "input": "Something else, which takes longer."}))
    assert await ask(gateway, retry=1) != lost


async def test_retries_at_once_are_answered_with_one_response(gateway: Gateway) -> None:
    lost = await lose(gateway)
    assert set(await asyncio.gather(*(ask(gateway, retry=1) for _ in range(4)))) == {lost}


async def test_a_retry_whose_own_answer_is_lost_can_be_repeated(gateway: Gateway) -> None:
    lost = await lose(gateway)
    assert await lose(gateway, headers="X-Stainless-Retry-Count: 1\r\n") == lost
    assert await ask(gateway, retry=1) == lost


@pytest.mark.parametrize("is_streamed", [False, True])
async def test_a_lost_answer_is_adopted_after_a_kill(gateway: Gateway, is_streamed: bool) -> None:
    body = {**ASK, "stream": is_streamed}
    lost = await lose(gateway, body)
    await gateway.kill9()
    await gateway.restart()
    assert await ask(gateway, body, retry=1) == lost


async def test_what_a_request_has_named_is_known_after_a_kill(gateway: Gateway) -> None:
    first = await ask(gateway)
    assert (await gateway.call("GET", f"/responses/{first}")).status == 200
    await gateway.kill9()
    await gateway.restart()
    assert await ask(gateway, retry=1) != first


async def test_a_lost_stream_is_adopted_whole(gateway: Gateway) -> None:
    body = {**ASK, "stream": True}
    lost = await lose(gateway, body)
    answer = await gateway.call("POST", "/responses", body, more={"X-Stainless-Retry-Count": "1"})
    assert payload(frames(answer.body)[0])["response"]["id"] == lost
    assert answer.body == await gateway.replay(lost)


async def test_a_stream_that_broke_off_after_its_first_event_is_adopted_too(gateway: Gateway) -> None:
    body = {**ASK, "stream": True}
    async with gateway.events("/responses", body) as events:
        first = payload(await anext(events))["response"]["id"]
    assert await ask(gateway, body, retry=1) == first
