"""Metrics and log lines, in one object that is passed in.

Rooms report what happened (`job_finished(...)`); this file alone decides which counter moves and
which line is written. Label sets are closed: never a tenant, an id, a key or a caller's text.
What may stand in a line at all is in `logs`.
"""

from __future__ import annotations

import logging
import re
from collections import Counter as Counted
from collections.abc import Iterable, Mapping
from typing import Protocol

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
)
from prometheus_client.core import CounterMetricFamily
from prometheus_client.registry import Collector

from gateway.logs import JobFacts, configure_logging, line, lines_dropped

__all__ = ["Observer", "configure_logging", "line"]

disable_created_metrics()  # type: ignore[no-untyped-call]  # a second series for each, which nobody graphs

_SECONDS = (0.005, 0.025, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 900, 3600)
_ESCAPES = str.maketrans({"\\": r"\\", "\n": r"\n", '"': r"\""})
_NOT_OF_A_NAME = re.compile(r"[^A-Za-z0-9_.-]")
_NAME_CHARS_MAX = 64
_NOTICES_MAX = 50
"""Of one backend: field names are the backend's own, and could be made up without end."""
_WAITS = ("slot", "breaker", "rest", "hold", "retry", "caller", "share")
_FAST_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 5)


class Noticed(Protocol):
    """What a backend's answer had in it, as `gateway.wire` says it."""

    @property
    def what(self) -> str:
        """Which kind."""

    @property
    def name(self) -> str:
        """The field, or the word."""


