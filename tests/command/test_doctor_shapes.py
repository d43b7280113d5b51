"""What is read of the answers of real servers, in both APIs."""

from __future__ import annotations

import orjson
import pytest

from gateway.command.doctor.engines import load_in
from gateway.command.doctor.shapes import ProbeAnswer, ProbeRequest, body_of, fits_schema
from gateway.wire.speech import Api
from gateway.wire.sse import SseDecoder
from tests.acceptance.replay import recording


def read(name: str, api: Api) -> ProbeAnswer:
    """A recorded answer, read."""
    found, answer = recording(name), ProbeAnswer(status=200)
    if found.is_stream:
        decoder = SseDecoder(2**22)
        datas = [frame.data for frame in (*decoder.feed(found.body), *decoder.close())]
    else:
        datas = [found.body]
    for data in datas:
        if data.startswith(b"{"):
            answer.take(orjson.loads(data), api)
    return answer


@pytest.mark.parametrize(
    ("name", "api"),
    [
        ("vllm/responses-stream", Api.RESPONSES),
        ("vllm/responses-sync", Api.RESPONSES),
        ("vllm/chat-stream", Api.CHAT),
        ("vllm/chat-sync", Api.CHAT),
    ],
)
def test_recorded_answers_have_text_and_are_good(name: str, api: Api) -> None:
    answer = read(name, api)
    assert answer.is_good
    assert answer.text
    assert answer.pieces > 1 or not recording(name).is_stream or api is Api.CHAT


def test_usage_and_calls_are_found_where_they_stand() -> None:
    assert read("vllm/responses-stream", Api.RESPONSES).has_usage
    answer = ProbeAnswer(status=200)
    item = {"type": "function_call", "name": "weather_in", "arguments": "{}"}
    answer.take(
        {"type": "response.completed", "response": {"output": [item], "usage": {"input_tokens": 1}}},
        Api.RESPONSES,
    )
    assert (answer.calls, answer.has_usage) == (["weather_in"], True)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b'{"error":{"message":"no","code":400}}', "no"),
        (b'{"object":"error","message":"no tools","code":400}', "no tools"),
        (b'{"detail":"Not Found"}', "Not Found"),
        (b"<html><title>Bad Gateway</title></html>", "Bad Gateway"),
        (b"", "status 400 without a word"),
    ],
)
def test_errors_are_told_in_the_servers_words(body: bytes, words: str) -> None:
    answer = ProbeAnswer()
    answer.refused(400, body)
    assert (answer.is_good, answer.words) == (False, words)


@pytest.mark.parametrize(("status", "is_refusal"), [(400, True), (422, True), (429, False), (503, False)])
def test_a_server_that_is_busy_refuses_nothing(status: int, is_refusal: bool) -> None:
    answer = ProbeAnswer()
    answer.refused(status, b'{"error":{"message":"no"}}')
    assert answer.is_refusal is is_refusal
    assert not ProbeAnswer(status=200, words="The backend did not answer.", is_broken=True).is_refusal


def test_an_error_in_a_stream_is_one_and_keys_in_it_are_not_told() -> None:
    answer = ProbeAnswer(status=200)
    answer.take({"error": {"message": "Incorrect API key provided: sk-abcdefghijklmnop0123"}}, Api.CHAT)
    assert not answer.is_good
    assert "sk-abcdef" not in answer.words
    failed = ProbeAnswer(status=200)
    failed.take(
        {"type": "response.failed", "response": {"error": {"message": "out of memory"}}}, Api.RESPONSES
    )
    assert failed.words == "out of memory"


def test_requests_are_streamed_and_bounded_in_both_apis() -> None:
    ask = ProbeRequest([("user", "hi")], 16, has_tool=True, has_schema=True, more={"x": 1})
    chat = body_of(ask, Api.CHAT, "m", "max_completion_tokens")
    assert (chat["stream"], chat["max_completion_tokens"], chat["x"]) == (True, 16, 1)
    assert chat["stream_options"] == {"include_usage": True}
    responses = body_of(ask, Api.RESPONSES, "m", "max_tokens")
    assert (responses["stream"], responses["max_output_tokens"], responses["store"]) == (True, 16, False)
    assert responses["tools"][0]["name"] == chat["tools"][0]["function"]["name"]


@pytest.mark.parametrize(
    ("text", "fits"),
    [
        ('{"city":"Oslo","rains":true}', True),
        ('{"city":"Oslo"}', False),
        ('{"city":"Oslo","rains":"yes"}', False),
        ('{"city":"Oslo","rains":true,"more":1}', False),
        ("Yes, it rains.", False),
        ("[]", False),
    ],
)
def test_a_schema_is_kept_to_or_not(text: str, fits: bool) -> None:
    assert fits_schema(text) is fits


def test_engines_are_known_by_their_metrics() -> None:
    vllm = (
        b'vllm:num_requests_running{engine="0"} 2.0\nvllm:num_requests_running{engine="1"} 1.0\n'
        b"vllm:num_requests_waiting 0\nvllm:generation_tokens_total 7e2\n"
    )
    found = load_in(vllm)
    assert found is not None
    assert (found.engine, found.running, found.generated) == ("vllm", 3, 700)
    sglang = load_in(b"sglang:num_running_reqs 1\nsglang:num_queue_reqs 0\n")
    assert sglang is not None
    assert (sglang.engine, sglang.generated) == ("sglang", None)
    assert load_in(b"go_goroutines 3\n") is None
    assert load_in(b"") is None


def test_an_assistants_turn_is_an_item_as_a_response_had_it_which_llama_cpp_insists_on() -> None:
    turns = [("user", "Say one."), ("assistant", "One.")]
    user, said = body_of(ProbeRequest(turns, 16), Api.RESPONSES, "m", "max_tokens")["input"]
    assert user == {"role": "user", "content": "Say one."}
    assert (said["type"], said["role"], said["status"]) == ("message", "assistant", "completed")
    assert said["id"].startswith("msg_")
    assert [(part["type"], part["text"]) for part in said["content"]] == [("output_text", "One.")]
    assert body_of(ProbeRequest(turns, 16), Api.CHAT, "m", "max_tokens")["messages"][1]["content"] == "One."
