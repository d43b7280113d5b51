"""Ids of responses: this gateway knows its own from those of another that look alike."""

from __future__ import annotations

import re

import pytest

from gateway.engine.ids import Ids
from gateway.wire.dialects import Dialect

OURS = Ids(b"a" * 32, Dialect.OPENAI)


def test_an_id_is_known_to_whoever_has_the_pepper_and_to_nobody_else() -> None:
    made = [OURS.new() for _ in range(200)]
    assert len(set(made)) == 200
    assert all(re.fullmatch(r"resp_[0-9a-f]{48}", name) for name in made)
    assert all(Ids(b"a" * 32, Dialect.OPENAI).is_own(name) for name in made)
    assert not any(Ids(b"b" * 32, Dialect.OPENAI).is_own(name) for name in made)


@pytest.mark.parametrize(
    "other",
    [
        *("", "resp_1", "resp_" + "0" * 48, "resp_" + "f" * 32, "msg_" + "0" * 48, "resp_" + "é" * 48),
        "resp_67ccd2bed1ec8190b14f964abc0542670bb6a6b452d3795b",
    ],
)
def test_ids_of_others_are_not_taken_for_ours(other: str) -> None:
    assert not OURS.is_own(other)


def test_an_id_with_one_digit_changed_is_not_ours() -> None:
    name = OURS.new()
    for place in range(len("resp_"), len(name)):
        digit = "0" if name[place] != "0" else "1"
        assert not OURS.is_own(name[:place] + digit + name[place + 1 :])


def test_an_id_is_known_by_either_of_its_names() -> None:
    pharia = Ids(b"a" * 32, Dialect.PHARIA)
    name = pharia.new()
    assert pharia.is_own(name)
    assert pharia.is_own(name.replace("resp_", "req_"))
    assert not OURS.is_own(name.replace("resp_", "req_"))
