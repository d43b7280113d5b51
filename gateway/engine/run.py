"""One run of one job: the call, the machine, and what the machine wants done."""

from __future__ import annotations

import asyncio
import random
import time
from contextlib import aclosing, closing
from dataclasses import dataclass, replace

from gateway.config import BackgroundSettings
from gateway.core.call import Backend, BackendCall
from gateway.core.job import FIRST_OUTPUT_SEQ, Claim, ClaimLost, Outcome
from gateway.core.machine import Abandoned, Append, Finish, Input, JobMachine, Started, UpstreamFailed
from gateway.core.retry import Again, Failed, again
from gateway.engine.clock import Clock
from gateway.engine.credentials import Credentials
from gateway.engine.joblog import JobLog
from gateway.engine.outputs import Outputs
from gateway.engine.sealing import Unsealable
from gateway.observe import Observer
from gateway.store.port import Call, JobStore
from gateway.wire import calls
from gateway.wire.calls import NO_SUCH_ROUTE, Speech
from gateway.wire.errors import Refusal
from gateway.wire.failures import failure
from gateway.wire.output import Shelf

_LOST_CREDENTIAL = Abandoned(
    "The caller's credential was kept in memory only and was lost when the gateway restarted; "
    "the backend refused the call without it.",
    "credential_lost",
)


class RunAgain(Exception):
    """The run has not ended the job, which is to have another one."""

    def __init__(self, reason: str, again: Again) -> None:
        super().__init__(reason)
        self.reason = reason
        self.again = again


@dataclass(frozen=True, slots=True)
class Run:
    """An attempt that is under way.

    Args:
        attempts_max: Calls of a backend that one job may cost.
    """

    claim: Claim
    log: JobLog
    outputs: Outputs
    store: JobStore
    backend: Backend
    credentials: Credentials
    clock: Clock
    settings: BackgroundSettings
    observer: Observer
    attempts_max: int

    async def to_its_end(self) -> None:
        """Run the job to an ending that is stored.

        Raises:
            RunAgain: It has not ended, and is to be run again from its start.
            ClaimLost, StoreUnavailable: It has not ended by this run.
        """
        try:
            async with asyncio.TaskGroup() as group:
                committing = group.create_task(self.log.run(), name=f"commit-{self.claim.id}")
                await self._call()
                committing.cancel()
        finally:
            self.log.discard()
            self.outputs.drops(self.claim.id)

    async def _call(self) -> None:
        stored = await self.store.call_of(self.claim.id)
        if stored is None:  # deleted since
            raise ClaimLost
        with closing(self.outputs.shelf()) as shelf:
            if not await self._attempt(stored, self.backend.speech, shelf):
                await self._attempt(stored, self.backend.speech, shelf, is_second=True)

    async def _attempt(self, stored: Call, speech: Speech, shelf: Shelf, *, is_second: bool = False) -> bool:
        """Make the call, obey the machine to the end. False: it speaks the other API, which is known now."""
        claim = self.claim
        request = calls.request_of(stored.request)
        reader = speech.reader(claim.id, request)
        job = replace(claim.job, next_seq=FIRST_OUTPUT_SEQ) if is_second else claim.job
        events_bytes_max = self.settings.events_bytes_max
        machine = JobMachine(job, events_bytes_max=events_bytes_max, reader=reader, shelf=shelf)
        if not is_second:
            await self._obey(machine, Started())
        try:
            held = self.credentials.of(job, stored.sealed)
        except Unsealable as why:
            lost = Abandoned(f"The caller's credential cannot be read: {why}.", "credential_unreadable")
            return await self._obey(machine, lost)
        turns = await self.store.turns_before(claim.id, claim.job.tenant)
        try:
            body = speech.body(request, calls.input_of(stored.input, turns, speech.api), job.tenant)
        except Refusal as refusal:  # found out too late to refuse the request
            unsayable = UpstreamFailed(failure(refusal.message, "invalid_prompt"), "unsupported_by_backend")
            return await self._obey(machine, unsayable)
        headers = {**calls.headers_of(stored.headers), **(held.others if held else {})}
        credential = held.credential if held else None
        call = BackendCall(
            claim.id,
            speech.target(stored.target),
            body,
            headers,
            credential,
            is_again=claim.job.next_seq >= FIRST_OUTPUT_SEQ,  # it was started before
        )
        started: float | None = time.monotonic()
        async with aclosing(self.backend.stream(call)) as items:
            async for item in items:
                if isinstance(item, UpstreamFailed):
                    if item.status in NO_SUCH_ROUTE and not speech.is_certain:
                        found = await self.backend.ask(credential)
                        if found.api is not speech.api:
                            return False
                    if held is None and self.backend.sees_callers and item.status in (401, 403):
                        item = _LOST_CREDENTIAL
                await self.log.room()
                if await self._obey(machine, item):
                    return True
                self.outputs.holds(claim.id, machine.held_bytes)
                await self.outputs.room(claim.id)
                if started is not None and self.log.has_output:
                    self.observer.job_first_output(time.monotonic() - started)
                    started = None
        raise AssertionError("a backend's stream ends with an ending")

    async def _obey(self, machine: JobMachine, item: Input) -> bool:
        """Perform what the machine wants done about `item`; True when the job has ended."""
        for command in machine.receive(item, now_s=self.clock.now_s()):
            match command:
                case Append():
                    await self.log.append(command)
                case Finish(outcome):
                    await self._finish(outcome, item)
                    return True
        return False

    async def _finish(self, outcome: Outcome, item: Input) -> None:
        job = self.claim.job
        if again := self._again(outcome.reason, item):
            raise RunAgain(outcome.reason, again)
        await self.log.finish(outcome)
        self.credentials.forget(job.id)
        ran_s = job.ran_s(self.clock.now_ms())
        self.observer.job_finished(job.id, outcome.status, outcome.code, outcome.reason, ran_s)

    def _again(self, reason: str, item: Input) -> Again | None:
        failed = Failed(reason, unreached_s=self.backend.unreached_s)
        if isinstance(item, UpstreamFailed):
            failed = replace(failed, asked_s=item.retry_after_s, is_callers=item.is_callers)
        return again(
            failed,
            self.claim.job,
            self.backend.patience,
            attempts_max=self.attempts_max,
            was_shown=self.claim.job.is_followable and self.log.has_output,
            now_ms=self.clock.now_ms(),
            roll=random.random(),  # noqa: S311  not a secret
            book_s=self.backend.retry_in_s,
        )
