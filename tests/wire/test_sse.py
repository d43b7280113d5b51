"""Bytes of a backend into frames: any split, any line ends, bounded."""

from __future__ import annotations

import itertools
import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.wire.sse import Frame, FrameTooLarge, SseDecoder

TRANSCRIPTS = Path(__file__).parent.parent / "transcripts"
RECORDED = [
    pytest.param(body, id=f"{path.parent.name}/{path.stem}")
    for path in sorted(TRANSCRIPTS.glob("*/*-stream*.txt"))
    if (body := path.read_bytes().partition(b"\n\n< ")[2].partition(b"\n\n")[2]).endswith(b"\n\n")
]
LINE_ENDS = ["\n", "\r", "\r\n"]


def decoded(*chunks: bytes, frame_bytes_max: int = 2**20) -> list[Frame]:
    decoder = SseDecoder(frame_bytes_max)
    frames = [frame for chunk in chunks for frame in decoder.feed(chunk)]
    return frames + decoder.close()


def by_the_standard(body: bytes) -> list[Frame]:
    """The HTML standard's algorithm, line by line; but a last event needs no blank line here, and events
    without any data are left out, which mean nothing to anybody."""
    frames: list[Frame] = []
    event, data = "", list[bytes]()
    for line in [*re.split(rb"\r\n|\n|\r", body.removeprefix(b"\xef\xbb\xbf")), b""]:
        if not line:
            if any(data) or len(data) > 1:
                frames.append(Frame(event, b"\n".join(data)))
            event, data = "", []
            continue
        name, _, value = line.partition(b":")
        value = value[1:] if value.startswith(b" ") else value
        if name == b"data":
            data.append(value)
        elif name == b"event":
            event = value.decode()
    return frames


bodies = st.lists(
    st.sampled_from(
        [b"\n", b"\r", b"\r\n", b"data: x", b"data:", b"event: e", b": c", b"id: 1", b"data", b"\xef\xbb\xbf"]
    ),
    max_size=24,
).map(b"".join)


@given(body=bodies, cuts=st.lists(st.integers(0, 80), max_size=6))
@settings(max_examples=500, deadline=None)
def test_any_split_gives_the_frames_of_the_standard(body: bytes, cuts: list[int]) -> None:
    edges = [0, *sorted(cut % (len(body) + 1) for cut in cuts), len(body)]
    chunks = [body[start:end] for start, end in itertools.pairwise(edges)]
    assert decoded(*chunks) == by_the_standard(body)


@given(body=bodies)
@settings(max_examples=200, deadline=None)
def test_byte_by_byte_gives_the_frames_of_the_standard(body: bytes) -> None:
    assert decoded(*(body[n : n + 1] for n in range(len(body)))) == by_the_standard(body)


@pytest.mark.parametrize("body", RECORDED)
def test_recorded_stream_cut_in_two_at_every_byte_gives_the_same_frames(body: bytes) -> None:
    """The middle of a long one says nothing that its ends do not."""
    body = body if len(body) < 1_600 else body[:800] + body[-800:]
    whole = decoded(body)
    assert whole
    for cut in range(len(body) + 1):
        assert decoded(body[:cut], body[cut:]) == whole


@pytest.mark.parametrize("body", RECORDED)
@pytest.mark.parametrize("end", LINE_ENDS, ids=repr)
def test_recorded_stream_with_any_line_ends_gives_the_same_frames(body: bytes, end: str) -> None:
    other = body.replace(b"\n", end.encode())
    assert decoded(other) == decoded(body)
    assert decoded(*(other[n : n + 1] for n in range(len(other)))) == decoded(body)


@pytest.mark.parametrize("first", LINE_ENDS, ids=repr)
@pytest.mark.parametrize("second", LINE_ENDS, ids=repr)
def test_any_two_line_ends_make_a_blank_line(first: str, second: str) -> None:
    body = f"data: one{first}{second}data: two".encode()
    is_one_crlf = (first, second) == ("\r", "\n")
    expected = [Frame("", b"one\ntwo")] if is_one_crlf else [Frame("", b"one"), Frame("", b"two")]
    assert decoded(body) == expected


def test_frame_is_given_as_soon_as_its_blank_line_is_there() -> None:
    decoder = SseDecoder(100)
    assert decoder.feed(b"data: x\n") == []
    assert decoder.feed(b"\n") == [Frame("", b"x")]


def test_lone_carriage_return_waits_for_what_follows() -> None:
    decoder = SseDecoder(100)
    assert decoder.feed(b"data: x\r\n\r") == []
    assert decoder.feed(b"\ndata: y\r\n\r\n") == [Frame("", b"x"), Frame("", b"y")]


