"""How many jobs may be started, and whose."""

from __future__ import annotations

import pytest

from gateway.engine.slots import Slots

A, B, C = b"a" * 32, b"b" * 32, b"c" * 32
FLEX, DEFAULT, PRIORITY = range(3)
NOW = 1_800_000_000_000


def slots_with(**running: int) -> Slots:
    slots = Slots()
    for name, jobs in running.items():
        for _ in range(jobs):
            slots.taken("main", {"a": A, "b": B, "c": C}[name], DEFAULT, NOW)
    return slots


def test_a_caller_who_is_alone_may_take_every_slot() -> None:
    assert Slots().room("main", 16, 1, NOW) == (16, set())
    assert slots_with(a=15).room("main", 16, 1, NOW) == (1, set())
    assert slots_with(a=16).room("main", 16, 1, NOW) == (0, set())
    assert slots_with(a=17).room("main", 16, 1, NOW)[0] < 0, "there may be fewer than there were"


def test_with_others_about_the_last_slots_are_for_who_has_less_than_a_share() -> None:
    slots = slots_with(a=10, b=2)
    assert slots.room("main", 16, 2, NOW) == (2, set()), "for anybody: two stay free"
    for _ in range(2):
        slots.taken("main", A, DEFAULT, NOW)
    assert slots.room("main", 16, 2, NOW) == (1, {A}), "one at a time"
    slots.taken("main", B, DEFAULT, NOW)
    assert slots.room("main", 16, 2, NOW) == (1, {A})
    slots.taken("main", B, DEFAULT, NOW)
    assert slots.room("main", 16, 2, NOW)[0] == 0


def test_who_has_as_much_as_a_share_has_enough() -> None:
    assert slots_with(a=7, b=8).room("main", 16, 1, NOW) == (1, {B})
    assert slots_with(a=5, b=5, c=5).room("main", 16, 1, NOW) == (1, set())
    assert slots_with(a=1, b=1).room("main", 3, 1, NOW) == (1, set())


def test_who_has_sent_a_job_is_about_before_any_was_started() -> None:
    slots = slots_with(a=15)
    assert slots.room("main", 16, 1, NOW) == (1, set())
    slots.sent("main", B, DEFAULT, NOW)
    assert slots.room("main", 16, 1, NOW) == (1, {A})
    assert slots.room("main", 16, 1, NOW + 60_000) == (1, set()), "B thought better of it"


def test_a_share_is_the_larger_the_higher_the_tier() -> None:
    slots = Slots()
    for tenant, tier, jobs in ((A, PRIORITY, 8), (B, DEFAULT, 4), (C, FLEX, 1)):
        for _ in range(jobs):
            slots.taken("main", tenant, tier, NOW)
    assert slots.room("main", 14, 1, NOW) == (1, {A, B}), "shares of 8, 4 and 2"
    slots.sent("main", A, FLEX, NOW)
    assert slots.room("main", 14, 1, NOW) == (1, {A}), "2, 8 and 4: the tier that was used last counts"


@pytest.mark.parametrize("tier", [FLEX, DEFAULT, PRIORITY])
def test_no_tier_takes_the_slots_that_are_kept_for_others(tier: int) -> None:
    slots = Slots()
    slots.sent("main", B, FLEX, NOW)
    for _ in range(3):
        slots.taken("main", A, tier, NOW)
    assert slots.room("main", 4, 1, NOW) == (1, {A})


def test_who_has_gone_is_waited_for_no_longer_than_a_minute() -> None:
    slots = slots_with(a=15, b=1)
    slots.freed("main", B)
    assert slots.room("main", 16, 1, NOW + 59_999) == (1, {A})
    slots.taken("main", A, DEFAULT, NOW + 60_000)
    slots.freed("main", A)
    assert slots.room("main", 16, 1, NOW + 60_000) == (1, set())


def test_a_long_job_keeps_its_caller_about() -> None:
    slots = slots_with(a=14, b=1)
    slots.freed("main", A)
    slots.taken("main", A, DEFAULT, NOW + 50_000)
    assert slots.room("main", 16, 1, NOW + 3_600_000) == (1, {A})


def test_backends_have_nothing_to_do_with_each_other() -> None:
    slots = slots_with(a=16, b=1)
    assert slots.room("other", 16, 1, NOW) == (16, set())
    slots.taken("other", B, DEFAULT, NOW)
    assert slots.room("other", 2, 1, NOW) == (1, set())


def test_who_rests_starts_nothing_there_until_the_time_is_over() -> None:
    slots = Slots()
    slots.rest("main", A, NOW + 1000)
    assert slots.room("main", 16, 1, NOW + 999) == (16, {A})
    assert slots.room("other", 16, 1, NOW + 999) == (16, set())
    assert slots.room("main", 16, 1, NOW + 1000) == (16, set())


def test_whoever_gets_none_of_the_free_slots_is_told_why() -> None:
    slots = slots_with(a=8, b=6)
    slots.rest("main", C, NOW + 1000)
    slots.taken("main", A, DEFAULT, NOW)
    assert slots.barred("main", 16, 1, NOW) == {A: "share", C: "caller"}
    assert slots.barred("main", 16, 1, NOW + 1000) == {A: "share"}
    slots.taken("main", B, DEFAULT, NOW)
    assert slots.barred("main", 16, 1, NOW) == {}, "there are none"
