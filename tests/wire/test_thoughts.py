"""What a sealed thought looks like, and what is in it."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from gateway.wire.conversation.thoughts import (
    MARK,
    are_wanted,
    opened,
    parts_of,
    sealed_in,
    text_of,
    to_seal,
    unreadable,
)
from gateway.wire.errors import Fault

THOUGHT: dict[str, Any] = {
    "type": "reasoning",
    "id": "rs_1",
    "summary": [],
    "status": "completed",
    "content": [{"type": "reasoning_text", "text": "Ask."}],
    "vendor": {"signature": "s"},
}


@pytest.mark.parametrize("key_id", ["", "new", "a.b-c_d"])
@pytest.mark.parametrize("sealed", [b"", b"\0\xff" * 50, b"x"])
def test_a_text_gives_back_the_key_and_what_was_sealed(key_id: str, sealed: bytes) -> None:
    assert parts_of(text_of(key_id, sealed)) == (key_id, sealed)


@pytest.mark.parametrize("rest", ["", "nodot", "k.%%%", "k.AAA", "k.\N{SNOWMAN}"])
def test_a_text_that_was_cut_or_changed_has_no_parts(rest: str) -> None:
    assert parts_of(MARK + rest) is None


def test_what_a_client_leaves_out_comes_back() -> None:
    given: dict[str, Any] = {
        "type": "reasoning",
        "id": "rs_1",
        "summary": [],
        "content": None,
        "encrypted_content": "x",
    }
    back = opened(given, to_seal(THOUGHT))
    assert back == {name: value for name, value in THOUGHT.items() if name != "status"}


def test_what_a_client_sends_stays_as_it_sent_it() -> None:
    given = {**THOUGHT, "summary": [{"type": "summary_text", "text": "Own."}], "encrypted_content": "x"}
    assert opened(given, None) == {
        name: value for name, value in given.items() if name != "encrypted_content"
    }


def test_only_what_was_sealed_here_is_ours() -> None:
    assert sealed_in({"type": "reasoning", "encrypted_content": f"{MARK}k.AA"}) == f"{MARK}k.AA"
    for item in (
        {"type": "reasoning", "encrypted_content": "gAAAAA"},
        {"type": "reasoning", "encrypted_content": None},
        {"type": "reasoning"},
        {"type": "compaction", "encrypted_content": f"{MARK}k.AA"},
        "Hi",
        None,
    ):
        assert sealed_in(item) is None


@pytest.mark.parametrize(
    ("include", "wanted"),
    [
        (None, False),
        ([], False),
        (["message.output_text.logprobs"], False),
        (["reasoning.encrypted_content"], True),
    ],
)
def test_thoughts_are_sealed_where_they_are_asked_for(include: Any, wanted: bool) -> None:
    assert are_wanted({"include": include}) is wanted


def test_what_cannot_be_opened_is_refused_in_the_words_of_the_api() -> None:
    refusal = unreadable(f"{MARK}k.{'A' * 90}wxyz", "input.2.encrypted_content")
    assert (refusal.fault, refusal.code) == (Fault.INVALID, "invalid_encrypted_content")
    assert refusal.param == "input.2.encrypted_content"
    assert "...wxyz could not be verified. Reason: " in refusal.message
    assert len(orjson.dumps(refusal.message)) < 200
