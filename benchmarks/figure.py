"""What a figure is: trials that take turns, each of which gives a value for one or more measures."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass

from benchmarks.lab import Lab

Key = tuple[str, str, str]
"""Of a value: measure, case and subject."""
Values = dict[Key, float]
"""What one round has given."""


@dataclass(frozen=True, slots=True)
class Measure:
    """One thing that is measured.

    Attributes:
        unit: Of its values; with "/" in front of what it is for.
        more_is_better: Or less.
    """

    unit: str
    more_is_better: bool = False


@dataclass(frozen=True, slots=True)
class Trial:
    """One measurement, of one subject in one case. `run` gives its values, by measure."""

    case: str
    subject: str
    run: Callable[[], Mapping[str, float]]


Groups = Generator[list[Trial], None, None]
"""Groups of trials; what they need is there until the next one is asked for."""


@dataclass(frozen=True, slots=True)
class Figure:
    """A figure: its trials come in groups; those of a group take turns.

    Attributes:
        name: For ONLY.
        rounds: How often each trial is to be run; `short_rounds` under SHORT, where 0 leaves the figure out.
        anchor: The subject that others are compared with.
        charted: The measures that a chart is drawn of.
        only_if_named: It takes long.
        is_once: Its trials follow one another: no round is repeated, whoever disturbs it.
        derived: Values of a round that come of its others, e.g. a difference to `direct`.
    """

    name: str
    title: str
    measures: Mapping[str, Measure]
    groups: Callable[[Lab], Groups]
    rounds: int = 5
    short_rounds: int = 2
    anchor: str = "nginx"
    charted: tuple[str, ...] = ()
    only_if_named: bool = False
    is_once: bool = False
    derived: Callable[[Values], Values] = lambda _: {}


def added(measure: str, name: str) -> Callable[[Values], Values]:
    """A derived measure: what `measure` is more than that of `direct`, in the same case."""

    def derive(values: Values) -> Values:
        return {
            (name, case, subject): value - values[measure, case, "direct"]
            for (found, case, subject), value in values.items()
            if found == measure and subject != "direct" and (measure, case, "direct") in values
        }

    return derive
