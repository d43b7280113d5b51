"""What happens to deliveries and their receivers, as counters and log lines; a part of the observer."""

from __future__ import annotations

import logging
import time
from collections.abc import Collection, Iterable

from gateway.logs import line
from gateway.observe.journal import Journal
from gateway.observe.metrics import Metrics


class WebhookObserver(Metrics):
    """The happenings of webhooks.

    Attributes:
        tellings: Of the latest responses, the attempts to tell of their ends.
        last_failures: Of each endpoint, when an attempt failed last (Unix milliseconds), and its reason.
    """

    def __init__(self) -> None:
        super().__init__()
        self._endpoints: set[str] = set()
        self.tellings = Journal()
        self.last_failures: dict[str, tuple[int, str]] = {}

    def webhook_taken(self, response_id: str, endpoint: str, attempt: int, reason: str) -> None:
        self._webhook_attempted(endpoint, reason)
        self._webhook_noted(response_id, "delivered", endpoint, reason, attempt)
        self.webhook_deliveries.labels(endpoint, "delivered").inc()
        line("webhook", id=response_id, endpoint=endpoint, to="delivered", attempt=attempt, reason=reason)

    def webhook_put_off(
        self, response_id: str, endpoint: str, attempt: int, reason: str, delay_s: float, *, is_down: bool
    ) -> None:
        """is_down: The endpoint was reported down already, so this attempt gets no line."""
        self._webhook_attempted(endpoint, reason)
        self._webhook_noted(response_id, "waiting", endpoint, reason, attempt)
        if is_down:
            return
        line(
            "webhook",
            id=response_id,
            endpoint=endpoint,
            to="waiting",
            attempt=attempt,
            reason=reason,
            after_s=round(delay_s, 1),
        )

    def webhook_given_up(self, response_id: str, endpoint: str, attempt: int, reason: str) -> None:
        self._webhook_attempted(endpoint, reason)
        self._webhook_noted(response_id, "given_up", endpoint, reason, attempt)
        self.webhook_deliveries.labels(endpoint, "given_up").inc()
        line(
            "webhook",
            level=logging.WARNING,
            id=response_id,
            endpoint=endpoint,
            to="given_up",
            attempt=attempt,
            reason=reason,
        )

    def webhooks_given_up(self, endpoint: str, response_ids: Collection[str], reason: str) -> None:
        """reason: `too_old` | `too_many`."""
        count = len(response_ids)
        for response_id in response_ids:
            self._webhook_noted(response_id, "given_up", endpoint, reason)
        self.webhook_deliveries.labels(endpoint, "given_up").inc(count)
        line("webhook", level=logging.WARNING, endpoint=endpoint, to="given_up", count=count, reason=reason)

    def _webhook_noted(
        self, response_id: str, to: str, endpoint: str, reason: str, attempt: int | None = None
    ) -> None:
        self.tellings.note(response_id, to, endpoint=endpoint, attempt=attempt, reason=reason)
        if to != "delivered" and attempt is not None:
            self.last_failures[endpoint] = time.time_ns() // 1_000_000, reason

    def _webhook_attempted(self, endpoint: str, reason: str) -> None:
        """reason: A word, or `http_` and a status. Statuses are counted by class: `http_5xx`."""
        is_status = reason.startswith("http_")
        self.webhook_attempts.labels(endpoint, f"{reason[:6]}xx" if is_status else reason).inc()

    def webhook_disabled(self, endpoint: str) -> None:
        line("webhook_endpoint", level=logging.WARNING, endpoint=endpoint, to="disabled", reason="http_410")

    def webhook_down(self, endpoint: str, reason: str) -> None:
        """Until the endpoint accepts an event again, one event at a time is tried."""
        line("webhook_endpoint", level=logging.WARNING, endpoint=endpoint, to="down", reason=reason)

    def webhook_up(self, endpoint: str, after_s: float) -> None:
        line("webhook_endpoint", endpoint=endpoint, to="up", after_s=round(after_s, 1))

    def webhook_enabled(self, endpoint: str) -> None:
        line("webhook_endpoint", endpoint=endpoint, to="enabled")

    def webhooks_measured(self, endpoints: Iterable[tuple[str, int, float, bool, int]]) -> None:
        """Per endpoint: its name, waiting events, the oldest one's age in seconds, disabled, hosts down."""
        found = list(endpoints)
        if (names := {endpoint for endpoint, *_ in found}) != self._endpoints:
            self._endpoints = names  # the series of endpoints that are gone must not stay
            for gauge in (
                self.webhook_waiting,
                self.webhook_oldest,
                self.webhook_is_disabled,
                self.webhook_is_down,
            ):
                gauge.clear()
        for endpoint, count, oldest_s, is_disabled, down in found:
            for outcome in ("delivered", "given_up"):  # from 0: `increase` does not see a first value
                self.webhook_deliveries.labels(endpoint, outcome)
            self.webhook_is_down.labels(endpoint).set(down)
            self.webhook_waiting.labels(endpoint).set(count)
            self.webhook_oldest.labels(endpoint).set(oldest_s)
            self.webhook_is_disabled.labels(endpoint).set(is_disabled)
