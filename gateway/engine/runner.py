"""Runs jobs: claims what waits, calls the backend, and turns the machine's commands into effects."""

from __future__ import annotations

import asyncio
import functools
import logging
import time
from contextlib import aclosing
from dataclasses import dataclass

from gateway.config import BackgroundSettings
from gateway.core.call import Backend, BackendCall
from gateway.core.job import Claim, ClaimLost, StoreUnavailable
from gateway.core.machine import Abandoned, Append, Finish, Input, JobMachine, Started, UpstreamFailed
from gateway.engine.clock import Clock
from gateway.engine.credentials import Credentials
from gateway.engine.followers import Followers
from gateway.engine.joblog import JobLog
from gateway.observe import Observer, line
from gateway.store.port import JobStore
from gateway.wire import calls
from gateway.wire.errors import Refusal
from gateway.wire.failures import failure

_POLL_S = 1.0
"""Behind the bell, for work whose bell nobody rang."""

_LOST_CREDENTIAL = Abandoned(
    "The caller's credential was kept in memory only and was lost when the gateway restarted; "
    "the backend refused the call without it.",
    "credential_lost",
)
_NOT_STORED = Abandoned("The gateway could not store the events of this response.", "store_unavailable")
_DEFECT = Abandoned("The gateway failed while it ran this response.", "defect")


@dataclass(slots=True)
class _Run:
    claim: Claim
    task: asyncio.Task[None]
    log: JobLog


