"""Happenings as counters and log lines.

Rooms report what happened (`job_finished(...)`); only this room decides which counter moves and which line is
written. Backends, the store and webhooks have parts of their own; `metrics` is the table of metrics, and
`gateway.logs` says what a line may contain.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Mapping
from functools import cache

from prometheus_client import Counter

from gateway.logs import JobFacts, line
from gateway.observe.backends import BackendObserver
from gateway.observe.history import History, JobKind
from gateway.observe.journal import Journal
from gateway.observe.store import StoreObserver
from gateway.observe.tracing import Tracing
from gateway.observe.webhooks import WebhookObserver

_CODES_MAX = 100
_METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS")


class Observer(BackendObserver, StoreObserver, WebhookObserver):
    """Counts what happens and writes one line per transition.

    Attributes:
        journal: The same of the latest jobs, job by job.
        history: The same of the last hour, in numbers.
        tracing: The same as spans.
    """

    def __init__(self, tracing: Tracing | None = None) -> None:
        super().__init__()
        self.tracing = tracing or Tracing()
        self._facts = JobFacts()
        self.journal = Journal()
        self.history = History(random.randrange)
        self._codes: set[str] = set()
        # What every request moves: to look a series up by its labels costs more than to move it.
        self._passed: dict[tuple[str, int], Counter] = {}
        self._accepted, self._finished = cache(self.accepted.labels), cache(self.finished.labels)
        self._queue_waits, self._run_times = cache(self.queue_wait.labels), cache(self.run_time.labels)
        self._first_outputs = cache(self.ttft.labels)
        for reason in ("queue_full", "tenant_queue_full"):  # from 0: `increase` does not see a first value
            self.creates_refused.labels(reason)

    # One method for each thing that happens: counters move and lines are written here only.

    def job_known(
        self,
        response_id: str,
        *,
        backend: str | None = None,
        model: str | None = None,
        request: str | None = None,
    ) -> None:
        """Remember facts that every later line about this job repeats.

        Args:
            request: The `X-Request-Id` of the answer to its create.
        """
        facts = {"backend": backend, "model": model, "request": request}
        self._facts.learn(response_id, {name: value for name, value in facts.items() if value is not None})

    def job_called(self, response_id: str, replica: int, request: str, status: int | None) -> None:
        """A backend was called for a job; later lines say which replica and what came of it.

        Args:
            request: The `X-Request-Id` that the backend got.
            status: The HTTP status of its answer; None if there was none.
        """
        called = {"replica": replica, "upstream_request": request, "upstream_status": status}
        self._facts.learn(response_id, called)
        self.journal.note(response_id, "called" if status is None else "answered", **called)
        if status is None:
            self.tracing.called(response_id, replica, request)
        else:
            self.tracing.answered(response_id, status)

    def job_accepted(self, response_id: str, backend: str, tenant: bytes, is_streamed: bool) -> None:
        self._accepted(backend).inc()
        facts = self._facts.of(response_id)
        line("job", id=response_id, to="queued", tenant=tenant.hex()[:8], stream=is_streamed, **facts)
        self.history.created(_kind(backend, facts, tenant))
        self.journal.note(response_id, "queued", request=facts.get("request"))

    def create_refused(self, reason: str) -> None:
        """reason: `queue_full` | `tenant_queue_full`."""
        self.creates_refused.labels(reason).inc()

    def job_adopted(self, response_id: str) -> None:
        self.adopted.inc()
        line("adopted", id=response_id)

    def job_started(
        self,
        response_id: str,
        backend: str,
        attempt: int,
        waited_s: float,
        *,
        is_first: bool,
        tenant: bytes = b"",
    ) -> None:
        self._facts.learn(response_id, {"attempt": attempt})
        facts = self._facts.of(response_id)
        if is_first:
            self._queue_waits(backend).observe(max(0.0, waited_s))
            self.history.waited(_kind(backend, facts, tenant), max(0.0, waited_s))
        line("job", id=response_id, to="in_progress", waited_s=round(waited_s, 3), **facts)
        self.journal.note(response_id, "in_progress", attempt=attempt)

    def job_first_output(self, response_id: str, backend: str, seconds: float) -> None:
        self._first_outputs(backend).observe(seconds)
        self.tracing.first_output(response_id)

    def job_finished(
        self,
        response_id: str,
        backend: str,
        outcome: str,
        code: str | None,
        reason: str,
        ran_s: float | None,
        *,
        tenant: bytes = b"",
    ) -> None:
        facts = self._facts.forget(response_id)
        self.history.finished(_kind(backend, facts, tenant), outcome)
        self.journal.note(response_id, outcome, code=code, reason=reason)
        self.tracing.run_ended(response_id, outcome, reason, code)
        self._finished(backend, outcome, self._code_label(code)).inc()
        if ran_s is not None:
            self._run_times(backend, outcome).observe(max(0.0, ran_s))
        line(
            "job",
            id=response_id,
            to=outcome,
            code=code,
            reason=reason,
            ran_s=None if ran_s is None else round(ran_s, 3),
            **facts,
        )

    def _code_label(self, code: str | None) -> str:
        """The code is one of a closed set, kept elsewhere; whatever came in beside it, the series end."""
        if code and code not in self._codes:
            if len(self._codes) >= _CODES_MAX:
                return "other"
            self._codes.add(code)
        return code or ""

    def job_deleted(self, response_id: str) -> None:
        """Whether it had ended before, or by this: see `job_finished`."""
        line("job", id=response_id, to="deleted", **self._facts.forget(response_id))

    def job_released(self, response_id: str, reason: str, after_s: float) -> None:
        """The job will run again. Clients still see `in_progress`."""
        facts = self._facts.of(response_id)
        line("job", id=response_id, to="waiting", reason=reason, after_s=round(after_s, 3), **facts)
        self.journal.note(response_id, "waiting", reason=reason, after_s=round(after_s, 3))
        self.tracing.run_ended(response_id, "waiting", reason)

    def job_silent(self, response_id: str, silence_s: float) -> None:
        """Its backend has sent nothing for `silence_s`; the job keeps waiting."""
        facts = self._facts.of(response_id)
        line("job", id=response_id, to="silent", waited_s=round(silence_s, 1), **facts)
        self.journal.note(response_id, "silent", waited_s=round(silence_s, 1))

    def operator_acted(
        self,
        doing: str,
        *,
        role: str,
        peer: str | None,
        response_id: str | None = None,
        backend: str | None = None,
        endpoint: str | None = None,
        count: int | None = None,
        limit: int | None = None,
        chosen: str | None = None,
        tier: str | None = None,
    ) -> None:
        """Somebody has done something on the admin port: who, what, to what, and to how many.

        Args:
            chosen: Of a change of many, the filter by which they were chosen; `ids` for a selection.
        """
        line(
            "operator",
            doing=doing,
            role=role,
            peer=peer,
            id=response_id,
            backend=backend,
            endpoint=endpoint,
            count=count,
            limit=limit,
            chosen=chosen,
            tier=tier,
        )

    def order_heard(self, doing: str, backend: str, *, peer: str | None, limit: int | None) -> None:
        """What an operator ordered at another gateway, or before the start, holds here now."""
        line("order", doing=doing, backend=backend, peer=peer, limit=limit)

    def claim_lost(self, response_id: str) -> None:
        line("claim_lost", id=response_id, level=logging.DEBUG)
        self.tracing.run_ended(response_id, "lost", "claim_lost")

    def task_died(self, name: str, error: BaseException) -> None:
        """A defect: logged with its trace, since nobody else will see it."""
        line("task_died", level=logging.ERROR, task=name, exc_info=error)

    def request_refused(self, status: int) -> None:
        self.refused.labels(str(status)).inc()

    def caller_refused(self, code: str, tenant: str, name: str | None, count: int) -> None:
        """The caller got 429, `count` times since the last line about it."""
        line(
            "caller_refused",
            level=logging.WARNING,
            code=code,
            status=429,
            tenant=tenant,
            tenant_name=name,
            count=count,
        )

    def passed_through(self, method: str, status: int) -> None:
        if (counter := self._passed.get((method, status))) is None:
            counter = self.passthrough.labels(method if method in _METHODS else "other", str(status))
            if method in _METHODS:
                self._passed[method, status] = counter
        counter.inc()

    def loop_lagged(self, seconds: float) -> None:
        self.loop_lag.observe(max(0.0, seconds))

    def clock_jumped(self, seconds: float) -> None:
        self.clock_jumps.inc()
        line("clock_jump", level=logging.WARNING, seconds=round(seconds, 1))


def _kind(backend: str, facts: Mapping[str, object], tenant: bytes) -> JobKind:
    return JobKind(backend, str(facts.get("model") or ""), tenant.hex()[:8])
