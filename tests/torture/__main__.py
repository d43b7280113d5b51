"""`make torture`: plays the trials and says what came of it. Exit status 0 only if every one passed.

Environment: `SHORT=1` plays fewer rounds, about six minutes in all, and leaves out those that measure for
minutes; `ONLY=T1,T9` plays these; `RUNS=200` gives the number of rounds; `WITHOUT=fence` takes a guard away
from every gateway, so that a trial can be seen to fail; `REPLICAS=3` plays on three gateways that share a
PostgreSQL, where a trial is not about the file.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.torture import report
from tests.torture.guards import GUARDS
from tests.torture.trial import Bench, Result, Trial, all_trials


def main() -> int:
    try:
        plan = Plan.read(sys.argv[1:], os.environ)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    screen = report.Screen()
    results: list[Result] = []
    try:
        for trial in plan.trials:
            results.append(_play(trial, plan, screen))
            if plan.replicas == 1:  # or `make figures` would take these for those of one gateway
                report.write(results)  # each at once: the next one may take an hour
    except KeyboardInterrupt:
        screen.console.print("Interrupted.")
    screen.table(results)
    return 0 if len(results) == len(plan.trials) and all(result.is_passed for result in results) else 1


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be played.

    Attributes:
        runs: Rounds of each trial; None: as many as it says itself, of which there are two kinds.
        without: The guard that is taken away.
        replicas: How many processes each gateway is.
    """

    trials: list[Trial]
    runs: int | None
    is_short: bool
    without: str | None
    replicas: int

    @classmethod
    def read(cls, arguments: list[str], environ: Mapping[str, str]) -> Plan:
        """Raises: ValueError, with what to say about it."""
        if arguments:
            raise ValueError(__doc__)
        named = {name.strip().lower() for name in environ.get("ONLY", "").split(",") if name.strip()}
        trials = all_trials()
        if unknown := named - {trial.name.lower() for trial in trials}:
            there = _listed(trial.name for trial in trials)
            raise ValueError(f"ONLY: no trial is called {_listed(sorted(unknown))}; there are: {there}")
        runs = environ.get("RUNS", "")
        if runs and not (runs.isascii() and runs.isdecimal() and int(runs) > 0):
            raise ValueError(f"RUNS: a number of rounds, above 0, not {runs!r}")
        without = environ.get("WITHOUT") or None
        if without is not None and without not in GUARDS:
            raise ValueError(f"WITHOUT: no guard is called {without!r}; there are: {_listed(GUARDS)}")
        is_short = environ.get("SHORT", "") not in ("", "0")
        chosen = [
            trial
            for trial in trials
            if trial.name.lower() in named or not (named or (is_short and trial.short_runs is None))
        ]
        replicas = environ.get("REPLICAS") or "1"
        if not (replicas.isascii() and replicas.isdecimal() and 0 < int(replicas) < 10):
            raise ValueError(f"REPLICAS: a number of gateways, from 1 to 9, not {replicas!r}")
        return cls(chosen, int(runs) if runs else None, is_short, without, int(replicas))

    def runs_of(self, trial: Trial) -> int:
        """How many rounds of it are to be played."""
        return self.runs or (trial.short_runs or 1 if self.is_short else trial.runs)


def _play(trial: Trial, plan: Plan, screen: report.Screen) -> Result:
    directory = Path(tempfile.mkdtemp(prefix=f"torture-{trial.name}-"))
    runs = plan.runs_of(trial)
    with screen.playing(trial, runs) as progress:
        bench = Bench(trial, directory, runs, without=plan.without, replicas=plan.replicas, progress=progress)
        result = asyncio.run(bench.run())
    if result.is_passed:
        shutil.rmtree(directory)
    screen.ended(result, None if result.is_passed else directory)
    return result


def _listed(names: Iterable[str]) -> str:
    return ", ".join(names)


if __name__ == "__main__":
    sys.exit(main())
