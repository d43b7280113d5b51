"""Every recorded chat answer of a real server, as a client of the gateway gets it."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from gateway.core.job import Status
from gateway.wire import failures
from gateway.wire.sse import SseDecoder
from tests.wire.chat_play import answers, recordings, run, run_answer, shape, streams, validate

WHOLE = {name: body for name, body in streams().items() if b'"finish_reason"' in body}
ERRORS = {name: (status, body) for name, (status, _, body) in recordings().items() if status != 200}

each_stream = pytest.mark.parametrize("body", WHOLE.values(), ids=list(WHOLE))
each_answer = pytest.mark.parametrize("body", answers().values(), ids=list(answers()))
each_error = pytest.mark.parametrize(("status", "body"), ERRORS.values(), ids=list(ERRORS))


def chunks(body: bytes) -> list[dict[str, Any]]:
    frames = SseDecoder(2**20).feed(body)
    return [orjson.loads(frame.data) for frame in frames if frame.data != b"[DONE]"]


def said(body: bytes) -> tuple[str, list[tuple[str, str]]]:
    """The text and the calls of a stream, put together by hand."""
    text = ""
    calls: dict[int, list[str]] = {}
    for choice in (choice for each in chunks(body) for choice in each["choices"]):
        text += choice["delta"].get("content") or ""
        for fragment in choice["delta"].get("tool_calls") or []:
            known = calls.setdefault(fragment["index"], ["", ""])
            known[0] += fragment["function"].get("name") or ""
            known[1] += fragment["function"].get("arguments") or ""
    return text, [(name, arguments) for name, arguments in calls.values()]


def heard(output: list[dict[str, Any]]) -> tuple[str, list[tuple[str, str]]]:
    texts = [part["text"] for item in output if item["type"] == "message" for part in item["content"]]
    calls = [(item["name"], item["arguments"]) for item in output if item["type"] == "function_call"]
    return "".join(texts), calls


def test_there_are_streams_of_every_server() -> None:
    assert {name.partition("/")[0] for name in WHOLE} == {
        "vllm",
        "llama-slow",
        "transformers",
        "llamacpp-python",
    }


@each_stream
def test_stream_is_accepted_by_the_official_types_and_ends_well(body: bytes) -> None:
    played = run(body)
    validate(played)
    assert played.outcomes[0].status is Status.COMPLETED


@each_stream
def test_nothing_the_backend_said_is_lost(body: bytes) -> None:
    assert heard(run(body).final["output"]) == said(body)


@each_stream
@pytest.mark.parametrize("size", [1, 7, 64])
def test_reads_of_any_size_give_the_same_bytes(body: bytes, size: int) -> None:
    assert run(body, size).stored == run(body).stored


@each_stream
def test_usage_is_the_backends_or_null(body: bytes) -> None:
    sent = [each["usage"] for each in chunks(body) if each.get("usage")]
    timings = [each["timings"] for each in chunks(body) if each.get("timings")]
    usage = run(body).final["usage"]
    if timings and not sent:  # llama.cpp, which was not asked for usage
        assert usage["input_tokens"] == timings[-1]["prompt_n"] + timings[-1]["cache_n"]
        assert usage["output_tokens"] == timings[-1]["predicted_n"]
        return
    if not sent:
        assert usage is None
        return
    assert usage["input_tokens"] == sent[-1]["prompt_tokens"] > 0
    assert usage["output_tokens"] == sent[-1]["completion_tokens"] > 0
    assert usage["total_tokens"] == usage["input_tokens"] + usage["output_tokens"]


@each_stream
def test_stream_that_is_cut_before_its_finish_reason_fails_and_keeps_the_text(body: bytes) -> None:
    frames = body.split(b"\n\n")
    cut = next(n for n, frame in enumerate(frames) if b'"finish_reason": "' in frame or b'reason":"' in frame)
    kept = b"\n\n".join(frames[:cut]) + b"\n\n"
    played = run(kept)
    assert played.outcomes[0].status is Status.FAILED
    assert played.final["error"]["code"] == "server_error"
    assert heard(played.final["output"]) == said(kept)
    validate(played)


def test_empty_body_of_an_overlong_prompt_fails() -> None:
    body = streams()["llamacpp-python/chat-error-too-long-stream"]
    played = run(body)
    assert played.outcomes[0].reason == "upstream_closed_early"
    assert played.final["output"] == []


@each_answer
def test_answer_that_is_no_stream_says_all_of_its_first_choice(body: bytes) -> None:
    played = run_answer(body)
    validate(played)
    answer = orjson.loads(body)
    choice = answer["choices"][0]
    calls = [call["function"] for call in choice["message"].get("tool_calls") or []]
    text, heard_calls = heard(played.final["output"])
    assert text == (choice["message"]["content"] or "")
    assert heard_calls == [(call["name"], call["arguments"]) for call in calls]
    is_cut = choice["finish_reason"] == "length"
    assert played.final["status"] == ("incomplete" if is_cut else "completed")
    assert (played.final["incomplete_details"] == {"reason": "max_output_tokens"}) is is_cut
    assert played.final["usage"]["output_tokens"] == answer["usage"]["completion_tokens"]
    assert played.final["model"] == answer["model"]


def test_some_recorded_answer_was_cut_by_its_limit() -> None:
    body = answers()["vllm/chat-max-tokens"]
    (item,) = run_answer(body).final["output"]
    assert item["status"] == "incomplete"


def test_tool_call_of_a_recorded_answer_keeps_its_id() -> None:
    body = answers()["vllm/chat-tool"]
    (item,) = run_answer(body).final["output"]
    (call,) = orjson.loads(body)["choices"][0]["message"]["tool_calls"]
    assert item["call_id"] == call["id"]
    assert shape([item]) == [("function_call", "get_weather", '{"location": "Berlin"}')]


@each_error
def test_recorded_error_becomes_a_failure_with_its_message(status: int, body: bytes) -> None:
    failure = failures.of_status(status, body).failure
    parsed = orjson.loads(body)
    theirs = parsed["error"]["message"] if "error" in parsed else parsed["detail"]
    if isinstance(theirs, list):
        theirs = "; ".join(f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in theirs)
    code = "server_error" if status >= 500 else "invalid_prompt"
    code = "context_length_exceeded" if "context" in theirs else code
    assert failure["code"] == ("model_not_found" if "The model `" in theirs else code)
    assert failure["message"] == theirs.split("\n\n  File ")[0]


@pytest.mark.parametrize(
    ("status", "body", "failure"),
    [
        (429, b'{"error":{"message":"Slow down"}}', ("rate_limit_exceeded", "Slow down")),
        (429, b'{"error":{"code":"insufficient_quota","message":"Pay"}}', ("insufficient_quota", "Pay")),
        (400, b'{"object":"error","message":"Too long","code":400}', ("invalid_prompt", "Too long")),
        (422, b'{"detail":"no"}', ("invalid_prompt", "no")),
        (503, b'{"error":"model is loading"}', ("server_error", "model is loading")),
        (401, b'{"error":{"message":"Bad key"}}', ("invalid_api_key", "Bad key")),
        (502, b"<html>Bad Gateway</html>", ("server_error", "The backend answered with status 502.")),
        (500, b"Oops", ("server_error", "The backend answered with status 500: Oops")),
        (500, b"", ("server_error", "The backend answered with status 500.")),
        (400, b"[1]", ("invalid_prompt", "The backend answered with status 400: [1]")),
        (400, b"null", ("invalid_prompt", "The backend answered with status 400: null")),
    ],
)
def test_error_bodies_of_chat_servers_in_all_their_shapes(
    status: int, body: bytes, failure: tuple[str, str]
) -> None:
    code, message = failure
    assert failures.of_status(status, body).failure == {"code": code, "message": message}
