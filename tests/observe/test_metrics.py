"""The table of metrics, as Prometheus sees it."""

from __future__ import annotations

import re
from typing import Any

import pytest
from prometheus_client import Counter, Gauge

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


@pytest.mark.parametrize("attribute", sorted(Metrics.rows()))
def test_no_metric_has_a_label_for_a_tenant_a_key_or_an_id(attribute: str) -> None:
    row: Metric[Any] = Metrics.rows()[attribute]
    closed = {"backend", "replica", "reason", "status", "tool", "outcome", "code", "method", "kind", "field"}
    closed |= {"lesson", "position", "file", "result", "state", "endpoint", "level"}
    assert set(row.labels) <= closed
