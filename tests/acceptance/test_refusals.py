"""Requests that are refused: typed exceptions of the official client, with parameter, code and words."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from openai import APIStatusError, BadRequestError, NotFoundError, RateLimitError

from tests.acceptance.conftest import StartGateway
from tests.acceptance.harness import KEY, Gateway, payload, within
from tests.acceptance.replay import ReplayServer, replay

GOOD: dict[str, Any] = {"model": "tiny", "input": "Count.", "background": True}
WRONG: list[tuple[dict[str, Any], str, str]] = [
    ({"model": 7}, "model", "invalid_type"),
    ({"model": ""}, "model", "string_below_min_length"),
    ({"input": None}, "input", "missing_required_parameter"),
    ({"input": 7}, "input", "invalid_type"),
    ({"input": ["text"]}, "input.0", "invalid_type"),
    ({"stream": "yes"}, "stream", "invalid_type"),
    ({"temperature": "hot"}, "temperature", "invalid_type"),
    ({"temperature": 2.5}, "temperature", "above_max_value"),
    ({"max_output_tokens": 0}, "max_output_tokens", "below_min_value"),
    ({"max_output_tokens": 1.5}, "max_output_tokens", "invalid_type"),
    ({"tools": {}}, "tools", "invalid_type"),
    ({"metadata": {"a": 1}}, "metadata.a", "invalid_type"),
    ({"metadata": {"a": "x" * 513}}, "metadata.a", "string_above_max_length"),
    ({"metadata": {str(n): "" for n in range(17)}}, "metadata", "object_above_max_properties"),
    ({"store": False}, "background", "unsupported_parameter"),
    ({"background": "true"}, "background", "invalid_type"),
    ({"background": 1}, "background", "invalid_type"),
    ({"background": []}, "background", "invalid_type"),
    ({"background": {}}, "background", "invalid_type"),
    ({"tools": [{"type": "function", "parameters": {}}]}, "tools.0.name", "missing_required_parameter"),
    ({"tool_choice": "sometimes"}, "tool_choice", "invalid_value"),
    ({"input": [{"role": "user", "content": "Count."}, {"content": "x"}]}, "input.1", "invalid_value"),
    ({"text": {"format": {"type": "xml"}}}, "text.format.type", "invalid_value"),
    ({"include": ["everything"]}, "include", "invalid_value"),
    (
        {"previous_response_id": "resp_1", "conversation": "conv_1"},
        "previous_response_id",
        "mutually_exclusive_parameters",
    ),
]


async def test_a_wrong_create_request_names_its_parameter_and_never_reaches_the_model_server(
    gateway: Gateway, replay_server: ReplayServer
) -> None:
    client = gateway.client()
    for wrong, param, code in WRONG:
        body = {name: value for name, value in {**GOOD, **wrong}.items() if value is not None}
        with pytest.raises(BadRequestError) as refused:
            await client.post("/responses", body=body, cast_to=object)
        error = refused.value
        assert (error.param, error.code, error.type) == (param, code, "invalid_request_error"), wrong
        assert error.request_id is not None, wrong
        assert param.split(".")[0] in str(error), wrong
    assert replay_server.creates == []
    assert await gateway.metric('backburner_requests_refused_total{status="400"}') == len(WRONG)


async def test_broken_json_is_refused_with_its_place(gateway: Gateway, replay_server: ReplayServer) -> None:
    answer = await gateway.call("POST", "/responses", b'{"background": true, "model": ')
    assert (answer.status, answer.error["code"]) == (400, "invalid_json")
    assert "line 1 column" in answer.error["message"]
    assert replay_server.calls == []


async def test_store_false_is_taken_where_the_settings_say_so(start_gateway: StartGateway) -> None:
    gateway = await start_gateway(BACKBURNER_BACKGROUND__STORE_FALSE="accept")
    created = await gateway.client().responses.create(
        model="tiny", input="Count.", background=True, store=False
    )
    final = await gateway.ended(created.id)
    assert (final["status"], final["store"]) == ("completed", False)


async def test_a_body_over_the_limit_is_refused_whether_or_not_its_length_was_told(
    start_gateway: StartGateway, replay_server: ReplayServer
) -> None:
    gateway = await start_gateway(
        BACKBURNER_BACKGROUND__BODY_BYTES_MAX=2000, BACKBURNER_SERVER__BODY_BYTES_MAX=4000
    )
    client = gateway.client()
    for length, background in ((3000, True), (5000, True), (5000, False)):
        with pytest.raises(APIStatusError) as refused:
            await client.responses.create(model="tiny", input="x" * length, background=background)
        assert (refused.value.status_code, refused.value.code) == (413, "request_too_large")
    assert (await client.responses.create(model="tiny", input="x" * 3000)).status == "completed"

    async def unannounced() -> Any:
        for _ in range(10):
            yield b" " * 1000

    headers = {"Authorization": f"Bearer {KEY}"}
    async with gateway.http.post(f"{gateway.url}/responses", data=unannounced(), headers=headers) as answer:
        assert answer.status == 413
    assert len(replay_server.creates) == 1


async def test_a_full_queue_is_refused_with_a_time_to_come_back(
    start_gateway: StartGateway, replay_server: ReplayServer
) -> None:
    gateway = await start_gateway(
        BACKBURNER_UPSTREAM__CONCURRENCY_MAX=1,
        BACKBURNER_BACKGROUND__QUEUE_MAX=3,
        BACKBURNER_BACKGROUND__QUEUE_PER_TENANT_MAX=2,
    )
    held = replay_server.script(replay("vllm/responses-stream", hold_after=4))
    client, other = gateway.client(), gateway.client("sk-another-caller-123")
    await client.responses.create(**GOOD)
    await within(held.held.wait())
    await client.responses.create(**GOOD)
    again = {**GOOD, "extra_headers": {"Idempotency-Key": "again"}}
    accepted = await client.responses.create(**again)
    with pytest.raises(RateLimitError, match="You have too many responses waiting") as mine:
        await client.responses.create(**GOOD)
    assert 1 <= int(mine.value.response.headers["retry-after"]) <= 120
    await other.responses.create(**GOOD)
    with pytest.raises(RateLimitError, match="Too many responses are waiting"):
        await other.responses.create(**GOOD)
    assert (await client.responses.create(**again)).id == accepted.id  # needs no room: it is there already
    refused = 'backburner_creates_refused_total{reason="%s"}'
    assert await gateway.metric(refused % "tenant_queue_full") == 1
    assert await gateway.metric(refused % "queue_full") == 1


async def test_too_many_readers_of_one_response_are_refused(
    start_gateway: StartGateway, replay_server: ReplayServer
) -> None:
    gateway = await start_gateway(BACKBURNER_STREAM__READERS_PER_RESPONSE_MAX=2)
    held = replay_server.script(replay("vllm/responses-stream", hold_after=4))
    ask = {**GOOD, "stream": True}
    async with gateway.events("/responses", ask) as first:
        response_id = payload(await within(anext(first)))["response"]["id"]
        path = f"/responses/{response_id}?stream=true"
        async with gateway.events(path) as second:
            await within(anext(second))
            with pytest.raises(RateLimitError, match="Too many open streams"):
                await gateway.client().responses.retrieve(response_id, stream=True)
    held.release.set()
    await gateway.ended(response_id)
    assert (await gateway.call("GET", path)).status == 200


async def test_wrong_queries_are_refused_by_their_parameter(gateway: Gateway) -> None:
    created = await gateway.client().responses.create(**GOOD, stream=False)
    queries = {
        "?starting_after=3": "starting_after",
        "?stream=perhaps": "stream",
        "?include[]=nothing": "include",
        "?include[]=reasoning.encrypted_content": "include",
        "/input_items?limit=0": "limit",
        "/input_items?limit=101": "limit",
        "/input_items?order=up": "order",
        "/input_items?after=msg_none": "after",
    }
    for query, param in queries.items():
        answer = await gateway.call("GET", f"/responses/{created.id}{query}")
        assert (answer.status, answer.error["param"]) == (400, param), query
    strange = await gateway.call("POST", "/responses?api_key=secret", GOOD)
    assert (strange.status, strange.error["code"]) == (400, "unknown_parameter")
    assert b"secret" not in strange.body


async def test_two_credentials_at_once_are_refused(gateway: Gateway) -> None:
    headers = {"Authorization": f"Bearer {KEY}", "api-key": "another"}
    async with gateway.http.post(f"{gateway.url}/responses", json=GOOD, headers=headers) as answer:
        assert answer.status == 400
        assert "one credential" in (await answer.json())["error"]["message"]


async def test_another_callers_response_is_the_same_404_as_an_unknown_one_on_every_route(
    gateway: Gateway, replay_server: ReplayServer
) -> None:
    held = replay_server.script(replay("vllm/responses-stream", hold_after=5))
    mine = (await gateway.client().responses.create(**GOOD)).id
    await within(held.held.wait())
    unknown = "resp_" + "0" * 48
    routes = [
        *(("GET", ""), ("GET", "?stream=true"), ("GET", "?stream=true&starting_after=2")),
        *(("GET", "/input_items"), ("POST", "/cancel"), ("DELETE", "")),
    ]
    for key in ("sk-another-caller-123", None):
        for method, rest in routes:
            theirs = await gateway.call(method, f"/responses/{mine}{rest}", key=key)
            nobodys = await gateway.call(method, f"/responses/{unknown}{rest}", key=key)
            assert theirs.status == nobodys.status == 404, rest
            assert theirs.body.replace(mine.encode(), b"ID") == nobodys.body.replace(unknown.encode(), b"ID")
            same = ("x-request-id", "date")
            assert {k: v for k, v in theirs.headers.items() if k not in same} == {
                k: v for k, v in nobodys.headers.items() if k not in same
            }
        for background in (True, False):
            body = {**GOOD, "background": background, "previous_response_id": mine}
            chained = await gateway.call("POST", "/responses", body, key=key)
            assert (chained.status, chained.error["code"]) == (400, "previous_response_not_found")
    with pytest.raises(NotFoundError):
        await gateway.client("sk-another-caller-123").responses.retrieve(mine)
    assert not replay_server.creates[0].gone.is_set()
    held.release.set()
    assert (await gateway.ended(mine))["status"] == "completed"


async def test_answers_come_while_another_request_is_being_sent_slowly(gateway: Gateway) -> None:
    """A body that trickles in holds up nobody else."""
    more = asyncio.Event()

    async def slow() -> Any:
        yield b'{"model": "tiny", "background": true, '
        await within(more.wait())
        yield b'"input": "Count."}'

    headers = {"Authorization": f"Bearer {KEY}"}
    uploading = asyncio.create_task(
        gateway.http.post(f"{gateway.url}/responses", data=slow(), headers=headers).__aenter__()
    )
    assert (await gateway.client().responses.create(**GOOD)).status == "queued"
    more.set()
    answer = await within(uploading)
    assert (await answer.json())["status"] == "queued"
    answer.release()


@pytest.mark.parametrize(
    "named", ["..", "a b", "x HTTP/1.1\r\nA: b", "../models", "\u00e9", "a\\b", "a%2fb", ""]
)
async def test_what_cannot_be_an_id_is_never_asked_for_at_the_model_server(
    gateway: Gateway, replay_server: ReplayServer, named: str
) -> None:
    body = {**GOOD, "previous_response_id": named}
    answer = await gateway.call("POST", "/responses", body)
    assert (answer.status, answer.error["param"]) == (400, "previous_response_id")
    # Nothing but whether the credential is good, where there is one.
    assert {call.target for call in replay_server.calls} <= {"/v1/models", f"/v1/responses/resp_{'0' * 48}"}


async def test_a_key_that_cannot_be_compared_is_refused(gateway: Gateway) -> None:
    for key in ("\u00e9", "", "a\tb"):
        answer = await gateway.call("POST", "/responses", GOOD, more={"Idempotency-Key": key})
        assert (answer.status, answer.error["code"]) == (400, "invalid_idempotency_key"), key
