"""Ends and starts of the process: killed, stopped under load, started twice on one file."""

from __future__ import annotations

import asyncio
import signal

import pytest
from openai import InternalServerError

from tests.acceptance.conftest import StartGateway
from tests.acceptance.harness import Gateway, frames, numbers, payload, within
from tests.acceptance.replay import ReplayServer, replay

ASK = {"model": "tiny", "input": "Count to 5.", "background": True}
STREAMED = {**ASK, "stream": True}


async def test_what_was_queued_when_the_process_was_killed_runs_after_the_restart(
    start_gateway: StartGateway, replay_server: ReplayServer
) -> None:
    gateway = await start_gateway(BACKBURNER_UPSTREAM__CONCURRENCY_MAX="1")
    held = replay_server.script(replay("vllm/responses-stream", hold_after=0))
    accepted = [(await gateway.call("POST", "/responses", ASK)).json()["id"] for _ in range(5)]
    await within(held.held.wait())
    await gateway.kill9()
    await gateway.restart()
    for response_id in accepted:
        final = await gateway.ended(response_id)
        assert (final["id"], final["status"]) == (response_id, "completed")
    assert len(replay_server.creates) == 1 + len(accepted)


async def test_a_stream_killed_in_mid_output_fails_and_keeps_every_byte_that_was_seen(
    gateway: Gateway, replay_server: ReplayServer
) -> None:
    held = replay_server.script(replay("vllm/responses-stream", hold_after=10))
    async with gateway.events("/responses", STREAMED) as events:
        seen = [await within(anext(events)) for _ in range(10)]
        await within(held.held.wait())
        await gateway.kill9()
    await gateway.restart()
    response_id = payload(seen[0])["response"]["id"]
    final = await gateway.ended(response_id)
    assert final["status"] == "failed"
    assert "interrupted by a restart" in final["error"]["message"]
    assert final["output"][0]["content"][0]["text"].startswith("one two three four five")
    assert final["output"][0]["status"] == "incomplete"
    replayed = frames(await gateway.replay(response_id))
    assert replayed[: len(seen)] == seen
    assert payload(replayed[-1]) == {
        "type": "response.failed",
        "sequence_number": len(replayed) - 1,
        "response": final,
    }
    assert numbers(replayed) == list(range(len(replayed)))
    tail = await gateway.replay(response_id, after=len(seen) - 1)
    assert tail == b"".join(replayed[len(seen) :])
    client = gateway.client()
    stream = await client.responses.retrieve(response_id, stream=True, starting_after=len(seen) - 1)
    assert [event.type async for event in stream][-1] == "response.failed"
    assert len(replay_server.creates) == 1


@pytest.mark.parametrize("hold_after", [-1, 10])
async def test_a_polled_response_runs_again_after_a_kill_and_its_client_notices_nothing(
    gateway: Gateway, replay_server: ReplayServer, hold_after: int
) -> None:
    held = replay_server.script(replay("vllm/responses-stream", hold_after=hold_after))
    response_id = (await gateway.call("POST", "/responses", ASK)).json()["id"]
    await within(held.held.wait())
    await gateway.kill9()
    await gateway.restart()
    final = await gateway.ended(response_id)
    assert final["status"] == "completed"
    assert final["output"][0]["content"][0]["text"].startswith("one two three four five")
    assert len(final["output"]) == 1
    first, second = replay_server.creates
    assert first.body == second.body
    assert first.header("idempotency-key") == second.header("idempotency-key")


async def test_streams_of_any_response_begin_with_those_accepted_under_that_setting(
    gateway: Gateway, replay_server: ReplayServer
) -> None:
    held = replay_server.script(replay("vllm/responses-stream", hold_after=10))
    response_id = (await gateway.call("POST", "/responses", ASK)).json()["id"]
    await within(held.held.wait())
    await gateway.kill9()
    held = replay_server.script(replay("vllm/responses-stream", hold_after=10))
    await gateway.restart(BACKBURNER_BACKGROUND__RESUME="any")
    await within(held.held.wait())  # it runs again, which a reader of the first run would have noticed
    refused = await gateway.call("GET", f"/responses/{response_id}?stream=true")
    assert (refused.status, refused.json()["error"]["param"]) == (400, "stream")
    held.release.set()
    assert (await gateway.ended(response_id))["status"] == "completed"
    assert numbers(replayed := frames(await gateway.replay(response_id))) == list(range(len(replayed)))


async def test_a_silent_stream_runs_again_after_a_kill_and_resumes(
    gateway: Gateway, replay_server: ReplayServer
) -> None:
    held = replay_server.script(replay("vllm/responses-stream", hold_after=-1))
    async with gateway.events("/responses", STREAMED) as events:
        seen = [await within(anext(events)) for _ in range(3)]
        await within(held.held.wait())
        await gateway.kill9()
    await gateway.restart()
    response_id = payload(seen[0])["response"]["id"]
    replayed = frames(await gateway.replay(response_id))
    assert replayed[:3] == seen
    assert payload(replayed[-1])["type"] == "response.completed"
    assert numbers(replayed) == list(range(len(replayed)))


