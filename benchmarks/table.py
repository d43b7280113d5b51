"""A run as text: one table of values and ratios, the goals, and what has changed since a stored run."""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks.compare import Change
from benchmarks.goals import GOALS, judge
from benchmarks.results import Row, Run, Spread


def number(value: float) -> str:
    """Three significant digits, which is more than is known."""
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"


def spread(found: Spread) -> str:
    """The middle, and between what it lies."""
    return f"{number(found.median)} [{number(found.least)}–{number(found.largest)}]"


def table(run: Run) -> Iterator[str]:
    """All figures: values with their spread, and their ratios to the anchor's of the same rounds."""
    for figure, title in run.titles.items():
        lines = list(run.lines(figure))
        if not lines:
            continue
        anchor = run.anchors[figure]
        yield ""
        yield title + (f"; × is the ratio to {anchor}" if anchor else "")
        width = max(len(row.case) for line in lines for row in line)
        for line in lines:
            cells = [_cell(run, row) for row in line]
            about = f"{line[0].measure}, {line[0].unit}"
            mark = " (disturbed)" if line[0].disturbed else ""
            yield f"  {line[0].case:{width}}  {about:30} {cells[0]}{mark}"
            yield from (f"  {'':{width}}  {'':30} {cell}" for cell in cells[1:])


def _cell(run: Run, row: Row) -> str:
    ratio = None if row.subject == run.anchors[row.figure] else run.ratio(row)
    return f"{row.subject:18} {spread(row.spread):26}" + (f" × {spread(ratio)}" if ratio else "")


def goals(run: Run) -> Iterator[str]:
    """Each goal, what was reached, and whether it was met."""
    yield ""
    yield f"  {'goal':46} {'limit':>12} {'found':>10}"
    for goal in (each for each in GOALS if each.figure in run.titles):
        verdict = judge(run, goal)
        sign = "≥" if goal.at_least else "≤"
        found = "–" if verdict.value is None else number(verdict.value)
        met = {True: "met", False: "NOT MET", None: "not measured"}[verdict.met]
        yield f"  {goal.text:46} {sign + ' ' + number(verdict.limit):>12} {found:>10}  {met}"


def changes(found: list[Change]) -> Iterator[str]:
    """What got better or worse beyond its spread."""
    yield ""
    if not found:
        yield "Nothing has changed beyond the spread of the rounds."
    for change in sorted(found, key=lambda each: each.is_better):
        word = "better" if change.is_better else "WORSE"
        row, kind = change.row, "×" if change.is_ratio else change.row.unit
        yield (
            f"  {word:6} {row.figure}, {row.case}, {row.measure}: "
            f"{spread(change.before)} → {spread(change.after)} {kind}"
        )


def remarks(run: Run) -> Iterator[str]:
    """What is to be known about the run as a whole."""
    yield ""
    yield f"{run.commit}, {run.made_at}, {', '.join(f'{key} {value}' for key, value in run.machine.items())}"
    yield f"{run.thrown_away} rounds were thrown away because strangers took the machine."
    yield from (f"Skipped: {name}: {why}" for name, why in run.skipped.items())
    yield from (f"FAILED: {what}" for what in run.failed)
