"""`Idempotency-Key`: the same create twice is one response."""

from __future__ import annotations

import asyncio
from typing import Any

import orjson

from tests.acceptance.harness import Gateway

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