@pytest.mark.parametrize(
    ("body", "frames"),
    [
        (b"\xef\xbb\xbfdata: x\n\n", [Frame("", b"x")]),
        (b"\xef\xbb\xbf\xef\xbb\xbfdata: only one is removed\n\n", []),
        (b": comment\n\n:\n\ndata: x\n\n", [Frame("", b"x")]),
        (b": comment\ndata: x\n: another\n\n", [Frame("", b"x")]),
        (b"data: a\ndata: b\ndata:c\n\n", [Frame("", b"a\nb\nc")]),
        (b"data:  two spaces\n\n", [Frame("", b" two spaces")]),
        (b'data:{"a":1}\n\n', [Frame("", b'{"a":1}')]),
        (b"event: first\nevent: last\ndata: x\n\n", [Frame("last", b"x")]),
        (b"event: no data\n\n", []),
        (b"retry: 10\nid: 7\nunknown: 1\n\n", []),
        (b"data: [DONE]\n\n", [Frame("", b"[DONE]")]),
        (b"event: \xff\ndata: \xff\n\n", [Frame("\ufffd", b"\xff")]),
        (b"\n\n\n\ndata: x\n\n\n\n", [Frame("", b"x")]),
        (b"data: {}\n\ndata:{}\n\ndata: x\n\n", [Frame("", b"x")]),
        (b'data: {"type": "ping"}\n\ndata: {"choices":[]}\n\ndata: x\n\n', [Frame("", b"x")]),
        (b'event: error\ndata: {"type":"ping"}\n\n', [Frame("error", b'{"type":"ping"}')]),
        (b"data: {}\ndata: x\n\n", [Frame("", b"{}\nx")]),
        (b"event: error\ndata: {}\n\n", [Frame("error", b"{}")]),
        (b"event: named\ndata: {}\n\n", [Frame("named", b"{}")]),
        (b"data: x: y\n\n", [Frame("", b"x: y")]),
        (b"", []),
    ],
    ids=repr,
)
def test_reads(body: bytes, frames: list[Frame]) -> None:
    assert decoded(body) == frames
    assert decoded(*(body[n : n + 1] for n in range(len(body)))) == frames


@pytest.mark.parametrize("ending", [b"", b"\n", b"\r", b"\r\n"])
def test_last_frame_needs_no_blank_line(ending: bytes) -> None:
    assert decoded(b"data: x" + ending) == [Frame("", b"x")]


def test_closing_twice_gives_the_last_frame_once() -> None:
    decoder = SseDecoder(100)
    decoder.feed(b"data: x")
    assert [len(decoder.close()), len(decoder.close())] == [1, 0]


@pytest.mark.parametrize("end", LINE_ENDS, ids=repr)
@pytest.mark.parametrize("size", [1, 2, 5, 1000])
@pytest.mark.parametrize(("length", "fits"), [(99, True), (100, True), (101, False), (5_000, False)])
def test_bound_on_a_frame_does_not_depend_on_the_split(length: int, fits: bool, size: int, end: str) -> None:
    body = b"data: ".ljust(length, b"x") + 2 * end.encode() + b"data: next" + 2 * end.encode()
    chunks = [body[at : at + size] for at in range(0, len(body), size)]
    if fits:
        assert len(decoded(*chunks, frame_bytes_max=100)) == 2
    else:
        with pytest.raises(FrameTooLarge):
            decoded(*chunks, frame_bytes_max=100)


def test_backend_that_never_ends_a_line_is_stopped_near_the_bound() -> None:
    decoder = SseDecoder(1000)
    for _ in range(100):
        assert decoder.feed(b"x" * 10) == []
    with pytest.raises(FrameTooLarge):
        decoder.feed(b"x" * 10)


def test_endless_comments_are_no_frame_too_large() -> None:
    decoder = SseDecoder(100)
    for _ in range(100):
        assert decoder.feed(b": keep-alive\n\n") == []


# -- what servers send besides

OWN_WAYS = [
    (b'error: {"code":400}\n\n', [Frame("error", b'{"code":400}')]),
    (b"event: error\nid: 1\n\n", [Frame("error", b"")]),
    (b"event: error\ndata:\n\n", [Frame("error", b"")]),
    (b"event: ping\ndata:\n\n", []),
    (b'{"a":1}\n{"b":2}\n', [Frame("", b'{"a":1}'), Frame("", b'{"b":2}')]),
    (b'{"a":1}\n\n{"b":2}', [Frame("", b'{"a":1}'), Frame("", b'{"b":2}')]),
    (
        b'data: {"a":1}\n\n{"error":{"code":400}}\n',
        [Frame("", b'{"a":1}'), Frame("", b'{"error":{"code":400}}')],
    ),
    (b'data: {"a":1}\n{"error":1}\n\n', [Frame("", b'{"a":1}'), Frame("", b'{"error":1}')]),
    (b'{\n  "a": 1\n}', [Frame("", b'{\n  "a": 1\n}')]),
    (b'data: x\n\n[{\n  "error": {\n    "code": 429\n  }\n}\n]\n', None),
    (b'{"a":1}\n\ndata: [DONE]\n\n', [Frame("", b'{"a":1}'), Frame("", b"[DONE]")]),
]


@pytest.mark.parametrize(("body", "frames"), OWN_WAYS, ids=repr)
def test_reads_what_the_standard_does_not_have(body: bytes, frames: list[Frame] | None) -> None:
    whole = decoded(body)
    assert whole == ([Frame("", b"x"), Frame("", body[9:-1])] if frames is None else frames)
    assert decoded(*(body[n : n + 1] for n in range(len(body)))) == whole


@pytest.mark.parametrize(
    "line", [b"data: xxxxxxxx\n", b'{\n"xxxxxxxxxx"\n', b"event: xxxx\n", b"error: xxxx\n"]
)
def test_an_event_of_endless_lines_is_stopped_near_the_bound(line: bytes) -> None:
    with pytest.raises(FrameTooLarge):
        decoded(*[line] * (1 + 1000 // len(line)), frame_bytes_max=1000)


@pytest.mark.parametrize("line", [b": c\n", b"unknown: 1\n", b"id: 1\n", b"\n", b"\r", b"x\n"])
def test_endless_lines_that_mean_nothing_are_not_kept(line: bytes) -> None:
    decoder = SseDecoder(1000)
    for _ in range(1000):
        assert decoder.feed(line) == []
    assert decoder.feed(b"\ndata: x\n\n") == [Frame("", b"x")]
