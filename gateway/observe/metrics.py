"""The table of metrics: kind, name with its labels, help text, buckets. A new metric is one row here.

Label sets are closed: never a tenant, an id, a key or a caller's text.
"""

from __future__ import annotations

import platform
from collections.abc import Iterable
from typing import Any, Generic, TypeVar, overload

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
)
from prometheus_client.core import CounterMetricFamily
from prometheus_client.metrics import MetricWrapperBase
from prometheus_client.registry import Collector

from gateway import __version__
from gateway.logs import lines_dropped

disable_created_metrics()  # type: ignore[no-untyped-call]  # a second series for each, which nobody graphs

_M = TypeVar("_M", bound=MetricWrapperBase)
_SECONDS = (0.005, 0.025, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 900, 3600)
_JOB_SECONDS = (
    *(0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 900, 1800),
    *(3600, 7200, 14400, 28800, 43200, 86400),
)
"""A job may wait and run for hours: its deadline is at most 7 days."""
_FAST_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 5)
_ESCAPES = str.maketrans({"\\": r"\\", "\n": r"\n", '"': r"\""})
_COUNTS = (1, 2, 5, 10, 25, 50, 100, 250, 500)


class Metric(Generic[_M]):
    """One row. On the class it is the definition, on an object of it the metric itself."""

    def __init__(self, kind: type[_M], name: str, help: str, buckets: Iterable[float] | None = None) -> None:
        """Args: name: As Prometheus writes it, with the labels: `jobs_finished{backend,outcome}`."""
        word, _, labels = name.rstrip("}").partition("{")
        self.kind, self.name, self.help = kind, f"backburner_{word}", help
        self.labels = labels.split(",") if labels else []
        self.buckets = tuple(buckets or ())

    def made(self, registry: CollectorRegistry) -> _M:
        options: dict[str, Any] = {"buckets": self.buckets} if self.buckets else {}
        return self.kind(self.name, self.help, self.labels, registry=registry, **options)

    @overload
    def __get__(self, metrics: None, owner: type) -> Metric[_M]: ...
    @overload
    def __get__(self, metrics: object, owner: type) -> _M: ...
    def __get__(self, metrics: object, owner: type) -> Any:
        return self  # an object's own attribute comes first