class Runner:
    """Runs up to `concurrency_max` jobs at once.

    Args:
        unsettled: Where a job is noted whose run ended without an ending, with the ending it should get.
    """

    def __init__(
        self,
        store: JobStore,
        backend: Backend,
        followers: Followers,
        credentials: Credentials,
        clock: Clock,
        settings: BackgroundSettings,
        observer: Observer,
        unsettled: dict[str, Input],
        *,
        concurrency_max: int,
    ) -> None:
        self._store = store
        self._backend = backend
        self._followers = followers
        self._credentials = credentials
        self._clock = clock
        self._settings = settings
        self._observer = observer
        self._concurrency_max = concurrency_max
        self._attempts_max = settings.attempts_max if settings.recovery == "rerun_if_silent" else 1
        self._bell = asyncio.Event()
        self._runs: dict[str, _Run] = {}
        self._claiming = asyncio.Lock()
        self._is_draining = False
        self._unsettled = unsettled

    def ring(self) -> None:
        """There may be work."""
        self._bell.set()

    def abort(self, response_id: str) -> None:
        """Stop a run of ours at once; the backend's connection closes."""
        if run := self._runs.get(response_id):
            run.task.cancel()

    async def flush(self, response_id: str) -> None:
        """Commit what a run of ours has received: it is about to be ended, and this much was generated."""
        if run := self._runs.get(response_id):
            try:
                await run.log.flush()
            except ClaimLost:
                pass  # then its end is somebody else's
            except StoreUnavailable:  # what was being committed is lost: the run cannot go on after it
                self._unsettled[response_id] = _NOT_STORED
                run.task.cancel()

    async def run(self) -> None:
        """Claim and run, until cancelled."""
        async with asyncio.TaskGroup() as group:
            while True:
                self._bell.clear()
                async with self._claiming:
                    await self._claim_some(group)
                try:
                    async with asyncio.timeout(_POLL_S):
                        await self._bell.wait()
                except TimeoutError:
                    pass

    async def _claim_some(self, group: asyncio.TaskGroup) -> None:
        free = self._concurrency_max - len(self._runs)
        if free <= 0 or self._is_draining:
            return
        now_ms = self._clock.now_ms()
        try:
            claims = await self._store.claim(free, attempts_max=self._attempts_max, now_ms=now_ms)
        except StoreUnavailable as error:
            line("store_unavailable", level=logging.ERROR, doing="claim", reason=str(error))
            return
        for claim in claims:
            self._observer.job_started(claim.id, claim.job.attempt, (now_ms - claim.job.created_at_ms) / 1000)
            log = JobLog(claim, self._store, self._followers, self._clock, self._settings, self._observer)
            task = group.create_task(self._run_one(claim, log), name=f"run-{claim.id}")
            self._runs[claim.id] = _Run(claim, task, log)
            # Not by the coroutine: that of a task cancelled before its first step never runs.
            task.add_done_callback(functools.partial(self._ended, claim.id))
        self._observer.running.set(len(self._runs))

    async def _run_one(self, claim: Claim, log: JobLog) -> None:
        try:
            await self._attempt(claim, log)
        except* ClaimLost:
            self._observer.claim_lost(claim.id)
        except* StoreUnavailable as errors:
            self._unsettled[claim.id] = _NOT_STORED
            line("store_unavailable", level=logging.ERROR, doing="run", reason=str(errors.exceptions[0]))
        except* Exception:
            self._unsettled[claim.id] = _DEFECT
            line("defect", level=logging.ERROR, id=claim.id, exc_info=True)

    def _ended(self, response_id: str, _task: asyncio.Task[None]) -> None:
        del self._runs[response_id]
        self._observer.running.set(len(self._runs))
        self._bell.set()

    async def _attempt(self, claim: Claim, log: JobLog) -> None:
        async with asyncio.TaskGroup() as group:
            committing = group.create_task(log.run(), name=f"commit-{claim.id}")
            await self._call(claim, log)
            committing.cancel()

    async def _call(self, claim: Claim, log: JobLog) -> None:
        stored = await self._store.call_of(claim.id)
        if stored is None:  # deleted since
            raise ClaimLost
        held = self._credentials.of(claim.id)
        credential = held.credential if held else None
        request = calls.request_of(stored.request)
        speech = await self._backend.speech(credential)
        machine = JobMachine(
            claim.job,
            events_bytes_max=self._settings.events_bytes_max,
            reader=speech.reader(claim.id, request),
        )
        if await self._obey(claim, log, machine, Started()):
            return
        turns = await self._store.turns_before(claim.id, claim.job.tenant)
        try:
            body = speech.body(request, calls.input_of(stored.input, turns))
        except Refusal as refusal:  # found out too late to refuse the request
            unsayable = UpstreamFailed(failure(refusal.message, "invalid_prompt"), "unsupported_by_backend")
            await self._obey(claim, log, machine, unsayable)
            return
        headers = {**calls.headers_of(stored.headers), **(held.others if held else {})}
        call = BackendCall(claim.id, speech.target(stored.target), body, headers, credential)
        await self._read(call, claim, log, machine, has_lost_credential=held is None)

    async def _read(
        self, call: BackendCall, claim: Claim, log: JobLog, machine: JobMachine, *, has_lost_credential: bool
    ) -> None:
        started: float | None = time.monotonic()
        async with aclosing(self._backend.stream(call)) as items:
            async for item in items:
                if has_lost_credential and isinstance(item, UpstreamFailed) and item.status in (401, 403):
                    item = _LOST_CREDENTIAL
                if await self._obey(claim, log, machine, item):
                    return
                if started is not None and log.has_output:
                    self._observer.job_first_output(time.monotonic() - started)
                    started = None

    async def _obey(self, claim: Claim, log: JobLog, machine: JobMachine, item: Input) -> bool:
        """Perform what the machine wants done about `item`; True when the job has ended."""
        for command in machine.receive(item, now_s=self._clock.now_s()):
            match command:
                case Append():
                    await log.append(command)
                case Finish(outcome):
                    await log.finish(outcome)
                    self._credentials.forget(claim.id)
                    ran_s = claim.job.ran_s(self._clock.now_ms())
                    self._observer.job_finished(claim.id, outcome.status, outcome.code, outcome.reason, ran_s)
                    return True
        return False

    async def drain(self, timeout_s: float) -> list[Claim]:
        """Start nothing more, let what runs end, and stop the rest. Returns the claims of the stopped."""
        self._is_draining = True
        async with self._claiming:  # what is being claimed just now is a run, too
            tasks = [run.task for run in self._runs.values()]
        if tasks:
            await asyncio.wait(tasks, timeout=timeout_s)
        stopped = [run.claim for run in self._runs.values()]
        tasks = [run.task for run in self._runs.values()]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        return stopped
