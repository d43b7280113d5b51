"""Texts that grow: the same, whatever of them is on a shelf."""

from __future__ import annotations

from collections.abc import Callable
from unittest.mock import patch

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.wire.answers import text as texts
from gateway.wire.answers.text import Text, memory_of


class Shelf:
    """Takes what it is told to take."""

    def __init__(self, takes: bool = True) -> None:
        self.takes = takes
        self.texts: list[str] = []

    def put(self, text: str) -> Callable[[], str] | None:
        if not self.takes:
            return None
        self.texts.append(text)
        return lambda: text


PIECES = st.lists(st.one_of(st.text(max_size=9), st.sampled_from(["shelve", "look"])), max_size=30)


@given(
    steps=PIECES,
    full=st.one_of(st.none(), st.text(max_size=9)),
    more=st.text(max_size=5),
    takes=st.booleans(),
)
def test_a_text_is_what_was_said_and_what_is_missing_follows_from_that(
    steps: list[str], full: str | None, more: str, takes: bool
) -> None:
    text, said, shelf = Text(), "", Shelf(takes)
    with patch.object(texts, "SHELVED_CHARS_MIN", 4):
        for step in steps:
            if step == "shelve":
                text.shelve(shelf)
            elif step == "look":
                assert text.value() == said
            else:
                text.pieces.append(step)
                said += step
            assert bool(text.pieces) >= bool(said), "none in memory only if there is none"
    last_word = said + more if full is None else full
    assert text.missing(last_word) == (last_word[len(said) :] if last_word.startswith(said) else "")
    assert text.value() == last_word


def test_small_pieces_become_one_and_a_long_text_takes_no_memory() -> None:
    text, shelf = Text(), Shelf()
    text.pieces += ["ab"] * 1000
    saved = text.shelve(shelf)
    assert (text.pieces, shelf.texts) == (["ab" * 999, "ab"], [])
    assert saved == 999 * memory_of("ab") - memory_of("ab" * 999) > 40 * 999
    text.pieces += ["x" * texts.SHELVED_CHARS_MIN, "y"]
    assert text.shelve(shelf) > texts.SHELVED_CHARS_MIN
    assert text.pieces == ["y"]
    assert text.value() == "".join(shelf.texts) + "y"


def test_a_text_that_the_shelf_does_not_take_stays_in_memory() -> None:
    text, shelf = Text(), Shelf(takes=False)
    text.pieces += ["x" * texts.SHELVED_CHARS_MIN, "y", "z"]
    text.shelve(shelf)
    assert text.pieces == ["x" * texts.SHELVED_CHARS_MIN + "y", "z"]


@pytest.mark.parametrize("text", ["", "a", "ä", "猫" * 100, "🦦" * 1000])
def test_the_memory_of_a_text_is_never_less_than_its_letters(text: str) -> None:
    assert (
        memory_of(text)
        >= len(text) * (1 if text.isascii() else 2 if max(text, default="") < "\U00010000" else 4) // 2
    )
