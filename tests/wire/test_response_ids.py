"""Ids of responses: the gateway knows its own by their shape."""

from __future__ import annotations

import re
import secrets

import pytest

from gateway.wire.response_ids import id_of, is_own


def test_ids_are_drawn_and_known_again_by_either_of_their_names() -> None:
    made = [id_of(secrets.token_bytes(24)) for _ in range(200)]
    assert len(set(made)) == 200
    assert all(re.fullmatch(r"resp_[0-9a-f]{48}", name) for name in made)
    assert all(is_own(name) and is_own(name.replace("resp_", "req_")) for name in made)


@pytest.mark.parametrize(
    "other",
    [
        *("", "resp_1", "msg_" + "0" * 48, "resp_" + "é" * 48, "resp_" + "0" * 48 + "\n"),
        "resp_" + "f" * 32,  # vLLM and SGLang
        "resp_67ccd2bed1ec8190b14f964abc0542670bb6a6b452d3795b00",  # OpenAI
    ],
)
def test_ids_of_others_are_not_taken_for_ours(other: str) -> None:
    assert not is_own(other)
