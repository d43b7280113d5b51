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
    """What was measured, also when it is interrupted (Ctrl-C).

    Args:
        rounds: How many count for each group; 0 for as many as its figure says.
    """
    run = Run(
        made_at=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        commit=_commit(Path(lab.gateway_command[0]).absolute().parent) or _commit(proxies.ROOT),
        short=lab.short,
        machine=describe(),
        versions=proxies.versions(),
    )
    for figure in figures:
        usual = figure.short_rounds if lab.short else figure.rounds
        count = 1 if figure.is_once else rounds or usual
        progress.begin(figure.name)
        run.titles[figure.name] = figure.title
        run.anchors[figure.name] = figure.anchor
        try:
            with contextlib.closing(figure.groups(lab)) as groups:
                for trials in groups:
                    _group(run, figure, trials, count, lab, progress)
        except FAILURES as error:
            run.failed.append(f"{figure.name}: {error}")
        except KeyboardInterrupt:
            run.failed.append(f"{figure.name}: interrupted; what is missing was not measured")
            break
        finally:
            progress.clear()
    run.skipped = dict(lab.skipped)
    return run


def _commit(folder: Path) -> str:
    """Which commit a folder is of; nothing if it is of none."""
    found = said("git", "-C", str(folder), "describe", "--always", "--dirty", "--abbrev=12")
    return "" if found.startswith("fatal") else found


def _group(run: Run, figure: Figure, trials: list[Trial], count: int, lab: Lab, progress: Progress) -> None:
    try:
        thrown_away_max = 0 if figure.is_once else count if lab.short else count * 2
        played = play(trials, count, lab.now, progress.tell, thrown_away_max=thrown_away_max)
    except FAILURES as error:
        run.failed.append(f"{figure.name}, {trials[0].case}: {error}")
        return
    run.thrown_away += played.thrown_away
    run.rows += rows(figure, trials, played)


def rows(figure: Figure, trials: Sequence[Trial], played: Played) -> list[Row]:
    """What the rounds have given: by measure, and in the order of the trials."""
    rounds = [{**each.values, **figure.derived(each.values)} for each in played.rounds]
    found = []
    for measure, about in figure.measures.items():
        for trial in trials:
            values = [each.get((measure, trial.case, trial.subject)) for each in rounds]
            if values.count(None) == len(values):
                continue
            row = Row(
                figure=figure.name,
                case=trial.case,
                measure=measure,
                subject=trial.subject,
                unit=about.unit,
                more_is_better=about.more_is_better,
                values=values,
                disturbed=played.disturbed,
            )
            found.append(row)
    return found
