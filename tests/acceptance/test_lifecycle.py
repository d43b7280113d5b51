"""Polling, cancelling, deleting: what the official client sees of a response's life."""

from __future__ import annotations

import asyncio
from uuid import UUID

import pytest
from openai import BadRequestError, NotFoundError, OpenAI
from openai.types.responses import Response

from tests.acceptance.conftest import StartGateway
from tests.acceptance.harness import KEY, Gateway, frames, payload, within
from tests.acceptance.replay import ReplayServer, replay

UNKNOWN = "resp_" + "0" * 48


async def test_a_response_is_created_polled_and_complete(
    gateway: Gateway, replay_server: ReplayServer
) -> None:
    held = replay_server.script(replay("vllm/responses-stream", hold_after=6))
    client = gateway.client()
    created = await client.responses.create(
        model="tiny", input="Count.", background=True, metadata={"order": "7"}
    )
    assert (created.status, created.background, created.output) == ("queued", True, [])
    await within(held.held.wait())
    running = await client.responses.retrieve(created.id)
    assert (running.status, running.output, running.usage) == ("in_progress", [], None)
    held.release.set()
    await gateway.log_of_end(created.id)
    done = await client.responses.retrieve(created.id)
    assert done.status == "completed"
    assert done.output_text.startswith("one two three")
    assert done.metadata == {"order": "7"}
    assert done.usage is not None
    assert done.usage.total_tokens == done.usage.input_tokens + done.usage.output_tokens
    assert done.completed_at is not None
    assert (done.created_at, done.id) == (created.created_at, created.id)


async def test_polls_are_advised_of_their_interval_until_the_end(
    start_gateway: StartGateway, replay_server: ReplayServer
) -> None:
    gateway = await start_gateway(BACKBURNER_BACKGROUND__POLL_AFTER_MS=250)
    held = replay_server.script(replay("vllm/responses-stream", hold_after=6))
    created = await gateway.call(
        "POST", "/responses", {"model": "tiny", "input": "Count.", "background": True}
    )
    assert created.headers["openai-poll-after-ms"] == "250"
    assert created.headers["content-type"] == "application/json"
    assert UUID(created.headers["x-request-id"])
    held.release.set()
    path = f"/responses/{created.json()['id']}"
    await gateway.ended(created.json()["id"])
    assert "openai-poll-after-ms" not in (await gateway.call("GET", path)).headers
    literal = await gateway.call("GET", f"{path}?stream=false")
    assert literal.json()["status"] == "completed"


async def test_partial_output_is_shown_while_it_runs_where_the_settings_say_so(
    start_gateway: StartGateway, replay_server: ReplayServer
) -> None:
    gateway = await start_gateway(
        BACKBURNER_BACKGROUND__PARTIAL_OUTPUT="true", BACKBURNER_BACKGROUND__FLUSH_MS="1"
    )
    held = replay_server.script(replay("vllm/responses-stream", hold_after=8))
    client = gateway.client()
    stream = await client.responses.create(model="tiny", input="Count.", background=True, stream=True)
    async with stream:
        async for event in stream:
            if event.type == "response.created":
                response_id = event.response.id
            if event.sequence_number == 8:  # the last one that the model server's hold lets through
                break
    assert held.held.is_set()
    shown = await client.responses.retrieve(response_id)
    assert shown.status == "in_progress"
    assert shown.output_text.startswith("one two")
    assert shown.output[0].type == "message"
    assert shown.output[0].status == "in_progress"


async def test_a_running_response_is_cancelled_once_and_stays_so(
    gateway: Gateway, replay_server: ReplayServer
) -> None:
    held = replay_server.script(replay("vllm/responses-stream", hold_after=8))
    client = gateway.client()
    created = await client.responses.create(model="tiny", input="Count.", background=True)
    await within(held.held.wait())
    first = await gateway.call("POST", f"/responses/{created.id}/cancel")
    again = await gateway.call("POST", f"/responses/{created.id}/cancel")
    assert first.status == again.status == 200
    assert first.body == again.body
    assert Response.model_validate(first.json()).status == "cancelled"
    assert first.json()["completed_at"] is None
    call = await replay_server.create(0)
    await within(call.gone.wait(), 1)
    by_sdk = await client.responses.cancel(created.id)
    assert by_sdk == await client.responses.retrieve(created.id)


async def test_a_cancelled_stream_keeps_its_output_and_ends_with_failed(
    gateway: Gateway, replay_server: ReplayServer
) -> None:
    held = replay_server.script(replay("vllm/responses-stream", hold_after=8))
    ask = {"model": "tiny", "input": "Count.", "background": True, "stream": True}
    async with gateway.events("/responses", ask) as events:
        seen = [await anext(events)]
        await within(held.held.wait())
        while len(seen) < 9:
            seen.append(await within(anext(events)))
        response_id = payload(seen[0])["response"]["id"]
        assert (await gateway.client().responses.cancel(response_id)).status == "cancelled"
        rest = [event async for event in events]
    last = payload(rest[-1])
    assert last["type"] == "response.failed"
    assert last["response"]["status"] == "cancelled"
    assert last["response"]["output"][0]["status"] == "incomplete"
    assert last["response"]["output"][0]["content"][0]["text"].startswith("one two")
    assert frames(await gateway.replay(response_id)) == seen + rest


