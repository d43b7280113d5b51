"""Thoughts between tags in the text, for backends without a reasoning parser (`think_tags`)."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.core.machine import Started
from gateway.core.upstream import UpstreamClosed, UpstreamFrames
from gateway.wire.chat.request import ChatOptions
from gateway.wire.chat.speech import ChatSpeech
from gateway.wire.chat.think_tags import HELD_CHARS_MAX, TAGS, ThinkTags
from gateway.wire.sse import SseDecoder
from tests.core.conftest import Played, StrictReader, accepted
from tests.wire.chat_play import call, chunk, run, shape, stream, validate

STOP = chunk(finish="stop")


def play(*chunks: dict[str, Any], is_done: bool = True) -> Played:
    """The run of a stream whose backend has `think_tags`."""
    speech = ChatSpeech(chat=ChatOptions(think_tags=True))
    body = {"model": "tiny", "input": "2+2?", "background": True, "stream": True}
    played = accepted(body, reader=lambda name, asked: speech.reader(name, asked, asked["input"]))
    frames = SseDecoder(2**20).feed(stream(chunks, is_done=is_done))
    played.receive(Started(), *(UpstreamFrames([frame]) for frame in frames), UpstreamClosed())
    StrictReader(True).read(played.events)
    validate(played)
    return played


def output(*texts: str) -> list[Any]:
    played = play(*(chunk({"content": text}) for text in texts), STOP)
    return shape(played.final["output"])


THOUGHT_AND_ANSWER = [("reasoning", "Two and two."), ("message", "4")]


@pytest.mark.parametrize(
    "text",
    [
        "<think>Two and two.</think>4",
        "<think>\nTwo and two.\n</think>\n\n4",
        "\n<think>Two and two.</think>\n4",
        "Two and two.</think>4",
        "Two and two.\n</think>\n\n4",
        *(f"{opening}Two and two.{closing}4" for opening, closing in TAGS.items()),
    ],
)
@pytest.mark.parametrize("size", [1, 2, 5, 100])
def test_thought_between_tags_or_before_a_closing_one_is_a_reasoning_item(text: str, size: int) -> None:
    assert output(*(text[at : at + size] for at in range(0, len(text), size))) == THOUGHT_AND_ANSWER


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Plain.", [("message", "Plain.")]),
        ("<think></think>4", [("message", "4")]),
        ("<think>\n\n</think>\n\n4", [("message", "4")]),
        ("Use the <think> tag.", [("message", "Use the <think> tag.")]),
        ("a < b, a <t", [("message", "a < b, a <t")]),
        ("<think>never closed", [("reasoning", "never closed")]),
        ("<think>a <b> c</b></think>d", [("reasoning", "a <b> c</b>"), ("message", "d")]),
        ("Well.\n<think>Hm.</think>\n4", [("message", "Well.\n"), ("reasoning", "Hm."), ("message", "4")]),
        (
            "<think>A</think>B\n<think>C</think>D",
            [*zip(("reasoning", "message") * 2, ("A", "B\n", "C", "D"), strict=True)],
        ),
        ("<think>A</thinking>B</think>C", [("reasoning", "A</thinking>B"), ("message", "C")]),
    ],
)
def test_tags_count_where_a_text_or_a_line_begins(text: str, expected: list[Any]) -> None:
    assert output(text) == expected


def test_thought_is_shown_as_it_comes_and_the_answer_too() -> None:
    texts = ["<think>", "Two ", "and two.", "</think>", "\n\n", "It is", " 4."]
    played = play(*(chunk({"content": text}) for text in texts), STOP)
    deltas = [event["delta"] for event in played.events if event["type"].endswith("_text.delta")]
    assert deltas == ["Two", " and two.", "It is", " 4."]


def test_text_without_an_opening_tag_waits_for_its_end() -> None:
    played = play(*(chunk({"content": text}) for text in ("It is", " 4.")), STOP)
    deltas = [event["delta"] for event in played.events if event["type"].endswith("_text.delta")]
    assert deltas == ["It is 4."]


def test_text_that_waits_is_kept_when_the_stream_is_cut() -> None:
    played = play(chunk({"content": "It is <thi"}), is_done=False)
    assert (played.final["status"], shape(played.final["output"])) == ("failed", [("message", "It is <thi")])


def test_text_that_waits_too_long_is_text() -> None:
    long = "x" * (HELD_CHARS_MAX + 1)
    assert output(long, "</think>4") == [("message", f"{long}</think>4")]


def test_text_that_waits_is_said_before_a_call_and_tags_count_again_after_it() -> None:
    chunks = [
        chunk({"content": "I look."}),
        chunk(call(0, "c", "look", "{}")),
        chunk({"content": "<think>Hm.</think>4"}),
    ]
    played = play(*chunks, STOP)
    assert shape(played.final["output"]) == [
        ("message", "I look."),
        ("function_call", "look", "{}"),
        ("reasoning", "Hm."),
        ("message", "4"),
    ]


def test_server_that_has_a_parser_after_all_is_left_alone() -> None:
    played = play(chunk({"reasoning": "Hm."}), chunk({"content": "4"}), STOP)
    assert shape(played.final["output"]) == [("reasoning", "Hm."), ("message", "4")]


def test_logprobs_are_those_of_the_text() -> None:
    entry = {"token": "4", "bytes": [52], "logprob": -0.5, "top_logprobs": []}
    chunks = [
        chunk({"content": "<think>Hm.</think>"}),
        chunk({"content": "4"}, choice={"logprobs": {"content": [entry]}}),
    ]
    played = play(*chunks, STOP)
    assert played.final["output"][1]["content"][0]["logprobs"] == [entry]


def test_without_the_setting_tags_are_text() -> None:
    played = run(stream([chunk({"content": "<think>Hm.</think>4"}), STOP]))
    assert shape(played.final["output"]) == [("message", "<think>Hm.</think>4")]


# -- marked by Gemini, with and without tags: no setting is needed


def marked(text: str) -> dict[str, Any]:
    return chunk({"content": text, "extra_content": {"google": {"thought": True}}})


@pytest.mark.parametrize(
    "chunks",
    [
        [marked("<thought>Two "), marked("and two."), chunk({"content": "</thought>4"})],
        [
            marked("<tho"),
            marked("ught>Two and"),
            marked(" two."),
            chunk({"content": "</thought>"}),
            chunk({"content": "4"}),
        ],
        [marked("Two "), marked("and two."), chunk({"content": "4"})],
        [marked("Two and two."), chunk({"content": "</thought>4"})],
        [marked("<thought>Two and two.</thought>4")],
    ],
    ids=["tags", "tags in pieces", "no tags", "closing tag alone", "a whole answer"],
)
def test_text_that_the_backend_marks_as_thought_is_one(chunks: list[dict[str, Any]]) -> None:
    played = run(stream([*chunks, STOP]))
    validate(played)
    assert shape(played.final["output"]) == THOUGHT_AND_ANSWER
    assert not played.machine.notices


# -- property


def said(texts: list[str]) -> list[tuple[bool, str]]:
    tags = ThinkTags(may_close_alone=True)
    pieces = [piece for text in texts for piece in tags.feed(text)] + tags.end()
    joined: list[tuple[bool, str]] = []
    for is_thought, text in pieces:
        if joined and joined[-1][0] is is_thought:
            joined[-1] = (is_thought, joined[-1][1] + text)
        else:
            joined.append((is_thought, text))
    return joined


TEXTS = st.lists(
    st.sampled_from(["<think>", "</think>", "[THINK]", "[/THINK]", "<thi", "◁", "\n", " ", "a", "b <", "x>"]),
    max_size=8,
).map("".join)


@given(text=TEXTS, data=st.data())
@settings(max_examples=300, deadline=None)
def test_any_cut_gives_the_same_and_nothing_but_tags_and_blanks_is_lost(
    text: str, data: st.DataObject
) -> None:
    ends = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=4)))
    pieces = [text[a:b] for a, b in zip([0, *ends], [*ends, len(text)], strict=True)]
    whole = said([text])
    assert said(pieces) == whole
    left = "".join(piece for _, piece in whole)
    for tag in (*TAGS, *TAGS.values()):
        text, left = text.replace(tag, ""), left.replace(tag, "")
    assert "".join(left.split()) == "".join(text.split())
