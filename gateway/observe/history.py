"""The last hour in steps of ten seconds, for the page: how many jobs came, ended, waited and ran, and whose.

It lies in memory and is bounded: so many steps, so many kinds of jobs in each. A kind is a backend, a model
and the first eight digits of a tenant. What must outlive the process is Prometheus' business.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

STEP_MS = 10_000
_STEPS_MAX = 360
_KINDS_MAX = 200
_WAITS_MAX = 200
"""Waiting times kept for one step. Of more, a random sample is kept."""
_SERIES_MAX = 8
"""Lines of one chart; all others are added up as one."""

OTHERS = "others"


class JobKind(NamedTuple):
    """Which jobs."""

    backend: str
    model: str
    tenant: str


class Live(NamedTuple):
    """How many of a kind there are at a moment."""

    kind: JobKind
    waiting: int
    running: int


class Series(NamedTuple):
    """A line of a chart; None where nothing is known."""

    name: str
    points: list[float | None]


_NO_KIND = JobKind(OTHERS, OTHERS, OTHERS)


@dataclass(slots=True)
class _Step:
    created: Counter[JobKind] = field(default_factory=Counter)
    finished: Counter[tuple[JobKind, str]] = field(default_factory=Counter)
    waits: list[tuple[JobKind, float]] = field(default_factory=list)
    waits_count: int = 0
    live: list[Live] | None = None


class History:
    """The steps, the present one last.

    Args:
        roll: A whole number below another, at random.
    """

    def __init__(self, roll: Callable[[int], int]) -> None:
        self._roll = roll
        self._steps: deque[_Step] = deque([_Step()], maxlen=_STEPS_MAX)
        self.end_ms = 0

    def created(self, kind: JobKind) -> None:
        created = self._steps[-1].created
        created[kind if kind in created or len(created) < _KINDS_MAX else _NO_KIND] += 1

    def finished(self, kind: JobKind, outcome: str) -> None:
        finished = self._steps[-1].finished
        is_known = (kind, outcome) in finished or len(finished) < _KINDS_MAX
        finished[kind if is_known else _NO_KIND, outcome] += 1

    def waited(self, kind: JobKind, seconds: float) -> None:
        """A job was started after so long."""
        step = self._steps[-1]
        step.waits_count += 1
        if len(step.waits) < _WAITS_MAX:
            step.waits.append((kind, seconds))
        elif (place := self._roll(step.waits_count)) < _WAITS_MAX:
            step.waits[place] = kind, seconds

    def tick(self, now_ms: int, live: Iterable[Live]) -> None:
        """A step is over; this is how it stands."""
        self.end_ms = now_ms
        self._steps[-1].live = [*live][:_KINDS_MAX]
        self._steps.append(_Step())

    def series(
        self, what: str, by: str | None, only: Callable[[JobKind], bool] = lambda kind: True
    ) -> list[Series]:
        """The lines of a chart, the largest first.

        Args:
            what: `created` | `finished` | `waiting` | `running` | `wait`.
            by: `outcome` | `backend` | `model` | `tenant`, or None for one line. Waits are percentiles.
            only: Which kinds of jobs.
        """
        steps = list(self._steps)[:-1]
        if what == "wait":
            found = [sorted(s for kind, s in step.waits if only(kind)) for step in steps]
            return [Series(f"p{part}", [_percentile(waits, part) for waits in found]) for part in (50, 95)]
        counts = [_counted(step, what, by, only) for step in steps]
        totals = Counter[str]()
        for count in counts:
            totals.update(count or {})
        names = [name for name, _ in totals.most_common(_SERIES_MAX)]
        lines = [Series(name, [None if c is None else float(c[name]) for c in counts]) for name in names]
        if len(totals) > len(names):
            rest = [None if c is None else float(c.total() - sum(c[name] for name in names)) for c in counts]
            lines.append(Series(OTHERS, rest))
        return lines


def _counted(step: _Step, what: str, by: str | None, only: Callable[[JobKind], bool]) -> Counter[str] | None:
    found = Counter[str]()
    match what:
        case "created":
            for kind, count in step.created.items():
                if only(kind):
                    found[_name(kind, by, what)] += count
        case "finished":
            for (kind, outcome), count in step.finished.items():
                if only(kind):
                    found[outcome if by == "outcome" else _name(kind, by, what)] += count
        case _:
            if step.live is None:
                return None
            for live in step.live:
                if only(live.kind):
                    found[_name(live.kind, by, what)] += live.waiting if what == "waiting" else live.running
    return found


def _name(kind: JobKind, by: str | None, what: str) -> str:
    match by:
        case "backend":
            return kind.backend
        case "model":
            return kind.model
        case "tenant":
            return kind.tenant
    return what


def _percentile(ordered: list[float], part: int) -> float | None:
    return ordered[min(len(ordered) - 1, len(ordered) * part // 100)] if ordered else None
