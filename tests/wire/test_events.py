"""Our events into bytes: one event each, whatever text a backend put into it."""

from __future__ import annotations

import json
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.wire import events
from gateway.wire.sse import KEEP_ALIVE, Frame, SseDecoder, data_of, encode, split_frames

NASTY = [
    "\n\ndata: {}\n\n",
    "\r\n\r\nevent: response.completed\r\ndata: {}\r\n\r\n",
    "\r\rdata: x\r\r",
    "a\u2028b\u2029c\u0085d",
    "\x00\x0b\x0c\x1c\x1d\x1e",
    '"\\\n\\u2028',
    "\ufeff\ufffd😀",
]
texts = st.one_of(st.text(), st.lists(st.sampled_from(NASTY)).map("".join))


def delta(text: str) -> dict[str, Any]:
    return {"type": "response.output_text.delta", "delta": text}


@given(several=st.lists(texts, max_size=6))
@settings(max_examples=120, deadline=None)
def test_written_events_are_read_back_one_for_one(several: list[str]) -> None:
    block = b"".join(events.frame(delta(text), n) for n, text in enumerate(several))
    frames = SseDecoder(2**20).feed(block)
    assert [frame.event for frame in frames] == ["response.output_text.delta"] * len(several)
    read = [orjson.loads(frame.data) for frame in frames]
    assert [event["delta"] for event in read] == several
    assert [event["sequence_number"] for event in read] == list(range(len(several)))


@given(several=st.lists(texts, max_size=6))
@settings(max_examples=120, deadline=None)
def test_splitting_and_joining_changes_no_byte(several: list[str]) -> None:
    made = [events.frame(delta(text), n) for n, text in enumerate(several)]
    assert split_frames(b"".join(made)) == made
    assert [orjson.loads(data_of(frame))["delta"] for frame in made] == several


@pytest.mark.parametrize("text", NASTY, ids=repr)
def test_no_text_adds_a_line_for_any_reader(text: str) -> None:
    written = events.frame(delta(text), 0)
    assert len(written.decode().splitlines()) == 3  # Python's idea of lines is the widest
    assert written.count(b"\n") == 3


@pytest.mark.parametrize("text", NASTY, ids=repr)
def test_upstream_text_in_any_json_spelling_stays_one_event(text: str) -> None:
    for spelled in (json.dumps(delta(text)), json.dumps(delta(text), ensure_ascii=False)):
        (frame,) = SseDecoder(2**20).feed(b"data: " + spelled.encode() + b"\n\n")
        event = events.parse(frame.data)
        assert event is not None
        (again,) = SseDecoder(2**20).feed(events.frame(event, 7))
        assert orjson.loads(again.data) == {**delta(text), "sequence_number": 7}


def test_frame_begins_with_type_and_number() -> None:
    event = {"item": {"b": 1, "a": 2}, "type": "response.output_item.added", "sequence_number": 99}
    assert events.frame(event, 3) == (
        b"event: response.output_item.added\n"
        b'data: {"type":"response.output_item.added","sequence_number":3,"item":{"b":1,"a":2}}\n\n'
    )


def test_keep_alive_is_no_event() -> None:
    assert SseDecoder(100).feed(KEEP_ALIVE + encode("a", b"{}") + KEEP_ALIVE) == [Frame("a", b"{}")]


@pytest.mark.parametrize("data", [b"[]", b"1", b"null", b'"x"', b"", b"{", b"[DONE]", b"<html>", b"{}{}"])
def test_no_object_is_no_event(data: bytes) -> None:
    assert events.parse(data) is None


def test_invalid_utf8_is_repaired() -> None:
    assert events.parse(b'{"delta":"a\xffb"}') == {"delta": "a\ufffdb"}


def test_half_of_an_emoji_is_repaired() -> None:
    assert events.parse(rb'{"delta":"a\ud83d", "whole":"\ud83d\ude00"}') == {
        "delta": "a\ufffd",
        "whole": "😀",
    }


def test_numbers_that_only_python_writes_become_null() -> None:
    assert events.parse(b'{"a":NaN,"b":[-Infinity,Infinity]}') == {"a": None, "b": [None, None]}


@pytest.mark.parametrize("depth", [1_100, 100_000])
def test_bottomless_nesting_is_no_event(depth: int) -> None:
    assert events.parse(b'{"a":' + b"[" * depth + b"]" * depth + b"}") is None
