"""Ids of items that tell in which response they are, and those that do not."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.wire.answers.normalise import Normaliser
from gateway.wire.item_ids import (
    FIRST_INPUT,
    FIRST_OUTPUT,
    NAMED_MAX,
    ItemPosition,
    id_of,
    position_of,
    to_be_looked_up,
)

OURS = "resp_" + "0123456789abcdef" * 3
THEIRS = "resp_5d1"


@given(digits=st.text("0123456789abcdef", min_size=48, max_size=48), number=st.integers(0, 2**31 - 1))
def test_a_made_up_id_tells_response_and_place(digits: str, number: int) -> None:
    for first, place in ((FIRST_OUTPUT, ItemPosition.OUTPUT), (FIRST_INPUT, ItemPosition.INPUT)):
        told = position_of(id_of({"role": "user"}, f"resp_{digits}", first + number))
        assert told == (f"resp_{digits[:40]}", place)


def test_ids_that_the_normaliser_makes_up_tell_it_too() -> None:
    events = Normaliser(OURS).feed({"type": "response.output_text.delta", "delta": "Hi"})
    assert position_of(events[0]["item"]["id"]) == (OURS[:45], ItemPosition.OUTPUT)


@pytest.mark.parametrize("item_id", ["", "msg_1", "msg_" + "0" * 47, "msg_" + "G" * 48, "msg_" + "0" * 50])
def test_other_ids_tell_nothing(item_id: str) -> None:
    assert position_of(item_id) is None


def test_only_ids_that_do_not_tell_are_looked_up() -> None:
    made_up = id_of({}, OURS, FIRST_OUTPUT)
    of_another = id_of({}, "resp_" + "f" * 48, FIRST_OUTPUT)
    said = [{"type": "message", "id": item_id} for item_id in (made_up, "msg_1", of_another, "msg_1")]
    items: list[Any] = [{}, *said, 5]
    assert to_be_looked_up(OURS, items, FIRST_OUTPUT) == ("msg_1", of_another)


def test_a_response_of_a_backends_own_name_cannot_be_told_by_its_items() -> None:
    assert len(set(to_be_looked_up(THEIRS, [{}, {"type": "message", "id": "msg_1"}, {}], FIRST_INPUT))) == 3


def test_what_only_names_an_item_is_none() -> None:
    assert to_be_looked_up(OURS, [{"type": "item_reference", "id": "a"}, {"id": "b"}], FIRST_INPUT) == ()


def test_of_very_many_items_the_last_can_be_named() -> None:
    found = to_be_looked_up(OURS, [{"id": str(n), "role": "user"} for n in range(NAMED_MAX + 1)], FIRST_INPUT)
    assert (len(found), found[0], found[-1]) == (NAMED_MAX, "1", str(NAMED_MAX))
