"""What a client can do with responses: create, look at, cancel, delete, chain."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

from gateway.config import BackgroundSettings, ConversationSettings
from gateway.core.acceptance import new_job
from gateway.core.backends import JobBackend, JobBackends
from gateway.core.job import (
    Idempotency,
    Job,
    KeyReused,
    NewJob,
    PreviousGone,
    QueueFull,
    Status,
    StoreUnavailable,
)
from gateway.core.tiers import TiersAllowed
from gateway.core.transcript import CancelRequested, Transcript, Unreadable
from gateway.engine.clock import Clock
from gateway.engine.credentials import CallerHeaders, Credentials
from gateway.engine.endings import Endings
from gateway.engine.intake import Intake
from gateway.engine.outputs import Outputs
from gateway.engine.refusals import refusal_of, refusing
from gateway.engine.runner import Runner
from gateway.engine.thoughts import Thoughts
from gateway.engine.turns import Turns, check_chainable
from gateway.observe import Observer
from gateway.store.port import ClientStore
from gateway.wire import responses, stored_requests
from gateway.wire.chat.tools import Tools
from gateway.wire.dialects import Dialect
from gateway.wire.errors import Fault, Refusal, not_found


@dataclass(frozen=True, slots=True)
class Repeat:
    """What identifies a repeated create.

    Attributes:
        idempotency: From the header `Idempotency-Key`.
        fingerprint: Of the request, where it has no key and a retry of it may adopt the job.
        is_retry: It may adopt one itself.
    """

    idempotency: Idempotency | None = None
    fingerprint: bytes | None = None
    is_retry: bool = False

    @property
    def may_have_job(self) -> bool:
        """It may ask for a job that there is already, and so need no room."""
        return self.idempotency is not None or (self.fingerprint is not None and self.is_retry)


@dataclass(frozen=True, slots=True)
class Submission:
    """A create request, as the API hands it over.

    Attributes:
        response_id: New, from a CSPRNG.
        backend: The one that it goes to.
        target: Raw path and query of the backend call.
        stored_headers: May lie on disk; `held_headers` may not.
        webhook: URL of the caller's own to tell of the end.
        request_id: Of the create, for the log.
    """

    response_id: str
    tenant: bytes
    backend: JobBackend
    body: dict[str, Any]
    target: str
    stored_headers: dict[str, str]
    held_headers: CallerHeaders
    repeat: Repeat = Repeat()
    webhook: str | None = field(default=None, repr=False)
    request_id: str | None = None


Vetted = Callable[[bool], Awaitable[Submission]]
"""Judges a create that is new, and asks whom it has to; it is given whether the previous response is in this
store: if not, it is the backend's to resolve. Raises: Refusal."""


@dataclass(frozen=True, slots=True)
class Accepted:
    """A job that is stored: a new one, or the one that this create repeats.

    Attributes:
        response: JSON of the Response as it is now.
        tools: Those of the request, as its backend is told of them.
    """

    response_id: str
    status: Status
    response: bytes
    tools: Tools


