"""Happenings as counters and log lines.

Rooms report what happened (`job_finished(...)`); only this room decides which counter moves and which line is
written. `webhooks` has deliveries, `metrics` the table of metrics, `gateway.logs` what a line may contain.
"""

from __future__ import annotations

import logging
import random
import re
from collections import Counter as Counted
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol

from prometheus_client import Counter, Histogram

from gateway.logs import JobFacts, line
from gateway.observe.history import History, Kind
from gateway.observe.journal import Journal
from gateway.observe.webhooks import WebhookObserver

_FOREIGN_TO_A_NAME = re.compile(r"[^A-Za-z0-9_.-]")
_NAME_CHARS_MAX = 64
_NOTICES_MAX = 50
"""Per backend. The backend chooses the names of its fields and could make them up without end."""
_CODES_MAX = 100
_WAITS = ("slot", "paused", "breaker", "rest", "hold", "retry", "caller", "share")
_METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS")


class Noticed(Protocol):
    """Something unusual in a backend's answer, as `gateway.wire.answers.notices` reports it."""

    @property
    def what(self) -> str:
        """Its kind."""

    @property
    def name(self) -> str:
        """The field, or the word."""


@dataclass(frozen=True, slots=True)
class Load:
    """What a backend has to do.

    Attributes:
        waiting: Jobs that nobody works on, by a reason out of `_WAITS`, or `removed`.
        oldest_s: Since the longest-waiting of them was accepted.
        running: Jobs that this process runs there.
        slots: How many it may run there.
    """

    backend: str
    waiting: Mapping[str, int]
    oldest_s: float
    running: int
    slots: int


