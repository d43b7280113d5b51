"""A model server that fails in every way there is: the response fails precisely, and nothing hangs."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

import orjson
import pytest
from openai.types.responses import Response

from tests.acceptance.conftest import StartGateway
from tests.acceptance.harness import Gateway, frames, numbers, payload, within
from tests.acceptance.replay import Answer, End, ReplayServer, json_answer, recording, replay

ASK = {"model": "tiny", "input": "Count to 5.", "background": True, "stream": True}
FAST = {
    "BACKBURNER_UPSTREAM__HEAD_TIMEOUT_S": "1",
    "BACKBURNER_UPSTREAM__IDLE_TIMEOUT_S": "1",
    "BACKBURNER_UPSTREAM__CONNECT_ATTEMPTS_MAX": "2",
    "BACKBURNER_UPSTREAM__DOWN_WAIT_S": "0.001",
    "BACKBURNER_UPSTREAM__RETRY_AFTER_TIMES_MAX": "0",
    "BACKBURNER_BACKGROUND__EVENT_BYTES_MAX": "4096",
}
PIECES = frames(recording("vllm/responses-stream").body)
FIRST_WORDS = "one two three four"


@dataclass(frozen=True)
class Fault:
    """What the model server does, and what the client must be told."""

    name: str
    answer: Answer
    message: str
    code: str = "server_error"
    keeps_output: bool | None = False  # None: depends on how the bytes arrive


def _error(status: int, message: str, code: str | None = None) -> Answer:
    return json_answer({"error": {"message": message, "type": "x", "param": None, "code": code}}, status)


def _cut(end: End) -> Answer:
    return Answer(PIECES[:6], end=end)


def _html(status: int) -> Answer:
    return Answer([b"<html><body>nginx</body></html>"], status, {"Content-Type": "text/html"})


_BROKE = "The connection to the backend broke before the response was complete."
_CLOSED = "The backend closed the stream before the response was complete."
FAULTS = [
    Fault("the head does not come", replay("vllm/responses-stream", hold_after=-1), "not answer within 1 s"),
    Fault(
        "silence in the middle",
        replay("vllm/responses-stream", hold_after=6),
        "The backend sent nothing for 1 s.",
        keeps_output=True,
    ),
    Fault("reset in the middle", _cut(End.RESET), _BROKE, keeps_output=True),
    Fault("closed in the middle of a chunked body", _cut(End.FIN), _BROKE, keeps_output=True),
    Fault("an orderly end before the terminal event", _cut(End.PROPER), _CLOSED, keeps_output=True),
    Fault("nothing but a head", Answer([]), _CLOSED),
    Fault("a page of HTML", _html(200), "'text/html' in place of an event stream"),
    Fault("an HTML error", _html(502), "The backend answered with status 502."),
    Fault(
        "an event that is not JSON",
        Answer([*PIECES[:6], b"event: response.output_text.delta\ndata: {oops\n\n"]),
        "The backend sent an event that is not a JSON object.",
        keeps_output=True,
    ),
    Fault(
        "an event over the limit",
        Answer([*PIECES[:6], b"data: " + b"x" * 8192 + b"\n\n"]),
        "sent more than 4096 bytes in one event",
        keeps_output=None,
    ),
    Fault(
        "an event that never ends",
        Answer([*PIECES[:6], *[b"data: " + b"x" * 1024] * 8], hold_after=14),
        "sent more than 4096 bytes in one event",
        keeps_output=None,
    ),
    Fault(
        "an error event",
        Answer([*PIECES[:6], b'event: error\ndata: {"error":{"message":"out of memory","code":500}}\n\n']),
        "out of memory",
        keeps_output=True,
    ),
    Fault("a JSON answer that is no Response", json_answer({"id": "x"}), "neither an event stream nor"),
    Fault("401", _error(401, "Invalid key"), "Invalid key", "invalid_api_key"),
    Fault("404", _error(404, "No such model"), "No such model", "model_not_found"),
    Fault("429", _error(429, "Slow down"), "Slow down", "rate_limit_exceeded"),
    Fault("no quota", _error(429, "Pay", "insufficient_quota"), "Pay", "insufficient_quota"),
    Fault("500", _error(500, "Engine died"), "Engine died"),
    Fault("503", Answer([b"busy"], 503, {"Content-Type": "text/plain"}), "status 503: busy"),
    Fault(
        "a redirect",
        Answer([], 307, {"Location": "http://127.0.0.1:9/v1/responses"}),
        "redirect (status 307), which is not followed",
    ),
    Fault(
        "a compressed answer",
        Answer([b"\x1f\x8b"], 200, {"Content-Type": "text/event-stream", "Content-Encoding": "gzip"}),
        "compressed its answer",
    ),
]


async def test_every_fault_ends_the_stream_with_one_precise_failure(
    start_gateway: StartGateway, replay_server: ReplayServer
) -> None:
    gateway = await start_gateway(**FAST, BACKBURNER_BACKGROUND__RECOVERY="never")
    client = gateway.client()
    for fault in FAULTS:
        replay_server.script(fault.answer)
        created = await within(gateway.call("POST", "/responses", ASK), 10)
        events = frames(created.body)
        assert numbers(events) == list(range(len(events))), fault.name
        kinds = [payload(event)["type"] for event in events]
        assert kinds[-1] == "response.failed", fault.name
        assert kinds.count("response.failed") == 1, fault.name
        assert "error" not in kinds, fault.name
        final = await client.responses.retrieve(payload(events[-1])["response"]["id"])
        assert final.status == "failed", fault.name
        assert final.error is not None, fault.name
        assert fault.message in final.error.message, fault.name
        assert final.error.code == fault.code, fault.name
        assert "127.0.0.1" not in final.error.message, fault.name
        if fault.keeps_output:
            assert FIRST_WORDS.startswith(final.output_text), fault.name
            assert final.output_text, fault.name
            assert final.output[0].status == "incomplete", fault.name  # type: ignore[union-attr]
        elif fault.keeps_output is False:
            assert final.output == [], fault.name
        stored = await gateway.call("GET", f"/responses/{final.id}")
        assert stored.json() == payload(events[-1])["response"], fault.name
        fault.answer.release.set()
    assert len(replay_server.creates) == len(FAULTS)  # nothing was asked twice


async def test_what_came_before_an_event_over_the_limit_is_kept(
    start_gateway: StartGateway, replay_server: ReplayServer
) -> None:
    gateway = await start_gateway(**FAST)
    replay_server.script(Answer([b"".join(PIECES[:6]) + b"data: " + b"x" * 8192 + b"\n\n"]))
    created = await within(gateway.call("POST", "/responses", ASK), 10)
    final = Response.model_validate(payload(frames(created.body)[-1])["response"])
    assert final.status == "failed"
    assert FIRST_WORDS.startswith(final.output_text)
    assert final.output_text


@pytest.mark.parametrize("is_streamed", [False, True])
async def test_plain_requests_to_a_chat_backend_fail_by_the_codes_of_those_that_are_passed_on(
    start_gateway: StartGateway, replay_server: ReplayServer, is_streamed: bool
) -> None:
    gateway = await start_gateway("--api", "chat", BACKBURNER_UPSTREAM__PLAIN_HEAD_TIMEOUT_S="1")
    ask = {"model": "tiny", "input": "Count.", "stream": is_streamed}
    replay_server.script(replay("vllm/chat-stream", hold_after=-1))
    plain = await gateway.call("POST", "/responses", ask)
    assert (plain.status, plain.error["code"]) == (504, "backend_timeout")
    if not is_streamed:  # a stream that was cut has begun with 200
        pieces = frames(recording("vllm/chat-stream").body)[:2]
        replay_server.script(*(Answer(pieces, end=End.RESET) for _ in range(2)))  # it is asked for twice
        plain = await gateway.call("POST", "/responses", ask)
        assert (plain.status, plain.error["code"]) == (502, "backend_disconnected")
    await replay_server.stop()
    plain = await gateway.call("POST", "/responses", ask)
    assert (plain.status, plain.error["code"]) == (502, "backend_unreachable")


async def test_a_client_that_hangs_up_right_after_the_head_does_not_stop_its_job(
    gateway: Gateway, replay_server: ReplayServer
) -> None:
    held = replay_server.script(replay("vllm/responses-stream", hold_after=6))
    async with gateway.events("/responses", ASK) as events:
        response_id = payload(await anext(events))["response"]["id"]
    held.release.set()
    assert (await gateway.ended(response_id))["status"] == "completed"
    assert not replay_server.creates[0].gone.is_set()


async def test_a_client_that_hangs_up_without_reading_the_answer_does_not_stop_its_job(
    gateway: Gateway, replay_server: ReplayServer
) -> None:
    """The first five leave as soon as their request is out, the last when it has been accepted."""
    for _ in range(5):
        await _hang_up(await _send(gateway))
        await gateway.call("GET", "/responses/resp_none")
    writer = await _send(gateway)
    await gateway.line(event="job", to="queued")
    await _hang_up(writer)
    await replay_server.create(0)
    # Each call of the model server is a job that was accepted: its id is the call's idempotency key.
    for response_id in {call.header("idempotency-key") for call in replay_server.creates}:
        assert response_id is not None
        assert (await gateway.log_of_end(response_id))["to"] == "completed"


async def _send(gateway: Gateway) -> asyncio.StreamWriter:
    """A create request on its way, by a client that will not read."""
    host, port = gateway.url.split("/")[2].split(":")
    body = orjson.dumps({**ASK, "stream": False})
    _, writer = await asyncio.open_connection(host, int(port))
    head = f"POST /v1/responses HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
    writer.write(head.encode() + body)
    await writer.drain()
    return writer


async def _hang_up(writer: asyncio.StreamWriter) -> None:
    writer.close()
    await writer.wait_closed()


@pytest.mark.parametrize("path", ["/responses", "/chat/completions"])
async def test_dropping_a_plain_stream_stops_the_model_server_within_a_second(
    gateway: Gateway, replay_server: ReplayServer, path: str
) -> None:
    name = "vllm/responses-stream" if path == "/responses" else "vllm/chat-stream"
    held = replay_server.script(replay(name, hold_after=3))
    body = {
        "model": "tiny",
        "stream": True,
        "input": "Count.",
        "messages": [{"role": "user", "content": "C"}],
    }
    async with gateway.http.post(gateway.url + path, json=body) as answer:
        await within(held.held.wait())
        assert await within(answer.content.readany())
        answer.close()
    call = await replay_server.create(0)
    await within(call.gone.wait(), 1)


async def test_dropping_a_plain_request_that_has_no_answer_yet_stops_the_model_server(
    gateway: Gateway, replay_server: ReplayServer
) -> None:
    held = replay_server.script(replay("vllm/responses-sync", hold_after=-1))
    asking = asyncio.create_task(gateway.call("POST", "/responses", {"model": "tiny", "input": "Count."}))
    await within(held.held.wait())
    asking.cancel()
    call = await replay_server.create(0)
    await within(call.gone.wait(), 1)


async def test_a_response_past_its_deadline_fails_and_stops_the_model_server(
    start_gateway: StartGateway, replay_server: ReplayServer
) -> None:
    gateway = await start_gateway(BACKBURNER_BACKGROUND__DEADLINE_S="1")
    held = replay_server.script(replay("vllm/responses-stream", hold_after=6))
    created = await within(gateway.call("POST", "/responses", ASK), 10)
    last = payload(frames(created.body)[-1])
    assert last["type"] == "response.failed"
    assert last["response"]["error"]["message"] == "The response was not complete before its deadline."
    assert last["response"]["output"][0]["status"] == "incomplete"
    await within(replay_server.creates[0].gone.wait(), 1)
    assert held.held.is_set()
