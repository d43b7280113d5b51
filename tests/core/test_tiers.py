"""Which tier a job gets, and what it is worth."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.core.tiers import TIERS, TiersAllowed, rank, weight

TENANT = bytes.fromhex("0a1b2c3d") + b"t" * 28


@pytest.mark.parametrize(
    ("asked", "counts_as"),
    [("flex", 0), ("default", 1), ("priority", 2), ("auto", 1), ("scale", 1), (None, 1), (["flex"], 1)],
)
def test_a_tier_that_is_not_known_counts_as_default(asked: Any, counts_as: int) -> None:
    assert rank({"service_tier": asked}) == counts_as
    assert rank({}) == rank({"service_tier": "default"})


def test_a_tier_weighs_twice_what_the_one_below_it_does() -> None:
    assert [weight(rank({"service_tier": tier})) for tier in TIERS] == [1, 2, 4]


@pytest.mark.parametrize(
    ("allowed", "asked", "served"),
    [
        (["default", "flex"], "priority", "default"),
        (["flex"], "priority", "flex"),
        (["flex"], "auto", "flex"),
        (["flex"], None, "flex"),
        (["priority", "flex"], "default", "flex"),
        (["priority"], "flex", "priority"),
        (["priority", "default"], "flex", "default"),
    ],
)
def test_a_tier_that_is_not_allowed_becomes_the_next_lower_one_or_the_lowest(
    allowed: list[str], asked: str | None, served: str
) -> None:
    body = {"model": "m", "service_tier": asked}
    given = TiersAllowed({"0a1b2c3d": allowed}).applied(body, TENANT)
    assert given == {"model": "m", "service_tier": served}
    assert body["service_tier"] == asked, "the caller's own is as it was"


@pytest.mark.parametrize("asked", ["priority", "flex", "auto", "scale", "default"])
def test_a_tier_that_is_allowed_stays_as_it_was_written(asked: str) -> None:
    body = {"service_tier": asked}
    for allowed in ({}, {"ffffffff": ["flex"]}, {"*": ["flex"], "0a1b2c3d": list(TIERS)}):
        assert TiersAllowed(allowed).applied(body, TENANT) is body


def test_whoever_is_not_named_has_the_tiers_of_all_others() -> None:
    allowed = TiersAllowed({"*": ["default"], "ffffffff": ["priority"]})
    assert allowed.applied({"service_tier": "priority"}, TENANT) == {"service_tier": "default"}