class Observer(WebhookObserver):
    """Counts what happens and writes one line per transition.

    Attributes:
        journal: The same of the latest jobs, job by job.
        history: The same of the last hour, in numbers.
    """

    def __init__(self) -> None:
        super().__init__()
        self._facts = JobFacts()
        self.journal = Journal()
        self.history = History(random.randrange)
        self._notices: dict[str, set[tuple[str, str]]] = {}
        self._backends: set[str] = set()
        self._codes: set[str] = set()
        self._silent_backends: set[str] = set()
        # What every request moves: to look a series up by its labels costs more than to move it.
        self._passed: dict[tuple[str, int], Counter] = {}
        self._head_times: dict[str, Histogram] = {}
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

    def job_accepted(self, response_id: str, backend: str, tenant: bytes, is_streamed: bool) -> None:
        self.accepted.labels(backend).inc()
        facts = self._facts.of(response_id)
        line("job", id=response_id, to="queued", tenant=tenant.hex()[:8], stream=is_streamed, **facts)
        self.history.created(_kind(backend, facts, tenant))
        self.journal.note(response_id, "queued", request=facts.get("request"))

    def create_refused(self, reason: str) -> None:
        """reason: `queue_full` | `tenant_queue_full`."""
        self.creates_refused.labels(reason).inc()

    def tools_omitted(self, backend: str, kinds: Iterable[str]) -> None:
        """kinds: Words of a closed set, one for each tool."""
        counts = Counted(kinds)
        if not counts:
            return
        for kind, count in counts.items():
            self.omitted_tools.labels(backend, kind).inc(count)
        line("tools_omitted", backend=backend, tools=" ".join(sorted(counts)))

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
            self.queue_wait.labels(backend).observe(max(0.0, waited_s))
            self.history.waited(_kind(backend, facts, tenant), max(0.0, waited_s))
        line("job", id=response_id, to="in_progress", waited_s=round(waited_s, 3), **facts)
        self.journal.note(response_id, "in_progress", attempt=attempt)

    def lesson_learned(self, backend: str, lesson: str) -> None:
        """lesson: the name of a row in `wire.conversation.lessons`."""
        self.lessons.labels(backend, lesson).inc()
        line("lesson", backend=backend, reason=lesson)

    def backends_measured(self, backends: Iterable[Load]) -> None:
        """What waits and runs at each backend."""
        found = list(backends)
        if (names := {load.backend for load in found}) != self._backends:
            self._backends = names  # the series of backends that are gone must not stay
            for gauge in (
                self.waiting,
                self.oldest_waiting,
                self.backend_running,
                self.backend_slots,
                self.demand,
            ):
                gauge.clear()
            self._begin_at_zero(names)
        for load in found:
            for reason in {*_WAITS, *load.waiting}:
                self.waiting.labels(load.backend, reason).set(load.waiting.get(reason, 0))
            self.oldest_waiting.labels(load.backend).set(load.oldest_s)
            self.backend_running.labels(load.backend).set(load.running)
            self.backend_slots.labels(load.backend).set(load.slots)
            self.demand.labels(load.backend).set(sum(load.waiting.values()) + load.running)

    def _begin_at_zero(self, backends: Iterable[str]) -> None:
        """Series that alerts are made of: Prometheus takes a first value of 1 for no change."""
        for backend in backends:
            self.accepted.labels(backend)
            self.silent.labels(backend)
            self.retries_refused.labels(backend)
            self.finished.labels(backend, "completed", "")
            self.finished.labels(backend, "failed", "server_error")

    def job_first_output(self, backend: str, seconds: float) -> None:
        self.ttft.labels(backend).observe(seconds)

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
        self.finished.labels(backend, outcome, self._code_label(code)).inc()
        if ran_s is not None:
            self.run_time.labels(backend, outcome).observe(max(0.0, ran_s))
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
        line("job", id=response_id, to="deleted", **self._facts.forget(response_id))

    def job_released(self, response_id: str, reason: str, after_s: float) -> None:
        """The job will run again. Clients still see `in_progress`."""
        facts = self._facts.of(response_id)
        line("job", id=response_id, to="waiting", reason=reason, after_s=round(after_s, 3), **facts)
        self.journal.note(response_id, "waiting", reason=reason, after_s=round(after_s, 3))

    def job_silent(self, response_id: str, silence_s: float) -> None:
        """Its backend has sent nothing for `silence_s`; the job keeps waiting."""
        facts = self._facts.of(response_id)
        line("job", id=response_id, to="silent", waited_s=round(silence_s, 1), **facts)
        self.journal.note(response_id, "silent", waited_s=round(silence_s, 1))

    def jobs_silent(self, backends: Mapping[str, int]) -> None:
        """The number of silent jobs, by backend."""
        for backend in {*self._silent_backends, *backends}:
            self.silent.labels(backend).set(backends.get(backend, 0))
        self._silent_backends |= backends.keys()

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
    ) -> None:
        """Somebody has done something on the admin port: who, what, to what, and to how many."""
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
        )

    def claim_lost(self, response_id: str) -> None:
        line("claim_lost", id=response_id, level=logging.DEBUG)

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

    def upstream_answered(self, kind: str, seconds: float) -> None:
        if (histogram := self._head_times.get(kind)) is None:
            histogram = self._head_times[kind] = self.upstream_latency.labels(kind)
        histogram.observe(seconds)

    def upstream_failed(self, kind: str, reason: str) -> None:
        """kind: `background` | `passthrough` | `lookup`; reason: `unreachable` | `timeout` | `cut`."""
        self.upstream_errors.labels(kind, reason).inc()

    def retried(self, backend: str, reason: str) -> None:
        """reason: `unreachable` | `cut` | `put_off` | `asked_anew`, or the reason why a job runs again."""
        self.retries.labels(backend, reason).inc()

    def retry_refused(self, backend: str) -> None:
        self.retries_refused.labels(backend).inc()

    def backend_noticed(self, backend: str, notices: Iterable[Noticed]) -> None:
        """Count what one answer had in it; log what this backend has not shown before."""
        for notice in notices:
            name = self._fitting(backend, notice)
            if notice.what == "unmapped_field":
                self.unmapped_fields.labels(backend, name).inc()

    def _fitting(self, backend: str, notice: Noticed) -> str:
        """A safe label for a notice: cleaned, cut short, and `other` once a backend has shown too many."""
        known = self._notices.setdefault(backend, set())
        name = _FOREIGN_TO_A_NAME.sub("_", notice.name)[:_NAME_CHARS_MAX]
        if (notice.what, name) not in known:
            if len(known) >= _NOTICES_MAX:
                return "other"
            known.add((notice.what, name))
            line(
                "backend_noticed",
                level=logging.WARNING,
                backend=backend,
                reason=notice.what,
                found=name or None,
            )
        return name

    def replica(
        self,
        backend: str,
        number: int,
        *,
        is_usable: bool,
        is_left_alone: bool,
        rests: bool,
        plain: int,
        background: int,
    ) -> None:
        self.replica_resting.labels(backend, str(number)).set(rests)
        self.breaker_open.labels(backend, str(number)).set(is_left_alone)
        self.replica_up.labels(backend, str(number)).set(is_usable)
        self.replica_calls.labels(backend, str(number), "plain").set(plain)
        self.replica_calls.labels(backend, str(number), "background").set(background)

    def replica_checked(self, backend: str, number: int, result: str, before: str) -> None:
        """result, before: `ok` | `unreachable` | `unavailable` | `no_api` | `key_refused` | `unknown`."""
        self.replica_check.labels(backend, str(number), before).set(0)
        self.replica_check.labels(backend, str(number), result).set(1)

    def loop_lagged(self, seconds: float) -> None:
        self.loop_lag.observe(max(0.0, seconds))

    def store_became(self, state: str, was: str, *, is_worse: bool) -> None:
        self.store_state.labels(was).set(0)
        self.store_state.labels(state).set(1)
        line("store", level=logging.ERROR if is_worse else logging.INFO, to=state, was=was)

    def store_failed(self, kind: str) -> None:
        """kind: `full` | `io` | `corrupt` | `busy` | `interrupted` | `other`."""
        self.store_errors.labels(kind).inc()

    def store_recreated(self, aside: str, reason: str) -> None:
        self.store_recreations.inc()
        line("store_recreated", level=logging.ERROR, aside=aside, reason=reason)

    def store_taken_away(self, what: str) -> None:
        """what: The file that is missing: `database` | `-wal` | `-shm`."""
        line("store_taken_away", level=logging.ERROR, file=what)

    def store_left(self, what: str) -> None:
        """The file was still missing at the end. The next process will not find what was stored since."""
        line("store_left", level=logging.ERROR, file=what)

    def store_restored(self) -> None:
        self.store_restorations.inc()
        line("store_restored", level=logging.WARNING)

    def store_not_restored(self, reason: str) -> None:
        line("store_not_restored", level=logging.ERROR, reason=reason)

    def log_too_large(self, size: int, *, is_ours: bool) -> None:
        """is_ours: One of our own reads held the log; it was interrupted."""
        self.log_alarms.inc()
        line("store_log_too_large", level=logging.ERROR, bytes=size, read_broken_off=is_ours)

    def clock_jumped(self, seconds: float) -> None:
        self.clock_jumps.inc()
        line("clock_jump", level=logging.WARNING, seconds=round(seconds, 1))

    def commit_times(self) -> tuple[float, float]:
        """How many there were, and how many seconds they took together."""
        found = {each.name: each.value for metric in self.commit.collect() for each in metric.samples}
        return found["backburner_commit_seconds_count"], found["backburner_commit_seconds_sum"]

    def committed(self, operations: int, seconds: float) -> None:
        self.commit_ops.observe(operations)
        self.commit.observe(seconds)


def _kind(backend: str, facts: Mapping[str, object], tenant: bytes) -> Kind:
    return Kind(backend, str(facts.get("model") or ""), tenant.hex()[:8])
