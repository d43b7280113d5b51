"""What is written by a pattern is, byte for byte, what the long way writes."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any
from unittest import mock

import orjson
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gateway.core.machine import Started
from gateway.core.upstream import UpstreamClosed, UpstreamFrames
from gateway.wire.answers import echo
from gateway.wire.answers.readers import AnswerReader, ChatReader, ResponsesReader
from gateway.wire.sse import SseDecoder
from tests.core.conftest import TRANSCRIPTS, accepted

Event = dict[str, Any]

CHAT = {
    f"{path.parent.name}/{path.stem}": path.read_bytes().partition(b"\n\n< ")[2].partition(b"\n\n")[2]
    for path in sorted(TRANSCRIPTS.glob("*/chat-*.txt"))
}
CHAT = {name: body for name, body in CHAT.items() if body.startswith(b"data:")}


class Counting:
    """A reader, and how many frames it was given."""

    def __init__(self, reader: AnswerReader) -> None:
        self._reader = reader
        self.count = 0
        self.echo, self.answer, self.end = reader.echo, reader.answer, reader.end
        self.notices = reader.notices

    def read(self, frame: Any) -> list[Event]:
        self.count += 1
        return self._reader.read(frame)


def _responses() -> AnswerReader:
    return ResponsesReader()


def _chat() -> AnswerReader:
    return ChatReader("resp_" + "a1" * 24)


def _chat_with_tags() -> AnswerReader:
    return ChatReader("resp_" + "a1" * 24, think_tags=True)


def told(stream: bytes, make: Callable[[], AnswerReader], size: int) -> tuple[Any, ...]:
    """All that comes of a stream that is read in pieces of this size; last, how many frames were read."""
    decoder, readers = SseDecoder(2**20), []

    def reader(_id: str, _body: Event) -> AnswerReader:
        readers.append(Counting(make()))
        return readers[-1]

    played = accepted({"model": "tiny", "input": "Hello", "background": True}, reader=reader)
    played.receive(Started())
    for start in range(0, len(stream), size):
        if frames := decoder.feed(stream[start : start + size]):
            played.receive(UpstreamFrames(frames))
    played.receive(UpstreamFrames(decoder.close()), UpstreamClosed())
    ends = [(each.status, each.final, each.error, each.reason, each.item_ids) for each in played.outcomes]
    machine = played.machine
    return played.stored, ends, machine.output(), set(machine.notices), readers[0].count


def same(stream: bytes, make: Callable[[], AnswerReader], size: int = 64) -> tuple[int, int]:
    """How many frames were read by the pattern's way, and by the long one; both have told the same."""
    *by_pattern, few = told(stream, make, size)
    with mock.patch.object(echo.Echoes, "take", return_value=None):
        *the_long_way, all_of_them = told(stream, make, size)
    assert by_pattern == the_long_way
    return few, all_of_them


@pytest.mark.parametrize("size", [1, 64, 2**20])
def test_every_recorded_stream(recorded: bytes, size: int) -> None:
    same(recorded, _responses, size)


@pytest.mark.parametrize("make", [_chat, _chat_with_tags])
@pytest.mark.parametrize("name", CHAT)
def test_every_recorded_chat_stream(name: str, make: Callable[[], AnswerReader]) -> None:
    for size in (1, 64, 2**20):
        same(CHAT[name], make, size)


def frame(event: Event, dumps: Callable[[Event], str] = json.dumps, name: str = "") -> bytes:
    line = f"event: {name}\n".encode() if name else b""
    return line + b"data: " + dumps(event).encode("utf-8", "surrogatepass") + b"\n\n"


def delta(number: int, text: str, **more: Any) -> Event:
    place = {"item_id": "msg_1", "output_index": 0, "content_index": 0, "sequence_number": number}
    return {"type": "response.output_text.delta", **place, "delta": text, "logprobs": [], **more}


def chunk(text: str, **more: Any) -> Event:
    choice = {"index": 0, "delta": {"content": text}, "logprobs": None, "finish_reason": None}
    about = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1770000000, "model": "tiny"}
    return {**about, "choices": [choice], **more}


def test_plain_deltas_are_read_once_and_known_from_then_on() -> None:
    stream = b"".join(frame(delta(number, f"word {number} ")) for number in range(100))
    assert same(stream, _responses) == (2, 100)  # before the first one a message has to be opened
    stream = b"".join(frame(delta(number, "word", obfuscation="x" * number)) for number in range(100))
    assert same(stream, _responses) == (2, 100)
    stream = b"".join(frame(chunk(f"word {number} ")) for number in range(100))
    assert same(stream, _chat) == (2, 100)


def test_what_says_nothing_is_read_once_in_any_number_of_repetitions() -> None:
    text, nothing = frame(chunk("a")), b'data:{"choices":[{"delta":{}}]}\n\n'
    assert same(text + text + nothing * 50 + text + nothing * 49, _chat, 1) == (
        4,
        102,
    )  # the first of it lets the pattern of the text be forgotten
    empty = b'data:{"type":"response.output_text.delta","delta":""}\n\n'
    assert same(frame(delta(0, "a")) + empty * 50, _responses, 1) == (2, 51)


def test_a_mark_of_the_end_is_read_each_time() -> None:
    done, end = b"data: [DONE]\n\n", frame(chunk("", choices=[{"delta": {}, "finish_reason": "stop"}]))
    for stream in (done + frame(chunk("a")) + done, done + frame(chunk("a")) + end + done, done * 3):
        same(stream, _chat)


