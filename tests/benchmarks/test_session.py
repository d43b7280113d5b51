"""A run: what has been measured is not lost."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from itertools import count
from types import SimpleNamespace
from typing import Any, cast

from benchmarks.figure import Figure, Groups, Measure, Trial
from benchmarks.lab import Lab
from benchmarks.machine import Moment
from benchmarks.progress import Progress
from benchmarks.session import measured


def figure(name: str, *values: float | BaseException) -> Figure:
    """Of one group for each value."""

    def run(value: float | BaseException) -> Mapping[str, float]:
        if isinstance(value, BaseException):
            raise value
        return {"cpu": value}

    def groups(_: Lab) -> Groups:
        for number, value in enumerate(values):
            yield [Trial(f"case {number}", "gateway", partial(run, value))]

    return Figure(
        name=name,
        title=name,
        measures={"cpu": Measure("ms")},
        groups=groups,
        charted=(),
        anchor="",
        rounds=1,
        short_rounds=1,
    )


def run_of(*figures: Figure) -> Any:
    seconds = count()
    lab = SimpleNamespace(
        short=True, gateway_command=["backburner"], now=lambda: Moment(next(seconds), 0, 0), skipped={}
    )
    return measured(cast(Lab, lab), figures, rounds=1, progress=Progress())


def test_a_run_that_is_interrupted_keeps_what_it_has_measured_and_says_what_is_missing() -> None:
    run = run_of(figure("first", 1.0), figure("second", 2.0, KeyboardInterrupt(), 3.0), figure("third", 4.0))
    assert [(row.figure, row.case, row.values) for row in run.rows] == [
        ("first", "case 0", [1.0]),
        ("second", "case 0", [2.0]),
    ]
    assert run.failed == ["second: interrupted; what is missing was not measured"]


def test_a_figure_that_fails_costs_none_of_the_others() -> None:
    run = run_of(figure("first", OSError("no room"), 1.0), figure("second", 2.0))
    assert [(row.figure, row.case) for row in run.rows] == [("first", "case 1"), ("second", "case 0")]
    assert run.failed == ["first, case 0: no room"]
