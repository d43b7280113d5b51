"""Model servers that answer 200 and then tell of a failure, or send a stream as something else."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import orjson
import pytest

from tests.acceptance.conftest import StartGateway
from tests.acceptance.harness import Gateway, frames, payload, within
from tests.acceptance.replay import Answer, ReplayServer, json_answer, recording, replay

ASK: dict[str, Any] = {"model": "tiny", "input": "Count to 5.", "background": True}
PLAIN: dict[str, Any] = {"model": "tiny", "input": "Count to 5."}
BEGUN = frames(recording("vllm/responses-stream").body)
CHAT = frames(recording("vllm/chat-stream").body)

LIMITED = {"code": "rate_limit_exceeded", "message": "Limit reached. Please try again in 900ms."}
LOADED = {"type": "service_unavailable_error", "code": "server_is_overloaded", "message": "Later, please."}
AGGREGATED = {"code": 429, "message": "Provider returned error", "metadata": {"raw": "Slow down"}}


def error(told: dict[str, Any]) -> bytes:
    return b"event: error\ndata: %b\n\n" % orjson.dumps({"type": "error", "error": told})


def failed(told: dict[str, Any]) -> bytes:
    response = {"id": "resp_theirs", "object": "response", "status": "failed", "output": [], "error": told}
    return b"data: %b\n\n" % orjson.dumps({"type": "response.failed", "response": response})


def chunk(told: dict[str, Any]) -> bytes:
    return b"data: %b\n\n" % orjson.dumps({"object": "chat.completion.chunk", "choices": [], "error": told})


# -- background


def _numbers(cases: Sequence[Any]) -> list[str]:
    """Names that are the same in every process: an `Answer` shows its address."""
    return [str(number) for number in range(len(cases))]


@pytest.mark.parametrize(
    ("api", "blocks"),
    [
        ("responses", [*BEGUN[:2], failed(LIMITED)]),
        ("responses", [*BEGUN[:2], error(LOADED)]),
        ("responses", [error({"type": "overloaded_error", "message": "Overloaded"})]),
        ("chat", [b": PROCESSING\n\n", chunk(AGGREGATED)]),
        ("chat", [b'data: {"error":{"message":"upstream connect error or disconnect"}}\n\n']),
    ],
    ids=str,
)
async def test_no_time_told_before_any_output_is_waited_for_like_503(
    start_gateway: StartGateway, replay_server: ReplayServer, api: str, blocks: list[bytes]
) -> None:
    gateway = await start_gateway("--api", api, BACKBURNER_BACKGROUND__RECOVERY="never")
    replay_server.script(Answer(blocks))
    answer = await within(gateway.call("POST", "/responses", {**ASK, "stream": True}))
    assert payload(frames(answer.body)[-1])["type"] == "response.completed"
    waiting = await gateway.line(event="job", to="waiting", reason="upstream_put_off")
    assert waiting["after_s"] >= (0.8 if LIMITED["message"].encode() in blocks[-1] else 0.4)
    assert len(replay_server.creates) == 2, "and it was no attempt, of which this one has one"


async def test_an_error_that_may_pass_is_an_attempt(
    start_gateway: StartGateway, replay_server: ReplayServer
) -> None:
    gateway = await start_gateway("--api", "chat")
    gone = {"code": 502, "message": "The provider went away."}
    replay_server.script(Answer([chunk(gone)]), Answer([chunk(gone)]))
    ended = await gateway.ended((await gateway.call("POST", "/responses", ASK)).json()["id"])
    assert ended["error"] == {
        "code": "server_error",
        "message": "The provider went away. (The backend was asked 2 times.)",
    }


@pytest.mark.parametrize("told", [LIMITED, LOADED], ids=str)
async def test_no_time_told_after_output_was_shown_fails_the_response_and_keeps_the_output(
    start_gateway: StartGateway, replay_server: ReplayServer, told: dict[str, Any]
) -> None:
    gateway = await start_gateway("--api", "responses")
    replay_server.script(Answer([*BEGUN[:8], failed(told)]))
    answer = await within(gateway.call("POST", "/responses", {**ASK, "stream": True}))
    last = payload(frames(answer.body)[-1])["response"]
    assert (last["status"], last["error"]) == ("failed", {"code": told["code"], "message": told["message"]})
    assert last["output"][0]["content"][0]["text"]
    assert len(replay_server.creates) == 1


async def test_the_others_leave_a_server_alone_that_said_so_in_its_stream(
    start_gateway: StartGateway, replay_server: ReplayServer
) -> None:
    gateway = await start_gateway("--api", "responses", BACKBURNER_UPSTREAM__CONCURRENCY_MAX="1")
    replay_server.script(Answer([error({**LOADED, "retry_after": 2})]))
    jobs = [(await gateway.call("POST", "/responses", ASK)).json()["id"] for _ in range(4)]
    await gateway.line(event="job", to="waiting")
    assert await gateway.metric('backburner_replica_resting{backend="default",replica="0"}') == 1
    for job in jobs:
        assert (await gateway.log_of_end(job))["to"] == "completed"
    first, second, *others = replay_server.creates
    assert second.at - first.at >= 1.8
    assert len(others) == len(jobs) - 1


async def test_the_rate_limit_of_one_caller_told_in_a_stream_keeps_no_other_waiting(
    start_gateway: StartGateway, replay_server: ReplayServer
) -> None:
    gateway = await start_gateway("--api", "responses", BACKBURNER_UPSTREAM__CONCURRENCY_MAX="1")
    replay_server.script(Answer([failed({**LIMITED, "message": "Please try again in 2s."})]))
    mine = (await gateway.call("POST", "/responses", ASK, key="sk-a")).json()["id"]
    await gateway.line(event="job", id=mine, to="waiting")
    theirs = (await gateway.call("POST", "/responses", ASK, key="sk-b")).json()["id"]
    for job in (theirs, mine):
        assert (await gateway.log_of_end(job))["to"] == "completed"
    order = [call.header("authorization") for call in replay_server.creates]
    assert order == ["Bearer sk-a", "Bearer sk-b", "Bearer sk-a"]


LAST_WORDS = [
    ("responses", [*BEGUN[:2], error({"message": "prompt is too long: 9 > 8"})], "context_length_exceeded"),
    ("responses", [b'data: {"object":"error","code":400,"message":"No"}\n\n'], "invalid_prompt"),
    ("responses", [failed({"code": "server_error", "message": "No"})], "server_error"),
    ("chat", [chunk({"code": 429, "type": "insufficient_quota", "message": "Pay"})], "insufficient_quota"),
    ("chat", [b'error: {"code":500,"message":"context size exceeded"}\n\n'], "context_length_exceeded"),
    ("chat", [chunk({"message": "Too large: model `x` does not exist", "code": 404})], "model_not_found"),
]


@pytest.mark.parametrize(("api", "blocks", "code"), LAST_WORDS, ids=str)
async def test_a_last_word_has_its_own_code_for_the_client_and_is_asked_for_once(
    start_gateway: StartGateway, replay_server: ReplayServer, api: str, blocks: list[bytes], code: str
) -> None:
    gateway = await start_gateway("--api", api)
    replay_server.script(Answer(blocks))
    job = (await gateway.call("POST", "/responses", ASK)).json()["id"]
    await gateway.log_of_end(job)
    final = await gateway.client().responses.retrieve(job)
    assert final.error is not None
    assert (final.status, final.error.code) == ("failed", code)
    assert len(replay_server.creates) == 1


async def test_an_empty_error_event_waits_for_what_says_why(
    start_gateway: StartGateway, replay_server: ReplayServer
) -> None:
    gateway = await start_gateway("--api", "responses")
    replay_server.script(
        Answer([*BEGUN[:2], b"event: error\ndata: null\n\n", failed({"message": "Out of luck."})])
    )
    ended = await gateway.ended((await gateway.call("POST", "/responses", ASK)).json()["id"])
    assert ended["error"] == {"code": "server_error", "message": "Out of luck."}
    assert len(replay_server.creates) == 1


# -- plain, translated


PLAIN_FAILURES = [
    (Answer([chunk(AGGREGATED)]), 429, "rate_limit_exceeded", None),
    (Answer([chunk({**LOADED, "retry_after": 7})]), 503, "server_is_overloaded", "7"),
    (
        Answer([b'event: error\ndata: {"message":"Input is too long"}\n\n']),
        400,
        "context_length_exceeded",
        None,
    ),
    (
        json_answer({"error": {"code": 402, "message": "Insufficient credits"}}),
        402,
        "insufficient_quota",
        None,
    ),
    (
        json_answer([{"error": {"code": 400, "message": "No", "status": "INVALID_ARGUMENT"}}]),
        400,
        "invalid_prompt",
        None,
    ),
    (json_answer({"detail": "prompt is too long"}, 500), 500, "context_length_exceeded", None),
    (json_answer({"error": "busy", "retry_after_ms": 2500}, 503), 503, "server_error", "3"),
    (Answer([b"data: "]), 502, "server_error", None),
]


@pytest.mark.parametrize("is_streamed", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize(
    ("answer", "status", "code", "retry_after"), PLAIN_FAILURES, ids=map(str, range(len(PLAIN_FAILURES)))
)
async def test_a_translated_plain_request_gets_the_status_and_the_code_of_what_failed(
    start_gateway: StartGateway,
    replay_server: ReplayServer,
    answer: Answer,
    status: int,
    code: str,
    retry_after: str | None,
    is_streamed: bool,
) -> None:
    gateway = await start_gateway("--api", "chat")
    replay_server.script(answer, answer)
    told = await gateway.call("POST", "/responses", {**PLAIN, "stream": is_streamed})
    assert (told.status, told.error["code"], told.headers.get("retry-after")) == (status, code, retry_after)


async def test_a_translated_stream_that_has_begun_ends_with_the_code(
    start_gateway: StartGateway, replay_server: ReplayServer
) -> None:
    gateway = await start_gateway("--api", "chat")
    replay_server.script(Answer([*CHAT[:4], chunk(AGGREGATED)]))
    told = await gateway.call("POST", "/responses", {**PLAIN, "stream": True})
    last = payload(frames(told.body)[-1])
    assert (told.status, last["type"]) == (200, "response.failed")
    assert last["response"]["error"]["code"] == "rate_limit_exceeded"


# -- what a stream is


def typed(answer: Answer, content_type: str | None) -> Answer:
    return Answer(answer.blocks, 200, {} if content_type is None else {"Content-Type": content_type})


LINES = [b"%b\n" % frame.removeprefix(b"data: ").strip() for frame in CHAT if b"[DONE]" not in frame]
TYPES = [
    ("chat", replay("vllm/chat-stream"), None),
    ("chat", replay("vllm/chat-stream"), "application/x-ndjson"),
    ("chat", replay("vllm/chat-stream"), "text/plain; charset=utf-8"),
    ("chat", replay("vllm/chat-stream"), "application/json"),
    ("chat", replay("vllm/chat-sync"), "text/event-stream"),
    ("chat", replay("vllm/chat-sync"), None),
    ("chat", Answer([*replay("vllm/chat-sync").blocks, b"\n\ndata: [DONE]\n\n"]), "text/event-stream"),
    ("chat", Answer(LINES), "application/x-ndjson"),
    ("responses", replay("vllm/responses-stream"), "application/octet-stream"),
    ("responses", replay("vllm/responses-sync"), "text/event-stream"),
]


@pytest.mark.parametrize(("api", "answer", "content_type"), TYPES, ids=_numbers(TYPES))
async def test_an_answer_is_what_it_looks_like_whatever_its_head_says(
    start_gateway: StartGateway,
    replay_server: ReplayServer,
    api: str,
    answer: Answer,
    content_type: str | None,
) -> None:
    gateway: Gateway = await start_gateway("--api", api)
    replay_server.script(typed(answer, content_type))
    ended = await gateway.ended((await gateway.call("POST", "/responses", ASK)).json()["id"])
    assert ended["status"] == "completed", ended["error"]
    assert ended["output"][0]["content"][0]["text"]
    if api == "chat":
        replay_server.script(typed(answer, content_type))
        assert (await gateway.call("POST", "/responses", PLAIN)).json()["output"] != []


async def test_json_lines_are_streamed_as_they_come(
    start_gateway: StartGateway, replay_server: ReplayServer
) -> None:
    gateway = await start_gateway("--api", "chat")
    held = replay_server.script(Answer(LINES, hold_after=5))
    async with gateway.events("/responses", {**ASK, "stream": True}) as events:
        async with asyncio.timeout(10):
            while payload(await anext(events))["type"] != "response.output_text.delta":
                pass
        held.release.set()
