"""The short way past the tables: it is taken by what is sent most, and nothing is seen otherwise by it."""

from __future__ import annotations

from typing import Any
from unittest.mock import patch

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.wire.chat import stream as chat_stream
from gateway.wire.chat.chunks import pieces_alone
from gateway.wire.chat.pieces import Piece, PieceKind
from tests.wire.chat_play import chunk, run, stream

NOTHING: list[dict[str, Any]] = [
    {"choices": []},
    {"choices": None},
    {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "tiny"},
    {"choices": [{}]},
    {"choices": [{"delta": {}}]},
    {"choices": [{"index": 0, "delta": {"content": ""}, "finish_reason": None}]},
    {"choices": [{"index": 0, "delta": {"role": "assistant", "content": None, "tool_calls": []}}]},
]


@pytest.mark.parametrize("sent", NOTHING, ids=repr)
def test_a_chunk_that_says_nothing_is_nothing(sent: dict[str, Any]) -> None:
    assert pieces_alone(sent, 0) == ()


@pytest.mark.parametrize(
    ("delta", "kind"),
    [
        ({"content": "Hi"}, PieceKind.TEXT),
        ({"role": "assistant", "content": "Hi", "refusal": None}, PieceKind.TEXT),
        ({"content": "", "reasoning_content": "Hi"}, PieceKind.THOUGHT),
        ({"reasoning": "Hi"}, PieceKind.THOUGHT),
    ],
    ids=repr,
)
def test_a_chunk_that_says_one_thing_is_its_piece(delta: dict[str, Any], kind: PieceKind) -> None:
    name = next(name for name, value in delta.items() if value == "Hi")
    assert pieces_alone(chunk(delta), 0) == (Piece(kind, "Hi", name),)


@pytest.mark.parametrize(
    "sent",
    [
        chunk({"content": "Hi"}, "stop"),
        chunk({}, "stop"),
        chunk({"content": "Hi", "reasoning": "Hm"}),
        chunk({"content": ["Hi"]}),
        chunk({"content": "Hi"}, choice={"index": 1}),
        chunk({"content": "Hi"}, choice={"logprobs": {"content": [{"token": "Hi"}]}}),
        chunk({"content": "Hi"}, usage={"total_tokens": 1}),
        {"choices": [], "usage": {"total_tokens": 1}},
        {"choices": [], "service_tier": "flex"},
        {"choices": [], "error": {"message": "no"}},
        {"choices": [], "message": {"content": "Hi"}},
        {"choices": [{"error": {"message": "no"}}]},
        {"choices": [{"text": "Hi"}]},
        {"choices": [{"delta": "Hi"}]},
        {"choices": ["Hi"]},
        {"choices": [{}, {"delta": {"content": "Hi"}}]},
    ],
    ids=repr,
)
def test_a_chunk_with_anything_else_in_it_goes_through_the_tables(sent: dict[str, Any]) -> None:
    assert pieces_alone(sent, 0) is None


def test_which_choice_is_shown_is_for_the_tables_to_say() -> None:
    assert pieces_alone({"choices": []}, None) is None
    assert pieces_alone(chunk({}), None) is None


nothing: st.SearchStrategy[Any] = st.sampled_from([None, "", [], {}, 0, False])
said: st.SearchStrategy[Any] = nothing | st.sampled_from(
    ["Hi", "stop", ["Hi"], {"content": "Hi"}, {"total_tokens": 3}, 1, True]
)
deltas = st.dictionaries(
    st.sampled_from(["role", "content", "reasoning_content", "reasoning", "refusal", "tool_calls", "else"]),
    said,
    max_size=3,
)
choices = st.fixed_dictionaries(
    {},
    optional={
        "index": st.sampled_from([0, 0, 0, 1, None]),
        "delta": deltas | said,
        "finish_reason": nothing | st.just("stop"),
        "logprobs": nothing,
        "text": nothing | st.just("Hi"),
        "else": said,
    },
)
chunks = st.fixed_dictionaries(
    {},
    optional={
        "choices": st.lists(choices, max_size=2) | nothing,
        "model": st.sampled_from(["", "tiny"]),  # the same in all chunks: the first and the last are read
        "usage": said,
        "delta": deltas | nothing,
        "message": deltas | nothing,
        "system_fingerprint": st.just("fp_1"),
        "else": said,
    },
)


@given(sent=st.lists(chunks, max_size=6))
@settings(max_examples=500, deadline=None)
def test_the_short_way_tells_what_the_tables_tell(sent: list[dict[str, Any]]) -> None:
    body = stream(
        [chunk({"content": "It begins."}), *sent, chunk({"content": " It ends."}), chunk({}, "stop")]
    )
    short = run(body).events
    with patch.object(chat_stream, "pieces_alone", return_value=None):
        assert short == run(body).events
