"""One run of one background job: its machine, its log, and its end."""

from __future__ import annotations

import asyncio
import time
from contextlib import ExitStack, aclosing, suppress
from dataclasses import dataclass

from gateway.core.backends import JobBackend
from gateway.core.job import ClaimLost, Outcome, StoreUnavailable
from gateway.core.machine import Finish, JobMachine, Rewind, Task
from gateway.core.reason import Reason
from gateway.core.retry import Again
from gateway.core.transcript import Abandoned, Append, Stop
from gateway.engine.credentials import CallerHeaders
from gateway.engine.endings import Endings
from gateway.engine.exchange import Exchange
from gateway.engine.joblog import JobLog
from gateway.engine.sealer import Unsealable
from gateway.engine.silence import Silence
from gateway.engine.thoughts import Thoughts
from gateway.store.bells import claim
from gateway.store.port import Work
from gateway.wire import stored_requests
from gateway.wire.failures.redaction import name_shown
from gateway.wire.http.headers import trace_context


@dataclass(frozen=True, slots=True)
class Progress:
    """Of a run.

    Attributes:
        event_count: Events that are in the store.
        silent_s: Since its backend has sent something.
    """

    event_count: int
    silent_s: float


class Run:
    """An attempt that is under way.

    Args:
        attempts_max: Calls of a backend that one job may cost.

    Attributes:
        task: Runs `to_its_end`; None before and afterwards.
        listening: To the bell of its claim.
    """

    def __init__(
        self,
        work: Work,
        log: JobLog,
        backend: JobBackend,
        endings: Endings,
        thoughts: Thoughts,
        silence: Silence,
        attempts_max: int,
    ) -> None:
        self.work = work
        self._id = work.id
        self.log = log
        self._backend = backend
        self._endings = endings
        self._thoughts = thoughts
        self._silence = silence
        self._attempts_max = attempts_max
        self._shelf = endings.outputs.shelf()
        self._exchange: Exchange | None = None
        self._is_stopped = False
        self._has_output = False
        self._started_s = 0.0
        self.task: asyncio.Task[None] | None = None
        self.listening = ExitStack()
        self.listening.enter_context(endings.store.bells.listen(self.look, claim(self._id)))

    async def to_its_end(self) -> Again | None:
        """Run the job to an ending that is stored, or to a failure after which it is to be run again.

        Raises:
            ClaimLost, StoreUnavailable: It has not ended by this run.
        """
        try:
            async with asyncio.TaskGroup() as group:
                with self.log.open(group):
                    return await self._perform(self._begin())
        finally:
            if not self._is_stopped:
                self._drop()

    def _begin(self) -> Exchange:
        work, endings, thoughts = self.work, self._endings, self._thoughts  # no cycle through the machine
        job, call = work.job, work.call
        request = stored_requests.request_of(call.request)
        model = name_shown(request.get("model"))
        endings.observer.job_known(job.id, model=model)
        sent_with = stored_requests.headers_of(call.headers)
        endings.observer.tracing.run_began(
            job.id,
            trace_context(sent_with).get("traceparent"),
            backend=job.backend,
            model=model,
            attempt=job.attempt,
        )
        obstacle = None
        try:
            held = endings.credentials.of(job, call.sealed)
        except Unsealable as why:
            held, text = None, f"The caller's credential cannot be read: {why}."
            obstacle = Abandoned(text, Reason.CREDENTIAL_UNREADABLE)
        headers = held or CallerHeaders(None, {})
        task = Task(
            job,
            request,
            lambda speech: stored_requests.input_of(call.input, work.turns, speech),
            call.target,
            self._backend.speech,
            self._backend.retry_policy,
            endings.settings.events_bytes_max,
            self._attempts_max,
            is_limited_alone=self._backend.sees_callers and headers.credential is not None,
            is_credential_lost=held is None and self._backend.sees_callers,
            obstacle=obstacle,
            wrapped=lambda reader, speech: thoughts.sealing(reader, request, speech.api, job.tenant),
            shelf=self._shelf,
        )
        self._exchange = Exchange(
            JobMachine(task),
            self._backend,
            job,
            request,
            CallerHeaders(headers.credential, {**sent_with, **headers.others}),
            endings.clock,
            endings.observer,
            is_again=job.epoch > 1,  # it was claimed before
        )
        return self._exchange

    async def _perform(self, exchange: Exchange) -> Again | None:
        """Do what the machine wants, to the end."""
        self._started_s = time.monotonic()
        with self._silence.watched(exchange):
            async with aclosing(exchange.commands(self)) as commands:
                async for command in commands:
                    match command:
                        case Rewind(seq):
                            self.log.rewind(seq)
                        case Again():
                            return command
                        case Finish(outcome):
                            await self.log.finish(outcome)
                            return None
        raise AssertionError("a run ends with its last command")

    # -- its events: before the machine hears of more there is room; in between nothing is waited for

    def append(self, command: Append) -> None:
        assert self._exchange is not None
        self.log.append(command)
        self._endings.outputs.holds(self._id, self._exchange.machine.held_bytes)
        if not self._has_output and command.has_output:
            self._has_output = True
            first_s = time.monotonic() - self._started_s
            self._endings.observer.job_first_output(self._id, self.work.job.backend, first_s)

    def has_room(self) -> bool:
        return self.log.has_room and self._endings.outputs.has_room(self._id)

    async def room(self) -> None:
        await self.log.room()
        await self._endings.outputs.room(self._id)

    def progress(self) -> Progress:
        """How far it is, for whoever looks."""
        exchange = self._exchange
        since_s = exchange.since_s if exchange is not None else None
        return Progress(self.log.next_seq, 0.0 if since_s is None else time.monotonic() - since_s)

    @property
    def is_silent(self) -> bool:
        """Nobody can have seen output of it: it may be begun again elsewhere."""
        return not (self.work.job.is_followable and self._has_output)

    # -- ended by others

    async def flush(self) -> None:
        """Commit what was received: it is about to be ended, and this much was generated.

        Raises:
            StoreUnavailable: Not now; the run goes on.
        """
        with suppress(ClaimLost):  # then its end is somebody else's
            await self.log.flush()

    async def stop(self, stop: Stop) -> bool:
        """End it by its own machine: see `endings.LiveRun`."""
        async with self.log.quiet():  # a commit that is under way would not be known to have happened
            exchange = self._exchange
            if self.task is None or self._is_stopped or exchange is None or exchange.machine.is_over:
                return False
            self._is_stopped = True
            self.task.cancel()
            try:
                await self.log.stop(lambda: _outcome(exchange, stop))
            finally:
                self._drop()
        return True

    def abort(self) -> None:
        """Stop at once; the backend's connection closes."""
        if self.task is not None:
            self.task.cancel()

    def look(self) -> None:
        """Somebody may have taken the job: its epoch says whether."""
        self._looking = asyncio.create_task(self._look())

    async def _look(self) -> None:
        job, now_ms = self.work.job, self._endings.clock.now_ms()
        with suppress(StoreUnavailable):  # then the next commit says it
            found = await self._endings.store.find(job.id, job.tenant, now_ms=now_ms)
            if found is None or found.epoch > job.epoch:  # a smaller one is old news
                self.abort()

    def _drop(self) -> None:
        self.log.discard()
        self._endings.outputs.drops(self._id)
        self._shelf.close()
        if self._exchange is not None:
            self._exchange.forget()
            self._exchange = None


def _outcome(exchange: Exchange, stop: Stop) -> Outcome:
    for command in exchange.receive(stop):
        if isinstance(command, Finish):
            return command.outcome
    raise AssertionError(f"{stop!r} ends a run")
