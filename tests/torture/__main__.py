"""`make torture`: plays the trials and says what came of it. Exit status 0 only if every one passed.

Environment: `SHORT=1` plays fewer rounds, about five minutes in all; `ONLY=T1,T9` plays these; `RUNS=200`
gives the number of rounds; `WITHOUT=fence` takes a guard away from every gateway, so that a trial can be seen
to fail.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
import tempfile
from pathlib import Path

from tests.torture import report
from tests.torture.trial import Bench, Result, Trial, all_trials


def main() -> int:
    chosen = _chosen(os.environ.get("ONLY", ""))
    if not chosen:
        print(
            f"ONLY={os.environ.get('ONLY')} names no trial; there are: {_names(all_trials())}",
            file=sys.stderr,
        )
        return 2
    screen = report.Screen()
    results: list[Result] = []
    try:
        results.extend(_play(trial, _runs(trial), screen) for trial in chosen)
    except KeyboardInterrupt:
        screen.console.print("Interrupted.")
    screen.table(results)
    report.write(results)
    return 0 if len(results) == len(chosen) and all(result.is_passed for result in results) else 1


def _play(trial: Trial, runs: int, screen: report.Screen) -> Result:
    directory = Path(tempfile.mkdtemp(prefix=f"torture-{trial.name}-"))
    with screen.playing(trial, runs) as progress:
        result = asyncio.run(
            Bench(trial, directory, runs, without=os.environ.get("WITHOUT"), progress=progress).run()
        )
    if result.is_passed:
        shutil.rmtree(directory)
    screen.ended(result, None if result.is_passed else directory)
    return result


def _chosen(only: str) -> list[Trial]:
    named = {name.strip().lower() for name in only.split(",") if name.strip()}
    trials = all_trials()
    if named - {trial.name.lower() for trial in trials}:
        return []
    return [trial for trial in trials if not named or trial.name.lower() in named]


def _runs(trial: Trial) -> int:
    if runs := os.environ.get("RUNS"):
        return int(runs)
    return trial.short_runs if os.environ.get("SHORT") else trial.runs


def _names(trials: list[Trial]) -> str:
    return ", ".join(trial.name for trial in trials)


if __name__ == "__main__":
    sys.exit(main())
