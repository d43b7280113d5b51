"""The table of metrics, as Prometheus sees it."""

from __future__ import annotations

import re
from typing import Any

import pytest
from prometheus_client import Counter, Gauge

from gateway.observe import BackendLoad, Observer
from gateway.observe.metrics import Metric, Metrics


def test_a_row_says_kind_name_labels_and_help() -> None:
    row = Metric(Counter, "things{backend,reason}", "Things that happened")
    assert (row.name, row.help, row.labels) == (
        "backburner_things",
        "Things that happened",
        ["backend", "reason"],
    )
    assert Metric(Gauge, "more", "More").labels == []


def test_each_gateway_counts_for_itself() -> None:
    one, other = Metrics(), Metrics()
    one.accepted.labels("default").inc()
    assert b'backburner_jobs_accepted_total{backend="default"} 1.0' in one.exposition()
    assert b"backburner_jobs_accepted_total{" not in other.exposition()


def test_every_row_is_on_the_page() -> None:
    page = Metrics().exposition().decode()
    for row in Metrics.rows().values():
        assert re.search(rf"^# HELP {row.name}(_total)? ", page, re.MULTILINE), row.name


@pytest.mark.parametrize("attribute", ["queue_wait", "run_time"])
def test_times_of_jobs_have_buckets_up_to_a_day(attribute: str) -> None:
    page = Metrics.rows()[attribute]
    observer = Observer()
    observer.job_started("resp_1", "gpu", 1, 80_000, is_first=True)
    observer.job_finished("resp_1", "gpu", "completed", None, "upstream_ended", 80_000)
    told = observer.exposition().decode()
    within = re.findall(rf'^{page.name}_bucket{{.*le="(28800.0|86400.0)".*}} (\S+)$', told, re.MULTILINE)
    assert sorted(within) == [("28800.0", "0.0"), ("86400.0", "1.0")]


def test_demand_is_what_waits_and_what_runs_and_a_backend_that_is_gone_has_none() -> None:
    observer = Observer()
    observer.backends_measured([BackendLoad("old", {"slot": 3}, 5, 1, 4)])
    observer.backends_measured([BackendLoad("gpu", {"slot": 3, "hold": 2}, 5, 7, 8)])
    told = observer.exposition().decode()
    assert 'backburner_backend_demand{backend="gpu"} 12.0' in told
    assert 'backburner_backend_slots{backend="gpu"} 8.0' in told
    left = {row.partition("{")[0] for row in told.splitlines() if 'backend="old"' in row}
    assert not {name for name in left if "waiting" in name or name.startswith("backburner_backend_")}


def test_codes_without_end_become_one_series() -> None:
    observer = Observer()
    for number in range(1000):
        observer.job_finished(f"resp_{number}", "gpu", "failed", f"made_up_{number}", "upstream_failed", None)
    series = re.findall(r"^backburner_jobs_finished_total{", observer.exposition().decode(), re.MULTILINE)
    assert len(series) == 101
    assert 'code="other",outcome="failed"} 900.0' in observer.exposition().decode()


@pytest.mark.parametrize("attribute", sorted(Metrics.rows()))
def test_no_metric_has_a_label_for_a_tenant_a_key_or_an_id(attribute: str) -> None:
    row: Metric[Any] = Metrics.rows()[attribute]
    closed = {"backend", "replica", "reason", "status", "tool", "outcome", "code", "method", "kind", "field"}
    closed |= {"lesson", "position", "file", "result", "state", "endpoint", "level", "version", "python"}
    assert set(row.labels) <= closed
