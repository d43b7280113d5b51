"""docs/sizing.md: what one process can do and what it needs, out of the stored run of the benchmarks."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any

from reference.tables import WRITTEN, table

_RUN = Path(__file__).resolve().parents[1] / "docs" / "charts" / "run.json"
_FOLLOWED = "200 × 50/s, 1 follower"


class _Found:
    """The figures of the gateway in that run."""

    def __init__(self, run: dict[str, Any]) -> None:
        self._rows = [row for row in run["rows"] if row["subject"] == "gateway"]

    def value(self, figure: str, measure: str, case: str = "") -> float | None:
        """The median; of the first case whose name begins so."""
        for row in self._rows:
            if (row["figure"], row["measure"]) == (figure, measure) and row["case"].startswith(case):
                return float(median(row["values"]))
        return None


def _rows(found: _Found) -> Iterator[tuple[str, str, str]]:
    if cost := found.value("background", "cpu", _FOLLOWED):
        rate = 1e6 / cost
        yield (
            "an event that is stored and shown to a follower",
            f"{cost:.0f} µs CPU",
            f"{_about(rate)} events/s in one process: {_about(rate / 50)} running responses of 50 tokens/s",
        )
    if cost := found.value("jobs", "cpu", "10 events at once"):
        yield (
            "a background response of 10 events, from create to end",
            f"{cost:.1f} ms CPU",
            f"{_about(1000 / cost)} such responses a second in one process",
        )
    if cost := found.value("requests", "cpu", "small POST"):
        yield (
            "a plain request that is passed through",
            f"{cost:.0f} µs CPU",
            f"{_about(1e6 / cost)} requests/s in one process",
        )
    if size := found.value("memory", "MiB per 1,000", "1,000 jobs"):
        yield ("1,000 running responses", f"{size:.0f} MiB", "memory, beside what their output takes")
    if size := found.value("memory", "MiB", "1,000 jobs"):
        yield ("the process with 1,000 running responses", f"{size:.0f} MiB", "resident memory in all")
    if size := found.value("memory", "KiB per reader"):
        yield ("a reader that waits for events", f"{size:.0f} KiB", f"{size * 1000 / 1024:.0f} MiB for 1,000")
    if size := found.value("database", "bytes/event"):
        yield (
            "a stored event",
            f"{size:.0f} bytes",
            "on the disk, for `background.retention_s` after the end",
        )


def _about(number: float) -> str:
    """Two digits: more are not known."""
    digits = 10 ** max(0, len(str(int(number))) - 2)
    return f"{int(number / digits) * digits:,}"


def page() -> str:
    run = json.loads(_RUN.read_text())
    machine = run["machine"]
    quality = (
        "a short run on a shared machine; take it for the order of magnitude"
        if run["short"]
        else "a full run"
    )
    parts = [
        "# Sizing",
        WRITTEN,
        f"Measured, not promised: medians of [the stored run](charts/run.json) of commit `{run['commit']}` "
        f"({machine['cpu']}, Python {machine['python']}, one core for the gateway; {quality}). "
        "[performance.md](performance.md) says how it is measured; run `make bench` on your machine. What to make of "
        "these figures: [operations.md](operations.md#sizing).",
        table(("what", "costs", "so"), _rows(_Found(run))),
    ]
    return "\n\n".join(parts) + "\n"