class Metrics:
    """All metrics of one gateway, in a registry of its own."""

    # fmt: off
    # -- requests
    refused = Metric(Counter, "requests_refused{status}", "Requests answered with an error of our own")
    passthrough = Metric(Counter, "passthrough_requests{method,status}", "Requests passed through")
    upstream_latency = Metric(Histogram, "upstream_head_seconds{kind}",
                              "From the request to the head of the backend's answer", _SECONDS)
    upstream_errors = Metric(Counter, "upstream_errors{kind,reason}", "Backend calls that failed below HTTP")
    retries = Metric(Counter, "upstream_retries{backend,reason}",
                     "Calls made again by the gateway, and jobs to be run again")
    retries_refused = Metric(Counter, "upstream_retries_refused{backend}",
                             "Retries not made, or put off, since the budget was spent")

    # -- background responses
    jobs = Metric(Gauge, "jobs{status}", "Responses in the store by status")
    accepted = Metric(Counter, "jobs_accepted{backend}", "Background responses accepted")
    adopted = Metric(Counter, "jobs_adopted", "Retries answered with the response of a lost answer")
    creates_refused = Metric(Counter, "creates_refused{reason}",
                             "Background creates refused for lack of room")
    waiting = Metric(Gauge, "jobs_waiting{backend,reason}",
                     "Responses that no backend is working on, by what they wait for")
    oldest_waiting = Metric(Gauge, "jobs_waiting_oldest_seconds{backend}",
                            "Since the longest-waiting of them was accepted")
    queue_age = Metric(Gauge, "queue_oldest_seconds", "Age of the longest-waiting queued response")
    queue_wait = Metric(Histogram, "queue_wait_seconds{backend}",
                        "From accepted to started for the first time", _JOB_SECONDS)
    running = Metric(Gauge, "running", "Background calls under way")
    backend_running = Metric(Gauge, "backend_running{backend}", "Responses that this process runs there")
    backend_slots = Metric(Gauge, "backend_slots{backend}",
        "How many it may run there now: fewer while replicas are down, or plain requests go first")
    demand = Metric(Gauge, "backend_demand{backend}",
                    "Responses that wait for it or run there: the gauge to scale a backend on")
    silent = Metric(Gauge, "running_silent{backend}",
                    "Running responses whose backend has sent nothing for `background.silent_after_s`")
    ttft = Metric(Histogram, "ttft_seconds{backend}",
                  "From the backend call to its first output event", _SECONDS)
    run_time = Metric(Histogram, "run_seconds{backend,outcome}",
                      "From started to ended, by outcome", _JOB_SECONDS)
    finished = Metric(Counter, "jobs_finished{backend,outcome,code}",
                      "Background responses ended, by outcome")
    events = Metric(Counter, "events", "Events committed")
    output_bytes = Metric(Gauge, "output_bytes", "Output of running responses in memory")
    output_waiting = Metric(Gauge, "output_waiting",
        "Running responses whose backend is not read, since there is too much output in memory")
    swept = Metric(Counter, "responses_swept", "Expired or deleted responses purged")

    # -- readers
    followers = Metric(Gauge, "followers", "Open event-stream readers")
    pushed = Metric(Gauge, "pushed_responses",
                    "Responses followed here whose events another gateway pushes")
    links_lost = Metric(Counter, "peer_links_lost{reason}", "Connections between gateways that ended")
    replays = Metric(Counter, "replays{position}", "Event streams opened")

    # -- what backends and requests have in them
    lessons = Metric(Counter, "lessons{backend,lesson}",
                     "Refusals of a backend after which a call was made again in another form")
    unmapped_fields = Metric(Counter, "unmapped_fields{backend,field}",
                             "Answers with content in a field for which a response has no place")
    omitted_tools = Metric(Counter, "omitted_tools{backend,tool}",
                           "Tools of requests that the backend cannot run and was not told of, by their type")

    # -- replicas
    replica_up = Metric(Gauge, "replica_up{backend,replica}", "1 if calls go there")
    replica_check = Metric(Gauge, "replica_check{backend,replica,result}",
                           "1 for what the last health check came to")
    breaker_open = Metric(Gauge, "breaker_open{backend,replica}", "1 while no calls go there")
    replica_resting = Metric(Gauge, "replica_resting{backend,replica}",
                             "1 while it gets no background calls, having said that it has no time")
    replica_calls = Metric(Gauge, "replica_calls{backend,replica,kind}", "Calls under way there")

    # -- the store
    store_state = Metric(Gauge, "store_state{state}", "1 for the state that the store is in")
    store_used = Metric(Gauge, "store_used_ratio", "How much of its quota the database takes")
    store_errors = Metric(Counter, "store_errors{kind}", "Calls that the database failed, by kind")
    store_recreations = Metric(Counter, "store_recreated", "Damaged databases set aside at the start")
    store_restorations = Metric(Counter, "store_restored", "Times a deleted database was written anew")
    log_alarms = Metric(Counter, "store_log_too_large",
                        "Times the write-ahead log was too large and could not be emptied")
    database_bytes = Metric(Gauge, "database_bytes{file}", "Size on disk")
    durability = Metric(Gauge, "durability_info{level}", "Durability level in force")
    commit = Metric(Histogram, "commit_seconds", "One group commit", _FAST_SECONDS)
    commit_ops = Metric(Histogram, "commit_operations", "Operations in one group commit", _COUNTS)

    # -- webhooks
    webhook_attempts = Metric(Counter, "webhook_attempts{endpoint,result}",
                              "Attempts to send an event, by result")
    webhook_deliveries = Metric(Counter, "webhook_deliveries{endpoint,outcome}",
                                "Events that were taken or given up")
    webhook_waiting = Metric(Gauge, "webhook_waiting{endpoint}", "Events not yet taken")
    webhook_oldest = Metric(Gauge, "webhook_oldest_seconds{endpoint}",
                            "Since the end of the response whose event has waited longest")
    webhook_is_disabled = Metric(Gauge, "webhook_disabled{endpoint}", "1 if the endpoint wants no more")
    webhook_is_down = Metric(Gauge, "webhook_down{endpoint}",
        "1 while the endpoint takes nothing, and is tried with one event at a time; for callers, hosts")

    # -- the process
    build = Metric(Gauge, "build_info{version,python}", "1, with what runs here")
    loop_lag = Metric(Histogram, "loop_lag_seconds",
                      "How late the event loop gave a turn, measured 20 times a second", _FAST_SECONDS)
    clock_jumps = Metric(Counter, "clock_jumps", "Jumps of the wall clock that were not followed")
    draining = Metric(Gauge, "draining", "1 while shutting down")
    # fmt: on

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        for attribute, row in self.rows().items():
            vars(self)[attribute] = row.made(self.registry)
        self.build.labels(__version__, platform.python_version()).set(1)
        self.registry.register(_LinesDropped())
        ProcessCollector(registry=self.registry)  # CPU, memory, file descriptors

    @classmethod
    def rows(cls) -> dict[str, Metric[Any]]:
        """The table, by the attribute of each row."""
        return {name: row for name, row in vars(Metrics).items() if isinstance(row, Metric)}

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


class _LinesDropped(Collector):
    """Counted where it happens, in a thread that has no time for metrics."""

    def collect(self) -> Iterable[CounterMetricFamily]:
        what = "Log lines that nobody took in time"
        yield CounterMetricFamily("backburner_log_lines_dropped", what, value=lines_dropped())
