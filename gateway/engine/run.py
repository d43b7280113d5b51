"""One run of one job: the call, the machine, and what the machine wants done."""

from __future__ import annotations

import asyncio
import random
import time
from contextlib import aclosing, closing
from dataclasses import dataclass, replace
from typing import Any

from gateway.config import BackgroundSettings
from gateway.core.call import Backend, BackendCall
from gateway.core.job import FIRST_OUTPUT_SEQ, Outcome
from gateway.core.machine import (
    Abandoned,
    Append,
    Command,
    Finish,
    Input,
    JobMachine,
    Started,
    UpstreamFailed,
)
from gateway.core.refusal import CALLS_MAX, is_answered, refusal
from gateway.core.retry import PUT_OFF, Again, Failed, again
from gateway.engine.clock import Clock
from gateway.engine.credentials import Credentials
from gateway.engine.joblog import JobLog
from gateway.engine.outputs import Outputs
from gateway.engine.sealing import Unsealable
from gateway.engine.silence import Silence, Waiting
from gateway.engine.thoughts import Thoughts
from gateway.observe import Observer
from gateway.store.port import Call, Work
from gateway.wire import calls, responses
from gateway.wire.answers.output import Shelf
from gateway.wire.calls import NO_SUCH_ROUTE, Speech
from gateway.wire.chat.tools import Tools
from gateway.wire.errors import Refusal
from gateway.wire.failures import failure
from gateway.wire.failures.blotting import name_shown

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

    claim: Work
    log: JobLog
    outputs: Outputs
    backend: Backend
    credentials: Credentials
    clock: Clock
    settings: BackgroundSettings
    observer: Observer
    attempts_max: int
    thoughts: Thoughts
    silence: Silence

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
        stored = self.claim.call
        watched = self.silence.watched(self.claim.id, self.claim.job.backend)
        with closing(self.outputs.shelf()) as shelf, watched as waiting:
            number, speech = 0, await self._attempt(stored, self.backend.speech, 0, shelf, waiting)
            while speech is not None:
                number += 1
                speech = await self._attempt(stored, speech, number, shelf, waiting)

    async def _attempt(
        self, stored: Call, speech: Speech, number: int, shelf: Shelf, waiting: Waiting
    ) -> Speech | None:
        """Make the call, obey the machine to the end. How to make it otherwise, if it did not come to that:
        the backend speaks the other API, or has refused the call and said what it wants."""
        claim = self.claim
        request = calls.request_of(stored.request)
        self.observer.job_known(claim.id, model=name_shown(request.get("model")))
        speech = speech if number else speech.to(request.get("model"))

        def said_to(speech: Speech) -> Any:
            return calls.input_of(stored.input, claim.turns, speech)

        def told(speech: Speech) -> bytes:
            return speech.body(request, said_to(speech), claim.job.tenant)

        input = said_to(speech)
        reader = speech.reader(claim.id, request, input)
        job = replace(claim.job, response=self._shown(speech.tools(request, input)))
        if number:
            job = replace(job, next_seq=FIRST_OUTPUT_SEQ)
        sealing = self.thoughts.sealing(reader, request, speech.api, job.tenant)
        events_bytes_max = self.settings.events_bytes_max
        machine = JobMachine(job, events_bytes_max=events_bytes_max, reader=sealing, shelf=shelf)
        if not number:
            await self._obey(machine, Started())
        try:
            held = self.credentials.of(job, stored.sealed)
        except Unsealable as why:
            lost = Abandoned(f"The caller's credential cannot be read: {why}.", "credential_unreadable")
            await self._obey(machine, lost)
            return None
        try:
            body = speech.body(request, input, job.tenant)
        except Refusal as why:  # found out too late to refuse the request
            unsayable = UpstreamFailed(failure(why.message, "invalid_prompt"), "unsupported_by_backend")
            await self._obey(machine, unsayable)
            return None
        headers = {**calls.headers_of(stored.headers), **(held.others if held else {})}
        credential = held.credential if held else None
        call = BackendCall(
            claim.id,
            speech.target(stored.target),
            body,
            headers,
            credential,
            is_again=claim.job.next_seq >= FIRST_OUTPUT_SEQ,  # it was started before
            version=number,
        )
        started: float | None = time.monotonic()
        waiting.since_s = started
        async with aclosing(self.backend.stream(call)) as items:
            async for item in items:
                waiting.since_s = None
                if isinstance(item, UpstreamFailed):
                    if item.status in NO_SUCH_ROUTE and not speech.is_certain:
                        found = await self.backend.ask(credential)
                        if found.api is not speech.api:
                            return found
                    if held is None and self.backend.sees_callers and item.status in (401, 403):
                        item = _LOST_CREDENTIAL
                await self.log.room()
                commands = machine.receive(item, now_s=self.clock.now_s())
                is_silent = number + 1 < CALLS_MAX and not self.log.has_output
                said = refusal(item, commands) if is_silent else None
                if said is not None and (taught := self.backend.after_refusal(speech, said, body, told)):
                    return taught
                if is_answered(commands):
                    learned = speech.after_answer(reader, machine.output())
                    self.backend.remember(request.get("model"), learned)
                if await self._perform(machine, commands, item):
                    return None
                self.outputs.holds(claim.id, machine.held_bytes)
                await self.outputs.room(claim.id)
                waiting.since_s = time.monotonic()
                if started is not None and self.log.has_output:
                    self.observer.job_first_output(claim.job.backend, time.monotonic() - started)
                    started = None
        raise AssertionError("a backend's stream ends with an ending")

    def _shown(self, tools: Tools) -> bytes:
        """The Response with the tools that the backend is told of: when it was accepted, it may not have been
        known which API the backend speaks."""
        job = self.claim.job
        if not tools.omitted:
            return job.response
        shown = responses.with_tools(job.response, tools.shown)
        if shown != job.response:
            self.observer.tools_omitted(job.backend, [tool.family for tool in tools.omitted])
        return shown

    async def _obey(self, machine: JobMachine, item: Input) -> None:
        await self._perform(machine, machine.receive(item, now_s=self.clock.now_s()), item)

    async def _perform(self, machine: JobMachine, commands: list[Command], item: Input) -> bool:
        """Do what the machine wants done about `item`; True when the job has ended."""
        for command in commands:
            match command:
                case Append():
                    await self.log.append(command)
                case Finish(outcome, failed):
                    self.observer.backend_noticed(self.claim.job.backend, machine.notices)
                    if failed is not None and failed.reason == PUT_OFF and failed is not item:
                        failed = self.backend.put_off(self.claim.id, failed)
                    await self._finish(outcome, failed)
                    return True
        return False

    async def _finish(self, outcome: Outcome, failed: UpstreamFailed | None) -> None:
        job = self.claim.job
        if again := self._again(outcome.reason, failed):
            raise RunAgain(outcome.reason, again)
        await self.log.finish(outcome)
        self.credentials.forget(job.id)
        ran_s = job.ran_s(self.clock.now_ms())
        self.observer.job_finished(job.id, job.backend, outcome.status, outcome.code, outcome.reason, ran_s)

    def _again(self, reason: str, failed: UpstreamFailed | None) -> Again | None:
        return again(
            Failed(
                reason,
                asked_s=failed.retry_after_s if failed else None,
                is_callers=failed is not None and failed.is_callers,
                unreached_s=self.backend.unreached_s,
            ),
            self.claim.job,
            self.backend.patience,
            attempts_max=self.attempts_max,
            was_shown=self.claim.job.is_followable and self.log.has_output,
            now_ms=self.clock.now_ms(),
            roll=random.random(),  # noqa: S311  not a secret
            book_s=self.backend.retry_in_s,
        )