class Observer:
    """Counts what happens and writes one line per transition."""

    def __init__(self) -> None:
        self._facts = JobFacts()
        self.registry = r = CollectorRegistry()
        self._noticed: dict[str, set[tuple[str, str]]] = {}
        self._backends: set[str] = set()
        self._endpoints: set[str] = set()
        self.jobs = Gauge("backburner_jobs", "Responses in the store by status", ["status"], registry=r)
        self.accepted = Counter(
            "backburner_jobs_accepted", "Background responses accepted", ["backend"], registry=r
        )
        self.waiting = Gauge(
            "backburner_jobs_waiting",
            "Responses that no backend is working on, by what they wait for",
            ["backend", "reason"],
            registry=r,
        )
        self._silent: set[str] = set()
        self.silent = Gauge(
            "backburner_running_silent",
            "Running responses whose backend has sent nothing for `background.silent_after_s`",
            ["backend"],
            registry=r,
        )
        self.oldest_waiting = Gauge(
            "backburner_jobs_waiting_oldest_seconds",
            "Since the longest-waiting of them was accepted",
            ["backend"],
            registry=r,
        )
        self.adopted = Counter(
            "backburner_jobs_adopted", "Retries answered with the response of a lost answer", registry=r
        )
        self.refused = Counter(
            "backburner_requests_refused",
            "Requests answered with an error of our own",
            ["status"],
            registry=r,
        )
        self.omitted_tools = Counter(
            "backburner_omitted_tools",
            "Tools of requests that the backend cannot run and was not told of, by their type",
            ["backend", "tool"],
            registry=r,
        )
        self.creates_refused = Counter(
            "backburner_creates_refused",
            "Background creates refused for lack of room",
            ["reason"],
            registry=r,
        )
        self.finished = Counter(
            "backburner_jobs_finished",
            "Background responses ended, by outcome",
            ["backend", "outcome", "code"],
            registry=r,
        )
        self.queue_age = Gauge(
            "backburner_queue_oldest_seconds", "Age of the longest-waiting queued response", registry=r
        )
        self.queue_wait = Histogram(
            "backburner_queue_wait_seconds",
            "From accepted to started for the first time",
            ["backend"],
            buckets=_SECONDS,
            registry=r,
        )
        self.run_time = Histogram(
            "backburner_run_seconds",
            "From started to ended, by outcome",
            ["backend", "outcome"],
            buckets=_SECONDS,
            registry=r,
        )
        self.ttft = Histogram(
            "backburner_ttft_seconds",
            "From the backend call to its first output event",
            ["backend"],
            buckets=_SECONDS,
            registry=r,
        )
        self.events = Counter("backburner_events", "Events committed", registry=r)
        self.passthrough = Counter(
            "backburner_passthrough_requests", "Requests passed through", ["method", "status"], registry=r
        )
        self.upstream_latency = Histogram(
            "backburner_upstream_head_seconds",
            "From the request to the head of the backend's answer",
            ["kind"],
            buckets=_SECONDS,
            registry=r,
        )
        self.upstream_errors = Counter(
            "backburner_upstream_errors",
            "Backend calls that failed below HTTP",
            ["kind", "reason"],
            registry=r,
        )
        self.retries = Counter(
            "backburner_upstream_retries",
            "Calls made again by the gateway, and jobs to be run again",
            ["backend", "reason"],
            registry=r,
        )
        self.retries_refused = Counter(
            "backburner_upstream_retries_refused",
            "Retries not made, or put off, since the budget was spent",
            ["backend"],
            registry=r,
        )
        self.unmapped_fields = Counter(
            "backburner_unmapped_fields",
            "Answers with content in a field for which a response has no place",
            ["backend", "field"],
            registry=r,
        )
        self.lessons = Counter(
            "backburner_lessons",
            "Refusals of a backend after which a call was made again in another form",
            ["backend", "lesson"],
            registry=r,
        )
        self.running = Gauge("backburner_running", "Background calls under way", registry=r)
        self.followers = Gauge("backburner_followers", "Open event-stream readers", registry=r)
        self.replays = Counter("backburner_replays", "Event streams opened", ["position"], registry=r)
        self.commit = Histogram(
            "backburner_commit_seconds", "One group commit", buckets=_FAST_SECONDS, registry=r
        )
        self.commit_ops = Histogram(
            "backburner_commit_operations",
            "Operations in one group commit",
            buckets=(1, 2, 5, 10, 25, 50, 100, 250, 500),
            registry=r,
        )
        self.output_bytes = Gauge(
            "backburner_output_bytes", "Output of running responses in memory", registry=r
        )
        self.output_waiting = Gauge(
            "backburner_output_waiting",
            "Running responses whose backend is not read, since there is too much output in memory",
            registry=r,
        )
        self.database_bytes = Gauge("backburner_database_bytes", "Size on disk", ["file"], registry=r)
        self.swept = Counter("backburner_responses_swept", "Expired or deleted responses purged", registry=r)
        self.replica_up = Gauge(
            "backburner_replica_up", "1 if calls go there", ["backend", "replica"], registry=r
        )
        self.replica_check = Gauge(
            "backburner_replica_check",
            "1 for what the last health check came to",
            ["backend", "replica", "result"],
            registry=r,
        )
        self.breaker_open = Gauge(
            "backburner_breaker_open", "1 while no calls go there", ["backend", "replica"], registry=r
        )
        self.replica_resting = Gauge(
            "backburner_replica_resting",
            "1 while it gets no background calls, having said that it has no time",
            ["backend", "replica"],
            registry=r,
        )
        self.replica_calls = Gauge(
            "backburner_replica_calls", "Calls under way there", ["backend", "replica", "kind"], registry=r
        )
        self.store_state = Gauge(
            "backburner_store_state", "1 for the state that the store is in", ["state"], registry=r
        )
        self.store_used = Gauge(
            "backburner_store_used_ratio", "How much of its quota the database takes", registry=r
        )
        self.store_errors = Counter(
            "backburner_store_errors", "Calls that the database failed, by kind", ["kind"], registry=r
        )
        self.store_recreations = Counter(
            "backburner_store_recreated", "Damaged databases set aside at the start", registry=r
        )
        self.store_restorations = Counter(
            "backburner_store_restored", "Times a deleted database was written anew", registry=r
        )
        self.log_alarms = Counter(
            "backburner_store_log_too_large",
            "Times the write-ahead log was too large and could not be emptied",
            registry=r,
        )
        self.clock_jumps = Counter(
            "backburner_clock_jumps", "Jumps of the wall clock that were not followed", registry=r
        )
        self.webhook_attempts = Counter(
            "backburner_webhook_attempts",
            "Attempts to send an event, by result",
            ["endpoint", "result"],
            registry=r,
        )
        self.webhook_deliveries = Counter(
            "backburner_webhook_deliveries",
            "Events that were taken or given up",
            ["endpoint", "outcome"],
            registry=r,
        )
        self.webhook_waiting = Gauge(
            "backburner_webhook_waiting", "Events not yet taken", ["endpoint"], registry=r
        )
        self.webhook_oldest = Gauge(
            "backburner_webhook_oldest_seconds",
            "Since the end of the response whose event has waited longest",
            ["endpoint"],
            registry=r,
        )
        self.webhook_is_disabled = Gauge(
            "backburner_webhook_disabled", "1 if the endpoint wants no more", ["endpoint"], registry=r
        )
        self.webhook_is_down = Gauge(
            "backburner_webhook_down",
            "1 while the endpoint takes nothing, and is tried with one event at a time; for callers, hosts",
            ["endpoint"],
            registry=r,
        )
        self.durability = Gauge(
            "backburner_durability_info", "Durability level in force", ["level"], registry=r
        )
        self.loop_lag = Histogram(
            "backburner_loop_lag_seconds",
            "How late the event loop gave a turn, measured 20 times a second",
            buckets=_FAST_SECONDS,
            registry=r,
        )
        r.register(_LinesDropped())
        ProcessCollector(registry=r)  # CPU, memory, file descriptors
        self.draining = Gauge("backburner_draining", "1 while shutting down", registry=r)

    def exposition(self) -> bytes:
        """The Prometheus text format. The library takes twice as long: it looks every name over again."""
        text: list[str] = []
        for metric in self.registry.collect():
            name = f"{metric.name}_total" if metric.type == "counter" else metric.name
            text.append(f"# HELP {name} {metric.documentation}\n# TYPE {name} {metric.type}\n")
            for sample in metric.samples:
                labels = ",".join(
                    f'{key}="{value.translate(_ESCAPES)}"' for key, value in sorted(sample.labels.items())
                )
                text.append(f"{sample.name}{{{labels}}} " if labels else f"{sample.name} ")
                text.append(f"{float(sample.value)}\n")
        return "".join(text).encode()

    # One method for each thing that happens: counters move and lines are written here only.

    def job_known(
        self,
        response_id: str,
        *,
        backend: str | None = None,
        model: str | None = None,
        request: str | None = None,
    ) -> None:
        """Something that all further lines about a job are to say.

        Args:
            request: The `X-Request-Id` of the answer to its create.
        """
        facts = {"backend": backend, "model": model, "request": request}
        self._facts.learn(response_id, {name: value for name, value in facts.items() if value is not None})

    def job_called(self, response_id: str, replica: int, request: str, status: int | None) -> None:
        """A call was made for a job.

        Args:
            request: The `X-Request-Id` that the backend got.
            status: Of its answer; None if there was none.
        """
        called = {"replica": replica, "upstream_request": request, "upstream_status": status}
        self._facts.learn(response_id, called)

    def job_accepted(self, response_id: str, backend: str, tenant: bytes, is_streamed: bool) -> None:
        self.accepted.labels(backend).inc()
        facts = self._facts.of(response_id)
        line("job", id=response_id, to="queued", tenant=tenant.hex()[:8], stream=is_streamed, **facts)

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
        self, response_id: str, backend: str, attempt: int, waited_s: float, *, is_first: bool
    ) -> None:
        if is_first:
            self.queue_wait.labels(backend).observe(max(0.0, waited_s))
        self._facts.learn(response_id, {"attempt": attempt})
        facts = self._facts.of(response_id)
        line("job", id=response_id, to="in_progress", waited_s=round(waited_s, 3), **facts)

    def lesson_learned(self, backend: str, lesson: str) -> None:
        """lesson: the name of a row in `wire.lessons`."""
        self.lessons.labels(backend, lesson).inc()
        line("lesson", backend=backend, reason=lesson)

    def jobs_waiting(self, backends: Iterable[tuple[str, Mapping[str, int], float]]) -> None:
        """By backend: how many jobs wait for what, and for how many seconds the first has.

        What: one of `_WAITS`, or `removed`.
        """
        found = list(backends)
        if (names := {backend for backend, *_ in found}) != self._backends:
            self._backends = names  # there were others before
            self.waiting.clear()
            self.oldest_waiting.clear()
        for backend, reasons, oldest_s in found:
            for reason in {*_WAITS, *reasons}:
                self.waiting.labels(backend, reason).set(reasons.get(reason, 0))
            self.oldest_waiting.labels(backend).set(oldest_s)

    def job_first_output(self, backend: str, seconds: float) -> None:
        self.ttft.labels(backend).observe(seconds)

    def job_finished(
        self, response_id: str, backend: str, outcome: str, code: str | None, reason: str, ran_s: float | None
    ) -> None:
        self.finished.labels(backend, outcome, code or "").inc()
        if ran_s is not None:
            self.run_time.labels(backend, outcome).observe(max(0.0, ran_s))
        line(
            "job",
            id=response_id,
            to=outcome,
            code=code,
            reason=reason,
            ran_s=None if ran_s is None else round(ran_s, 3),
            **self._facts.forget(response_id),
        )

    def job_deleted(self, response_id: str) -> None:
        line("job", id=response_id, to="deleted", **self._facts.forget(response_id))

    def job_released(self, response_id: str, reason: str, after_s: float) -> None:
        """It goes on being `in_progress`: nobody is told that it will be run again."""
        facts = self._facts.of(response_id)
        line("job", id=response_id, to="waiting", reason=reason, after_s=round(after_s, 3), **facts)

    def job_silent(self, response_id: str, silence_s: float) -> None:
        """Its backend has sent nothing for so long; the job goes on to wait."""
        facts = self._facts.of(response_id)
        line("job", id=response_id, to="silent", waited_s=round(silence_s, 1), **facts)

    def jobs_silent(self, backends: Mapping[str, int]) -> None:
        """How many of those there are, by backend."""
        for backend in {*self._silent, *backends}:
            self.silent.labels(backend).set(backends.get(backend, 0))
        self._silent |= backends.keys()

    def claim_lost(self, response_id: str) -> None:
        line("claim_lost", id=response_id, level=logging.DEBUG)

    def task_died(self, name: str, error: BaseException) -> None:
        """A defect: logged with its trace, since nobody else will see it."""
        line("task_died", level=logging.ERROR, task=name, exc_info=error)

    def request_refused(self, status: int) -> None:
        self.refused.labels(str(status)).inc()

    def caller_refused(self, code: str, tenant: str, name: str | None, count: int) -> None:
        """With 429, so often since the last line about it."""
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
        known = method in ("GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS")
        self.passthrough.labels(method if known else "other", str(status)).inc()

    def upstream_answered(self, kind: str, seconds: float) -> None:
        self.upstream_latency.labels(kind).observe(seconds)

    def upstream_failed(self, kind: str, reason: str) -> None:
        """kind: `background` | `passthrough` | `lookup`; reason: `unreachable` | `timeout` | `cut`."""
        self.upstream_errors.labels(kind, reason).inc()

    def retried(self, backend: str, reason: str) -> None:
        """reason: `unreachable` | `cut` | `put_off` | `asked_anew`, or that for which a job is run again."""
        self.retries.labels(backend, reason).inc()

    def retry_refused(self, backend: str) -> None:
        self.retries_refused.labels(backend).inc()

    def backend_noticed(self, backend: str, notices: Iterable[Noticed]) -> None:
        """What one answer had in it; a line for each that this backend has not shown before."""
        for notice in notices:
            name = self._fitting(backend, notice)
            if notice.what == "unmapped_field":
                self.unmapped_fields.labels(backend, name).inc()

    def _fitting(self, backend: str, notice: Noticed) -> str:
        """The name that a notice goes by: a word, and one of so many for a backend."""
        known = self._noticed.setdefault(backend, set())
        name = _NOT_OF_A_NAME.sub("_", notice.name)[:_NAME_CHARS_MAX]
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
        """what: `database` | `-wal` | `-shm`: what is not in its place any more."""
        line("store_taken_away", level=logging.ERROR, file=what)

    def store_left(self, what: str) -> None:
        """It was not back by the end: the next process does not find what was stored since."""
        line("store_left", level=logging.ERROR, file=what)

    def store_restored(self) -> None:
        self.store_restorations.inc()
        line("store_restored", level=logging.WARNING)

    def store_not_restored(self, reason: str) -> None:
        line("store_not_restored", level=logging.ERROR, reason=reason)

    def log_too_large(self, size: int, *, is_ours: bool) -> None:
        """is_ours: Whether it was a read of our own that stood in the way; it was broken off."""
        self.log_alarms.inc()
        line("store_log_too_large", level=logging.ERROR, bytes=size, read_broken_off=is_ours)

    def clock_jumped(self, seconds: float) -> None:
        self.clock_jumps.inc()
        line("clock_jump", level=logging.WARNING, seconds=round(seconds, 1))

    def webhook_taken(self, response_id: str, endpoint: str, attempt: int, reason: str) -> None:
        self._webhook_attempted(endpoint, reason)
        self.webhook_deliveries.labels(endpoint, "delivered").inc()
        line("webhook", id=response_id, endpoint=endpoint, to="delivered", attempt=attempt, reason=reason)

    def webhook_put_off(
        self, response_id: str, endpoint: str, attempt: int, reason: str, delay_s: float, *, is_down: bool
    ) -> None:
        """is_down: That it is was told once; there is no line for each attempt."""
        self._webhook_attempted(endpoint, reason)
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

    def webhooks_given_up(self, endpoint: str, count: int, reason: str) -> None:
        """reason: `too_old` | `too_many`."""
        self.webhook_deliveries.labels(endpoint, "given_up").inc(count)
        line("webhook", level=logging.WARNING, endpoint=endpoint, to="given_up", count=count, reason=reason)

    def _webhook_attempted(self, endpoint: str, reason: str) -> None:
        """reason: a word, or `http_` and a status, of which the first digit is counted."""
        is_status = reason.startswith("http_")
        self.webhook_attempts.labels(endpoint, f"{reason[:6]}xx" if is_status else reason).inc()

    def webhook_disabled(self, endpoint: str) -> None:
        line("webhook_endpoint", level=logging.WARNING, endpoint=endpoint, to="disabled", reason="http_410")

    def webhook_down(self, endpoint: str, reason: str) -> None:
        """Until it takes something again it is tried with one event at a time."""
        line("webhook_endpoint", level=logging.WARNING, endpoint=endpoint, to="down", reason=reason)

    def webhook_up(self, endpoint: str, after_s: float) -> None:
        line("webhook_endpoint", endpoint=endpoint, to="up", after_s=round(after_s, 1))

    def webhook_enabled(self, endpoint: str) -> None:
        line("webhook_endpoint", endpoint=endpoint, to="enabled")

    def webhooks_measured(self, endpoints: Iterable[tuple[str, int, float, bool, int]]) -> None:
        """By endpoint: how many events wait, for how many seconds, whether it wants no more, and at how many
        places it is down."""
        found = list(endpoints)
        if (names := {endpoint for endpoint, *_ in found}) != self._endpoints:
            self._endpoints = names  # there were others before
            for gauge in (
                self.webhook_waiting,
                self.webhook_oldest,
                self.webhook_is_disabled,
                self.webhook_is_down,
            ):
                gauge.clear()
        for endpoint, count, oldest_s, is_disabled, down in found:
            self.webhook_is_down.labels(endpoint).set(down)
            self.webhook_waiting.labels(endpoint).set(count)
            self.webhook_oldest.labels(endpoint).set(oldest_s)
            self.webhook_is_disabled.labels(endpoint).set(is_disabled)

    def committed(self, operations: int, seconds: float) -> None:
        self.commit_ops.observe(operations)
        self.commit.observe(seconds)


class _LinesDropped(Collector):
    """Counted where it happens, in a thread that has no time for metrics."""

    def collect(self) -> Iterable[CounterMetricFamily]:
        what = "Log lines that nobody took in time"
        yield CounterMetricFamily("backburner_log_lines_dropped", what, value=lines_dropped())
