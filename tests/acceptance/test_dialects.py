"""Each dialect as its product documents it, by a plain HTTP client."""

from __future__ import annotations

import re
from typing import Any

import pytest

from tests.acceptance.conftest import StartGateway
from tests.acceptance.harness import Gateway, frames, numbers, payload, within
from tests.acceptance.replay import ReplayServer, json_answer, replay

ASK: dict[str, Any] = {"model": "tiny", "input": "Write a short poem.", "background": True}
GUARDRAIL = {
    "error": {"message": "The input was rejected by the safety guardrail.", "type": "BadRequestError"}
}


@pytest.fixture
async def pharia(start_gateway: StartGateway) -> Gateway:
    return await start_gateway("--dialect", "pharia")


@pytest.fixture
async def mka1(start_gateway: StartGateway) -> Gateway:
    return await start_gateway("--dialect", "mka1")


async def _created(gateway: Gateway, **more: Any) -> dict[str, Any]:
    answer = await gateway.call("POST", "/responses", {**ASK, **more})
    assert answer.status == (202 if "pharia" in gateway.flags else 200), answer.body
    found: dict[str, Any] = answer.json()
    return found


def _permanent(handle: str) -> str:
    return handle.replace("req_", "resp_")


async def _polled(gateway: Gateway, handle: str) -> dict[str, Any]:
    await gateway.log_of_end(_permanent(handle))
    answer = await gateway.call("GET", f"/responses/{handle}")
    assert answer.status == 200
    found: dict[str, Any] = answer.json()
    return found


def _names(stream: bytes) -> list[str]:
    return [payload(event)["type"] for event in frames(stream)]


# -- pharia


async def test_pharia_accepts_with_202_and_a_handle_that_is_polled_to_the_permanent_id(
    pharia: Gateway, replay_server: ReplayServer
) -> None:
    held = replay_server.script(replay("vllm/responses-stream", hold_after=4))
    accepted = await pharia.call("POST", "/responses", ASK)
    assert accepted.status == 202
    created = accepted.json()
    assert re.fullmatch("req_[0-9a-f]{48}", created["id"])
    assert [created[name] for name in ("object", "status", "output", "background")] == [
        *("response", "in_progress", []),
        True,
    ]
    await within(held.held.wait())
    for name in (created["id"], _permanent(created["id"])):
        running = await pharia.call("GET", f"/responses/{name}")
        assert (running.json()["id"], running.json()["status"]) == (created["id"], "in_progress")
        assert running.headers["openai-poll-after-ms"]
    held.release.set()
    done = await _polled(pharia, created["id"])
    assert (done["id"], done["status"]) == (_permanent(created["id"]), "completed")
    assert done["output"][0]["content"][0]["text"]
    assert (await pharia.call("GET", f"/responses/{done['id']}")).json() == done


async def test_both_ids_of_pharia_work_on_every_route(pharia: Gateway, replay_server: ReplayServer) -> None:
    done = await _polled(pharia, (await _created(pharia, input="My name is Ada."))["id"])
    handle = done["id"].replace("resp_", "req_")
    listed = [
        (await pharia.call("GET", f"/responses/{name}/input_items")).body for name in (handle, done["id"])
    ]
    assert listed[0] == listed[1]
    assert b"Ada" in listed[0]
    for name in (handle, done["id"]):
        refused = await pharia.call("POST", f"/responses/{name}/cancel")
        assert (refused.status, refused.error["message"]) == (400, "Cannot cancel a completed response.")
        for background in (True, False):
            follow_up = {**ASK, "input": "Who?", "background": background, "previous_response_id": name}
            answer = await pharia.call("POST", "/responses", follow_up)
            assert answer.json()["previous_response_id"] == name
            if background:
                await _polled(pharia, answer.json()["id"])
            sent = replay_server.creates[-1].json()
            assert [item["role"] for item in sent["input"]] == ["user", "assistant", "user"]
            assert "previous_response_id" not in sent
    for name in (handle, done["id"]):
        other = await pharia.call("GET", f"/responses/{name}", key="another")
        assert (other.status, other.error["message"]) == (404, f"Response with id '{name}' not found.")
    gone = await pharia.call("DELETE", f"/responses/{handle}")
    assert gone.json() == {"id": handle, "object": "response", "deleted": True}
    for name in (handle, done["id"]):
        for method, path in (
            *(("GET", ""), ("DELETE", ""), ("POST", "/cancel")),
            *(("GET", "/input_items"), ("GET", "?stream=true")),
        ):
            missing = await pharia.call(method, f"/responses/{name}{path}")
            assert (missing.status, missing.error["message"]) == (
                404,
                f"Response with id '{name}' not found.",
            )
        lost = await pharia.call("POST", "/responses", {**ASK, "previous_response_id": name})
        assert lost.error["message"] == f"Previous response with id '{name}' not found."


