"""Streams: drop anywhere and resume, read by several, read after the end; bytes and SDK events alike."""

from __future__ import annotations

import asyncio
import json
from uuid import UUID

import pytest
from openai import BadRequestError, OpenAI

from tests.acceptance.conftest import StartGateway
from tests.acceptance.harness import KEY, Gateway, frames, numbers, payload, within
from tests.acceptance.replay import ReplayServer, replay
from tests.acceptance.test_admission import port_of

ASK = {"model": "tiny", "input": "Count to 5.", "background": True, "stream": True}


async def test_create_streams_the_whole_response_and_numbers_its_events_from_zero(gateway: Gateway) -> None:
    async with gateway.events("/responses", ASK) as events:
        seen = [event async for event in events]
    kinds = [payload(event)["type"] for event in seen]
    assert kinds[:3] == ["response.created", "response.queued", "response.in_progress"]
    assert [payload(event)["response"]["status"] for event in seen[:3]] == ["queued", "queued", "in_progress"]
    assert kinds[-1] == "response.completed"
    assert numbers(seen) == list(range(len(seen)))


async def test_a_stream_says_what_proxies_browsers_and_support_need_to_know(gateway: Gateway) -> None:
    answer = await gateway.call("POST", "/responses", ASK)
    assert answer.headers["cache-control"] == "no-cache"
    assert answer.headers["x-accel-buffering"] == "no"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert UUID(answer.headers["x-request-id"])
    assert answer.headers["server"] == "backburner"
    assert b"\nid:" not in answer.body
    assert b"retry:" not in answer.body
    assert b"[DONE]" not in answer.body
    last = await gateway.call("POST", "/responses", ASK, more={"Connection": "close"})
    assert last.headers["connection"] == "close"


async def test_a_client_that_knows_no_chunks_gets_the_same_events_live(
    gateway: Gateway, replay_server: ReplayServer
) -> None:
    held = replay_server.script(replay("vllm/responses-stream", hold_after=20))
    body = json.dumps(ASK).encode()
    head = f"POST /v1/responses HTTP/1.0\r\nAuthorization: Bearer {KEY}\r\nContent-Length: {len(body)}\r\n"
    reader, writer = await asyncio.open_connection("127.0.0.1", port_of(gateway.url))
    writer.write(f"{head}\r\n".encode() + body)
    assert b"chunked" not in await within(reader.readuntil(b"\r\n\r\n"))
    await within(held.held.wait())
    seen = await within(reader.readuntil(b'"sequence_number":12'))
    held.release.set()
    seen += await within(reader.read(-1))
    writer.close()
    assert await gateway.replay(payload(frames(seen)[0])["response"]["id"]) == seen


async def test_a_reader_dropped_at_every_event_resumes_with_the_same_bytes(
    gateway: Gateway, replay_server: ReplayServer
) -> None:
    """Live: the model server is held, so that each drop happens while the response runs."""
    held = replay_server.script(replay("vllm/responses-stream", hold_after=20))
    async with gateway.events("/responses", ASK) as events:
        first = await anext(events)
        response_id = payload(first)["response"]["id"]
        live = [first]
        await within(held.held.wait())
        while len(live) < 12:  # fewer than the readers that one response may have
            live.append(await within(anext(events)))
    tails = []
    for cursor in range(len(live)):
        path = f"/responses/{response_id}?stream=true&starting_after={cursor}"
        async with gateway.events(path) as events:
            assert [await within(anext(events)) for _ in live[cursor + 1 :]] == live[cursor + 1 :]
        tails.append(asyncio.create_task(gateway.replay(response_id, after=cursor)))
    held.release.set()
    whole = frames(await gateway.replay(response_id))
    assert whole[: len(live)] == live
    for cursor, tail in enumerate(tails):
        assert await tail == b"".join(whole[cursor + 1 :])


async def test_an_ended_stream_resumes_from_every_event_with_the_same_bytes(gateway: Gateway) -> None:
    created = (await gateway.call("POST", "/responses", ASK)).body
    whole = frames(created)
    response_id = payload(whole[0])["response"]["id"]
    assert await gateway.replay(response_id) == created
    for cursor in range(len(whole)):
        assert await gateway.replay(response_id, after=cursor) == b"".join(whole[cursor + 1 :])
    assert await gateway.replay(response_id, after=10**6) == b""


async def test_the_sdk_sees_the_same_events_across_a_drop_at_every_event(gateway: Gateway) -> None:
    client = gateway.client()
    stream = await client.responses.create(model="tiny", input="Count.", background=True, stream=True)
    whole = [event async for event in stream]
    first = whole[0]
    assert first.type == "response.created"
    for cut in range(len(whole)):
        before = []
        dropped = await client.responses.retrieve(first.response.id, stream=True)
        async with dropped:
            async for event in dropped:
                before.append(event)
                if event.sequence_number == cut:
                    break
        resumed = await client.responses.retrieve(first.response.id, stream=True, starting_after=cut)
        assert before + [event async for event in resumed] == whole


