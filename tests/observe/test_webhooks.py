"""Counters and gauges of webhooks."""

from __future__ import annotations

import pytest

from gateway.observe import Observer


@pytest.mark.parametrize(
    ("reason", "result"), [("http_503", "http_5xx"), ("http_410", "http_4xx"), ("timeout", "timeout")]
)
def test_attempts_are_counted_by_the_class_of_their_status(reason: str, result: str) -> None:
    observer = Observer()
    observer.webhook_given_up("resp_1", "billing", 3, reason)
    page = observer.exposition().decode()
    assert f'backburner_webhook_attempts_total{{endpoint="billing",result="{result}"}} 1.0' in page
    assert 'backburner_webhook_deliveries_total{endpoint="billing",outcome="given_up"} 1.0' in page


def test_an_endpoint_that_is_gone_leaves_no_gauge() -> None:
    observer = Observer()
    observer.webhooks_measured([("old", 3, 60.0, False, 1)])
    observer.webhooks_measured([("new", 0, 0.0, False, 0)])
    page = observer.exposition().decode()
    assert 'backburner_webhook_waiting{endpoint="new"} 0.0' in page
    left = {row.partition("{")[0] for row in page.splitlines() if 'endpoint="old"' in row}
    assert left == {"backburner_webhook_deliveries_total"}  # what was counted stays counted
