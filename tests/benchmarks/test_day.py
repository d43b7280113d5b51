"""The figure of a day, in a few seconds; and where there is no database for it."""

from __future__ import annotations

import sys
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from benchmarks.figures import day
from benchmarks.lab import Lab, Upstream
from benchmarks.load import Driver
from benchmarks.machine import Cores
from demo.postgres import binaries


@pytest.fixture
def lab(driver: Driver, upstream: Upstream, tmp_path: Path) -> Lab:
    command = [sys.executable, "-m", "gateway"]
    return Lab(tmp_path, Cores.of_this_machine(), upstream, driver, command, True, [], ExitStack())


@pytest.mark.skipif(binaries() is None, reason="there is no PostgreSQL on this machine")
def test_each_part_of_a_day_says_what_it_costs_and_leaves(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(day, "PARTS", 2)
    monkeypatch.setattr(day, "_SHORT_SECONDS", 4)
    with closing(day.DAY.groups(lab)) as groups:
        trials = next(groups)
        assert [trial.case for trial in trials] == ["hours 0–12", "hours 12–24"]
        for found in [trial.run() for trial in trials]:
            assert set(found) == set(day.DAY.measures)
            assert found["events"] > 50
            assert 0 < found["append p50"] <= found["append p99"]
            assert found["events size"] > 0.1
            assert found["cpu"] > 1
    assert lab.pids == []


def test_without_postgresql_there_is_no_day(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(day, "binaries", lambda: None)
    with closing(day.DAY.groups(lab)) as groups:
        assert list(groups) == []
    assert "initdb" in lab.skipped["PostgreSQL"]
