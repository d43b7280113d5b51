"""How it stands in all: counts by state, each backend, the callers with the most jobs, and the last hour."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from gateway.core.job import StoreUnavailable
from gateway.core.outlook import Subject, what_holds
from gateway.engine.circumstances import Circumstances
from gateway.engine.clock import Clock
from gateway.engine.orders import Order
from gateway.observe import Observer, line
from gateway.observe.history import STEP_MS, JobKind, Live
from gateway.store.insight import Backlog, Crowd, WaitingJobs

_FRESH_S = 1.0
"""Seconds for which an overview is reused: ten open pages cost as much as one."""
_TENANTS_SHOWN = 20


@dataclass(frozen=True, slots=True)
class BackendNow:
    """How it stands at a backend.

    Attributes:
        slots: How many jobs may run there in all at this moment; `capacity` by its slots alone.
        slots_per_replica: Now; and by the settings.
        demand: Jobs that wait or run: what to scale on.
        orders: What operators have said of it, as of a pause, and from where and when.
        halted: Why nothing is started there; None: something may be.
        reasons: How many jobs wait, by what they wait for.
    """

    name: str
    running: int
    waiting: int
    demand: int
    slots: int
    capacity: int
    slots_per_replica: int
    slots_per_replica_default: int
    paused: bool
    orders: list[Order]
    halted: str | None
    why: str | None
    oldest_waiting_s: float | None
    reasons: Mapping[str, int]
    api: str
    replicas: list[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Overview:
    """How it stands. Statuses are the API's; `waiting` and `running` tell live jobs by whether they run.

    Attributes:
        commit_s: How long a commit took, on average of those since the last look; None: there were none.
    """

    now_ms: int
    store: str
    commit_s: float | None
    draining: bool
    states: Mapping[str, int]
    waiting: int
    running: int
    oldest_waiting_s: float | None
    backends: list[BackendNow]
    tenants: list[dict[str, Any]]
    models: list[str]


class Overviews:
    """What everybody who looks is shown of the whole.

    Args:
        reasons: How many jobs wait at a backend, by what they wait for.
    """

    def __init__(
        self,
        circumstances: Circumstances,
        clock: Clock,
        observer: Observer,
        reasons: Callable[[str, WaitingJobs | None], dict[str, int]],
    ) -> None:
        self._circumstances = circumstances
        self._store = circumstances.store
        self._insight = circumstances.store.insight
        self._backends = circumstances.backends
        self._controls = circumstances.controls
        self._runner = circumstances.runner
        self._clock = clock
        self._observer = observer
        self._reasons = reasons
        self._looking = asyncio.Lock()
        self._commits = 0.0, 0.0
        self._latest: tuple[float, Overview] | None = None

    async def run(self) -> None:
        """Keep the last hour, until cancelled."""
        while True:
            await asyncio.sleep(STEP_MS / 1000)
            try:
                await self.tick()
            except Exception:  # a defect of what is only looked at must not end what runs
                line("defect", level=logging.ERROR, exc_info=True)

    async def tick(self) -> None:
        """A step of the last hour is over."""
        try:
            crowds = await self._insight.crowds()
        except StoreUnavailable as error:
            line("store_unavailable", level=logging.DEBUG, doing="history", reason=str(error))
            crowds = []
        live = [Live(_kind(each), each.waiting, each.running) for each in crowds]
        self._observer.history.tick(self._clock.now_ms(), live)

    async def now(self) -> Overview:
        """How it stands, a second ago at most. Raises: StoreUnavailable."""
        async with self._looking:
            if self._latest is None or time.monotonic() - self._latest[0] > _FRESH_S:
                self._latest = time.monotonic(), await self._look()
            return self._latest[1]

    def forget(self) -> None:
        """Something was done: the next look is a new one."""
        self._latest = None

    async def _look(self) -> Overview:
        now_ms = self._clock.now_ms()
        backlog, crowds = await asyncio.gather(
            self._insight.backlog(now_ms=now_ms, barred=self._runner.barred(now_ms)), self._insight.crowds()
        )
        states = self._controls.state()
        backends = [self._backend(name, states[name], backlog, now_ms) for name in self._backends.names]
        return Overview(
            now_ms,
            self._store.state(),
            self._commit_s(),
            self._circumstances.is_draining(),
            {status.value: count for status, count in backlog.by_status.items()},
            sum(each.count for each in backlog.waiting.values()),
            sum(each.running for each in backends),
            _age_s(min((each.oldest_ms for each in backlog.waiting.values()), default=None), now_ms),
            backends,
            _tenants(crowds),
            sorted({each.model for each in crowds if each.model}),
        )

    def _commit_s(self) -> float | None:
        (count, total_s), before = self._observer.commit_times(), self._commits
        self._commits = count, total_s
        return None if count == before[0] else (total_s - before[1]) / (count - before[0])

    def _backend(self, name: str, state: dict[str, Any], backlog: Backlog, now_ms: int) -> BackendNow:
        waiting = backlog.waiting.get(name)
        count = waiting.count if waiting is not None else 0
        running = self._runner.count(name)
        now, default = self._controls.sizes(name)
        halted = self._backends.halted(name)
        told = what_holds(_anybody(name), self._circumstances.around(name, None, now_ms)) if halted else None
        return BackendNow(
            name,
            running,
            count,
            count + running,
            self._backends.slots(name),
            now * len(state["replicas"]),
            now,
            default,
            self._controls.is_paused(name),
            self._circumstances.orders.of(name),
            halted,
            told.sentence if told is not None else None,
            _age_s(waiting.oldest_ms if waiting is not None else None, now_ms),
            {reason: number for reason, number in self._reasons(name, waiting).items() if number},
            state["api"],
            state["replicas"],
        )


def _anybody(backend: str) -> Subject:
    """Any job that waits there."""
    return Subject(backend, False, False, 0, 0, True, False, 0, 0, 0, 0, 0)


def _kind(crowd: Crowd) -> JobKind:
    return JobKind(crowd.backend, crowd.model or "", crowd.tenant[:8])


def _age_s(since_ms: int | None, now_ms: int) -> float | None:
    return None if since_ms is None else max(0, now_ms - since_ms) / 1000


def _tenants(crowds: list[Crowd]) -> list[dict[str, Any]]:
    """Callers with live jobs, the one with the most first."""
    found: dict[str, dict[str, Any]] = {}
    for crowd in crowds:
        digits = crowd.tenant[:8]
        one = found.setdefault(digits, {"tenant": digits, "waiting": 0, "running": 0})
        one["waiting"] += crowd.waiting
        one["running"] += crowd.running
    return sorted(found.values(), key=lambda one: one["waiting"] + one["running"], reverse=True)[
        :_TENANTS_SHOWN
    ]
