"""Rounds: the trials of a group take turns, and one in which strangers took the machine does not count."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from benchmarks.figure import Trial, Values
from benchmarks.machine import Moment, strangers

STRANGERS_MAX = 0.15
"""Cores that others may take in a round, on average."""


@dataclass(frozen=True, slots=True)
class Round:
    """The values of one round, and how many cores strangers took meanwhile."""

    values: Values
    strangers: float


@dataclass(frozen=True, slots=True)
class Played:
    """The rounds of a group that count, and how many were thrown away."""

    rounds: list[Round]
    thrown_away: int
    disturbed: bool


def play(
    trials: Sequence[Trial],
    count: int,
    moment: Callable[[], Moment],
    tell: Callable[[str], None],
    *,
    thrown_away_max: int,
) -> Played:
    """Rounds until `count` undisturbed ones are there.

    Args:
        thrown_away_max: Of disturbed rounds; of more, the least disturbed have to do.
    """
    good: list[Round] = []
    bad: list[Round] = []
    while len(good) < count and len(good) + len(bad) < count + thrown_away_max:
        first = (len(good) + len(bad)) % len(trials)  # nobody is always the first
        before = moment()
        values: Values = {}
        for trial in (*trials[first:], *trials[:first]):
            again = f", {len(bad)} thrown away" if bad else ""
            tell(f"{trial.case}: {trial.subject}, round {len(good) + 1} of {count}{again}")
            for measure, value in trial.run().items():
                values[measure, trial.case, trial.subject] = value
        took = Round(values, strangers(before, moment()))
        (good if took.strangers <= STRANGERS_MAX else bad).append(took)
    bad.sort(key=lambda each: each.strangers)
    filled = bad[: count - len(good)]
    return Played(good + filled, len(bad) - len(filled), bool(filled))
