"""The engine as one piece: its parts, its tasks, and its stop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from gateway.config import Settings
from gateway.core.backends import Controls, JobBackends
from gateway.core.tiers import OTHERS, TiersAllowed
from gateway.core.webhooks import WebhookSender
from gateway.engine.actions import Actions
from gateway.engine.circumstances import Circumstances
from gateway.engine.clock import Clock
from gateway.engine.credentials import Credentials
from gateway.engine.deliveries import Deliveries
from gateway.engine.endings import Endings
from gateway.engine.followers import Followers
from gateway.engine.foreground import Foreground
from gateway.engine.gauges import Gauges
from gateway.engine.handover import Lease, hand_over
from gateway.engine.intake import Intake
from gateway.engine.jobs import Jobs
from gateway.engine.operators import Operators
from gateway.engine.orders import Orders
from gateway.engine.outputs import Outputs
from gateway.engine.overviews import Overviews
from gateway.engine.receivers import WebhookReceivers
from gateway.engine.runner import Runner
from gateway.engine.sealer import Sealer
from gateway.engine.silence import Silence
from gateway.engine.sweeper import Sweeper
from gateway.engine.thoughts import Thoughts
from gateway.observe import Observer
from gateway.store.port import JobStore
from gateway.wire.dialects import Dialect


class Engine:
    """Everything between the API and the ports.

    Attributes:
        jobs: What clients can do with responses.
        followers: Readers of event streams.
        foreground: Plain requests to a backend for which the gateway has to speak.
        deliveries: Who is told of ends.
        receivers: How it is with them.
        gauges: What the metrics show of all this.
        ids: Of responses.

    Args:
        pepper: Secret bytes that outlive the process.
    """

    def __init__(
        self,
        store: JobStore,
        backends: JobBackends,
        sender: WebhookSender,
        settings: Settings,
        observer: Observer,
        *,
        pepper: bytes,
        clock: Clock | None = None,
        fingerprint: Callable[[str], str] = str,
    ) -> None:
        background = settings.background
        keys = settings.credentials.read_sealing_keys()
        self.dialect = Dialect(settings.dialect)
        thoughts = Thoughts(keys, pepper)
        self._store = store
        self._backends = backends
        self._settings = background
        self._may_fail_jobs = settings.credentials.missing_key == "fail_jobs"
        self._observer = observer
        self._clock = clock = clock or Clock(store.wall_ns)
        self._credentials = credentials = Credentials(
            Sealer(keys) if keys else None, are_shared=settings.store.is_shared
        )
        intake = Intake(clock, background, observer)
        outputs = Outputs(background.output_total_bytes_max, settings.store.scratch)
        self._silence = silence = Silence(background.silent_after_s, observer)
        self.followers = followers = Followers(store, clock, settings.stream, observer)
        self._endings = endings = Endings(
            store, followers, credentials, clock, background, observer, outputs, runs={}, owed={}
        )
        self._runner = runner = Runner(backends, endings, intake, thoughts, silence)
        self._lease = Lease(store, runner.abort_all, runner.abort_silent)
        self._sweeper = Sweeper(store, backends, endings, clock, background, settings.store, observer)
        self.jobs = Jobs(
            store,
            backends,
            runner,
            intake,
            endings,
            credentials,
            clock,
            background,
            observer,
            self.dialect,
            thoughts,
            settings.conversations,
            TiersAllowed(
                {
                    named if named == OTHERS else fingerprint(named): tiers
                    for named, tiers in settings.tenants.tiers_allowed.items()
                }
            ),
            outputs,
        )
        self.foreground = Foreground(
            clock, background, thoughts, observer, outputs, head_wait_s=settings.stream.heartbeat_s
        )
        self.deliveries = Deliveries(store, sender, clock, settings, observer, fingerprint)
        self.receivers = receivers = WebhookReceivers(store, clock, settings, observer)
        self.gauges = Gauges(store, backends, runner, receivers, outputs, clock, observer)
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self, *others: Coroutine[Any, Any, None]) -> asyncio.Event:
        """Take up what the last process left, and begin to run jobs.

        Args:
            others: More work that must go on for as long as the engine runs.

        Returns:
            Set when a task of the engine has died, which only a defect can do: time to stop.

        Raises:
            SealingKeyMissing: Nothing was begun.
        """
        await self._credentials.take_stock(self._store, may_fail_jobs=self._may_fail_jobs)
        await self._lease.renew()
        await self.deliveries.take_stock()
        failed = asyncio.Event()

        def died(task: asyncio.Task[None]) -> None:
            if not task.cancelled() and (error := task.exception()) is not None:
                self._observer.task_died(task.get_name(), error)
                failed.set()

        parts = (self._runner, self._lease, self._sweeper, self.deliveries, self._silence)
        own = [part.run() for part in parts]
        for number, work in enumerate((*own, *others)):
            task = asyncio.create_task(work, name=f"engine-{number}")
            task.add_done_callback(died)
            self._tasks.append(task)
        return failed

    def now_ms(self) -> int:
        """Unix milliseconds by the store's clock."""
        return self._clock.now_ms()

    def for_operators(self, controls: Controls) -> tuple[Overviews, Operators, Actions, Orders]:
        """What operators see in all, and of jobs; what they can do, and have ordered."""
        names, runner = self._backends.names, self._runner
        orders = Orders(self._store, controls, names, self._clock, self._observer, runner.ring)
        circumstances = Circumstances(
            self._store,
            self._backends,
            controls,
            orders,
            runner,
            self._settings,
            self._credentials.is_in_memory_only,
            lambda: self.jobs.is_draining,
        )
        return (
            Overviews(circumstances, self._clock, self._observer, self.gauges.reasons),
            Operators(circumstances, self.followers, self._clock, self._observer),
            Actions(circumstances, self._endings, self.jobs),
            orders,
        )

    async def drain(self, timeout_s: float) -> None:
        """Accept nothing more, let running jobs end, hand over the rest, and end every stream."""
        self.jobs.stop_accepting()
        deadline = asyncio.get_running_loop().time() + timeout_s
        try:
            stopped = await self._runner.drain(timeout_s)
            await hand_over(stopped, self._store, self._endings, self._settings, self._observer)
        finally:
            self.followers.close()
        await self.deliveries.drain(deadline - asyncio.get_running_loop().time())

    async def stop(self) -> None:
        """End the engine's tasks."""
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
