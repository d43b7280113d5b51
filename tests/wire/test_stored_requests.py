"""What is stored of a create request comes back as it was."""

from __future__ import annotations

from gateway.wire import stored_requests
from gateway.wire.chat.speech import ChatSpeech
from gateway.wire.conversation.items import Turn
from gateway.wire.speech_responses import ResponsesSpeech


def test_a_body_is_stored_in_two_parts_and_comes_back_whole() -> None:
    body = {"model": "m", "input": ["Hello"], "metadata": {"a": "b"}}
    request, told = stored_requests.request_bytes(body), stored_requests.input_bytes(body)
    assert stored_requests.body_of(request, told) == body
    assert stored_requests.request_of(request) == {"model": "m", "metadata": {"a": "b"}}


def test_an_input_goes_on_as_it_is_or_after_its_earlier_turns() -> None:
    stored = stored_requests.input_bytes({"input": "Hello"})
    assert stored_requests.input_of(stored, [], ChatSpeech()) == "Hello"
    assert stored_requests.input_of(stored_requests.input_bytes({}), [], ResponsesSpeech()) is None
    turn = Turn("resp_1", b'"Before"', b'{"output":[]}', "default")
    said = stored_requests.input_of(stored, [turn], ResponsesSpeech())
    assert [item["content"] for item in said] == ["Before", "Hello"]


def test_headers_and_what_is_sealed_come_back() -> None:
    headers = {"User-Agent": "sdk/1"}
    assert stored_requests.headers_of(stored_requests.headers_bytes(headers)) == headers
    for credential in (None, ("authorization", "Bearer k")):
        assert stored_requests.private_of(stored_requests.private_bytes(credential, headers)) == (
            credential,
            headers,
        )