async def test_a_running_one_of_pharia_cannot_be_gone_on_from_and_can_be_cancelled(
    pharia: Gateway, replay_server: ReplayServer
) -> None:
    held = replay_server.script(replay("vllm/responses-stream", hold_after=6))
    handle = (await _created(pharia))["id"]
    await within(held.held.wait())
    for name in (handle, _permanent(handle)):
        for background in (True, False):
            body = {**ASK, "background": background, "previous_response_id": name}
            refused = await pharia.call("POST", "/responses", body)
            assert refused.status == 400
            assert refused.error["code"] == "previous_response_not_ready"
            assert f"'{name}' is still in_progress" in refused.error["message"]
    for name in (handle, _permanent(handle)):
        cancelled = await pharia.call("POST", f"/responses/{name}/cancel")
        assert (cancelled.status, cancelled.json()["status"]) == (200, "cancelled")
        assert cancelled.json()["id"] == handle
    assert len(replay_server.creates) == 1


@pytest.mark.parametrize(
    ("status", "kind"), [(400, "guardrail_violation"), (500, "server_error"), (422, "guardrail_violation")]
)
async def test_a_failure_of_pharia_has_its_documented_form(
    pharia: Gateway, replay_server: ReplayServer, status: int, kind: str
) -> None:
    replay_server.script(*[json_answer(GUARDRAIL, status)] * 2)  # an error of its own (500) gets a second try
    created = await _created(pharia)
    failed = await _polled(pharia, created["id"])
    assert {name: failed[name] for name in ("id", "object", "model", "status", "background", "output")} == {
        "id": created["id"],
        "object": "response",
        "model": "tiny",
        "status": "failed",
        "background": True,
        "output": [],
    }
    assert isinstance(failed["created_at"], int)
    assert failed["error"]["type"] == kind
    assert failed["error"]["message"].startswith(GUARDRAIL["error"]["message"])
    counts = ("input_tokens", "output_tokens", "total_tokens")
    assert [failed["usage"][name] for name in counts] == [0, 0, 0]
    assert (await pharia.call("GET", f"/responses/{_permanent(created['id'])}")).json() == failed


async def test_a_late_failure_of_pharia_keeps_what_there_was(
    pharia: Gateway, replay_server: ReplayServer
) -> None:
    for _ in range(2):  # nobody saw the first attempt: there is another
        broken = replay("vllm/responses-stream")
        broken.blocks = broken.blocks[:8]
        replay_server.script(broken)
    failed = await _polled(pharia, (await _created(pharia))["id"])
    assert failed["status"] == "failed", failed
    assert failed["error"]["type"] == "server_error"
    assert failed["output"][0]["content"][0]["text"]


async def test_events_of_pharia_embed_the_object_that_a_poll_shows(
    pharia: Gateway, replay_server: ReplayServer
) -> None:
    broken = replay("vllm/responses-stream")
    broken.blocks = broken.blocks[:8]
    replay_server.script(replay("vllm/responses-stream"), broken)
    for ending in ("completed", "failed"):
        body = {**ASK, "stream": True}
        answer = await pharia.call("POST", "/responses", body)
        assert answer.status == 200
        events = [payload(event) for event in frames(answer.body)]
        embedded = [event["response"] for event in events if "response" in event]
        handle = embedded[0]["id"]
        assert handle.startswith("req_")
        assert [each["id"] for each in embedded[:3]] == [handle] * 3
        assert [each["status"] for each in embedded] == ["in_progress"] * 3 + [ending]
        assert embedded[-1] == await _polled(pharia, handle)
        assert await pharia.replay(handle) == await pharia.replay(_permanent(handle)) == answer.body
        assert await pharia.replay(handle, after=2) == b"".join(frames(answer.body)[3:])


async def test_the_documented_python_loop_of_pharia_works_with_the_sdk(pharia: Gateway) -> None:
    client = pharia.client()
    response = await client.responses.create(model="tiny", input="A poem.", background=True)
    assert (response.id[:4], response.status) == ("req_", "in_progress")
    await pharia.log_of_end(_permanent(response.id))
    result = await client.responses.retrieve(response.id)
    assert (result.status, result.id) == ("completed", _permanent(response.id))
    assert result.output_text
    follow_up = await client.responses.create(
        model="tiny", input="Now in German.", previous_response_id=result.id, background=True
    )
    await pharia.log_of_end(_permanent(follow_up.id))
    assert (await client.responses.retrieve(follow_up.id)).output_text


