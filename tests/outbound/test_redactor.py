"""Secrets and addresses in a backend's errors are blotted out of these, and out of nothing else."""

from __future__ import annotations

import json
import time

import orjson
import pytest

from gateway.core.reason import Reason
from gateway.core.upstream import UpstreamAnswer, UpstreamFailed, UpstreamFrames
from gateway.outbound.redactor import Redactor
from gateway.wire.failures import MESSAGE_CHARS_MAX, failure
from gateway.wire.sse import Frame

KEY = "sk-canary-6f1e0a77"
REDACTOR = Redactor(
    [f"Bearer {KEY}"],
    {"X-Vendor-Token": "canary-private", "X-Any": "0123456789abcdefg", "Accept-Language": "de-DE"},
)


def failed(message: str) -> str:
    item = REDACTOR.item(UpstreamFailed(failure(message), Reason.REFUSED, 401))
    assert isinstance(item, UpstreamFailed)
    return item.failure["message"]


def test_a_refusal_does_not_quote_the_key() -> None:
    assert (
        failed(f"Incorrect API key provided: {KEY}. Try again.")
        == "Incorrect API key provided: ***. Try again."
    )
    assert failed(f"Authorization: Bearer {KEY}") == "Authorization: ***"
    assert failed("canary-private is unknown in de-DE") == "*** is unknown in de-DE"
    assert failed("X-Any: 0123456789abcdefg") == "X-Any: ***"


@pytest.mark.parametrize("shown", range(6, len(KEY) + 1))
def test_a_message_that_is_cut_within_the_key_shows_no_part_of_it(shown: int) -> None:
    message = ("x" * (MESSAGE_CHARS_MAX - shown) + KEY)[:MESSAGE_CHARS_MAX]
    assert failed(message) == "x" * (MESSAGE_CHARS_MAX - shown) + "***"


def test_words_that_serve_as_keys_stay() -> None:
    item = UpstreamFailed(failure("The file is EMPTY"), Reason.REFUSED, 400)
    assert Redactor(["Bearer EMPTY", "EMPTY"], {}).item(item) == item


@pytest.mark.parametrize(
    "event",
    [
        {"type": "error", "code": None, "message": f"Bad key {KEY}"},
        {"type": "error", "error": {"message": f"Bad key {KEY}"}},
        {"error": {"message": f"Bad key {KEY}"}},
        {"error": f"Bad key {KEY}"},
        {"type": "response.failed", "response": {"error": {"message": f"Bad key {KEY}"}}},
    ],
)
def test_an_error_within_a_stream_or_an_answer_does_not_quote_it_either(event: object) -> None:
    data = orjson.dumps(event)
    told = REDACTOR.item(UpstreamFrames([Frame("", b"[DONE]"), Frame("error", data)]))
    assert told == UpstreamFrames([Frame("", b"[DONE]"), Frame("error", data.replace(KEY.encode(), b"***"))])
    assert REDACTOR.item(UpstreamAnswer(data)) == UpstreamAnswer(data.replace(KEY.encode(), b"***"))


ADDRESS = "http://10.9.8.7:8000/v1"
STRANGERS = "sk-live-abcdefghijklmnop123456"
WORDS = f"{ADDRESS} refused {STRANGERS}"


