"""The two sentences about a job: why it waits, and what becomes of it if the gateway dies."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from gateway.core.outlook import Around, Subject, if_the_gateway_dies, span, why_it_waits

NOW = 1_000_000
WAITS = Subject(
    backend="gpu",
    is_over=False,
    is_owned=False,
    attempt=0,
    put_offs=0,
    is_rerunnable=True,
    output_shown=False,
    event_count=2,
    ahead=0,
    created_at_ms=NOW - 5_000,
    not_before_ms=0,
    deadline_ms=NOW + 600_000,
)
FREE = Around(now_ms=NOW, slots=4, running=1, attempts_max=2)
FULL = replace(FREE, running=4)


@pytest.mark.parametrize(
    ("around", "changes", "why", "words"),
    [
        (FREE, {}, "next", "There is room at gpu"),
        (FULL, {}, "slot", "All 4 slots of gpu are taken."),
        (FULL, {"ahead": 3}, "slot", "3 jobs of its caller go before it"),
        (replace(FREE, slots=0, running=0), {}, "slot", "plain requests take all of them"),
        (replace(FULL, barred="share"), {}, "share", "its share of the 4 slots"),
        (replace(FREE, barred="caller"), {}, "caller", "rate limit"),
        (replace(FREE, halted="hold", held_until_ms=NOW + 60_000), {}, "backfill", "or in 60 s in any case"),
        (replace(FREE, halted="hold", held_until_ms=NOW - 1), {}, "next", "There is room"),
        (replace(FREE, halted="rest"), {}, "rest", "no time for background jobs"),
        (replace(FREE, halted="breaker"), {}, "breaker", "its breaker is open"),
        (
            replace(FREE, halted="breaker", unreached_s=42, down_wait_s=300),
            {},
            "breaker",
            "has not been reached for 42 s: it is down, or still starting; jobs wait up to 5 min",
        ),
        (FREE, {"not_before_ms": NOW + 9_000}, "retry", "tried again in 9 s"),
        (FREE, {"not_before_ms": NOW + 9_000, "put_offs": 2}, "retry_after", "(429 or 503) 2 times"),
        (
            replace(FREE, paused_for_s=300, halted="breaker"),
            {},
            "paused",
            "An operator has paused the queue of gpu, 5 min ago",
        ),
        (replace(FREE, can_store=False), {}, "store", "nothing is started"),
        (replace(FREE, is_draining=True), {}, "draining", "shutting down"),
        (replace(FREE, is_known=False), {}, "removed", "no backend gpu any more"),
    ],
)
def test_why_a_job_waits_is_said_by_what_decides(
    around: Around, changes: dict[str, Any], why: str, words: str
) -> None:
    told = why_it_waits(replace(WAITS, **changes), around)
    assert told is not None
    assert told.why == why
    assert words in told.sentence
    assert told.sentence.endswith("It fails at its deadline, in 10 min.")


def test_a_job_that_runs_or_is_over_waits_for_nothing() -> None:
    assert why_it_waits(replace(WAITS, is_owned=True), FULL) is None
    assert why_it_waits(replace(WAITS, is_over=True), FULL) is None


def test_a_deadline_that_has_passed_is_told() -> None:
    told = why_it_waits(replace(WAITS, deadline_ms=NOW - 1), FULL)
    assert told is not None
    assert told.sentence.endswith("Its deadline has passed: it fails now.")


RUNS = replace(WAITS, is_owned=True, attempt=1, event_count=9)


@pytest.mark.parametrize(
    ("job", "around", "why", "words"),
    [
        (replace(WAITS, is_over=True), FREE, "kept", "it is over"),
        (WAITS, FREE, "waits_again", "keeps its place in the queue"),
        (RUNS, FREE, "runs_again", "nobody has seen output (attempt 2 of 2)"),
        (replace(RUNS, output_shown=True), FREE, "fails", "with its 9 events kept: a reader may have seen"),
        (replace(RUNS, is_rerunnable=False), FREE, "fails", "effects that must not happen twice"),
        (replace(RUNS, attempt=2), FREE, "fails", "it has had 2 attempts"),
        (RUNS, replace(FREE, attempts_max=1), "fails", "it has had 1 attempt,"),
        (replace(WAITS, attempt=2), FREE, "fails", "it has had 2 attempts"),
        (WAITS, replace(FREE, is_credential_held=True), "waits_again", "in memory only"),
        (RUNS, replace(FREE, is_credential_held=True), "runs_again", "in memory only"),
        (WAITS, replace(FREE, is_shared=True), "waits_again", "in the queue, and another gateway runs it"),
        (RUNS, replace(FREE, is_shared=True), "runs_again", "Another gateway runs it again from its start"),
        (replace(RUNS, output_shown=True), replace(FREE, is_shared=True), "fails", "with its 9 events kept"),
    ],
)
def test_what_becomes_of_a_job_if_the_gateway_dies(
    job: Subject, around: Around, why: str, words: str
) -> None:
    told = if_the_gateway_dies(job, around)
    assert told.why == why
    assert words in told.sentence


def test_lengths_of_time_are_for_people() -> None:
    assert [span(each) for each in (0.2, 1, 119, 120, 7200, 200_000)] == [
        "less than 1 s",
        "1 s",
        "119 s",
        "2 min",
        "2 h",
        "2 days",
    ]
