"""Every recorded stream of three real servers, through the gateway, into the official client."""

from __future__ import annotations

import re
from typing import Any

import orjson
import pytest
from openai.types.responses import Response

from tests.acceptance.harness import Gateway, frames, numbers, payload
from tests.acceptance.replay import Recording, ReplayServer, recorded, recording, replay

SERVERS = ("vllm", "llama-slow", "transformers")


def _ask(found: Recording) -> dict[str, Any]:
    """What the real server was asked, made a background request."""
    asked = orjson.loads(found.asked or b'{"model": "tiny", "input": "Go on."}')
    return {**asked, "background": True, "stream": True, "store": True}


_WEB_ADDRESS = re.compile(r"https://\S+")


def _texts(response: dict[str, Any]) -> list[str]:
    parts = (part for item in response["output"] for part in item.get("content") or [])
    return [part["text"] for part in parts if "text" in part]


def _recorded_end(found: Recording) -> dict[str, Any]:
    """The final object in a recorded stream."""
    whole = [frame for frame in frames(found.body) if b"data: {" in frame]
    last = whole[-1]
    ended: dict[str, Any] = payload(b"\n" + last)["response"]
    return ended


@pytest.mark.parametrize("server", SERVERS)
async def test_every_recorded_stream_becomes_one_that_the_sdk_accepts(
    gateway: Gateway, replay_server: ReplayServer, server: str
) -> None:
    names = recorded(server, is_stream=True)
    assert len(names) >= 4
    client = gateway.client()
    for name in names:
        found = recording(name)
        replay_server.script(replay(name))
        created = await gateway.call("POST", "/responses", _ask(found))
        events = frames(created.body)
        assert numbers(events) == list(range(len(events))), name
        final = payload(events[-1])["response"]
        assert Response.model_validate(final).id == final["id"], name
        assert _texts(final) == _texts(_recorded_end(found)), name
        assert final["status"] == _recorded_end(found)["status"], name
        stored = await gateway.call("GET", f"/responses/{final['id']}")
        assert stored.json() == final, name
        async with client.responses.stream(response_id=final["id"]) as stream:
            seen = [event async for event in stream]
        assert [event.sequence_number for event in seen] == numbers(events), name
        if final["status"] == "completed":
            helped = await stream.get_final_response()
            assert helped.output_text == Response.model_validate(final).output_text, name


@pytest.mark.parametrize("server", SERVERS)
async def test_a_recorded_tool_call_arrives_whole(
    gateway: Gateway, replay_server: ReplayServer, server: str
) -> None:
    found = recording(f"{server}/responses-tool-stream")
    replay_server.script(replay(found.name))
    client = gateway.client()
    stream = await client.responses.create(**_ask(found))
    events = [event async for event in stream]
    last = events[-1]
    assert last.type == "response.completed"
    [call] = [item for item in last.response.output if item.type == "function_call"]
    [recorded_call] = [item for item in _recorded_end(found)["output"] if item["type"] == "function_call"]
    assert (call.name, call.arguments) == (recorded_call["name"], recorded_call["arguments"])
    deltas = [event.delta for event in events if event.type == "response.function_call_arguments.delta"]
    assert "".join(deltas) == call.arguments
    done = [event for event in events if event.type == "response.function_call_arguments.done"]
    assert [event.arguments for event in done] == [call.arguments]


@pytest.mark.parametrize("server", SERVERS)
async def test_a_server_that_answers_a_background_call_with_one_object_is_streamed_all_the_same(
    gateway: Gateway, replay_server: ReplayServer, server: str
) -> None:
    client = gateway.client()
    for name in recorded(server, is_stream=False):
        found = recording(name)
        answer = _answer_object(found)
        if answer is None or answer.get("status") not in ("completed", "incomplete"):
            continue
        replay_server.script(replay(name))
        created = await gateway.call("POST", "/responses", _ask(recording(f"{server}/responses-stream")))
        events = frames(created.body)
        final = payload(events[-1])["response"]
        assert final["status"] == answer["status"], name
        # A message that says nothing is none: transformers sends one before each call.
        assert _texts(final) == [text for text in _texts(answer) if text], name
        async with client.responses.stream(response_id=final["id"]) as stream:
            assert [event.sequence_number async for event in stream] == numbers(events), name


def _answer_object(found: Recording) -> dict[str, Any] | None:
    parsed = orjson.loads(found.body) if found.body[:1] == b"{" else None
    return parsed if isinstance(parsed, dict) and isinstance(parsed.get("output"), list) else None


@pytest.mark.parametrize("server", [*SERVERS, "llamacpp-python"])
async def test_every_recorded_refusal_becomes_a_failed_response_with_the_servers_own_words(
    gateway: Gateway, replay_server: ReplayServer, server: str
) -> None:
    names = [name for name in recorded(server, is_stream=False, is_error=True) if "get-unknown" not in name]
    assert names
    client = gateway.client()
    for name in names:
        found = recording(name)
        # Some servers say 500 to what was wrong in the request: then they are asked twice.
        replay_server.script(*(replay(name) for _ in range(2 if found.status == 500 else 1)))
        created = await gateway.call("POST", "/responses", _ask(recording("vllm/responses-stream")))
        events = frames(created.body)
        assert [payload(event)["type"] for event in events] == [
            *("response.created", "response.queued", "response.in_progress", "response.failed")
        ], name
        final = await client.responses.retrieve(payload(events[-1])["response"]["id"])
        assert final.status == "failed", name
        assert final.error is not None, name
        assert _WEB_ADDRESS.sub("***", _words(found)) in final.error.message, name


def _words(found: Recording) -> str:
    """The message in a recorded error."""
    try:
        parsed = orjson.loads(found.body)
    except orjson.JSONDecodeError:
        return found.body.decode()
    error = parsed.get("error", parsed)
    message = error.get("message") or error.get("detail")
    if isinstance(message, list):  # FastAPI's problems
        return "; ".join(f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in message)
    assert isinstance(message, str)
    return message
