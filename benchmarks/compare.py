"""What has changed between two runs, beyond what their rounds differ by among themselves."""

from __future__ import annotations

from dataclasses import dataclass

from benchmarks.results import Row, Run, Spread

CHANGE_MIN = 0.05
"""A smaller share is no change, however little the rounds differ."""


@dataclass(frozen=True, slots=True)
class Change:
    """A row of the later run, and what it was before: as a ratio to the anchor where there is one."""

    row: Row
    before: Spread
    after: Spread
    is_ratio: bool

    @property
    def is_better(self) -> bool:
        return (self.after.median > self.before.median) == self.row.more_is_better


def compare(before: Run, after: Run) -> list[Change]:
    """Rows of what is ours that both runs have. Ratios rather than values: machines are noisy.

    A row of a single round has no spread, and is left out.
    """
    found = []
    for row in after.rows:
        other = before.row(row.figure, row.measure, row.case, row.subject)
        if other is None or not row.subject.startswith(("gateway", "chat-only")):
            continue
        pair = (
            (before.ratio(other), after.ratio(row))
            if row.subject != after.anchors[row.figure]
            else (None, None)
        )
        change = (
            Change(row, other.spread, row.spread, False)
            if pair[0] is None or pair[1] is None
            else Change(row, pair[0], pair[1], True)
        )
        share = abs(change.after.median - change.before.median) / (abs(change.before.median) or 1)
        have_spread = len(other.values) > 1 and len(row.values) > 1
        if have_spread and change.before.apart(change.after) and share >= CHANGE_MIN:
            found.append(change)
    return found
