"""Runs jobs: claims what waits, for every backend as much as it has room for."""

from __future__ import annotations

import asyncio
import functools
import logging
import math
from collections.abc import Callable, Iterable

from gateway import loop
from gateway.core.backends import JobBackends
from gateway.core.job import Claim, ClaimLost, NewJob, StoreUnavailable
from gateway.core.reason import Reason
from gateway.core.retry import Again
from gateway.core.transcript import Abandoned
from gateway.engine.endings import DEFECT, Endings
from gateway.engine.intake import Intake
from gateway.engine.joblog import JobLog, Unflushed
from gateway.engine.run import Progress, Run
from gateway.engine.silence import Silence
from gateway.engine.slots import Slots
from gateway.engine.thoughts import Thoughts
from gateway.engine.ticks import Ticks
from gateway.observe import line
from gateway.store.bells import queue
from gateway.store.port import Work

_POLL_S = 1.0
"""Seconds between two claims while no bell rings."""

_CLAIM_MAX = 64
_CLAIM_BYTES_MAX = 2**20
"""Bytes after which a claim takes no more jobs: commits of running jobs, and creates, wait behind it."""

_GRACE_S = 0.005


class Runner:
    """Keeps the backends busy, and no busier than they can be."""

    def __init__(
        self, backends: JobBackends, endings: Endings, intake: Intake, thoughts: Thoughts, silence: Silence
    ) -> None:
        self._backends = backends
        self._endings = endings
        self._store = endings.store
        self._clock = endings.clock
        self._observer = endings.observer
        self._intake = intake
        self._thoughts = thoughts
        self._silence = silence
        settings = endings.settings
        self._attempts_max = settings.calls_max
        self._bell = asyncio.Event()
        self._emptied: set[str] = set()  # backends for which no job waits: none was left, and it has not rung
        self._runs: dict[str, Run] = {}
        self._slots = Slots()
        self._unflushed = Unflushed(settings.unflushed_total_bytes_max)
        self._ticks = Ticks(settings.flush_ms / 1000)
        self._claiming = asyncio.Lock()
        self._group: asyncio.TaskGroup | None = None
        self._starting = 0  # jobs that are claimed with their acceptance, just now
        self._none_starts = asyncio.Event()
        self._none_starts.set()
        self._is_draining = False

    def ring(self) -> None:
        """There may be work."""
        self._emptied.clear()
        self._bell.set()

    async def accept(self, job: NewJob, on_stored: Callable[[NewJob], None]) -> str:
        """Store a job. If there is room for it, and none waits before it, it is claimed in the same commit,
        and started at once.

        Args:
            on_stored: Called once it is stored, with it as it was stored, before it starts.

        Returns:
            Its id; of a repeated create that of the first, which this one does not touch.

        Raises:
            KeyReused, QueueFull, PreviousGone, StoreUnavailable: Nothing was written.
        """
        limits, now_ms = self._intake.limits, self._clock.now_ms()
        if not self._has_room(job, now_ms):
            accepted_id = await self._store.create(job, limits)
            if accepted_id == job.id:
                self._slots.sent(job.backend, job.tenant, job.priority, now_ms)
                on_stored(job)
            return accepted_id
        self._slots.taken(job.backend, job.tenant, job.priority, now_ms)
        self._starting += 1
        self._none_starts.clear()
        work = None
        try:
            accepted_id, work = await self._store.start(job, limits)
        finally:
            self._starting -= 1
            if not self._starting:
                self._none_starts.set()
            if work is None:
                self._slots.freed(job.backend, job.tenant)
                self.ring()
        if accepted_id == job.id:
            on_stored(job if work is None else job.begun())
        if work is not None:
            assert self._group is not None
            self._start(self._group, work, work.job.created_at_ms)
            self._intake.started(1)
            self._observer.running.set(len(self._runs))
        return accepted_id

    def _has_room(self, job: NewJob, now_ms: int) -> bool:
        """Whether a new job may be started now. One that is held back for plain requests may not."""
        name, backends = job.backend, self._backends
        if (
            self._group is None
            or self._is_draining
            or name not in backends.names
            or backends.held_until_ms(name, now_ms) is not None
        ):
            return False
        room, resting = self._slots.room(name, backends.slots(name), backends.slots_kept(name), now_ms)
        return room > 0 and job.tenant not in resting

    def barred(self, now_ms: int) -> dict[tuple[str, bytes], str]:
        """Backends, and the callers of whom no job may be started there now, with the reason."""
        return {
            (name, tenant): reason
            for name in self._backends.names
            for tenant, reason in self._slots.barred(
                name, self._backends.slots(name), self._backends.slots_kept(name), now_ms
            ).items()
        }

    def progress(self, response_id: str) -> Progress | None:
        """How far a job is that runs here; None if it does not."""
        run = self._runs.get(response_id)
        return run.progress() if run is not None else None

    def count(self, backend: str) -> int:
        """How many jobs run at a backend."""
        return self._slots.running(backend)

    def abort_all(self) -> list[Claim]:
        """Stop every run of ours: others may have their jobs. Returns their claims."""
        return self._abort(self._runs.values())

    def abort_silent(self) -> list[Claim]:
        """Stop those runs that others might begin again: two of them would call a backend for one job. Who
        has shown output is never run again, and goes on for as long as it may. Returns their claims."""
        return self._abort(run for run in self._runs.values() if run.is_silent)

    @staticmethod
    def _abort(runs: Iterable[Run]) -> list[Claim]:
        claims: list[Claim] = []
        for run in runs:
            run.abort()
            claims.append(run.work)
        return claims

    async def run(self) -> None:
        """Claim and run, until cancelled."""
        topics = map(queue, self._backends.names)
        with self._store.bells.listen(self.ring, *topics):
            await self._run()

    async def _run(self) -> None:
        try:
            async with asyncio.TaskGroup() as self._group:
                while True:
                    self._bell.clear()
                    async with self._claiming:
                        await self._claim_some(self._group)
                    try:
                        async with asyncio.timeout(_POLL_S):
                            await self._bell.wait()
                    except TimeoutError:
                        pass
        finally:
            self._group = None

    async def _claim_some(self, group: asyncio.TaskGroup) -> None:
        for name in self._backends.names:
            now_ms = self._clock.now_ms()
            slots, kept = self._backends.slots(name), self._backends.slots_kept(name)
            room, resting = self._slots.room(name, slots, kept, now_ms)
            limit, held_ms = min(_CLAIM_MAX, room), self._backends.held_until_ms(name, now_ms)
            if limit <= 0 or self._is_draining:
                continue
            try:
                claims = await self._store.claim(
                    limit,
                    bytes_max=_CLAIM_BYTES_MAX,
                    backend=name,
                    attempts_max=self._attempts_max,
                    now_ms=now_ms,
                    accepted_before_ms=held_ms,
                    resting=resting,
                    running_max=slots,
                )
            except StoreUnavailable as error:
                line("store_unavailable", level=logging.DEBUG, doing="claim", reason=str(error))
                return
            for claim in claims:
                self._slots.taken(name, claim.job.tenant, claim.job.priority, now_ms)
                self._start(group, claim, now_ms)
            if claims:
                self._intake.started(len(claims))
            if len(claims) == limit or sum(claim.size for claim in claims) >= _CLAIM_BYTES_MAX:
                self._bell.set()  # there may be more, and room for it
            elif not resting and held_ms is None and self._store.bells.look_s is None:
                self._emptied.add(name)
        self._observer.running.set(len(self._runs))

    def _start(self, group: asyncio.TaskGroup, claim: Work, now_ms: int) -> None:
        self._observer.job_known(claim.id, backend=claim.job.backend)
        self._observer.job_started(
            claim.id,
            claim.job.backend,
            claim.job.attempt,
            (now_ms - claim.job.created_at_ms) / 1000,
            is_first=claim.epoch == 1,
            tenant=claim.job.tenant,
        )
        backend = self._backends.get(claim.job.backend)
        assert backend is not None, "only jobs of backends that there are get claimed"
        log = JobLog(claim, self._endings, self._unflushed, self._ticks)
        run = Run(claim, log, backend, self._endings, self._thoughts, self._silence, self._attempts_max)
        run.task = group.create_task(self._run_one(run), name=f"run-{claim.id}")
        self._runs[claim.id] = self._endings.runs[claim.id] = run
        # Not by the coroutine: that of a task cancelled before its first step never runs.
        run.task.add_done_callback(functools.partial(self._ended, run))

    async def _run_one(self, run: Run) -> None:
        claim, owe = run.work, self._endings.owe
        try:
            if again := await run.to_its_end():
                await self._release(claim, again)
        except* ClaimLost:
            self._observer.claim_lost(claim.id)
        except* StoreUnavailable as errors:
            owe(claim, _not_stored(errors.exceptions[0]))
            line("store_unavailable", level=logging.ERROR, doing="run", reason=str(errors.exceptions[0]))
        except* Exception:
            owe(claim, DEFECT)
            line("defect", level=logging.ERROR, id=claim.id, exc_info=True)

    async def _release(self, claim: Claim, again: Again) -> None:
        now_ms = self._clock.now_ms()
        if again.caller_rests_s > 0:
            until_ms = now_ms + int(again.caller_rests_s * 1000)
            self._slots.rest(claim.job.backend, claim.job.tenant, until_ms)
        try:
            await self._store.release(
                claim,
                attempts_returned=0 if again.is_attempt else 1,
                put_offs=int(again.is_put_off),
                not_before_ms=now_ms + math.ceil(again.after_s * 1000),
            )
        except ClaimLost:
            self._observer.claim_lost(claim.id)
        except StoreUnavailable as error:
            self._endings.owe(claim, _not_stored(error))
        else:
            self._observer.job_released(claim.id, again.reason, again.after_s)
            self._observer.retried(claim.job.backend, again.reason.short)
            # A little late rather than too early: that would cost it the wait for the next poll.
            asyncio.get_running_loop().call_later(again.after_s + _GRACE_S, self.ring)

    def _ended(self, run: Run, _task: asyncio.Task[None]) -> None:
        run.listening.close()
        run.task = None
        claim = run.work
        self._slots.freed(claim.job.backend, claim.job.tenant)
        if self._runs.get(claim.id) is run:  # its next run may have been claimed in the commit of its release
            del self._runs[claim.id], self._endings.runs[claim.id]
        self._observer.running.set(len(self._runs))
        if claim.job.backend not in self._emptied:
            self._bell.set()

    async def drain(self, timeout_s: float) -> list[Claim]:
        """Start nothing more, let what runs end, and stop the rest. Returns the claims of the stopped."""
        self._is_draining = True
        async with self._claiming:  # what is being claimed just now is a run, too
            await self._none_starts.wait()
            tasks = self._tasks()
        if tasks:
            await loop.are_done(tasks, timeout_s)
        stopped: list[Claim] = [run.work for run in self._runs.values()]
        tasks = self._tasks()
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        return stopped

    def _tasks(self) -> list[asyncio.Task[None]]:
        return [run.task for run in self._runs.values() if run.task is not None]


def _not_stored(error: Exception) -> Abandoned:
    why = f" ({error.meaning})" if isinstance(error, StoreUnavailable) else ""
    return Abandoned(
        f"The gateway could not store the events of this response{why}.", Reason.STORE_UNAVAILABLE
    )
