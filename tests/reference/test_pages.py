"""The pages of docs/ that are written from the code say what the code does."""

from __future__ import annotations

import re

import pytest

from gateway.logs import FIELDS
from gateway.observe.backends import WAITS
from gateway.observe.metrics import Metrics
from gateway.wire.failures.causes import CODES
from reference import dashboards, errors, labels, logs, metrics
from reference.pages import PAGES, ROOT


@pytest.mark.parametrize("name", sorted(PAGES))
def test_the_page_is_what_the_code_says(name: str) -> None:
    assert (ROOT / name).read_text() == PAGES[name](), "run `make reference`"


def test_every_log_event_is_explained() -> None:
    assert logs.events().keys() == logs.EVENTS.keys(), "explain it in reference/logs.py"


def test_every_log_field_is_explained_and_used() -> None:
    used = {name for event in logs.events().values() for name in event.fields}
    assert used == FIELDS == logs.WORDS.keys(), "explain it in reference/logs.py"


def test_every_error_code_is_explained() -> None:
    assert errors.refusals().keys() == errors.REQUESTS.keys(), "explain it in reference/errors.py"
    assert errors.RESPONSES.keys() <= CODES


def test_every_error_code_of_a_request_has_a_status() -> None:
    assert {code for code, statuses in errors.refusals().items() if not statuses} == set()


def test_every_label_is_explained() -> None:
    for row in Metrics.rows().values():
        for name in row.labels:
            assert labels.label(row.name.removeprefix("backburner_"), name).about


def test_every_reason_to_wait_is_explained() -> None:
    told = set(labels.label("jobs_waiting", "reason").words)
    assert told == {*WAITS, "removed"}, "explain it in reference/labels.py"


def test_every_metric_is_on_its_page() -> None:
    page = (ROOT / "docs" / "metrics.md").read_text()
    assert {metrics.exposed(row) for row in Metrics.rows().values()} <= set(re.findall(r"`(\w+)`", page))


def test_every_panel_has_a_question_of_its_own() -> None:
    titles = [panel.title for _, panels in dashboards.DASHBOARDS.values() for panel in panels]
    assert len(titles) == len(set(titles))
    assert [title for title in titles if not title.endswith("?")] == []


def test_metrics_that_are_compared_with_opentelemetrys_exist() -> None:
    ours = {name for _, names, _ in metrics.OTEL for name in names.split(", ") if name}
    assert ours <= {row.name for row in Metrics.rows().values()}