async def test_a_queued_response_is_cancelled_and_never_reaches_the_model_server(
    start_gateway: StartGateway, replay_server: ReplayServer
) -> None:
    gateway = await start_gateway(BACKBURNER_UPSTREAM__CONCURRENCY_MAX="1")
    held = replay_server.script(replay("vllm/responses-stream", hold_after=4))
    client = gateway.client()
    running = await client.responses.create(model="tiny", input="first", background=True)
    await within(held.held.wait())
    waiting = await client.responses.create(model="tiny", input="second", background=True)
    last = await client.responses.create(model="tiny", input="third", background=True)
    assert (await client.responses.retrieve(waiting.id)).status == "queued"
    cancelled = await client.responses.cancel(waiting.id)
    assert (cancelled.status, cancelled.output) == ("cancelled", [])
    held.release.set()
    assert (await gateway.ended(running.id))["status"] == "completed"
    assert (await gateway.ended(last.id))["status"] == "completed"
    assert [call.json()["input"] for call in replay_server.creates] == ["first", "third"]


async def test_what_has_ended_cannot_be_cancelled_and_what_is_unknown_is_not_found(
    gateway: Gateway, replay_server: ReplayServer
) -> None:
    client = gateway.client()
    wanted = {
        "completed": ("vllm/responses-stream", "Cannot cancel a completed response."),
        "failed": ("vllm/responses-error-bad-model-stream", "Cannot cancel a failed response."),
        "incomplete": (
            "vllm/responses-max-output-tokens-stream",
            "Cannot cancel a response in terminal state.",
        ),
    }
    for status, (name, message) in wanted.items():
        replay_server.script(replay(name))
        created = await client.responses.create(model="tiny", input="Count.", background=True)
        assert (await gateway.ended(created.id))["status"] == status
        with pytest.raises(BadRequestError) as refused:
            await client.responses.cancel(created.id)
        assert refused.value.body["message"] == message  # type: ignore[index]
    with pytest.raises(NotFoundError) as unknown:
        await client.responses.cancel(UNKNOWN)
    assert unknown.value.body["message"] == f"Response with id '{UNKNOWN}' not found."  # type: ignore[index]


async def test_a_deleted_response_is_gone_on_every_route(gateway: Gateway) -> None:
    client = gateway.client()
    created = await client.responses.create(model="tiny", input="Count.", background=True)
    await gateway.ended(created.id)
    deleted = await gateway.call("DELETE", f"/responses/{created.id}")
    assert deleted.json() == {"id": created.id, "object": "response", "deleted": True}
    for gone in (
        client.responses.retrieve(created.id),
        client.responses.retrieve(created.id, stream=True),
        client.responses.cancel(created.id),
        client.responses.delete(created.id),
        client.responses.input_items.list(created.id),
    ):
        with pytest.raises(NotFoundError):
            await gone
    with pytest.raises(BadRequestError) as refused:
        await client.responses.create(
            model="tiny", input="And?", background=True, previous_response_id=created.id
        )
    assert refused.value.code == "previous_response_not_found"


async def test_deleting_a_running_response_stops_it_and_ends_its_readers(
    gateway: Gateway, replay_server: ReplayServer
) -> None:
    held = replay_server.script(replay("vllm/responses-stream", hold_after=8))
    client = gateway.client()
    stream = await client.responses.create(model="tiny", input="Count.", background=True, stream=True)
    first = await anext(aiter(stream))
    assert first.type == "response.created"
    reader = asyncio.create_task(gateway.replay(first.response.id))
    await within(held.held.wait())
    await client.responses.delete(first.response.id)
    call = await replay_server.create(0)
    await within(call.gone.wait(), 1)
    await within(reader)
    await stream.close()
    with pytest.raises(NotFoundError):
        await client.responses.retrieve(first.response.id)


async def test_a_truncated_response_is_incomplete_with_its_reason(
    gateway: Gateway, replay_server: ReplayServer
) -> None:
    replay_server.script(replay("vllm/responses-max-output-tokens-stream"))
    client = gateway.client()
    stream = await client.responses.create(
        model="tiny", input="Tell.", background=True, stream=True, max_output_tokens=16
    )
    events = [event async for event in stream]
    last = events[-1]
    assert last.type == "response.incomplete"
    assert last.response.status == "incomplete"
    assert last.response.incomplete_details is not None
    assert last.response.incomplete_details.reason == "max_output_tokens"
    assert last.response.usage is not None
    assert await client.responses.retrieve(last.response.id) == last.response


async def test_the_synchronous_sdk_creates_polls_cancels_and_deletes(
    gateway: Gateway, replay_server: ReplayServer
) -> None:
    held = replay_server.script(replay("vllm/responses-stream", hold_after=5))

    def play() -> None:
        with OpenAI(base_url=gateway.url, api_key=KEY, max_retries=0, timeout=20) as client:
            created = client.responses.create(model="tiny", input="Count.", background=True)
            assert client.responses.retrieve(created.id).status in ("queued", "in_progress")
            assert client.responses.cancel(created.id).status == "cancelled"
            client.responses.delete(created.id)
            with pytest.raises(NotFoundError):
                client.responses.retrieve(created.id)

    await asyncio.to_thread(play)
    assert not held.release.is_set()
