"""A run: figure by figure, group by group, round by round."""

from __future__ import annotations

import contextlib
import datetime
import subprocess
from collections.abc import Sequence
from pathlib import Path

from benchmarks import proxies
from benchmarks.figure import Figure, Trial
from benchmarks.lab import Lab
from benchmarks.load import BadAnswers
from benchmarks.machine import describe, said
from benchmarks.processes import DidNotStart
from benchmarks.progress import Progress
from benchmarks.results import Row, Run
from benchmarks.rounds import Played, play

FAILURES = (BadAnswers, DidNotStart, OSError, RuntimeError, TimeoutError, subprocess.SubprocessError)
"""What costs a group its figures, and not the run its others."""


def measured(lab: Lab, figures: Sequence[Figure], *, rounds: int, progress: Progress) -> Run:
    """Args: rounds: How many count for each group; 0 for as many as its figure says."""
    run = Run(
        made_at=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        commit=_commit(Path(lab.gateway_command[0]).absolute().parent) or _commit(proxies.ROOT),
        short=lab.short,
        machine=describe(),
        versions=proxies.versions(),
    )
    for figure in figures:
        count = rounds or (figure.short_rounds if lab.short else figure.rounds)
        progress.begin(figure.name)
        run.titles[figure.name] = figure.title
        run.anchors[figure.name] = figure.anchor
        try:
            with contextlib.closing(figure.groups(lab)) as groups:
                for trials in groups:
                    _group(run, figure, trials, count, lab, progress)
        except FAILURES as error:
            run.failed.append(f"{figure.name}: {error}")
        progress.clear()
    run.skipped = dict(lab.skipped)
    return run


def _commit(folder: Path) -> str:
    """Which commit a folder is of; nothing if it is of none."""
    found = said("git", "-C", str(folder), "describe", "--always", "--dirty", "--abbrev=12")
    return "" if found.startswith("fatal") else found


def _group(run: Run, figure: Figure, trials: list[Trial], count: int, lab: Lab, progress: Progress) -> None:
    try:
        played = play(trials, count, lab.now, progress.tell)
    except FAILURES as error:
        run.failed.append(f"{figure.name}, {trials[0].case}: {error}")
        return
    run.thrown_away += played.thrown_away
    run.rows += rows(figure, played)


def rows(figure: Figure, played: Played) -> list[Row]:
    """What the rounds have given, in the order in which it came; derived values after the others."""
    rounds = [{**each.values, **figure.derived(each.values)} for each in played.rounds]
    keys = dict.fromkeys(key for values in rounds for key in values)
    return [
        Row(
            figure=figure.name,
            case=key[1],
            measure=measure,
            subject=key[2],
            unit=about.unit,
            more_is_better=about.more_is_better,
            values=[values.get(key) for values in rounds],
            disturbed=played.disturbed,
        )
        for measure, about in figure.measures.items()
        for key in keys
        if key[0] == measure
    ]
