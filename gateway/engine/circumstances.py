"""What a job is up against, for `core.outlook` to judge: its backend, its caller, the store, the process."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from gateway.config import BackgroundSettings
from gateway.core.backends import Controls, JobBackends
from gateway.core.outlook import Around
from gateway.engine.orders import PAUSE, Orders
from gateway.engine.runner import Runner
from gateway.store.insight import Details
from gateway.store.port import JobStore

_STORABLE = frozenset({"ok", "nearly_full", "taken_away"})
"""The states of a store in which jobs are started."""


@dataclass(frozen=True, slots=True)
class Circumstances:
    """Looks up the facts that a job's outlook depends on.

    Attributes:
        is_in_memory_only: Whether a job's credential would be lost with the process.
        is_draining: Whether the gateway is shutting down.
    """

    store: JobStore
    backends: JobBackends
    controls: Controls
    orders: Orders
    runner: Runner
    settings: BackgroundSettings
    is_in_memory_only: Callable[[str], bool]
    is_draining: Callable[[], bool]

    def around(self, name: str, details: Details | None, now_ms: int, *, barred: str | None = None) -> Around:
        """Of a job at a backend.

        Args:
            details: Of the job; None for what holds of all jobs there.
            barred: Why no job of its caller is started there.
        """
        backend = self.backends.get(name)
        if backend is None:
            return Around(now_ms, 0, 0, is_known=False, attempts_max=self.settings.calls_max)
        held_ms = self.backends.held_until_ms(name, now_ms)
        until_ms = details.created_at_ms + now_ms - held_ms if details and held_ms is not None else None
        paused_ms = next((each.since_ms for each in self.orders.of(name) if each.doing == PAUSE), None)
        return Around(
            now_ms,
            self.backends.slots(name),
            self.runner.count(name),
            paused_for_s=None if paused_ms is None else max(0, now_ms - paused_ms) / 1000,
            halted=self.backends.halted(name),
            barred=barred,
            held_until_ms=until_ms,
            unreached_s=backend.unreached_s,
            down_wait_s=backend.retry_policy.down_wait_s,
            is_draining=self.is_draining(),
            can_store=self.store.state() in _STORABLE,
            attempts_max=self.settings.calls_max,
            is_credential_held=(
                details is not None and backend.sees_callers and self.is_in_memory_only(details.id)
            ),
            is_shared=self.store.bells.look_s is not None,
        )
