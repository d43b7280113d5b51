"""Input items page by page, and turns that go on from earlier ones."""

from __future__ import annotations

from typing import Any, Literal

import pytest
from openai import BadRequestError
from openai.types.responses import Response

from tests.acceptance.harness import Gateway, within
from tests.acceptance.replay import ReplayServer, replay

TOOL: Any = {
    "type": "function",
    "name": "get_weather",
    "description": "Get the weather",
    "parameters": {"type": "object", "properties": {"location": {"type": "string"}}},
    "strict": False,
}


async def _turn(gateway: Gateway, text: str, previous: str | None = None) -> Response:
    """One background turn, at its end."""
    client = gateway.client()
    extra: dict[str, Any] = {} if previous is None else {"previous_response_id": previous}
    created = await client.responses.create(model="tiny", input=text, background=True, **extra)
    await gateway.log_of_end(created.id)
    return await client.responses.retrieve(created.id)


@pytest.mark.parametrize("order", ["asc", "desc"])
async def test_input_items_are_paged_through_in_both_orders(
    gateway: Gateway, order: Literal["asc", "desc"]
) -> None:
    client = gateway.client()
    words = ["one", "two", "three", "four", "five"]
    created = await client.responses.create(
        model="tiny",
        input=[{"role": "user", "content": word} for word in words],
        background=True,
    )
    expected = words if order == "asc" else words[::-1]
    for limit in (1, 2, 5, 20):
        pages = client.responses.input_items.list(created.id, order=order, limit=limit)
        items = [item async for item in pages]
        assert [item.content[0].text for item in items if item.type == "message"] == expected  # type: ignore[union-attr]
        assert len({item.id for item in items}) == len(words)
    page = await client.responses.input_items.list(created.id, order=order, limit=2)
    assert page.has_more
    last = await gateway.call(
        "GET", f"/responses/{created.id}/input_items?order={order}&after={page.data[1].id}"
    )
    assert [item["id"] for item in last.json()["data"]][:1] == [last.json()["first_id"]]
    assert (len(last.json()["data"]), last.json()["has_more"]) == (3, False)
    await gateway.ended(created.id)


async def test_input_items_cover_the_earlier_turns_newest_first(gateway: Gateway) -> None:
    first = await _turn(gateway, "My name is Ada.")
    second = await _turn(gateway, "Who am I?", first.id)
    items = [item async for item in gateway.client().responses.input_items.list(second.id)]
    assert [item.type for item in items] == ["message", "message", "message"]
    texts = [item.content[0].text for item in items if item.type == "message"]  # type: ignore[union-attr]
    assert texts == ["Who am I?", first.output_text, "My name is Ada."]


async def test_a_background_turn_goes_on_from_two_earlier_ones(
    gateway: Gateway, replay_server: ReplayServer
) -> None:
    first = await _turn(gateway, "My name is Ada.")
    second = await _turn(gateway, "I like otters.", first.id)
    third = await _turn(gateway, "Who am I?", second.id)
    assert third.previous_response_id == second.id
    sent = replay_server.creates[2].json()
    assert "previous_response_id" not in sent
    assert "background" not in sent
    assert [item["role"] for item in sent["input"]] == ["user", "assistant"] * 2 + ["user"]
    assert sent["input"][0]["content"] == "My name is Ada."
    assert sent["input"][1] == first.output[0].model_dump(mode="json", exclude_none=True)
    assert sent["input"][4]["content"] == "Who am I?"


@pytest.mark.parametrize("is_stream", [False, True])
async def test_a_plain_turn_goes_on_from_a_background_one(
    gateway: Gateway, replay_server: ReplayServer, is_stream: bool
) -> None:
    first = await _turn(gateway, "My name is Ada.")
    client = gateway.client()
    text = "Who am I?"
    if is_stream:
        stream = await client.responses.create(
            model="tiny", input=text, previous_response_id=first.id, stream=True
        )
        assert [event async for event in stream][-1].type == "response.completed"
    else:
        plain = await client.responses.create(
            model="tiny", input=text, previous_response_id=first.id, extra_body={"top_k": 3}
        )
        assert plain.status == "completed"
        assert replay_server.creates[1].json()["top_k"] == 3
    sent = replay_server.creates[1].json()
    assert "previous_response_id" not in sent
    assert [item["role"] for item in sent["input"]] == ["user", "assistant", "user"]
    assert sent["input"][1]["content"][0]["text"] == first.output_text


