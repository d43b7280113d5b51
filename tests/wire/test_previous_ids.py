"""The id of the previous response in a plain answer, and nothing else changed."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from gateway.wire.bodies.previous_ids import EchoInStream, in_answer

BEFORE = "resp_before"


def _fed(stream: bytes, size: int, line_bytes_max: int = 10_000) -> bytes:
    echo = EchoInStream(BEFORE, line_bytes_max=line_bytes_max)
    parts = [stream[start : start + size] for start in range(0, len(stream), size)]
    return b"".join(map(echo.feed, parts)) + echo.close()


def _event(name: str, **more: Any) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (name.encode(), orjson.dumps({"type": name, **more}))


RESPONSE = {"id": "resp_1", "previous_response_id": None, "output": [{"text": "é\u2028"}]}
STREAM = b"".join(
    [
        b": hello\nretry: 5\n\n",
        _event("response.created", response={"id": "resp_1"}, sequence_number=0),
        b'event: response.output_text.delta\ndata:  {"type": "x",  "delta" : "\\"response\\""}\n\n',
        b'data: not json "response"\n\ndata: [DONE]\n\n',
        _event("response.completed", response=RESPONSE, timings={"a": 1}),
        b"data: no end",
    ]
)


@pytest.mark.parametrize("size", [1, 2, 3, 7, 64, 10_000])
def test_lifecycle_and_terminal_events_say_it_and_all_other_lines_are_the_same_bytes(size: int) -> None:
    before, after = STREAM.split(b"\n"), _fed(STREAM, size).split(b"\n")
    assert len(before) == len(after)
    changed = [number for number, line in enumerate(before) if line != after[number]]
    assert [before[number - 1] for number in changed] == [
        b"event: response.created",
        b"event: response.completed",
    ]
    for number in changed:
        was, now = (orjson.loads(lines[number].removeprefix(b"data: ")) for lines in (before, after))
        assert now["response"].pop("previous_response_id") == BEFORE
        was["response"].pop("previous_response_id", None)
        assert now == was


def test_line_ends_stay_what_they_are() -> None:
    stream = _event("response.completed", response=RESPONSE).replace(b"\n", b"\r\n")
    assert _fed(stream, 1).count(b"\r\n") == 3
    assert BEFORE.encode() in _fed(stream, 1)


@pytest.mark.parametrize("size", [1, 5, 10_000])
def test_a_stream_of_lone_carriage_returns_is_not_held_back(size: int) -> None:
    stream = _event("response.completed", response=RESPONSE).replace(b"\n", b"\r") * 2
    echo = EchoInStream(BEFORE, line_bytes_max=10_000)
    assert b"".join(echo.feed(stream[n : n + size]) for n in range(0, len(stream), size)) == stream


def test_a_line_beyond_the_limit_goes_on_as_it_comes() -> None:
    assert _fed(STREAM * 2, 16, line_bytes_max=20)[-len(STREAM) :] == STREAM


@pytest.mark.parametrize(
    "data",
    [
        {"type": "response.completed", "response": None},
        {"type": "response.output_item.done", "response": {}},
        {"response": {}},
    ],
)
def test_an_event_without_a_response_stays_as_it_is(data: dict[str, Any]) -> None:
    stream = b"data: %b\n\n" % orjson.dumps(data)
    assert _fed(stream, 9) == stream


def test_what_cannot_be_written_again_goes_on_as_it_is() -> None:
    deep = b"[" * 300 + b"]" * 300
    answer = b'{"object": "response", "x": %b}' % deep
    assert in_answer(answer, BEFORE) == answer
    stream = b'data: {"type": "response.completed", "response": {"x": %b}}\n\n' % deep
    assert _fed(stream, 50) == stream


def test_a_response_gets_the_id_and_keeps_all_else() -> None:
    body = orjson.dumps({"object": "response", **RESPONSE})
    assert orjson.loads(in_answer(body, BEFORE)) == {**orjson.loads(body), "previous_response_id": BEFORE}


@pytest.mark.parametrize("body", [b"", b"[]", b"no", b'{"error": {}}', b'{"object": "list"}'])
def test_what_is_no_response_is_left_alone(body: bytes) -> None:
    assert in_answer(body, BEFORE) == body
