"""What a run has found: the values of every round, their spread and their ratios; kept as JSON."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Spread:
    """Of some values: the one in the middle, the least and the largest."""

    median: float
    least: float
    largest: float

    @classmethod
    def of(cls, values: list[float]) -> Spread:
        return cls(statistics.median(values), min(values), max(values))

    def apart(self, other: Spread) -> bool:
        """No value of one lies among those of the other."""
        return self.least > other.largest or self.largest < other.least


@dataclass(frozen=True, slots=True)
class Row:
    """One measure of one subject in one case: a value for each round, None where a round gave none.

    Attributes:
        disturbed: Strangers took the machine in too many rounds, so that some of these count all the same.
    """

    figure: str
    case: str
    measure: str
    subject: str
    unit: str
    more_is_better: bool
    values: list[float | None]
    disturbed: bool = False

    @property
    def spread(self) -> Spread:
        return Spread.of([value for value in self.values if value is not None])


@dataclass(slots=True)
class Run:
    """All rows, and what they depend on.

    Attributes:
        titles: Of figures by their names, in order.
        anchors: The subjects that others are compared with, by figure.
        skipped: Proxies that are not here, and why.
        failed: Groups of trials that gave no figure, and why.
    """

    made_at: str
    commit: str
    short: bool
    machine: dict[str, object]
    versions: dict[str, str]
    titles: dict[str, str] = field(default_factory=dict)
    anchors: dict[str, str] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)
    failed: list[str] = field(default_factory=list)
    thrown_away: int = 0
    rows: list[Row] = field(default_factory=list)

    def row(self, figure: str, measure: str, case: str, subject: str) -> Row | None:
        wanted = (figure, measure, case, subject)
        for row in self.rows:
            if (row.figure, row.measure, row.case, row.subject) == wanted:
                return row
        return None

    def ratio(self, row: Row, anchor: str | None = None) -> Spread | None:
        """How a row compares with its anchor's, round by round; None where there is no anchor."""
        other = self.row(row.figure, row.measure, row.case, anchor or self.anchors.get(row.figure, ""))
        if other is None:
            return None
        pairs = zip(row.values, other.values, strict=False)
        found = [value / base for value, base in pairs if value is not None and base]
        return Spread.of(found) if found else None

    def lines(self, figure: str) -> Iterator[list[Row]]:
        """The rows of a figure, those of one measure and case together."""
        lines: dict[tuple[str, str], list[Row]] = {}
        for row in self.rows:
            if row.figure == figure:
                lines.setdefault((row.measure, row.case), []).append(row)
        yield from lines.values()

    def save(self, file: Path) -> None:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(asdict(self), indent=1, ensure_ascii=False) + "\n")

    @classmethod
    def load(cls, file: Path) -> Run:
        """A stored run. Raises: ValueError, with what is wrong with the file."""
        try:
            found = json.loads(file.read_text())
            return cls(**{**found, "rows": [Row(**row) for row in found["rows"]]})
        except (OSError, TypeError, KeyError, json.JSONDecodeError) as error:
            raise ValueError(f"{file} is not a stored run: {error}") from error