class Jobs:
    """The responses of this gateway, for their clients.

    Attributes:
        turns: What they go on from.
        is_draining: Nothing is accepted any more.
    """

    def __init__(
        self,
        store: ClientStore,
        backends: JobBackends,
        runner: Runner,
        intake: Intake,
        endings: Endings,
        credentials: Credentials,
        clock: Clock,
        settings: BackgroundSettings,
        observer: Observer,
        dialect: Dialect,
        thoughts: Thoughts,
        conversations: ConversationSettings,
        tiers: TiersAllowed,
        outputs: Outputs,
    ) -> None:
        self._store = store
        self._backends = backends
        self._runner = runner
        self._intake = intake
        self._endings = endings
        self._followers = endings.followers
        self._credentials = credentials
        self._clock = clock
        self._settings = settings
        self._observer = observer
        self._dialect = dialect
        self._streams_any = settings.resume == "any" or dialect.streams_any
        self._tiers = tiers
        self._outputs = outputs
        self.is_draining = False
        self.turns = Turns(store, clock, settings, conversations, thoughts)

    def stop_accepting(self) -> None:
        """From now on every create is refused."""
        self.is_draining = True

    async def accept(self, tenant: bytes, repeat: Repeat, previous_id: object, vetted: Vetted) -> Accepted:
        """Accept a job; it is stored when this returns, and will run whatever its client does. A create that
        repeats another gets the job of the first, whatever else has changed since, and is not judged.

        Args:
            previous_id: The response that the create names as the one it goes on from.

        Raises:
            Refusal: Nothing was accepted.
        """
        self._check_accepting()
        if not repeat.may_have_job:
            self._intake.check(tenant)
        elif (earlier := await self._earlier(tenant, repeat)) is not None:
            return earlier
        previous = await self.find(previous_id, tenant) if isinstance(previous_id, str) else None
        return await self._submit(await vetted(previous is not None), previous)

    async def _earlier(self, tenant: bytes, repeat: Repeat) -> Accepted | None:
        """The job that this create repeats; None if it is a new one.

        A retry without a key adopts a job that no request has named: nobody is known to have its id.
        """
        now_ms = self._clock.now_ms()
        with refusing():
            if repeat.idempotency is not None:
                earlier_id = await self._store.repeated(tenant, repeat.idempotency, now_ms=now_ms)
            else:
                assert repeat.fingerprint is not None
                since_ms = now_ms - int(self._settings.adopt_within_s * 1000)
                earlier_id = await self._store.unnamed(
                    tenant, repeat.fingerprint, since_ms=since_ms, now_ms=now_ms
                )
                if earlier_id is not None:
                    self._observer.job_adopted(earlier_id)
        return await self._accepted(earlier_id, tenant) if earlier_id is not None else None

    async def _submit(self, submission: Submission, previous: Job | None) -> Accepted:
        self._check_accepting()  # it may have taken a while to judge it
        body = self._tiers.applied(submission.body, submission.tenant)
        named_id = body.get("previous_response_id") if previous is not None else None
        if previous is not None:
            check_chainable(previous, named_id)
        previous_id = previous.id if previous is not None else None
        backend = submission.backend
        body = {**body, "input": await self.turns.told(body.get("input"), submission.tenant, backend)}
        if backend.speech.is_certain:  # what it cannot be told is better known now
            said = {**body, "previous_response_id": None} if previous_id else body
            backend.speech.check(said, submission.tenant)
        tools = backend.speech.tools(body, body["input"])
        job = new_job(
            body,
            response_id=submission.response_id,
            tenant=submission.tenant,
            previous_id=previous_id,
            backend=backend.name,
            target=submission.target,
            headers=submission.stored_headers,
            idempotency=submission.repeat.idempotency,
            fingerprint=submission.repeat.fingerprint,
            webhook=submission.webhook,
            shows_output=self._streams_any or self._settings.partial_output,
            opening=self._dialect.opening,
            now_ms=self._clock.now_ms(),
            deadline_s=self._settings.deadline_s,
            tools=tools.shown,
        )
        try:
            # Shielded: a client that hangs up now must not leave a job that is stored but unknown to us.
            accepted_id = await asyncio.shield(self._accept(job, submission))
        except QueueFull as error:
            raise self._intake.full(error, job.tenant) from None
        except (KeyReused, PreviousGone, StoreUnavailable) as error:
            raise refusal_of(error, named_id) from None
        if accepted_id == job.id:
            if tools.omitted:
                self._observer.tools_omitted(job.backend, [tool.family for tool in tools.omitted])
            return Accepted(job.id, Status.QUEUED, job.response, tools)
        earlier = await self._accepted(accepted_id, job.tenant)
        if earlier is None:
            raise not_found(accepted_id)
        return earlier

    def _check_accepting(self) -> None:
        if self.is_draining:
            raise Refusal(
                Fault.UNAVAILABLE, "The gateway is shutting down.", code="shutting_down", retry_after_s=5
            )

    async def _accepted(self, response_id: str, tenant: bytes) -> Accepted | None:
        """What was accepted earlier, as it is now; None if it went away this very moment."""
        job = await self._find(response_id, tenant)
        with refusing():
            call = await self._store.request_of(response_id) if job is not None else None
        if job is None or call is None:
            return None
        backend, body = self._backends.get(job.backend), stored_requests.body_of(call.request, call.input)
        tools = backend.speech.tools(body, body["input"]) if backend is not None else Tools()
        return Accepted(job.id, job.status, await self.show(job), tools)

    async def _accept(self, job: NewJob, submission: Submission) -> str:
        may_seal = submission.backend.sees_callers
        if sealed := self._credentials.keep(job, submission.held_headers, may_seal=may_seal):
            job = replace(job, sealed=sealed)
        if job.is_streamed:
            self._followers.expect(job)
        accepted_id = None
        try:
            accepted_id = await self._runner.accept(
                job, lambda stored: self._stored(stored, submission.request_id)
            )
        finally:
            if accepted_id != job.id:
                self._credentials.forget(job.id)
        return accepted_id

    def _stored(self, job: NewJob, request_id: str | None) -> None:
        self._followers.created(job)
        self._intake.accepted(job.tenant)
        self._observer.job_known(job.id, backend=job.backend, model=job.model, request=request_id)
        self._observer.job_accepted(job.id, job.backend, job.tenant, job.is_streamed)

    async def find(self, response_id: str, tenant: bytes) -> Job | None:
        """A client's job, by any of its names; None if it is unknown, expired, deleted or another's: there is
        no telling which."""
        job = await self._find(response_id, tenant)
        if job is not None and job.is_unnamed:
            with suppress(StoreUnavailable):  # then a later request names it
                await self._store.name(job.id)
        return job

    async def _find(self, response_id: str, tenant: bytes) -> Job | None:
        stored_id = self._dialect.stored_id(response_id)
        with refusing():
            return await self._store.find(stored_id, tenant, now_ms=self._clock.now_ms())

    async def show(self, job: Job) -> bytes:
        """JSON of the Response as its client sees it now."""
        if job.final is not None:
            return job.final
        # `is_followable`: the settings may have been others when it was accepted: it may yet be run again.
        if self._settings.partial_output and job.is_followable and job.status is Status.IN_PROGRESS:
            with refusing():
                size = await self._store.events_bytes(job.id)
                async with self._outputs.reading(size):
                    return await self._show_output(job)
        return responses.unfinished(job.response, job.status)

    async def _show_output(self, job: Job) -> bytes:
        output = None
        stored = await self._store.all_events(job.id)
        with suppress(Unreadable):  # whoever ends it will say so
            bytes_max = self._settings.events_bytes_max
            output = Transcript.restored(job, stored, events_bytes_max=bytes_max).output()
        return responses.unfinished(job.response, job.status, output)

    async def cancel(self, job: Job) -> Job:
        """Cancel it. Returns the job as it then is: cancelled, or ended otherwise a moment before.

        Raises:
            Refusal: It was deleted meanwhile, or its end could not be stored.
        """
        while not job.status.is_terminal:
            with refusing():
                await self._endings.end(job.id, CancelRequested())
            found = await self.find(job.id, job.tenant)
            if found is None:
                raise not_found(job.id)
            job = found
        return job

    async def delete(self, job: Job) -> None:
        """Make it vanish; if it runs, the backend is told to stop. Raises: Refusal, if it is gone already."""
        with refusing():
            if not await self._endings.delete(job.id, job.tenant):
                raise not_found(job.id)