def test_what_never_repeats_is_not_learned_for_ever() -> None:
    odd = [frame(delta(number, "word", **{f"field_{number}": 1})) for number in range(100)]
    with mock.patch("gateway.wire.answers.echo.learned", return_value=None) as learned:
        same(b"".join(odd), _responses)
    assert learned.call_count == 16  # by each of the two ways eight


def _compact(event: Event) -> str:
    return orjson.dumps(event).decode()


def _raw(event: Event) -> str:
    return json.dumps(event, ensure_ascii=False)


texts = st.one_of(
    st.text(max_size=8),
    st.text(alphabet='"\\/\n\t\x7f\u2028\u0085é😀a', max_size=8),
    st.sampled_from(
        ["", " ", "<think>", "</think>", "\ud83d", "\ude00", '","delta":"', "~any text~", "\x00"]
    ),
)
styles = st.sampled_from([json.dumps, _raw, _compact])
more: st.SearchStrategy[Event] = st.dictionaries(
    st.sampled_from(["obfuscation", "created", "usage", "item_id", "content_index", "role", "response_id"]),
    st.sampled_from([None, 1, 2.5, "a", "msg_2", [], {"total_tokens": 3}]),
    max_size=1,
)


silent = st.sampled_from(
    [
        b"data: [DONE]",
        b'data: {"choices":[{"delta":{}}]}',
        b'data: {"choices":[{}]}',
        b'data: {"choices":[{"delta":{"role":"assistant","content":""}}]}',
        b'data: {"choices":[],"usage":{"prompt_tokens":1,"completion_tokens":2}}',
        b'data: {"choices":[{"delta":{"tool_calls":[{"index":0,"function":{"arguments":"x"}}]}}]}',
        b'data: {"choices":[{"delta":{},"finish_reason":"stop"}]}',
        b'data: {"type":"response.output_text.delta","delta":""}',
        b'data: {"type":"response.unheard.of","delta":"a"}',
        b'data: {"answer":42}',
        b"data:   ",
        b": keep-alive",
    ]
).map(lambda line: line + b"\n\n")


def event(kind: str, **fields: Any) -> bytes:
    return frame({"type": f"response.{kind}", **fields})


telling = st.sampled_from(
    [
        frame(chunk("a")),
        frame(chunk("", choices=[{"index": 0, "delta": {"reasoning_content": "b"}}])),
        frame(delta(1, "a")),
        frame(delta(1, "b", item_id="msg_2", output_index=1)),
        frame(delta(1, "c", content_index=1)),
        event("output_item.added", output_index=1, item={"id": "msg_2", "type": "message", "content": []}),
        event("output_text.done", item_id="msg_1", output_index=0, content_index=0, text="aa"),
        event("output_item.done", output_index=0, item={"id": "msg_1", "type": "message", "content": []}),
        event("reasoning_text.delta", item_id="rs_1", delta="d"),
        event("function_call_arguments.delta", item_id="fc_1", delta="{"),
    ]
)
CALL = b'data: {"choices":[{"delta":{"tool_calls":[{"index":0,"function":{"arguments":"x"}}]}}]}\n\n'


@settings(max_examples=500, deadline=None)
@example([frame(chunk("a")), frame(chunk("a")), CALL, b'data: {"choices":[{}]}\n\n', frame(chunk("a"))], True)
@given(st.lists(silent | telling, max_size=14), st.booleans())
def test_frames_that_say_nothing_again_and_again(frames: list[bytes], is_chat: bool) -> None:
    for make in [_chat, _chat_with_tags] if is_chat else [_responses]:
        for size in (64, 2**20):
            same(b"".join(frames), make, size)


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(texts, st.just({}) | more, styles), min_size=1, max_size=12), st.booleans())
@example([("a", {}, json.dumps)] * 3 + [("\ud83d", {}, json.dumps), ("\ude00", {}, json.dumps)], True)
@example([("a", {"obfuscation": "x"}, _compact), ("a", {"obfuscation": '"'}, _compact)], True)
def test_random_streams(told_texts: list[tuple[str, Event, Any]], is_chat: bool) -> None:
    stream = b""
    for number, (text, fields, dumps) in enumerate(told_texts):
        event = chunk(text, **fields) if is_chat else delta(number, text, **fields)
        try:
            stream += frame(event, dumps, "" if is_chat else event["type"])
        except TypeError:  # orjson writes no half of a character
            stream += frame(event, json.dumps)
    for make in [_chat, _chat_with_tags] if is_chat else [_responses]:
        same(stream, make)


@settings(max_examples=300, deadline=None)
@given(st.data(), st.booleans())
def test_frames_that_are_nearly_alike(data: st.DataObject, is_chat: bool) -> None:
    frames = [frame(chunk("ab") if is_chat else delta(number, "ab")) for number in range(6)]
    for _ in range(data.draw(st.integers(1, 3))):
        which = data.draw(st.integers(2, 5))
        at = data.draw(st.integers(6, len(frames[which]) - 3))
        put = data.draw(
            st.sampled_from([b"", b'"', b"\\", b",", b"}", b"0", b" ", b"\xff", b"\x01", b"null"])
        )
        frames[which] = frames[which][:at] + put + frames[which][at + data.draw(st.integers(0, 2)) :]
    same(b"".join(frames), _chat if is_chat else _responses)
