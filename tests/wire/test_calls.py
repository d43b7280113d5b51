"""What is stored of a create request comes back as it was."""

from __future__ import annotations

from gateway.wire import calls
from gateway.wire.chat.speech import ChatSpeech
from gateway.wire.conversation.items import Turn
from gateway.wire.speech_responses import ResponsesSpeech


def test_a_body_is_stored_in_two_parts_and_comes_back_whole() -> None:
    body = {"model": "m", "input": ["Hello"], "metadata": {"a": "b"}}
    request, told = calls.request_bytes(body), calls.input_bytes(body)
    assert calls.body_of(request, told) == body
    assert calls.request_of(request) == {"model": "m", "metadata": {"a": "b"}}


def test_an_input_goes_on_as_it_is_or_after_its_earlier_turns() -> None:
    stored = calls.input_bytes({"input": "Hello"})
    assert calls.input_of(stored, [], ChatSpeech()) == "Hello"
    assert calls.input_of(calls.input_bytes({}), [], ResponsesSpeech()) is None
    turn = Turn("resp_1", b'"Before"', b'{"output":[]}', "default")
    said = calls.input_of(stored, [turn], ResponsesSpeech())
    assert [item["content"] for item in said] == ["Before", "Hello"]


def test_headers_and_what_is_sealed_come_back() -> None:
    headers = {"User-Agent": "sdk/1"}
    assert calls.headers_of(calls.headers_bytes(headers)) == headers
    for credential in (None, ("authorization", "Bearer k")):
        assert calls.private_of(calls.private_bytes(credential, headers)) == (credential, headers)
