"""A day of churn in a PostgreSQL: what is left of responses that have come and gone, and what that costs."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

from benchmarks.figure import Figure, Groups, Measure, Trial
from benchmarks.lab import Lab
from benchmarks.load import HERE
from benchmarks.machine import all_cpu_s
from benchmarks.processes import started, wait_for
from demo.postgres import Postgres, binaries, postgres

PARTS = 8
SECONDS, _SHORT_SECONDS = 576, 64
_FIRST_S = 60
"""Longest wait for a part, besides what it takes."""
_INTERVALS = {"autovacuum_naptime": "6s", "checkpoint_timeout": "30s"}
"""A tenth of the defaults, as `churn.KEPT_S` is of the gateway's."""


def _line(log: Path, number: int) -> dict[str, float] | None:
    lines = log.read_text().splitlines(keepends=True)
    if len(lines) <= number or not lines[number].endswith("\n"):
        return None
    found: dict[str, float] = json.loads(lines[number])
    return found


def _groups(lab: Lab) -> Groups:
    if binaries() is None:
        lab.skipped["PostgreSQL"] = "there is no initdb in the path or in /usr/lib/postgresql"
        return
    seconds = _SHORT_SECONDS if lab.short else SECONDS
    log = lab.directory / "churn.log"
    log.unlink(missing_ok=True)
    with postgres(fsync=True, settings=_INTERVALS) as server:
        command = [lab.gateway_python, str(HERE / "churn.py"), server.database(), str(seconds), str(PARTS)]
        with started(command, core=lab.cores.load, log=log) as process:
            lab.pids += [server.pid, process.pid]
            try:
                yield [
                    Trial(f"hours {number * 24 // PARTS}–{(number + 1) * 24 // PARTS}", "PostgreSQL", run)
                    for number, run in enumerate(_parts(server, process, log, seconds))
                ]
            finally:
                del lab.pids[-2:]


def _parts(
    server: Postgres, process: subprocess.Popen[bytes], log: Path, seconds: float
) -> list[Callable[[], Mapping[str, float]]]:
    used_s = all_cpu_s(server.pid)

    def part(number: int) -> Mapping[str, float]:
        nonlocal used_s
        wait_s = seconds / PARTS + _FIRST_S
        found = wait_for(process, log, lambda: _line(log, number), seconds=wait_s)
        before_s, used_s = used_s, all_cpu_s(server.pid)
        return {**found, "cpu": (used_s - before_s) / found["events"] * 1e6}

    return [partial(part, number) for number in range(PARTS)]


DAY = Figure(
    name="day",
    title="A day of responses that come and go, in a PostgreSQL (fsync on)",
    measures={
        "dead events": Measure("dead rows of events, peak"),
        "events size": Measure("MiB of events, peak"),
        "dead jobs": Measure("dead rows of jobs, peak"),
        "jobs size": Measure("MiB of jobs, peak"),
        "hot": Measure("% of updates of jobs are HOT", more_is_better=True),
        "vacuums": Measure("vacuums/minute"),
        "wal": Measure("bytes of WAL/event"),
        "cpu": Measure("µs CPU of PostgreSQL/event"),
        "sweep": Measure("% of the time a sweep runs"),
        "sweep p99": Measure("ms a sweep takes, p99"),
        "append p50": Measure("ms"),
        "append p99": Measure("ms"),
        "create p99": Measure("ms"),
        "events": Measure("events", more_is_better=True),
    },
    groups=_groups,
    charted=("wal", "dead events", "events size", "append p99"),
    anchor="",
    rounds=1,
    short_rounds=1,
    only_if_named=True,
    is_once=True,
)
