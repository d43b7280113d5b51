"""The figure of several gateways, where there is no database for them."""

from __future__ import annotations

from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from benchmarks.figures import replicas
from benchmarks.lab import Lab, Upstream
from benchmarks.load import Driver
from benchmarks.machine import Cores


def test_without_postgresql_the_figure_is_of_one_gateway_and_the_rest_is_left_out_by_name(
    driver: Driver, upstream: Upstream, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replicas, "binaries", lambda: None)
    lab = Lab(tmp_path, Cores.of_this_machine(), upstream, driver, [], True, [], ExitStack())
    with closing(replicas.REPLICAS.groups(lab)) as groups:
        subjects = [trial.subject for trials in groups for trial in trials]
    assert subjects == ["SQLite", "SQLite"]
    assert "initdb" in lab.skipped["PostgreSQL"]
