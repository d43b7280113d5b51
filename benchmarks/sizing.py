"""How many gateways, and how large a database, so many jobs at once need: out of two stored runs.

python -m benchmarks.sizing        prints the table of docs/scaling.md
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from benchmarks.figures.day import PARTS, SECONDS
from benchmarks.figures.replicas import UNFOLLOWED
from benchmarks.load.churn import KEPT_S
from benchmarks.results import Run

CHARTS = Path(__file__).parents[1] / "docs" / "charts"
JOBS = (100, 1_000, 10_000, 30_000, 100_000)
EVENTS_PER_S = 50
"""Of one job."""
FLUSHES_PER_S = 10
"""Of a job that nobody follows, by `background.flush_ms`: each is a row, and a change of the job's."""
BUSY_MAX = 0.5
"""So busy is a core at most, of those that are counted on."""
CONNECTIONS = 5
RETENTION_S = 600
COLUMNS = (
    "events/s",
    "gateways",
    "database, cores",
    "rows/s",
    "WAL, MB/s",
    "commits/s",
    "connections",
    "disk, GB",
)


@dataclass(frozen=True, slots=True)
class Costs:
    """What is measured: microseconds of a core and bytes for one event, commits a second of one gateway."""

    gateway_us: float
    database_us: float
    wal_bytes: float
    disk_bytes: float
    commits: float


def costs_of(replicas: Run, day: Run) -> Costs:
    """Of an event: at one of three gateways that nobody follows, and in the database all that a day costs."""
    three = "PostgreSQL, 3"
    hours = [row.case for row in day.rows if (row.measure, row.subject) == ("events", "PostgreSQL")][-4:]

    def later(measure: str) -> float:
        """In the second half of the day, when as much goes as comes."""
        return median(_value(day, "day", measure, case, "PostgreSQL") for case in hours)

    return Costs(
        gateway_us=_value(replicas, "replicas", "cpu", UNFOLLOWED, three),
        database_us=later("cpu"),
        wal_bytes=later("wal"),
        disk_bytes=later("events size") * 2**20 / (later("events") / (SECONDS / PARTS) * KEPT_S),
        commits=_value(replicas, "replicas", "transactions", UNFOLLOWED, three) / 3,
    )


def _value(run: Run, figure: str, measure: str, case: str, subject: str) -> float:
    row = run.row(figure, measure, case, subject)
    assert row is not None, f"{measure} of {subject} in {case} was not measured"
    return row.spread.median


def needs(costs: Costs, jobs: int) -> Iterator[float]:
    """The columns of the table."""
    events = jobs * EVENTS_PER_S
    gateways = math.ceil(events * costs.gateway_us / 1e6 / BUSY_MAX)
    yield events
    yield gateways
    yield events * costs.database_us / 1e6 / BUSY_MAX
    yield jobs * 2 * FLUSHES_PER_S
    yield events * costs.wal_bytes / 1e6
    yield gateways * costs.commits
    yield gateways * CONNECTIONS
    yield events * RETENTION_S * costs.disk_bytes / 1e9


def table(costs: Costs) -> Iterator[str]:
    """In Markdown."""
    yield f"| jobs at once | {' | '.join(COLUMNS)} |"
    yield "|---" * (len(COLUMNS) + 1) + "|"
    for jobs in JOBS:
        yield f"| {jobs:,} | {' | '.join(_about(need) for need in needs(costs, jobs))} |"


def _about(value: float) -> str:
    """Two significant digits."""
    if value < 1:
        return f"{value:.1g}"
    digits = max(0, math.floor(math.log10(value)) - 1)
    return f"{round(value, -digits):,.0f}"


def stored() -> Costs:
    """Those of the runs in docs/charts."""
    return costs_of(Run.load(CHARTS / "replicas.json"), Run.load(CHARTS / "day.json"))


if __name__ == "__main__":
    print(stored(), *table(stored()), sep="\n")
