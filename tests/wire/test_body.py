"""What an answer is its bytes say: any split, whatever stands in its head."""

from __future__ import annotations

import pytest

from gateway.wire.answers.body import AnswerBody, NeitherOne
from gateway.wire.sse import Frame, FrameTooLarge

CHUNK, OTHER = b'{"choices":[{"delta":{"content":"Hi"}}]}', b'{"choices":[{"finish_reason":"stop"}]}'
WHOLE = b'{"choices":[{"message":{"content":"Hi"}}]}'
PRETTY = b'{\n  "choices": [\n    {"message": {"content": "Hi"}}\n  ]\n}'
DONE = Frame("", b"[DONE]")


def read(body: bytes, size: int) -> tuple[list[Frame], bytes | None]:
    """The frames, and the one object."""
    reading = AnswerBody(10_000)
    frames: list[Frame] = []
    for start in range(0, len(body), size):
        frames += reading.feed(body[start : start + size])
    last = reading.close()
    return (frames, last) if isinstance(last, bytes) else (frames + last, None)


@pytest.mark.parametrize("size", [1, 7, 10_000])
@pytest.mark.parametrize(
    ("body", "frames", "whole"),
    [
        (b"data: " + CHUNK + b"\n\ndata: [DONE]\n\n", [Frame("", CHUNK), DONE], None),
        (b"\xef\xbb\xbfdata: x\n\n", [Frame("", b"x")], None),
        (b"\n\r\n\n: OPENROUTER PROCESSING\n\ndata: x\n\n", [Frame("", b"x")], None),
        (b"event: a\ndata: x\n\n", [Frame("a", b"x")], None),
        (b"id: 1\ndata: x\n\n", [Frame("", b"x")], None),
        (b"retry: 1\n\ndata: x", [Frame("", b"x")], None),
        (b'error: {"message":"No"}\n\n', [Frame("error", b'{"message":"No"}')], None),
        (WHOLE, [], WHOLE),
        (b"\n  " + WHOLE + b"\n", [], WHOLE),
        (WHOLE + b"\n\ndata: [DONE]\n\n", [], WHOLE),
        (PRETTY, [], PRETTY),
        (PRETTY.replace(b"\n", b"\r\n"), [], PRETTY),
        (b'[{"error":{"code":400}}]', [], b'[{"error":{"code":400}}]'),
        (CHUNK + b"\n" + OTHER + b"\n", [Frame("", CHUNK), Frame("", OTHER)], None),
        (CHUNK + b"\n" + OTHER + b"\n" + CHUNK, [Frame("", CHUNK), Frame("", OTHER), Frame("", CHUNK)], None),
        (CHUNK + b"\n\ndata: " + OTHER + b"\n\n", [Frame("", CHUNK), Frame("", OTHER)], None),
        (b"", [], None),
        (b" \n\n \r\n", [], None),
    ],
    ids=repr,
)
def test_reads(body: bytes, frames: list[Frame], whole: bytes | None, size: int) -> None:
    assert read(body, size) == (frames, whole)


@pytest.mark.parametrize("size", [1, 10_000])
@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"<!DOCTYPE html>\n<title>Sign in</title>" + b"x" * 300, "Sign in"),
        (b"<html></html>", None),
        (b"no", "no"),
        (b"model is warming up", "model is warming up"),
        (b"\x1f\x8b\x08\x00\x00\x00", None),
    ],
)
def test_what_is_neither_says_what_it_is(body: bytes, words: str | None, size: int) -> None:
    with pytest.raises(NeitherOne) as neither:
        read(body, size)
    assert neither.value.words == words


def test_what_is_neither_and_does_not_end_is_given_up() -> None:
    with pytest.raises(NeitherOne):
        read(b"x" * 5_000, 100)


def test_one_object_is_bounded_like_an_event() -> None:
    assert read(WHOLE.ljust(10_000), 512)[1] is not None
    with pytest.raises(FrameTooLarge):
        read(b'{"x":"' + b"x" * 10_000, 512)


def test_a_line_of_json_goes_on_as_soon_as_there_is_another() -> None:
    reading = AnswerBody(10_000)
    assert reading.feed(CHUNK + b"\n") == []
    assert reading.feed(OTHER + b"\n") == [Frame("", CHUNK), Frame("", OTHER)]
    assert reading.feed(CHUNK + b"\n") == [Frame("", CHUNK)]
