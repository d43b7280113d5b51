"""One figure, from the command line to its files."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from benchmarks.results import Run

ROOT = Path(__file__).resolve().parents[2]


def test_a_figure_is_measured_printed_and_kept(programs: dict[str, Path], tmp_path: Path) -> None:
    command = [sys.executable, "-m", "benchmarks", "--short", "--only", "jobs", "--rounds", "1"]
    environ = {**os.environ, "XDG_CACHE_HOME": str(programs["driver"].parents[1])}
    done = subprocess.run(
        [*command, "--save", str(tmp_path)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=environ,
        timeout=100,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "ms CPU/job" in done.stdout
    assert "CPU of a create that runs and ends, ms" in done.stdout
    kept = Run.load(tmp_path / "run.json")
    found = kept.row("jobs", "cpu", "10 events at once", "gateway")
    assert found is not None
    assert found.spread.median > 0
    assert (tmp_path / "jobs-cpu.svg").exists()
