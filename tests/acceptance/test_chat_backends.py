"""A model server without /v1/responses: its recorded chat answers become background responses."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import aiohttp
import orjson
import pytest
from openai.types.responses import Response

from tests.acceptance.chat_shapes import PNG, TEXTS, TYPES, UNMAPPED, full_answer
from tests.acceptance.conftest import StartGateway
from tests.acceptance.harness import Gateway, frames, numbers, payload, within
from tests.acceptance.replay import Answer, End, ReplayServer, json_answer, recording, replay

ASK: dict[str, Any] = {"model": "tiny", "input": "Count to 5.", "background": True, "stream": True}
STREAMS = ["chat-stream", "chat-stream-no-usage", "chat-tool-stream"]


@pytest.fixture
async def chat_gateway(start_gateway: StartGateway, replay_server: ReplayServer) -> Gateway:
    """A gateway that finds out for itself that its model server only speaks chat."""
    replay_server.answer_to_question = "llamacpp-python/responses-sync"
    assert recording(replay_server.answer_to_question).status == 404
    return await start_gateway()


def _spoken(name: str) -> str:
    """The text in a recorded chat stream."""
    lines = [line for line in recording(name).body.splitlines() if line.startswith(b"data: {")]
    choices = [choice for line in lines for choice in payload(b"\n" + line)["choices"]]
    return "".join(choice["delta"].get("content") or "" for choice in choices)


async def test_recorded_chat_streams_become_response_streams_that_the_sdk_accepts(
    chat_gateway: Gateway, replay_server: ReplayServer
) -> None:
    client = chat_gateway.client()
    for server in ("vllm", "llama-slow", "transformers", "llamacpp-python"):
        for stream_name in STREAMS:
            name = f"{server}/{stream_name}"
            replay_server.script(replay(name))
            created = await chat_gateway.call("POST", "/responses", ASK)
            events = frames(created.body)
            assert numbers(events) == list(range(len(events))), name
            final = Response.model_validate(payload(events[-1])["response"])
            assert final.status == "completed", (name, final.error)
            assert final.output_text == _spoken(name), name
            async with client.responses.stream(response_id=final.id) as stream:
                assert [event.sequence_number async for event in stream] == numbers(events), name
            helped = await stream.get_final_response()
            assert [item.type for item in helped.output] == [item.type for item in final.output], name
    assert {call.target for call in replay_server.creates} == {"/v1/chat/completions"}


async def test_turns_and_resumed_streams_work_over_a_chat_backend(
    chat_gateway: Gateway, replay_server: ReplayServer
) -> None:
    held = replay_server.script(replay("vllm/chat-stream", hold_after=4))
    async with chat_gateway.events("/responses", ASK) as events:
        seen = [await within(anext(events)) for _ in range(6)]
        await within(held.held.wait())
    held.release.set()
    response_id = payload(seen[0])["response"]["id"]
    first = await chat_gateway.ended(response_id)
    whole = frames(await chat_gateway.replay(response_id))
    assert whole[:6] == seen
    assert await chat_gateway.replay(response_id, after=5) == b"".join(whole[6:])
    for background in (True, False):
        replay_server.script(replay("vllm/chat-stream" if background else "vllm/chat-sync"))
        body = {**ASK, "background": background, "stream": background, "previous_response_id": response_id}
        assert (await chat_gateway.call("POST", "/responses", body)).status == 200
        sent = replay_server.creates[-1].json()["messages"]
        assert [message["role"] for message in sent] == ["user", "assistant", "user"]
        assert sent[1]["content"] == first["output"][0]["content"][0]["text"]


async def test_a_cancel_stops_a_chat_backend_within_a_second(
    chat_gateway: Gateway, replay_server: ReplayServer
) -> None:
    held = replay_server.script(replay("vllm/chat-stream", hold_after=4))
    created = await chat_gateway.client().responses.create(model="tiny", input="Count.", background=True)
    await within(held.held.wait())
    assert (await chat_gateway.client().responses.cancel(created.id)).status == "cancelled"
    await within(replay_server.creates[0].gone.wait(), 1)


async def test_a_plain_answer_that_breaks_off_before_its_client_has_a_byte_is_fetched_anew(
    chat_gateway: Gateway, replay_server: ReplayServer
) -> None:
    whole = replay("vllm/chat-stream")
    replay_server.script(replace(whole, blocks=whole.blocks[:3], end=End.RESET), replay("vllm/chat-stream"))
    answer = await chat_gateway.call("POST", "/responses", {"model": "tiny", "input": "Count to 5."})
    assert answer.status == 200
    assert Response.model_validate(answer.json()).output_text == _spoken("vllm/chat-stream")
    assert len(replay_server.creates) == 2


async def test_a_plain_answer_is_not_fetched_anew_without_budget_and_that_is_counted(
    start_gateway: StartGateway, replay_server: ReplayServer
) -> None:
    none = {"BACKBURNER_UPSTREAM__RETRY_PERCENT_MAX": 0, "BACKBURNER_UPSTREAM__RETRY_MIN_PER_S": 0}
    gateway = await start_gateway("--api", "chat", **none)
    whole = replay("vllm/chat-stream")
    broken = replace(whole, blocks=whole.blocks[:3], end=End.RESET)
    replay_server.script(broken, whole, broken)
    for _ in range(2):  # there is always room for one
        answer = await gateway.call("POST", "/responses", {"model": "tiny", "input": "Count to 5."})
    assert answer.status == 502
    assert len(replay_server.creates) == 3
    assert await gateway.metric('backburner_upstream_retries_refused_total{backend="default"}') == 1


async def test_a_plain_stream_that_breaks_off_says_so_and_is_not_begun_anew(
    chat_gateway: Gateway, replay_server: ReplayServer
) -> None:
    whole = replay("vllm/chat-stream")
    replay_server.script(replace(whole, blocks=whole.blocks[:3], end=End.RESET))
    body = {"model": "tiny", "input": "Count to 5.", "stream": True}
    answer = await chat_gateway.call("POST", "/responses", body)
    last = payload(frames(answer.body)[-1])
    assert (last["type"], last["response"]["error"]["code"]) == ("response.failed", "server_error")
    assert len(replay_server.creates) == 1
    for kind, count in {"passthrough": 1, "background": 0}.items():
        sample = f'backburner_upstream_errors_total{{kind="{kind}",reason="cut"}}'
        assert await chat_gateway.metric(sample) == count


def _chunks(*choices: dict[str, Any]) -> Answer:
    """A stream with these choices, one to a chunk."""
    sent = [b"data: %b\n\n" % orjson.dumps({"choices": [{"index": 0, **choice}]}) for choice in choices]
    return Answer([*sent, b"data: [DONE]\n\n"])


async def test_all_that_a_chat_answer_may_hold_is_read_by_the_sdk_live_polled_and_again(
    start_gateway: StartGateway, replay_server: ReplayServer
) -> None:
    gateway = await start_gateway("--api", "chat")
    client = gateway.client()
    for background in (True, False):
        replay_server.script(full_answer())
        async with client.responses.stream(
            model="tiny", input="How is the sea?", background=background
        ) as stream:
            kinds = [event.type async for event in stream]
            final = await stream.get_final_response()
        assert [item.type for item in final.output] == TYPES
        assert final.output_text == "".join(TEXTS)
        assert kinds.count("response.audio.delta") == 2
        shown = [item.model_dump() for item in final.output]
        assert shown[0]["reasoning_details"][0]["signature"] == "c2ln"
        assert shown[1]["content"][0]["annotations"][0]["url"] == "https://tides.example/1"
        assert (shown[2]["result"], shown[3]["audio"]["data"]) == (PNG, "AAABAg==")
        assert shown[4]["extra_content"] == {"google": {"thought_signature": "c2ln"}}
        if background:
            polled = await client.responses.retrieve(final.id)
            assert [item.type for item in polled.output] == TYPES
            assert polled.output_text == final.output_text
            assert polled.output[3].model_dump()["audio"] == shown[3]["audio"]


async def test_a_field_without_a_place_is_counted_and_logged_once(
    start_gateway: StartGateway, replay_server: ReplayServer
) -> None:
    gateway = await start_gateway("--api", "chat")
    for background in (True, False, True):
        replay_server.script(full_answer())
        body = {"model": "tiny", "input": "How is the sea?", "background": background}
        answer = await gateway.call("POST", "/responses", body)
        if background:
            await gateway.ended(answer.json()["id"])
    sample = f'backburner_unmapped_fields_total{{backend="default",field="{UNMAPPED}"}}'
    assert await gateway.metric(sample) == 3
    told = [line for line in gateway.lines if line["event"] == "backend_noticed"]
    assert [(line["reason"], line["found"], line["level"]) for line in told] == [
        ("unmapped_field", UNMAPPED, "warning")
    ]


async def test_an_answer_of_nothing_else_fails_with_the_name_of_the_field(
    start_gateway: StartGateway, replay_server: ReplayServer
) -> None:
    gateway = await start_gateway("--api", "chat")
    riddle = {"delta": {"sea_chart": "four fathoms"}, "finish_reason": "stop"}
    replay_server.script(_chunks(riddle), _chunks(riddle))
    created = await gateway.call("POST", "/responses", {**ASK, "stream": False})
    final = await gateway.ended(created.json()["id"])
    assert (final["status"], final["output"]) == ("failed", [])
    assert UNMAPPED in final["error"]["message"]
    plain = await gateway.call("POST", "/responses", {"model": "tiny", "input": "How is the sea?"})
    assert (plain.status, UNMAPPED in plain.json()["error"]["message"]) == (502, True)
    assert len(replay_server.creates) == 2  # it would say the same again


async def test_made_up_field_names_are_counted_as_other_after_fifty(
    start_gateway: StartGateway, replay_server: ReplayServer
) -> None:
    gateway = await start_gateway("--api", "chat")
    for start in range(0, 60, 20):
        delta = {f"field_{number:02} \n{{}}": "x" for number in range(start, start + 20)}
        replay_server.script(_chunks({"delta": {"content": "A", **delta}, "finish_reason": "stop"}))
        assert (await gateway.call("POST", "/responses", {"model": "tiny", "input": "A"})).status == 200
    name = "delta.field_{:02}____"
    counted = 'backburner_unmapped_fields_total{{backend="default",field="{}"}}'
    assert await gateway.metric(counted.format(name.format(7))) == 1
    assert await gateway.metric(counted.format("other")) == 10


async def test_think_tags_make_reasoning_items_where_the_settings_say_so(
    start_gateway: StartGateway, replay_server: ReplayServer
) -> None:
    texts = ["<thi", "nk>Two and", " two.</th", "ink>\n\n", "4"]
    told = [{"delta": {"content": text}} for text in texts] + [{"delta": {}, "finish_reason": "stop"}]
    for environ, expected in (
        ({"BACKBURNER_UPSTREAM__THINK_TAGS": "true"}, ["reasoning", "message"]),
        ({}, ["message"]),
    ):
        gateway = await start_gateway("--api", "chat", **environ)
        replay_server.script(_chunks(*told))
        final = await gateway.client().responses.create(model="tiny", input="2+2?")
        assert [item.type for item in final.output] == expected
    assert final.output_text == "".join(texts)


async def test_a_websocket_to_a_chat_backend_is_told_to_post_without_asking_it(
    start_gateway: StartGateway, replay_server: ReplayServer
) -> None:
    gateway = await start_gateway("--api", "chat")
    with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
        await gateway.http.ws_connect(f"{gateway.url}/responses?x=y")
    assert refused.value.status == 426
    assert refused.value.headers is not None
    assert refused.value.headers["Upgrade"] == "HTTP/1.1"
    assert replay_server.calls == []
    with pytest.raises(aiohttp.WSServerHandshakeError) as elsewhere:  # the backend's to have, or not
        await gateway.http.ws_connect(f"{gateway.url}/realtime")
    assert elsewhere.value.status != 426


async def test_a_translated_stream_has_begun_and_is_kept_awake_while_the_model_thinks(
    start_gateway: StartGateway, replay_server: ReplayServer
) -> None:
    gateway = await start_gateway("--api", "chat", BACKBURNER_STREAM__HEARTBEAT_S=0.1)
    held = replay_server.script(replay("vllm/chat-stream", hold_after=0))
    body = {**ASK, "background": False}
    async with gateway.http.post(f"{gateway.url}/responses", json=body) as answer:
        assert answer.status == 200
        seen = b""
        while seen.count(b": keep-alive\n\n") < 2:
            seen += await within(answer.content.readany())
        assert [payload(event)["type"] for event in frames(seen)] == [
            "response.created",
            "response.in_progress",
        ]
        held.release.set()
        whole = frames(seen + await within(answer.content.read()))
    assert numbers(whole) == list(range(len(whole)))
    assert payload(whole[-1])["response"]["status"] == "completed"


async def test_a_backend_that_is_late_to_say_no_is_told_in_the_stream_and_one_in_time_by_its_status(
    start_gateway: StartGateway, replay_server: ReplayServer
) -> None:
    refusal = json_answer({"error": {"message": "Too many tokens.", "code": 400}}, 400)
    body = {**ASK, "background": False}
    patient = await start_gateway("--api", "chat", BACKBURNER_STREAM__HEARTBEAT_S=3600)
    replay_server.script(refusal)
    told = await patient.call("POST", "/responses", body)
    assert (told.status, told.error["message"]) == (400, "Too many tokens.")

    gateway = await start_gateway("--api", "chat", BACKBURNER_STREAM__HEARTBEAT_S=0.1)
    late = replay_server.script(replace(refusal, hold_after=-1))
    async with gateway.events("/responses", body) as events:
        begun = [payload(await within(anext(events)))["type"] for _ in range(2)]
        assert begun == ["response.created", "response.in_progress"]
        late.release.set()
        [last] = [payload(event) async for event in events]
    assert last["type"] == "response.failed"
    assert last["response"]["error"] == {"code": "context_length_exceeded", "message": "Too many tokens."}


async def test_a_client_that_leaves_before_the_backends_head_stops_the_call(
    start_gateway: StartGateway, replay_server: ReplayServer
) -> None:
    gateway = await start_gateway("--api", "chat", BACKBURNER_STREAM__HEARTBEAT_S=0.1)
    replay_server.script(replay("vllm/chat-stream", hold_after=-1))
    async with gateway.events("/responses", {**ASK, "background": False}) as events:
        await within(anext(events))
    await within((await replay_server.create(0)).gone.wait())
