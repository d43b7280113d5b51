"""Secrets that a backend quotes are blotted out of its errors, and out of nothing else."""

from __future__ import annotations

import time

import orjson
import pytest

from gateway.core.machine import UpstreamAnswer, UpstreamFailed, UpstreamFrames
from gateway.outbound.redact import Redactor
from gateway.wire.failures import MESSAGE_CHARS_MAX, failure
from gateway.wire.sse import Frame

KEY = "sk-canary-6f1e0a77"
REDACTOR = Redactor(
    [f"Bearer {KEY}"],
    {"X-Vendor-Token": "canary-private", "X-Any": "0123456789abcdefg", "Accept-Language": "de-DE"},
)


def failed(message: str) -> str:
    item = REDACTOR.item(UpstreamFailed(failure(message), "upstream_refused", 401))
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
    item = UpstreamFailed(failure("The file is EMPTY"), "upstream_refused", 400)
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


def test_what_a_model_says_passes_as_it_is() -> None:
    """Whoever tells it a key may hear it again, and talk with it about errors."""
    words = f'{{"error": {{"message": "{KEY}"}}, "type": "error"}}'
    for event in (
        {"type": "response.output_text.delta", "delta": words},
        {"type": "response.completed", "response": {"error": None, "output": [{"text": words}]}},
    ):
        for item in (
            UpstreamFrames([Frame("", orjson.dumps(event))]),
            UpstreamAnswer(orjson.dumps(event, option=orjson.OPT_INDENT_2)),
        ):
            assert REDACTOR.item(item) == item


def test_an_ordinary_event_costs_next_to_nothing() -> None:
    item = UpstreamFrames([Frame("response.output_text.delta", b'{"type":"x","delta":"word "}' * 4)])
    started = time.perf_counter()
    for _ in range(20_000):
        REDACTOR.item(item)
    assert time.perf_counter() - started < 0.4  # 20 µs each, on a machine that does other things
