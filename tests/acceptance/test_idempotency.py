"""`Idempotency-Key`: the same create twice is one response."""

from __future__ import annotations

import asyncio
from typing import Any

import orjson
import pytest
from openai import APIConnectionError

from tests.acceptance.conftest import StartGateway
from tests.acceptance.harness import Gateway, within
from tests.acceptance.replay import ReplayServer, replay
from tests.torture.proxy import Proxy

ASK = {"model": "tiny", "input": "Count to 5.", "background": True}


async def create(gateway: Gateway, key: str, **changes: object) -> tuple[int, dict[str, Any]]:
    answer = await gateway.call("POST", "/responses", {**ASK, **changes}, more={"Idempotency-Key": key})
    parsed: dict[str, Any] = orjson.loads(answer.body)
    return answer.status, parsed


async def test_ten_creates_at_once_with_one_key_are_one_response(gateway: Gateway) -> None:
    answers = await asyncio.gather(*(create(gateway, "once") for _ in range(10)))
    assert {status for status, _ in answers} == {200}
    assert len({body["id"] for _, body in answers}) == 1
    _, other = await create(gateway, "twice")
    assert other["id"] != answers[0][1]["id"]


async def test_a_key_for_another_request_is_refused(gateway: Gateway) -> None:
    await create(gateway, "mine")
    status, body = await create(gateway, "mine", input="Something else.")
    assert status == 422
    assert body["error"]["code"] == "idempotency_key_reused"


async def test_a_key_may_be_used_again_after_its_response_was_deleted(gateway: Gateway) -> None:
    _, first = await create(gateway, "again")
    await gateway.call("DELETE", f"/responses/{first['id']}")
    status, second = await create(gateway, "again", input="Something else.")
    assert status == 200
    assert second["id"] != first["id"]


async def test_another_callers_key_is_another_key(gateway: Gateway) -> None:
    _, mine = await create(gateway, "shared")
    answer = await gateway.call("POST", "/responses", ASK, key="sk-other", more={"Idempotency-Key": "shared"})
    assert answer.status == 200
    assert orjson.loads(answer.body)["id"] != mine["id"]


async def test_a_key_that_is_too_long_is_refused(gateway: Gateway) -> None:
    status, body = await create(gateway, "x" * 256)
    assert (status, body["error"]["param"]) == (400, "Idempotency-Key")


async def test_a_repeated_stream_is_the_same_stream(gateway: Gateway) -> None:
    headers = {"Idempotency-Key": "stream"}
    body = {**ASK, "stream": True}
    first = await gateway.call("POST", "/responses", body, more=headers)
    again = await gateway.call("POST", "/responses", body, more=headers)
    assert first.body == again.body


async def test_a_key_outlives_the_process(gateway: Gateway) -> None:
    _, first = await create(gateway, "kept")
    await gateway.kill9()
    await gateway.restart()
    status, second = await create(gateway, "kept")
    assert (status, second["id"]) == (200, first["id"])
    assert (await create(gateway, "kept", input="Something else."))[0] == 422


async def test_the_sdk_with_a_key_makes_one_response_over_a_path_that_cuts_every_answer(
    gateway: Gateway, replay_server: ReplayServer
) -> None:
    host, port = gateway.url.split("/")[2].split(":")
    async with Proxy(host, int(port)) as proxy:
        await proxy.infect({"kind": "limit_data", "stream": "down", "bytes": 60})
        client = gateway.client().with_options(base_url=f"http://127.0.0.1:{proxy.port}/v1", max_retries=2)
        with pytest.raises(APIConnectionError):
            await client.responses.create(
                model="tiny", input="Count.", background=True, extra_headers={"Idempotency-Key": "cut"}
            )
        assert (await proxy.tell())["accepted"] == 3
        await proxy.infect()
        created = await client.responses.create(
            model="tiny", input="Count.", background=True, extra_headers={"Idempotency-Key": "cut"}
        )
    await gateway.ended(created.id)
    assert await gateway.metric('backburner_jobs_accepted_total{backend="default"}') == 1
    assert len(replay_server.creates) == 1


async def test_a_repeat_is_answered_whatever_has_become_of_what_it_leant_on(gateway: Gateway) -> None:
    _, turn = await create(gateway, "turn")
    await gateway.ended(turn["id"])
    _, first = await create(gateway, "next", previous_response_id=turn["id"])
    await gateway.call("DELETE", f"/responses/{turn['id']}")
    status, again = await create(gateway, "next", previous_response_id=turn["id"])
    assert (status, again["id"]) == (200, first["id"])


async def test_a_repeat_is_answered_by_settings_that_would_refuse_a_new_one(
    start_gateway: StartGateway,
) -> None:
    gateway = await start_gateway(BACKBURNER_BACKGROUND__STORE_FALSE="accept")
    _, first = await create(gateway, "kept", store=False)
    await gateway.ended(first["id"])
    await gateway.stop()
    await gateway.restart(BACKBURNER_BACKGROUND__STORE_FALSE="reject")
    assert (await create(gateway, "new", store=False))[0] == 400
    status, again = await create(gateway, "kept", store=False)
    assert (status, again["id"]) == (200, first["id"])


async def test_a_repeat_is_answered_when_the_queue_is_full(
    start_gateway: StartGateway, replay_server: ReplayServer
) -> None:
    gateway = await start_gateway(
        BACKBURNER_UPSTREAM__CONCURRENCY_MAX="1", BACKBURNER_BACKGROUND__QUEUE_PER_TENANT_MAX="1"
    )
    held = replay_server.script(replay("vllm/responses-stream", hold_after=4))
    await create(gateway, "running")
    await within(held.held.wait())
    _, waiting = await create(gateway, "waiting")
    assert (await create(gateway, "refused"))[0] == 429
    status, again = await create(gateway, "waiting")
    assert (status, again["id"]) == (200, waiting["id"])
    held.release.set()
