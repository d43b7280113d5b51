"""What happens at the backends, as gauges, counters and log lines; a part of the observer."""

from __future__ import annotations

import logging
import re
from collections import Counter as Counted
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Protocol

from gateway.logs import line
from gateway.observe.metrics import Metrics

_FOREIGN_TO_A_NAME = re.compile(r"[^A-Za-z0-9_.-]")
_NAME_CHARS_MAX = 64
_NOTICES_MAX = 50
"""Per backend. The backend chooses the names of its fields and could make them up without end."""
WAITS = ("slot", "paused", "breaker", "rest", "hold", "retry", "caller", "share")
"""What a job may wait for."""


class Noticed(Protocol):
    """Something unusual in a backend's answer, as `gateway.wire.answers.notices` reports it."""

    @property
    def what(self) -> str:
        """Its kind."""

    @property
    def name(self) -> str:
        """The field, or the word."""


@dataclass(frozen=True, slots=True)
class BackendLoad:
    """What a backend has to do.

    Attributes:
        waiting: Jobs that nobody works on, by a reason out of `WAITS`, or `removed`; None: another gateway on
            the same store says it.
        oldest_s: Since the longest-waiting of them was accepted.
        running: Jobs that this process runs there.
        slots: How many it may run there.
    """

    backend: str
    waiting: Mapping[str, int] | None
    oldest_s: float
    running: int
    slots: int


class BackendObserver(Metrics):
    """The happenings of backends."""

    def __init__(self) -> None:
        super().__init__()
        self._notices: dict[str, set[tuple[str, str]]] = {}
        self._backends: set[str] = set()
        self._silent_backends: set[str] = set()
        # What every request moves: to look a series up by its labels costs more than to move it.
        self._head_times = cache(self.upstream_latency.labels)

    def backends_measured(self, backends: Iterable[BackendLoad]) -> None:
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
        if any(load.waiting is None for load in found):
            self.waiting.clear()
            self.oldest_waiting.clear()
        for load in found:
            waiting = load.waiting or {}
            if load.waiting is not None:
                for reason in {*WAITS, *waiting}:
                    self.waiting.labels(load.backend, reason).set(waiting.get(reason, 0))
                self.oldest_waiting.labels(load.backend).set(load.oldest_s)
            self.backend_running.labels(load.backend).set(load.running)
            self.backend_slots.labels(load.backend).set(load.slots)
            self.demand.labels(load.backend).set(sum(waiting.values()) + load.running)

    def _begin_at_zero(self, backends: Iterable[str]) -> None:
        """Series that alerts are made of: Prometheus takes a first value of 1 for no change."""
        for backend in backends:
            self.accepted.labels(backend)
            self.silent.labels(backend)
            self.retries_refused.labels(backend)
            self.finished.labels(backend, "completed", "")
            self.finished.labels(backend, "failed", "server_error")

    def jobs_silent(self, backends: Mapping[str, int]) -> None:
        """The number of silent jobs, by backend."""
        for backend in {*self._silent_backends, *backends}:
            self.silent.labels(backend).set(backends.get(backend, 0))
        self._silent_backends |= backends.keys()

    def lesson_learned(self, backend: str, lesson: str) -> None:
        """lesson: the name of a row in `wire.conversation.lessons`."""
        self.lessons.labels(backend, lesson).inc()
        line("lesson", backend=backend, reason=lesson)

    def tools_omitted(self, backend: str, kinds: Iterable[str]) -> None:
        """kinds: Words of a closed set, one for each tool."""
        counts = Counted(kinds)
        if not counts:
            return
        for kind, count in counts.items():
            self.omitted_tools.labels(backend, kind).inc(count)
        line("tools_omitted", backend=backend, tools=" ".join(sorted(counts)))

    def upstream_answered(self, kind: str, seconds: float) -> None:
        self._head_times(kind).observe(seconds)

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
