"""The reference parser by the examples of the HTML standard, and that no forged stream gets past T18."""

from __future__ import annotations

import pytest

from gateway.wire import events
from tests.torture.eventsource import Event, read, read_carelessly
from tests.torture.trials.forging import problems


@pytest.mark.parametrize(
    ("stream", "expected"),
    [
        (
            b": test stream\n\ndata: first event\nid: 1\n\ndata:second event\nid\n\ndata:  third event\n\n",
            [
                Event("message", "first event"),
                Event("message", "second event"),
                Event("message", " third event"),
            ],
        ),
        (
            b"data\n\ndata\ndata\n\ndata:\n",
            [Event("message", ""), Event("message", "\n")],
        ),
        (b"data:test\n\ndata: test\n\n", [Event("message", "test")] * 2),
        (b"\xef\xbb\xbfevent: add\rdata: 1\r\n\r\n\r", [Event("add", "1")]),
        (b"event: add\n\ndata: 1\n\n", [Event("message", "1")]),
        ("data: a\u2028data: b\n\n".encode(), [Event("message", "a\u2028data: b")]),
    ],
)
def test_streams_are_read_as_the_standard_says(stream: bytes, expected: list[Event]) -> None:
    assert read(stream).events == expected


def test_a_careless_reader_sees_more_lines() -> None:
    assert read_carelessly("data: a\u2028data: b\n\n".encode()).events == [Event("message", "a\nb")]


def test_what_is_not_dispatched_is_noticed() -> None:
    assert read(b"data: 1\n\n").left is False
    assert read(b"data: 1\n").left is True
    assert read(b"data: 1\n\nid").fields == {"data"}
    assert read(b"data: 1\n\nid: 2\n\n").fields == {"data", "id"}


def test_a_forged_stream_is_found_out() -> None:
    good = [events.frame({"type": "response.created", "delta": "x"}, number) for number in range(3)]
    assert list(problems(b"".join(good))) == []
    for bad in (
        b"".join([*good, good[0]]),
        b"".join(good) + b"data: [DONE]\n\n",
        b"".join(good) + b"id: 1\n\n",
        b"".join(good)[:-1],
        b"".join(good).replace(b"event: response.created", b"event: x"),
        b"".join(good).replace(b'"x"', '"x\u2028data: y"'.encode()),
        events.frame({"type": "response.unknown"}, 0),
    ):
        assert list(problems(bad)), bad
