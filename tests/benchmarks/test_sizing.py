"""The sizing table of docs/scaling.md is what its formulas make of the stored runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.sizing import COLUMNS, Costs, needs, stored, table

PAGE = Path(__file__).parents[2] / "docs" / "scaling.md"


def test_the_table_in_the_documents_is_that_of_the_stored_runs() -> None:
    assert "\n".join(table(stored())) in PAGE.read_text(), "python -m benchmarks.sizing prints it"


def test_what_so_many_jobs_need_is_their_events_times_what_one_costs() -> None:
    costs = Costs(gateway_us=200, database_us=50, wal_bytes=500, disk_bytes=400, commits=30)
    found = dict(zip(COLUMNS, needs(costs, 1000), strict=True))
    assert found == {
        "events/s": 50_000,
        "gateways": 20,
        "database, cores": pytest.approx(5),
        "rows/s": 20_000,
        "WAL, MB/s": pytest.approx(25),
        "commits/s": 600,
        "connections": 100,
        "disk, GB": pytest.approx(12),
    }
