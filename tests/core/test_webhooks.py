"""When an event is tried again; what attempts say of a receiver: when it is down, and when up again."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.job import Status
from gateway.core.webhooks import UP, Delivery, Schedule, Standing, Verdict, own_lane, owner_of

DELAYS_MS = [10, 50, 100]


SCHEDULE = Schedule(delays_s=[1, 10], retry_for_s=60)


def delivery(attempts: int = 0) -> Delivery:
    return Delivery("resp_1", "billing", None, Status.COMPLETED, 1000, attempts, due_at_ms=0, failure=None)


@pytest.mark.parametrize(
    ("roll", "delays_ms"), [(0.0, [900, 9_000]), (0.5, [1_000, 10_000]), (1.0, [1_100, 11_000])]
)
def test_delays_are_a_tenth_shorter_to_a_tenth_longer(roll: float, delays_ms: list[int]) -> None:
    assert SCHEDULE.delays_ms(roll) == delays_ms


@pytest.mark.parametrize(("attempts", "delay_ms"), [(0, 1_000), (1, 10_000), (2, 10_000), (99, 10_000)])
def test_each_attempt_in_vain_has_its_delay_and_all_later_ones_the_last(attempts: int, delay_ms: int) -> None:
    for verdict in (Verdict.AGAIN, Verdict.DOWN, Verdict.STOP):
        found = SCHEDULE.delay_ms(delivery(attempts), verdict, now_ms=1000, delays_ms=[1_000, 10_000])
        assert found == delay_ms


@pytest.mark.parametrize("verdict", [Verdict.TAKEN, Verdict.NEVER])
def test_what_was_taken_or_may_never_be_sent_is_not_tried_again(verdict: Verdict) -> None:
    assert SCHEDULE.delay_ms(delivery(), verdict, now_ms=1000, delays_ms=[1_000]) is None


def test_an_event_is_given_up_when_its_next_attempt_would_be_too_late() -> None:
    last_ms = 1000 + 60_000 - 1_000
    assert SCHEDULE.delay_ms(delivery(), Verdict.DOWN, now_ms=last_ms, delays_ms=[1_000]) == 1_000
    assert SCHEDULE.delay_ms(delivery(), Verdict.DOWN, now_ms=last_ms + 1, delays_ms=[1_000]) is None


def after(standing: Standing, *verdicts: Verdict, now_ms: int = 1000) -> Standing:
    for verdict in verdicts:
        standing = standing.after(verdict, now_ms=now_ms, delays_ms=DELAYS_MS)
    return standing


def test_three_failures_in_a_row_say_that_it_is_down() -> None:
    assert after(UP, *[Verdict.DOWN] * 2).down_since_ms is None
    assert after(UP, Verdict.DOWN, Verdict.DOWN, Verdict.TAKEN, Verdict.DOWN).down_since_ms is None
    assert after(UP, *[Verdict.DOWN] * 3).down_since_ms == 1000


def test_what_it_would_not_have_of_some_events_says_little_and_of_very_many_enough() -> None:
    assert after(UP, *[Verdict.AGAIN] * 29).down_since_ms is None
    assert after(UP, *[Verdict.AGAIN] * 30).down_since_ms == 1000


@pytest.mark.parametrize("verdict", [Verdict.STOP, Verdict.NEVER])
def test_what_is_about_an_address_says_nothing(verdict: Verdict) -> None:
    assert after(UP, *[verdict] * 100) == UP


def test_the_delay_after_each_probe_is_the_next_one_and_what_was_under_way_is_none() -> None:
    standing = after(UP, *[Verdict.DOWN] * 9)
    assert (standing.probes, standing.probe_at_ms) == (1, 1010)
    found = []
    for _ in range(4):
        now_ms = standing.probe_at_ms
        standing = after(standing, Verdict.AGAIN, Verdict.DOWN, now_ms=now_ms)
        found.append(standing.probe_at_ms - now_ms)
    assert found == [50, 100, 100, 100]
    assert standing.down_since_ms == 1000


@given(st.lists(st.tuples(st.sampled_from(Verdict), st.integers(0, 60)), max_size=80))
def test_whatever_happens_it_is_up_exactly_if_nothing_keeps_it_waiting(
    told: list[tuple[Verdict, int]],
) -> None:
    standing, now_ms = UP, 0
    for verdict, passed_ms in told:
        now_ms += passed_ms
        before, standing = standing, after(standing, verdict, now_ms=now_ms)
        assert (standing.down_since_ms is None) == (standing.probe_at_ms == 0) == (standing.probes == 0)
        assert standing.probe_at_ms <= now_ms + max(DELAYS_MS)
        if verdict is Verdict.TAKEN:
            assert standing == UP
        elif before.down_since_ms is not None:
            assert standing.down_since_ms == before.down_since_ms


def test_a_lane_of_a_caller_is_a_host_and_tells_neither_it_nor_the_path() -> None:
    tenant = b"t" * 32
    lane = own_lane(tenant, "https://hooks.test/secret")
    assert lane == own_lane(tenant, "https://HOOKS.test:443?other")
    assert lane != own_lane(tenant, "https://hooks.test:8443/secret")
    assert lane != own_lane(b"o" * 32, "https://hooks.test/secret")
    assert owner_of(lane) == f"@{tenant.hex()}"
    assert owner_of("billing") == "billing"
    assert "hooks" not in lane