async def test_the_sdk_stream_helper_resumes_a_response_and_gives_its_final_object(gateway: Gateway) -> None:
    client = gateway.client()
    created = await client.responses.create(model="tiny", input="Count.", background=True, stream=True)
    whole = [event async for event in created]
    first = whole[0]
    assert first.type == "response.created"
    response_id = first.response.id
    for after in (0, 1, 2, 7, len(whole) - 2):
        async with client.responses.stream(response_id=response_id, starting_after=after) as stream:
            seen = [event.sequence_number async for event in stream]
            final = await stream.get_final_response()
        assert seen == list(range(after + 1, len(whole)))
        stored = await client.responses.retrieve(response_id)
        assert final.output_text == stored.output_text
        assert final.output_text.startswith("one two three four five")


async def test_the_sdk_stream_helper_creates_a_background_stream(gateway: Gateway) -> None:
    client = gateway.client()
    async with client.responses.stream(model="tiny", input="Count.", background=True) as stream:
        text = "".join([event.delta async for event in stream if event.type == "response.output_text.delta"])
        final = await stream.get_final_response()
    assert final.status == "completed"
    assert final.output_text == text


async def test_the_synchronous_sdk_streams_and_resumes_too(gateway: Gateway) -> None:
    def play() -> None:
        with OpenAI(base_url=gateway.url, api_key=KEY, max_retries=0, timeout=20) as client:
            with client.responses.create(model="tiny", input="C", background=True, stream=True) as stream:
                whole = list(stream)
            first = whole[0]
            assert first.type == "response.created"
            with client.responses.retrieve(first.response.id, stream=True, starting_after=4) as resumed:
                assert list(resumed) == whole[5:]
            with client.responses.stream(response_id=first.response.id, starting_after=9) as helper:
                assert [event.sequence_number for event in helper] == list(range(10, len(whole)))
                assert helper.get_final_response().status == "completed"

    await asyncio.to_thread(play)


async def test_several_readers_get_the_same_bytes_early_and_late(
    gateway: Gateway, replay_server: ReplayServer
) -> None:
    held = replay_server.script(replay("vllm/responses-stream", hold_after=8))
    response = await gateway.client().responses.create(
        model="tiny", input="Count.", background=True, stream=True
    )
    async with response:
        first = await anext(aiter(response))
    assert first.type == "response.created"
    response_id = first.response.id
    early = [asyncio.create_task(gateway.replay(response_id)) for _ in range(4)]
    await within(held.held.wait())
    late = [asyncio.create_task(gateway.replay(response_id)) for _ in range(4)]
    held.release.set()
    streams = {await within(reader) for reader in (*early, *late)} | {await gateway.replay(response_id)}
    assert len(streams) == 1
    assert len(replay_server.creates) == 1


async def test_a_stream_is_refused_for_a_response_that_was_not_created_with_one(gateway: Gateway) -> None:
    client = gateway.client()
    created = await client.responses.create(model="tiny", input="Count.", background=True)
    with pytest.raises(BadRequestError, match=r"was not created with stream=true") as refused:
        await client.responses.retrieve(created.id, stream=True)
    assert refused.value.param == "stream"
    await gateway.ended(created.id)


async def test_any_response_can_be_streamed_where_the_settings_say_so(start_gateway: StartGateway) -> None:
    gateway = await start_gateway(BACKBURNER_BACKGROUND__RESUME="any")
    client = gateway.client()
    created = await client.responses.create(model="tiny", input="Count.", background=True)
    stream = await client.responses.retrieve(created.id, stream=True)
    assert [event.sequence_number async for event in stream][:3] == [0, 1, 2]


@pytest.mark.parametrize("cursor", ["-1", "1.5", "x", "", "9" * 40])
async def test_a_malformed_cursor_is_refused_by_its_name(gateway: Gateway, cursor: str) -> None:
    created = (await gateway.call("POST", "/responses", ASK)).body
    response_id = payload(frames(created)[0])["response"]["id"]
    answer = await gateway.call("GET", f"/responses/{response_id}?stream=true&starting_after={cursor}")
    assert answer.status == 400
    assert answer.error["param"] == "starting_after"
    assert answer.error["type"] == "invalid_request_error"


async def test_a_reader_with_nothing_to_read_yet_gets_its_head_at_once(
    start_gateway: StartGateway, replay_server: ReplayServer
) -> None:
    gateway = await start_gateway(BACKBURNER_STREAM__HEARTBEAT_S=3600, BACKBURNER_UPSTREAM__CONCURRENCY_MAX=1)
    held = replay_server.script(replay("vllm/responses-stream", hold_after=0))
    for count in (3, 2):  # of one that runs, and of one that waits for it to end
        async with gateway.events("/responses", ASK) as events:
            seen = [await within(anext(events)) for _ in range(count)]
        path = f"/responses/{payload(seen[0])['response']['id']}?stream=true&starting_after="
        async with gateway.events(f"{path}{count - 1}"), gateway.events(f"{path}99"):
            pass  # each is there: its head has come
    async with gateway.events(f"{path}1") as later:
        held.release.set()
        assert numbers([await within(anext(later))]) == [2]