# -- mka1


async def test_mka1_queues_before_it_creates(mka1: Gateway) -> None:
    created = await mka1.call("POST", "/responses", {**ASK, "stream": True})
    events = frames(created.body)
    assert _names(created.body)[:3] == ["response.queued", "response.created", "response.in_progress"]
    assert numbers(events) == list(range(len(events)))
    assert payload(events[-1])["type"] == "response.completed"
    assert [event.split(b"\n")[0] for event in events[:2]] == [
        b"event: response.queued",
        b"event: response.created",
    ]


async def test_mka1_streams_a_response_that_was_created_without_stream_live(
    mka1: Gateway, replay_server: ReplayServer
) -> None:
    held = replay_server.script(replay("vllm/responses-stream", hold_after=5))
    created = await _created(mka1, stream=False)
    assert (created["status"], created["id"][:5]) == ("queued", "resp_")
    await within(held.held.wait())
    running = (await mka1.call("GET", f"/responses/{created['id']}")).json()
    assert running["status"] == "in_progress"
    async with mka1.events(f"/responses/{created['id']}?stream=true") as events:
        seen = [await within(anext(events)) for _ in range(6)]
        held.release.set()
        seen += [event async for event in events]
    assert numbers(seen) == list(range(len(seen)))
    assert payload(seen[-1])["type"] == "response.completed"


@pytest.mark.parametrize(
    ("name", "ending"),
    [
        ("vllm/responses-stream", "completed"),
        ("vllm/responses-max-output-tokens-stream", "incomplete"),
        ("vllm/responses-error-bad-model-stream", "failed"),
    ],
)
@pytest.mark.parametrize("stream", [True, False])
async def test_an_ended_one_of_mka1_is_streamed_as_its_terminal_event_alone(
    mka1: Gateway, replay_server: ReplayServer, name: str, ending: str, stream: bool
) -> None:
    replay_server.script(replay(name))
    answer = await mka1.call("POST", "/responses", {**ASK, "stream": stream})
    first = payload(frames(answer.body)[0])["response"] if stream else answer.json()
    final = await mka1.ended(first["id"])
    assert final["status"] == ending
    [only] = frames(await mka1.replay(first["id"]))
    assert payload(only)["type"] == f"response.{ending}"
    assert payload(only)["response"] == final
    last = payload(only)["sequence_number"]
    assert await mka1.replay(first["id"], after=last) == b""
    if stream:  # whoever comes back with a cursor gets what it has missed
        assert await mka1.replay(first["id"], after=2) == b"".join(frames(answer.body)[3:])
    refused = await mka1.call("POST", f"/responses/{first['id']}/cancel")
    assert (refused.status, refused.error["type"]) == (400, "invalid_request_error")


async def test_a_running_one_of_mka1_is_cancelled_and_its_stream_ends(
    mka1: Gateway, replay_server: ReplayServer
) -> None:
    held = replay_server.script(replay("vllm/responses-stream", hold_after=5))
    created = await _created(mka1)
    await within(held.held.wait())
    async with mka1.events(f"/responses/{created['id']}?stream=true") as events:
        await within(anext(events))
        assert (await mka1.call("POST", f"/responses/{created['id']}/cancel")).json()["status"] == "cancelled"
        *_, last = [event async for event in events]
    assert payload(last)["response"]["status"] == "cancelled"
    assert len(frames(await mka1.replay(created["id"]))) == 1


# -- openai


async def test_openai_has_none_of_this(gateway: Gateway) -> None:
    created = await _created(gateway)
    assert (created["status"], created["id"][:5]) == ("queued", "resp_")
    await gateway.ended(created["id"])
    refused = await gateway.call("GET", f"/responses/{created['id']}?stream=true")
    assert (refused.status, refused.error["param"]) == (400, "stream")
    handle = created["id"].replace("resp_", "req_")
    missing = await gateway.call("GET", f"/responses/{handle}")
    assert (missing.status, missing.error["message"]) == (404, f"Response with id '{handle}' not found.")
    streamed = await gateway.call("POST", "/responses", {**ASK, "stream": True})
    assert _names(streamed.body)[:2] == ["response.created", "response.queued"]
    response_id = payload(frames(streamed.body)[0])["response"]["id"]
    assert await gateway.replay(response_id) == streamed.body
