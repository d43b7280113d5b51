"""Whether a job is run again, when, and whether the call counts: the whole table."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.job import Job, Status
from gateway.core.reason import Reason, RetryKind
from gateway.core.retry import (
    STATUSES,
    UNANSWERED,
    Again,
    Now,
    RetryPolicy,
    again,
    anew,
    calls_made,
    reason_of,
    rest_s,
)
from gateway.core.upstream import UpstreamFailed
from gateway.wire.failures import ToldFailure, failure

PATIENCE = RetryPolicy(
    down_wait_s=300,
    put_offs_max=5,
    put_off_first_s=0.5,
    put_off_max_s=120,
    backoff_first_s=0.1,
    backoff_max_s=2,
)
NOW = 1_800_000_000_000
JOB = Job(
    id="resp_1",
    tenant=b"t" * 32,
    status=Status.IN_PROGRESS,
    epoch=1,
    attempt=1,
    next_seq=3,
    created_at_ms=NOW - 1000,
    started_at_ms=NOW - 500,
    deadline_ms=NOW + 3_600_000,
    is_streamed=False,
    is_followable=False,
    is_rerunnable=True,
    output_shown=False,
    response=b"{}",
    final=None,
)
NOT_SENT = ("upstream_unreachable", "upstream_unavailable")
BROKEN_OFF = ("upstream_error", "upstream_cut", "upstream_closed_early", "upstream_timeout", "bad_event")
FINAL = (
    "upstream_refused",
    "upstream_too_large",
    "upstream_redirect",
    "upstream_error_event",
    "upstream_failed",
    "upstream_ended",
    "deadline",
    "cancelled",
    "credential_lost",
    "interrupted_by_restart",
)


def decided(
    reason: str,
    job: Job = JOB,
    *,
    asked: float | None = None,
    is_callers: bool = False,
    unreached_s: float = 0.0,
    attempts_max: int = 2,
    was_shown: bool = False,
    roll: float = 0.5,
    retry_in_s: float = 0.0,
) -> Again | None:
    """What is decided, with the dice in the middle."""
    failed = UpstreamFailed(
        failure("x"), Reason(reason), None, asked, is_callers=is_callers, unreached_s=unreached_s
    )
    now = Now(NOW, roll, retry_in_s)
    return again(
        failed.reason, failed, job, PATIENCE, attempts_max=attempts_max, was_shown=was_shown, now=now
    )


def job(**changes: Any) -> Job:
    return replace(JOB, **changes)


# -- which failures, and how often


@pytest.mark.parametrize("reason", FINAL)
def test_what_the_backend_or_the_client_has_decided_is_final(reason: str) -> None:
    assert decided(reason) is None


@pytest.mark.parametrize("reason", [*NOT_SENT, "upstream_put_off", *BROKEN_OFF])
def test_nothing_is_run_again_once_its_output_was_shown(reason: str) -> None:
    assert decided(reason) is not None
    assert decided(reason, was_shown=True) is None
    assert decided(reason, job(output_shown=True)) is None


@pytest.mark.parametrize("reason", BROKEN_OFF)
def test_a_call_that_may_have_begun_is_an_attempt_of_which_there_are_few(reason: str) -> None:
    once_more = decided(reason)
    assert once_more is not None
    assert once_more.is_attempt
    assert not once_more.is_put_off
    assert decided(reason, job(attempt=2)) is None
    assert decided(reason, job(attempt=2), attempts_max=3) is not None
    assert decided(reason, attempts_max=1) is None, "recovery: never"
    assert decided(reason, job(is_rerunnable=False)) is None, "a tool of it may have acted"


@pytest.mark.parametrize("reason", NOT_SENT)
def test_a_call_that_was_not_sent_is_no_attempt_and_its_job_waits_while_the_backend_is_down(
    reason: str,
) -> None:
    for patient in (JOB, job(attempt=2), job(is_rerunnable=False), job(put_offs=5)):
        waits = decided(reason, patient, attempts_max=1, unreached_s=299)
        assert waits is not None
        assert not waits.is_attempt
        assert not waits.is_put_off
        assert 0 <= waits.after_s <= PATIENCE.backoff_max_s


def test_it_waits_for_so_long_and_no_longer() -> None:
    old = job(created_at_ms=NOW - 300_000)
    assert decided("upstream_unreachable", old, unreached_s=299.9) is not None
    assert decided("upstream_unreachable", old, unreached_s=300) is None
    young = job(created_at_ms=NOW - 299_000)
    assert decided("upstream_unreachable", young, unreached_s=10_000) is not None, "its own wait counts"


def test_a_job_lets_itself_be_sent_away_so_often() -> None:
    for put_offs in range(5):
        waits = decided("upstream_put_off", job(put_offs=put_offs, attempt=2), attempts_max=1)
        assert waits is not None
        assert waits.is_put_off
        assert not waits.is_attempt
    assert decided("upstream_put_off", job(put_offs=5)) is None


@pytest.mark.parametrize(
    ("reason", "more"),
    [("upstream_put_off", {"asked": 60}), ("upstream_unreachable", {}), ("upstream_cut", {})],
)
def test_nothing_waits_for_its_deadline(reason: str, more: dict[str, Any]) -> None:
    assert decided(reason, job(deadline_ms=NOW + 90_000), **more) is not None
    assert decided(reason, job(deadline_ms=NOW + 10), **more) is None
    assert decided("upstream_put_off", job(deadline_ms=NOW + 58_000), asked=60) is None


def test_a_retry_that_is_not_in_the_budget_waits_for_its_turn_and_costs_only_what_is_a_load() -> None:
    waits = decided("upstream_cut", retry_in_s=40)
    assert waits is not None
    assert waits.after_s == 40
    assert waits.is_attempt, "which is what is booked"
    assert decided("upstream_cut", job(deadline_ms=NOW + 39_000), retry_in_s=40) is None
    for free in (*NOT_SENT, "upstream_put_off"):
        waits = decided(free, retry_in_s=40)
        assert waits is not None
        assert waits.after_s < 40
        assert not waits.is_attempt


@pytest.mark.parametrize(
    ("reason", "calls"),
    [("upstream_cut", 5), ("upstream_put_off", 5), ("upstream_unreachable", 4), ("deadline", 0)],
)
def test_a_failure_knows_how_often_the_backend_was_asked(reason: str, calls: int) -> None:
    assert calls_made(job(attempt=2, put_offs=3), Reason(reason)) == calls
    assert calls_made(job(attempt=2, is_background=False), Reason(reason)) == 0, "its client was not told"


# -- when


@pytest.mark.parametrize(
    ("asked", "put_offs", "wait_s"),
    [
        (3.0, 0, 3.0),
        (3.0, 4, 3.0),
        (120.0, 0, 120.0),
        (86_400.0, 0, 120.0),
        (float("inf"), 0, 120.0),
        (None, 0, 0.5),
        (None, 1, 1.0),
        (None, 4, 8.0),
        (0.0, 0, 0.1),  # "at once", but not five times at once
        (0.0, 4, 1.6),
    ],
)
def test_the_wait_is_what_the_backend_asks_for_within_ten_percent(
    asked: float | None, put_offs: int, wait_s: float
) -> None:
    rolls = [step / 20 for step in range(21)]
    found = [decided("upstream_put_off", job(put_offs=put_offs), asked=asked, roll=roll) for roll in rolls]
    waits = [each.after_s for each in found if each is not None]
    assert len(waits) == len(rolls)
    assert waits == sorted(waits)
    assert len(set(waits)) == len(rolls), "no two come back together"
    assert waits[0] == pytest.approx(wait_s * 0.9)
    assert waits[-1] == pytest.approx(min(120, wait_s * 1.05)), "the way to the backend takes a moment, too"


def test_the_others_are_kept_away_until_the_first_may_come_back() -> None:
    first = decided("upstream_put_off", asked=10.0, is_callers=True, roll=0.0)
    assert first is not None
    assert first.caller_rests_s == first.after_s == rest_s(10.0)
    everybody = decided("upstream_put_off", asked=10.0)
    assert everybody is not None
    assert everybody.caller_rests_s == 0


@given(tries=st.integers(0, 5000), roll=st.floats(0, 1))
def test_a_back_off_has_full_jitter_and_a_cap(tries: int, roll: float) -> None:
    bound = min(2.0, 0.1 * 2 ** min(tries, 20))
    assert PATIENCE.backoff_s(tries, roll) == pytest.approx(roll * bound)


# -- what a status says


@pytest.mark.parametrize(
    ("statuses", "reason"),
    [
        ((429, 503, 529, 425, 498, 521, 523, 525, 526, 530), "upstream_put_off"),
        ((408, 499, 500, 502, 504, 520, 522, 524, 527, 598, 599), "upstream_error"),
        ((400, 401, 402, 403, 404, 405, 409, 410, 413, 422, 424, 451, 501, 505, 511), None),
        ((None,), None),
    ],
)
def test_the_status_of_an_error_says_whether_it_may_pass(
    statuses: tuple[int | None, ...], reason: str | None
) -> None:
    for status in statuses:
        assert reason_of(ToldFailure(failure("x"), status)) == reason, status
        assert reason is None or Reason(reason).kind in (RetryKind.PUT_OFF, RetryKind.BROKEN_OFF)


@pytest.mark.parametrize(
    "code",
    [
        "context_length_exceeded",
        "insufficient_quota",
        "content_filter",
        "invalid_api_key",
        "model_not_found",
        "permission_denied",
    ],
)
def test_what_no_wait_changes_is_not_asked_for_again_whatever_its_status(code: str) -> None:
    for status in (400, 429, 500, 503, None):
        assert reason_of(ToldFailure(failure("x", code), status)) is None
    assert reason_of(ToldFailure(failure("x", "rate_limit_exceeded"), 429, is_last_word=True)) is None


def test_what_stands_in_for_an_answer_may_pass() -> None:
    assert all(status in STATUSES for status in UNANSWERED)


def test_a_plain_answer_is_asked_for_anew_only_where_it_was_lost_on_its_way() -> None:
    every = [*NOT_SENT, "upstream_put_off", *BROKEN_OFF, *FINAL]
    plain = job(is_background=False)
    lost = [reason for reason in every if anew(Reason(reason), plain) is not None]
    assert lost == ["upstream_cut", "upstream_closed_early"]
    assert anew(Reason.CUT, replace(plain, attempt=2)) is None
    assert anew(Reason.CUT, replace(plain, is_streamed=True)) is None
