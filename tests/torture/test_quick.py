"""The trials that take seconds, within `make test`; and that their oracle is no easy judge."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.torture.trial import Bench, Trial, all_trials

QUICK = [trial for trial in all_trials() if trial.quick_runs is not None]


@pytest.mark.parametrize("trial", QUICK, ids=lambda trial: trial.name)
async def test_quick_trial(trial: Trial, tmp_path: Path) -> None:
    assert trial.quick_runs is not None
    result = await Bench(trial, tmp_path, trial.quick_runs).run()
    assert (result.failures, result.obstacle) == ([], None)
