"""The pages, by their names in docs/, and what they are made with."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from reference import errors, logs, metrics

ROOT = Path(__file__).resolve().parents[1]

PAGES: dict[str, Callable[[], str]] = {
    "metrics.md": metrics.page,
    "log-events.md": logs.page,
    "error-codes.md": errors.page,
}
