"""Rounds: the trials of a group take turns, and a round in which strangers took the machine does not count."""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from benchmarks.figure import Trial, Values
from benchmarks.machine import Moment, strangers

STRANGERS_MAX = 0.15
"""Cores that others may take in a round, on average."""
THROWN_AWAY_MAX = 2
"""So many rounds are thrown away for each that counts; then the least disturbed of them have to do."""


@dataclass(frozen=True, slots=True)
class Round:
    """The values of one round, and how many cores strangers took meanwhile."""

    values: Values
    strangers: float


@dataclass(slots=True)
class Played:
    """All rounds of a group that count."""

    rounds: list[Round] = field(default_factory=list)
    thrown_away: int = 0
    disturbed: bool = False


def play(
    trials: list[Trial], count: int, moment: Callable[[], Moment], tell: Callable[[str], None]
) -> Played:
    """Rounds until `count` undisturbed ones are there, or too many were disturbed."""
    good: list[Round] = []
    bad: list[Round] = []
    while len(good) < count and len(bad) <= count * THROWN_AWAY_MAX:
        number = len(good) + len(bad)
        start = number % len(trials)
        before = moment()
        values: Values = {}
        for trial in trials[start:] + trials[:start]:
            tell(f"{trial.case}: {trial.subject}, round {len(good) + 1} of {count}")
            for measure, value in trial.run().items():
                values[measure, trial.case, trial.subject] = value
        took = Round(values, strangers(before, moment()))
        (good if took.strangers <= STRANGERS_MAX else bad).append(took)
    bad.sort(key=lambda each: each.strangers)
    filled = bad[: count - len(good)]
    return Played(good + filled, len(bad) - len(filled), bool(filled))


@dataclass(frozen=True, slots=True)
class Spread:
    """Of some values: the one in the middle, the least and the largest."""

    median: float
    least: float
    largest: float

    @classmethod
    def of(cls, values: list[float]) -> Spread:
        return cls(statistics.median(values), min(values), max(values))


def ratios(values: list[float], anchors: list[float]) -> Spread | None:
    """How values compare with an anchor's of the same rounds."""
    found = [value / anchor for value, anchor in zip(values, anchors, strict=False) if anchor]
    return Spread.of(found) if found else None


class Progress:
    """One line on a terminal that says what is measured; on anything else, nothing."""

    def __init__(self) -> None:
        self._shows = sys.stderr.isatty()
        self._started = time.monotonic()
        self.heading = ""

    def tell(self, what: str) -> None:
        if self._shows:
            passed = int(time.monotonic() - self._started)
            line = f"[{passed // 60}:{passed % 60:02}] {self.heading} {what}"
            sys.stderr.write(f"\r\x1b[K{line[:110]}")
            sys.stderr.flush()

    def clear(self) -> None:
        if self._shows:
            sys.stderr.write("\r\x1b[K")
