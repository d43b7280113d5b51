"""What the metrics show of the engine at a moment: what is stored, what waits and for what."""

from __future__ import annotations

import asyncio

from gateway.core.backends import JobBackends
from gateway.core.job import Status
from gateway.engine.clock import Clock
from gateway.engine.outputs import Outputs
from gateway.engine.receivers import WebhookReceivers
from gateway.engine.runner import Runner
from gateway.observe import BackendLoad, Observer
from gateway.store.insight import Backlog, WaitingJobs
from gateway.store.port import JobStore


class Gauges:
    """Measures when it is asked to."""

    def __init__(
        self,
        store: JobStore,
        backends: JobBackends,
        runner: Runner,
        receivers: WebhookReceivers,
        outputs: Outputs,
        clock: Clock,
        observer: Observer,
    ) -> None:
        self._store = store
        self._backends = backends
        self._runner = runner
        self._receivers = receivers
        self._outputs = outputs
        self._clock = clock
        self._observer = observer

    async def answers(self) -> None:
        """Raises, if the store does not answer."""
        await self._store.overdue(now_ms=self._clock.now_ms(), limit=1)

    async def measure(self) -> None:
        """Bring the gauges up to date; those of the store at one gateway only, or a sum counts twice.

        Raises, if the store does not answer.
        """
        now_ms = self._clock.now_ms()
        backlog = None
        if self._store.is_first:
            backlog = await self._measure_store(now_ms)
        else:
            await self.answers()
            self._observer.store_is_measured_elsewhere()
        self._observer.output_bytes.set(self._outputs.total)
        self._observer.output_waiting.set(self._outputs.paused)
        waiting = {} if backlog is None else backlog.waiting
        self._observer.backends_measured(
            BackendLoad(
                name,
                None if backlog is None else self.reasons(name, waiting.get(name)),
                _oldest_s(waiting.get(name), now_ms),
                self._runner.count(name),
                self._backends.slots(name) if name in self._backends.names else 0,
            )
            for name in {*self._backends.names, *waiting}
        )

    async def _measure_store(self, now_ms: int) -> Backlog:
        backlog, sizes, _ = await asyncio.gather(
            self._store.insight.backlog(now_ms=now_ms, barred=self._runner.barred(now_ms)),
            self._store.sizes(),
            self._receivers.measure(),
        )
        oldest_ms = backlog.oldest_queued_ms
        self._observer.store_measured(
            {status.value: backlog.by_status[status] for status in Status},
            0 if oldest_ms is None else (now_ms - oldest_ms) / 1000,
            sizes,
        )
        return backlog

    def reasons(self, backend: str, waiting: WaitingJobs | None) -> dict[str, int]:
        """What jobs wait for there. Whoever waits for nothing else waits for a slot, or for the backend."""
        if waiting is None:
            return {}
        rest = waiting.count - waiting.put_off - sum(waiting.barred.values())
        halted = self._backends.halted(backend) if backend in self._backends.names else "removed"
        return {"retry": waiting.put_off, **waiting.barred, halted or "slot": max(0, rest)}


def _oldest_s(waiting: WaitingJobs | None, now_ms: int) -> float:
    return 0 if waiting is None else max(0, now_ms - waiting.oldest_ms) / 1000