async def test_a_turn_goes_on_from_an_incomplete_one(gateway: Gateway, replay_server: ReplayServer) -> None:
    replay_server.script(replay("vllm/responses-max-output-tokens-stream"))
    first = await _turn(gateway, "Tell me a long story.")
    assert first.status == "incomplete"
    second = await _turn(gateway, "Go on.", first.id)
    assert second.status == "completed"
    assert replay_server.creates[1].json()["input"][1]["role"] == "assistant"


async def test_a_tool_call_is_answered_in_the_next_turn(
    gateway: Gateway, replay_server: ReplayServer
) -> None:
    replay_server.script(replay("vllm/responses-tool-stream"))
    client = gateway.client()
    created = await client.responses.create(
        model="tiny", input="What is the weather in Paris?", tools=[TOOL], background=True
    )
    await gateway.log_of_end(created.id)
    asked = await client.responses.retrieve(created.id)
    [call] = [item for item in asked.output if item.type == "function_call"]
    assert call.name == "get_weather"
    answered = await client.responses.create(
        model="tiny",
        input=[{"type": "function_call_output", "call_id": call.call_id, "output": "sunny"}],
        tools=[TOOL],
        previous_response_id=asked.id,
        background=True,
    )
    assert (await gateway.ended(answered.id))["status"] == "completed"
    kinds = [item.get("type", "message") for item in replay_server.creates[1].json()["input"]]
    assert kinds[0] == "message"
    assert kinds[-2:] == ["function_call", "function_call_output"]
    sent = replay_server.creates[1].json()["input"]
    assert sent[-1]["call_id"] == sent[-2]["call_id"] == call.call_id


@pytest.mark.parametrize("background", [True, False])
async def test_only_a_finished_turn_can_be_continued(
    gateway: Gateway, replay_server: ReplayServer, background: bool
) -> None:
    client = gateway.client()
    held = replay_server.script(
        replay("vllm/responses-stream", hold_after=4), replay("vllm/responses-error-bad-model-stream")
    )
    running = await client.responses.create(model="tiny", input="A", background=True)
    await within(held.held.wait())
    failed = await client.responses.create(model="tiny", input="B", background=True)
    assert (await gateway.ended(failed.id))["status"] == "failed"
    cases = {
        running.id: ("previous_response_not_ready", "in_progress"),
        failed.id: ("previous_response_not_usable", "failed"),
        "resp_" + "0" * 48: ("previous_response_not_found", "not found"),
    }
    for previous, (code, words) in cases.items():
        with pytest.raises(BadRequestError, match=words) as refused:
            await client.responses.create(
                model="tiny", input="C", background=background, previous_response_id=previous
            )
        assert (refused.value.code, refused.value.param) == (code, "previous_response_id")
        assert refused.value.type == "invalid_request_error"
    await client.responses.cancel(running.id)
    with pytest.raises(BadRequestError, match="cancelled"):
        await client.responses.create(
            model="tiny", input="C", background=background, previous_response_id=running.id
        )
    assert len(replay_server.creates) == 2


async def test_a_plain_turn_of_any_shape_is_answered_or_refused(gateway: Gateway) -> None:
    """JSON can be read deeper than it can be written."""
    first = await _turn(gateway, "A")
    for given in (b"5", b"null", b"{}", b'{"role": "user"}', b"[5]", b"[" * 200 + b"]" * 200):
        body = b'{"model": "tiny", "previous_response_id": "%b", "input": %b}' % (first.id.encode(), given)
        assert (await gateway.call("POST", "/responses", body)).status in (200, 400), given
    deep = body.replace(given, b"[" * 300 + b"]" * 300)
    refused = await gateway.call("POST", "/responses", deep)
    assert (refused.status, refused.error["code"]) == (400, "too_deep")