async def test_ended_responses_are_the_same_bytes_after_a_kill(gateway: Gateway) -> None:
    streamed = (await gateway.call("POST", "/responses", STREAMED)).body
    response_id = payload(frames(streamed)[0])["response"]["id"]
    polled = (await gateway.call("GET", f"/responses/{response_id}")).body
    items = (await gateway.call("GET", f"/responses/{response_id}/input_items")).body
    await gateway.kill9()
    await gateway.restart()
    assert await gateway.replay(response_id) == streamed
    assert (await gateway.call("GET", f"/responses/{response_id}")).body == polled
    assert (await gateway.call("GET", f"/responses/{response_id}/input_items")).body == items


async def test_recovery_never_runs_nothing_again(
    start_gateway: StartGateway, replay_server: ReplayServer
) -> None:
    gateway = await start_gateway(BACKBURNER_BACKGROUND__RECOVERY="never")
    held = replay_server.script(replay("vllm/responses-stream", hold_after=-1))
    response_id = (await gateway.call("POST", "/responses", ASK)).json()["id"]
    await within(held.held.wait())
    await gateway.kill9()
    await gateway.restart()
    final = await gateway.ended(response_id)
    assert final["status"] == "failed"
    assert "restart" in final["error"]["message"]
    assert len(replay_server.creates) == 1


async def test_sigterm_under_load_lets_running_responses_end(
    gateway: Gateway, replay_server: ReplayServer
) -> None:
    answers = [replay("vllm/responses-stream", hold_after=8) for _ in range(8)]
    replay_server.script(*answers)
    client = gateway.client()
    reading = [asyncio.create_task(gateway.call("POST", "/responses", STREAMED)) for _ in range(4)]
    polled = [await client.responses.create(model="tiny", input="C", background=True) for _ in range(4)]
    for answer in answers:
        await within(answer.held.wait())
    gateway.send(signal.SIGTERM)
    await gateway.line(event="draining")
    with pytest.raises(InternalServerError) as refused:
        await client.responses.create(model="tiny", input="too late", background=True)
    assert (refused.value.status_code, refused.value.code) == (503, "shutting_down")
    async with gateway.http.get(f"{gateway.admin}/readyz") as readiness:
        assert readiness.status == 503
    for path in ("/models", f"/responses/{polled[0].id}"):
        served = await gateway.call("GET", path)
        assert (served.status, served.headers["connection"]) == (200, "close")
    replay_server.release_all()
    for reader in reading:
        assert payload(frames((await reader).body)[-1])["type"] == "response.completed"
    assert await gateway.exit_status() == 0
    await gateway.restart()
    for created in polled:
        kept = await gateway.call("GET", f"/responses/{created.id}")
        assert kept.json()["status"] == "completed"
    assert len(replay_server.creates) == len(answers)


async def test_sigterm_hands_over_what_does_not_end_in_time(
    start_gateway: StartGateway, replay_server: ReplayServer
) -> None:
    gateway = await start_gateway(BACKBURNER_SERVER__DRAIN_TIMEOUT_S="0")
    held = replay_server.script(replay("vllm/responses-stream", hold_after=8))
    streaming = asyncio.create_task(gateway.call("POST", "/responses", STREAMED))
    await within(held.held.wait())
    silent = replay_server.script(replay("vllm/responses-stream", hold_after=-1))
    polled = (await gateway.call("POST", "/responses", ASK)).json()["id"]
    await within(silent.held.wait())
    assert await within(gateway.stop(), 10) == 0
    seen = frames((await streaming).body)
    await gateway.restart()
    response_id = payload(seen[0])["response"]["id"]
    replayed = frames(await gateway.replay(response_id))
    assert replayed[: len(seen)] == seen
    assert payload(replayed[-1])["type"] == "response.failed"
    assert "shut down" in payload(replayed[-1])["response"]["error"]["message"]
    assert (await gateway.ended(polled))["status"] == "completed"


async def test_a_second_sigterm_ends_the_process_at_once_and_loses_nothing_that_was_accepted(
    gateway: Gateway, replay_server: ReplayServer
) -> None:
    held = replay_server.script(replay("vllm/responses-stream", hold_after=-1))
    response_id = (await gateway.call("POST", "/responses", ASK)).json()["id"]
    await within(held.held.wait())
    gateway.send(signal.SIGTERM)
    await gateway.line(event="draining")
    gateway.send(signal.SIGTERM)
    assert await within(gateway.exit_status(), 2) == 128 + signal.SIGTERM
    await gateway.restart()
    assert (await gateway.ended(response_id))["status"] == "completed"


async def test_a_second_process_on_the_same_file_is_turned_away(gateway: Gateway) -> None:
    second = Gateway(gateway.upstream, gateway.database)
    with pytest.raises(AssertionError, match="in use by process"):
        await second.start()
    assert await second.exit_status() == 75
    assert (await gateway.call("POST", "/responses", ASK)).status == 200