@pytest.mark.parametrize(
    "event",
    [
        {"type": "error", "code": WORDS, "message": WORDS, "param": WORDS},
        {"type": "error", "error": {"message": WORDS, "code": WORDS, "more": [{WORDS: [WORDS]}]}},
        {"type": "error", "error": WORDS},
        {"error": {"message": orjson.dumps({"error": {"message": WORDS}}).decode()}},
        {"error": {"message": orjson.dumps({"error": orjson.dumps(WORDS).decode()}).decode()}},
        {"errors": [{"message": WORDS}]},
        {"object": "error", "message": WORDS, "code": 400},
        {"detail": WORDS},
        {"detail": [{"loc": ["body"], "msg": WORDS}]},
        {"message": WORDS},
        {"choices": [{"delta": {}, "error": {"message": WORDS}, "finish_reason": "error"}]},
        {"type": "response.failed", "response": {"error": {"message": WORDS}, "output": []}},
    ],
)
def test_neither_an_address_nor_anybodys_key_is_told_in_whatever_shape_an_error_comes(event: object) -> None:
    for data in (
        orjson.dumps(event),
        orjson.dumps(event).replace(b"/", rb"\/"),
        orjson.dumps(event).replace(b"-", rb"\u002d"),
        json.dumps(event, indent=2).encode("utf-8"),
    ):
        frames = REDACTOR.item(UpstreamFrames([Frame("", data)]))
        answer = REDACTOR.item(UpstreamAnswer(data))
        assert isinstance(frames, UpstreamFrames)
        assert isinstance(answer, UpstreamAnswer)
        for told in (frames.frames[0].data, answer.body):
            plain = orjson.dumps(orjson.loads(told)).decode()
            assert "10.9.8.7" not in plain
            assert "live" not in plain
            assert "***" in plain
    assert failed(WORDS) == "*** refused ***"


def test_the_callers_key_is_found_in_the_escapes_of_json_too() -> None:
    data = b'{"error": {"message": "Bad key %b"}}' % KEY.replace("-", r"\u002D").encode()
    told = REDACTOR.item(UpstreamFrames([Frame("", data)]))
    assert told == UpstreamFrames([Frame("", b'{"error":{"message":"Bad key ***"}}')])


def test_an_error_in_plain_words_is_looked_through_as_well() -> None:
    told = REDACTOR.item(UpstreamFrames([Frame("error", WORDS.encode())]))
    assert told == UpstreamFrames([Frame("error", b"*** refused ***")])


def test_what_a_model_said_before_it_failed_is_left_alone() -> None:
    said = {"output": [{"type": "message", "content": [{"text": f"See {ADDRESS}"}], "error": None}]}
    event = {"type": "response.failed", "response": {**said, "error": {"message": WORDS}}}
    told = REDACTOR.item(UpstreamFrames([Frame("", orjson.dumps(event))]))
    assert isinstance(told, UpstreamFrames)
    response = orjson.loads(told.frames[0].data)["response"]
    assert response == {**said, "error": {"message": "*** refused ***"}}


def test_an_error_that_is_endless_or_bottomless_is_not_looked_through_for_ever() -> None:
    wide = {"error": {f"m{number}": "a." * 4000 for number in range(1000)}}
    deep: dict[str, object] = {"message": WORDS}
    for _ in range(100):
        deep = {"inner": deep}
    for event in (wide, {"error": deep}):
        told = REDACTOR.item(UpstreamFrames([Frame("", orjson.dumps(event))]))
        assert isinstance(told, UpstreamFrames)
        assert b"10.9.8.7" not in told.frames[0].data
        assert len(told.frames[0].data) < 50_000


def test_what_a_model_says_passes_as_it_is() -> None:
    """Whoever tells it a key may hear it again, and talk with it about errors."""
    words = f'{{"error": {{"message": "{KEY}"}}, "type": "error"}}'
    for event in (
        {"type": "response.output_text.delta", "delta": words},
        {"type": "response.completed", "response": {"error": None, "output": [{"text": words}]}},
        {"type": "response.output_item.added", "item": {"type": "message", "text": f"{ADDRESS} {KEY}"}},
        {"choices": [{"message": {"role": "assistant", "content": f"{ADDRESS} {KEY}"}, "error": None}]},
        {"message": {"role": "assistant", "content": f"{ADDRESS} {KEY}"}, "done": False},
    ):
        for item in (
            UpstreamFrames([Frame("", orjson.dumps(event))]),
            UpstreamAnswer(orjson.dumps(event, option=orjson.OPT_INDENT_2)),
        ):
            assert REDACTOR.item(item) == item


def test_an_ordinary_event_costs_next_to_nothing() -> None:
    item = UpstreamFrames(
        [Frame("", b'{"type":"response.output_text.delta","delta":"word word word word word "}')]
    )
    started = time.perf_counter()
    for _ in range(20_000):
        REDACTOR.item(item)
    assert time.perf_counter() - started < 0.4  # 20 µs each, on a machine that does other things
