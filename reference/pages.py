"""What is written from the code, by its path, and what it is made with."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

from reference import api, configuration, dashboards, errors, logs, metrics, sizing

ROOT = Path(__file__).resolve().parents[1]
_CHART = "deploy/helm/backburner/files"
_RULES = "deploy/prometheus/backburner.rules.yml"


def _copy(path: str) -> str:
    return (ROOT / path).read_text()


PAGES: dict[str, Callable[[], str]] = {
    "docs/metrics.md": metrics.page,
    "docs/log-events.md": logs.page,
    "docs/error-codes.md": errors.page,
    "docs/api.md": api.page,
    "docs/configuration.md": configuration.page,
    "docs/sizing.md": sizing.page,
    # A chart can only use files within it.
    f"{_CHART}/backburner.rules.yml": partial(_copy, _RULES),
    **{
        f"{folder}/{name}.json": partial(dashboards.dashboard, name)
        for name in dashboards.DASHBOARDS
        for folder in ("deploy/grafana/dashboards", f"{_CHART}/dashboards")
    },
}
