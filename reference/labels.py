"""What each label of a metric may say: a closed set of words, or what bounds it."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from gateway.core.job import Status
from gateway.core.reason import Reason
from gateway.outbound.checks import CheckResult
from gateway.store.sqlite.health import State
from gateway.wire.failures.causes import CODES


@dataclass(frozen=True, slots=True)
class Label:
    """Attributes:
    about: What it is.
    words: All that it can say; empty if the settings say it, or a cap bounds it.
    """

    about: str
    words: Collection[str] = ()


_REASONS = frozenset(reason.short for reason in Reason)
_WAITS = {
    "slot": "a running one must end",
    "paused": "an operator has paused the backend",
    "breaker": "calls failed, and none is made for a while",
    "rest": "the backend asked for time",
    "hold": "plain requests go first (`backfill`)",
    "retry": "the next attempt is not due",
    "caller": "the caller's rate limit there is used up",
    "share": "the caller has all the slots that it may have",
    "removed": "the settings no longer have the backend",
}

LABELS = {
    "backend": Label("its name in the settings; `default` for a single `upstream`"),
    "replica": Label("its number among the backend's URLs, from 0"),
    "endpoint": Label("a webhook endpoint's name in the settings; `@callers` for URLs that callers name"),
    "method": Label("of the request", ["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS", "other"]),
    "status": Label("HTTP status, three digits"),
    "code": Label("[error code](error-codes.md) of the response; empty without one", {"", "other", *CODES}),
    "outcome": Label("how it ended", {each.value for each in Status if each.is_terminal}),
    "version": Label("of Backburner"),
    "python": Label("version"),
    "level": Label("`store.durability`", ("disk", "process")),
    "position": Label("from where it was asked for", ("create", "start", "cursor")),
    "lesson": Label("name of a row of `gateway/wire/conversation/lessons.py`"),
    "field": Label("name of the field; `other` after the first 50 of a backend"),
    "tool": Label("type of the tool, without its date; `other` for one that is not known"),
    "jobs.status": Label("of the response", {status.value for status in Status}),
    "jobs_waiting.reason": Label(
        "; ".join(f"`{word}`: {why}" for word, why in _WAITS.items()), _WAITS.keys()
    ),
    "creates_refused.reason": Label("whose limit was reached", ("queue_full", "tenant_queue_full")),
    "upstream_errors.reason": Label("what failed", _REASONS),
    "upstream_retries.reason": Label("what failed before", {*_REASONS, "asked_anew"}),
    "upstream_head_seconds.kind": Label("of call", ("background", "passthrough", "lookup")),
    "upstream_errors.kind": Label("of call", ("background", "passthrough", "lookup")),
    "replica_calls.kind": Label("of call", ("background", "plain")),
    "replica_check.result": Label("what it found", {finding.value for finding in CheckResult}),
    "store_errors.kind": Label("of error", ("full", "io", "corrupt", "busy", "interrupted", "other")),
    "store_state.state": Label("the state", {state.name.lower() for state in State}),
    "database_bytes.file": Label(
        "`db`: the database; `wal`: its log; `ballast`: room that is kept back", ("db", "wal", "ballast")
    ),
    "webhook_attempts.result": Label("a class of statuses (`http_2xx`), or what failed below HTTP"),
    "webhook_deliveries.outcome": Label("what became of it", ("delivered", "given_up")),
}
"""By the label; by metric and label where it means something else, or has fewer words."""


def label(metric: str, name: str) -> Label:
    """Args: metric: Without `backburner_`."""
    return LABELS.get(f"{metric}.{name}") or LABELS[name]
