"""The last hour, in numbers."""

from __future__ import annotations

import random

import pytest

from gateway.observe import history
from gateway.observe.history import OTHERS, History, JobKind, Live

A = JobKind("gpu", "small", "0a1b2c3d")
B = JobKind("cpu", "large", "ffffffff")


@pytest.fixture
def hour() -> History:
    return History(random.Random(1).randrange)


def test_what_came_and_ended_is_counted_step_by_step_and_split_by_what_is_asked_for(hour: History) -> None:
    for kind in (A, A, B):
        hour.created(kind)
    hour.finished(A, "completed")
    hour.tick(10_000, [])
    hour.created(B)
    hour.finished(B, "failed")
    hour.tick(20_000, [])
    assert hour.end_ms == 20_000
    assert hour.series("created", None) == [("created", [3, 1])]
    assert hour.series("created", "backend") == [("gpu", [2, 0]), ("cpu", [1, 1])]
    assert hour.series("created", "tenant", lambda kind: kind.model == "large") == [("ffffffff", [1, 1])]
    assert hour.series("finished", "outcome") == [("completed", [1, 0]), ("failed", [0, 1])]


def test_what_waits_and_runs_is_known_at_the_end_of_a_step_only(hour: History) -> None:
    hour.tick(10_000, [Live(A, 3, 1), Live(B, 0, 2)])
    assert hour.series("waiting", "model") == [("small", [3]), ("large", [0])]
    assert hour.series("running", None) == [("running", [3])]


def test_waits_are_told_as_percentiles(hour: History) -> None:
    for number in range(100):
        hour.waited(A, number / 10)
    hour.tick(10_000, [])
    hour.tick(20_000, [])
    assert hour.series("wait", None) == [("p50", [5.0, None]), ("p95", [9.5, None])]


def test_it_forgets_what_is_older_than_an_hour(hour: History) -> None:
    hour.created(A)
    for number in range(400):
        hour.tick(number, [])
    assert hour.series("created", None) == []
    hour.created(A)
    hour.tick(400, [])
    ((_, points),) = hour.series("created", None)
    assert len(points) <= 360


def test_callers_who_make_up_names_without_end_take_no_more_room(
    hour: History, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(history, "_KINDS_MAX", 3)
    for number in range(50):
        hour.created(JobKind("gpu", f"m{number}", "00000000"))
        hour.finished(JobKind("gpu", f"m{number}", "00000000"), "failed")
        hour.waited(JobKind("gpu", f"m{number}", "00000000"), 1)
    hour.tick(1, [Live(JobKind("gpu", f"m{number}", ""), 1, 0) for number in range(50)])
    by_model = dict(hour.series("created", "model"))
    assert by_model == {"m0": [1], "m1": [1], "m2": [1], OTHERS: [47]}
    assert len(hour.series("waiting", "model")) == 3


def test_a_chart_has_few_lines_and_the_rest_is_one(hour: History) -> None:
    for number in range(20):
        for _ in range(20 - number):
            hour.created(JobKind("gpu", f"m{number}", ""))
    hour.tick(1, [])
    lines = hour.series("created", "model")
    assert [line.name for line in lines] == [*(f"m{number}" for number in range(8)), OTHERS]
    assert lines[-1].points == [sum(range(1, 13))]
