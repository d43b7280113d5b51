"""Characters cut over two events, in both kinds of stream: one character, never two U+FFFD."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.wire import events
from gateway.wire.answers.halves import Halves
from tests.wire.chat_play import DONE, call, chunk, run, shape, validate

STOP = chunk(finish="stop")
FIRST, SECOND = "\ud83d", "\ude00"


def sent(*chunks: dict[str, Any]) -> bytes:
    """A stream as a JavaScript proxy writes it: each half as an escape of its own."""
    return b"".join(b"data: %b\n\n" % json.dumps(each).encode() for each in chunks) + DONE


def output(*chunks: dict[str, Any]) -> list[Any]:
    played = run(sent(*chunks, STOP))
    validate(played)
    return shape(played.final["output"])


@pytest.mark.parametrize("name", ["content", "reasoning_content", "reasoning"])
@pytest.mark.parametrize(
    "between", [[], [chunk({"role": "assistant"})], [chunk({"content": ""})]], ids=["", "role", "empty"]
)
def test_pair_over_two_deltas_is_one_character(name: str, between: list[dict[str, Any]]) -> None:
    kind = "message" if name == "content" else "reasoning"
    chunks = [chunk({name: f"a{FIRST}"}), *between, chunk({name: f"{SECOND}b"})]
    assert output(*chunks) == [(kind, "a😀b")]


def test_pair_over_three_deltas_is_one_character() -> None:
    assert output(chunk({"content": FIRST}), chunk({"content": ""}), chunk({"content": SECOND})) == [
        ("message", "😀")
    ]


def test_pairs_of_interleaved_calls_are_not_mixed() -> None:
    chunks = [chunk(call(n, f"c{n}", name, f'{{"a":"{FIRST}')) for n, name in enumerate(("look", "hear"))]
    chunks += [chunk(call(n, arguments=f'{second}"}}')) for n, second in ((1, "\ude01"), (0, SECOND))]
    assert output(*chunks) == [
        ("function_call", "look", '{"a":"😀"}'),
        ("function_call", "hear", '{"a":"😁"}'),
    ]


def test_pair_in_a_part_of_content_is_one_character() -> None:
    texts = [{"content": [{"type": "text", "text": half}]} for half in (FIRST, SECOND)]
    assert output(*map(chunk, texts)) == [("message", "😀")]


@pytest.mark.parametrize(
    ("texts", "shown"),
    [
        ([f"a{FIRST}", "b"], "a\ufffdb"),
        ([f"a{FIRST}"], "a\ufffd"),
        ([f"{SECOND}b"], "\ufffdb"),
        ([f"a{FIRST}b", "c"], "a\ufffdbc"),
        ([f"a{FIRST}", FIRST, f"{SECOND}b"], "a\ufffd😀b"),
        ([f"{FIRST}{SECOND}"], "😀"),
    ],
    ids=["no second", "at the end", "no first", "in the middle", "a first twice", "whole"],
)
def test_half_that_has_no_other_is_repaired(texts: list[str], shown: str) -> None:
    assert output(*(chunk({"content": text}) for text in texts)) == [("message", shown)]


def delta(text: str, index: int = 0) -> dict[str, Any]:
    kind = "response.output_text.delta"
    return {"type": kind, "item_id": f"msg_{index}", "output_index": index, "content_index": 0, "delta": text}


def test_pairs_of_two_items_of_a_responses_stream_are_not_mixed() -> None:
    halves = Halves()
    frames = [delta(FIRST, 0), delta(f"a{FIRST}", 1), delta("\ude01", 1), delta(SECOND, 0)]
    read = [events.parse(json.dumps(each).encode(), halves) for each in frames]
    assert [each["delta"] for each in read if each] == ["", "a", "😁", "😀"]
    assert not halves.are_waiting


def test_half_that_waits_at_the_end_is_an_event_of_its_own() -> None:
    halves = Halves()
    events.parse(json.dumps(delta(f"a{FIRST}", 3)).encode(), halves)
    assert halves.rest() == [delta("\ufffd", 3)]
    assert halves.rest() == []


@pytest.mark.parametrize("depth", [200, 900, 5000])
def test_halves_in_bottomless_nesting_are_no_event(depth: int) -> None:
    halves = Halves()
    events.parse(json.dumps(delta(FIRST)).encode(), halves)
    nested = b'{"a":' + b"[" * depth + b'"\\ud83d"' + b"]" * depth + b"}"
    parsed = events.parse(nested, halves)
    assert (parsed is not None) is (depth == 200)


@given(text=st.text(st.sampled_from("a😀𝄞é\u2028"), max_size=8), data=st.data())
@settings(max_examples=150, deadline=None)
def test_text_cut_between_any_two_units_of_utf16_comes_out_as_it_was(text: str, data: st.DataObject) -> None:
    units = text.encode("utf-16-le", "surrogatepass")
    ends = sorted(2 * end for end in data.draw(st.lists(st.integers(0, len(units) // 2), max_size=4)))
    pieces = [
        units[a:b].decode("utf-16-le", "surrogatepass")
        for a, b in zip([0, *ends], [*ends, len(units)], strict=True)
    ]
    halves = Halves()
    read = [events.parse(json.dumps(delta(piece)).encode(), halves) for piece in pieces]
    assert "".join(each["delta"] for each in read if each) == text
    assert halves.rest() == []
