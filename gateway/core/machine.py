"""One run of one job, without I/O: it decides what is called, what is stored, and how the run ends.

Inputs go in, commands come out, and whoever performs them never revises one. A run is one call or several:
a backend speaks the other API, or refuses a call and says what it wants. Its last command is `Again` or
`Finish`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, field, replace
from typing import Any, assert_never

import orjson

from gateway.core import refusal, retry
from gateway.core.job import FIRST_OUTPUT_SEQ, Job, Outcome, Status
from gateway.core.reason import Reason
from gateway.core.retry import Again, Moment, RetryPolicy
from gateway.core.transcript import (
    Abandoned,
    Append,
    Broken,
    CancelRequested,
    DeadlinePassed,
    Stop,
    Transcript,
)
from gateway.core.upstream import (
    OtherApi,
    Upstream,
    UpstreamAnswer,
    UpstreamClosed,
    UpstreamFailed,
    UpstreamFrames,
    UpstreamItem,
)
from gateway.wire import responses
from gateway.wire.answers.notices import Notice
from gateway.wire.answers.readers import AnswerReader
from gateway.wire.answers.text import Shelf
from gateway.wire.errors import Refusal
from gateway.wire.failures import failure
from gateway.wire.speech import Request, Speech


@dataclass(frozen=True, slots=True)
class Started:
    """The job was claimed, or a plain request came."""


@dataclass(frozen=True, slots=True)
class ClientWaits:
    """The client of a plain stream has waited for long enough: it is to begin."""


Input = Started | ClientWaits | Upstream | Stop


@dataclass(frozen=True, slots=True)
class CallBackend:
    """Make this call, in place of the last one.

    Attributes:
        speech: How it is made.
        version: Of the body, from 0.
        lesson: What the refusal of the last one has taught.
        omitted: Families of tools of which the backend is not told.
        is_limited_alone: See `Task`.
    """

    target: str
    body: bytes = field(repr=False)
    speech: Speech
    version: int
    lesson: str | None = None
    omitted: tuple[str, ...] = ()
    is_limited_alone: bool = False


@dataclass(frozen=True, slots=True)
class Rewind:
    """Throw the stored events from `seq` on away: an earlier run, now lost, left output that nobody saw."""

    seq: int


@dataclass(frozen=True, slots=True)
class BackOff:
    """The backend said within its answer that it has no time: send nobody else there for a while."""

    asked_s: float | None


@dataclass(frozen=True, slots=True)
class Finish:
    """Store the ending.

    Attributes:
        speech: How the backend was talked to, with what its answer has shown, if it has answered.
        failed: How it failed, if that is what ended the run.
        is_all: It holds the only event of this response.
        lacks_budget: A plain request was not retried, as the budget had no room.
    """

    outcome: Outcome
    speech: Speech | None = None
    failed: UpstreamFailed | None = None
    is_all: bool = False
    lacks_budget: bool = False


Command = Rewind | CallBackend | Append | BackOff | Again | Finish


@dataclass(frozen=True, slots=True)
class Task:
    """What a run is about.

    Attributes:
        request: The client's body.
        input: What the backend is to be told, in the form that a way to talk to it wants.
        target: Raw path and query that the client asked for.
        speech: How the backend is talked to, as far as is known.
        retry_policy: How long, and how often, the backend's jobs wait and retry.
        attempts_max: Calls that one job may cost.
        is_limited_alone: The backend knows the caller by a credential of their own, and may limit that one.
        is_credential_lost: The caller's credential went with an earlier process.
        obstacle: Why no call can be made at all.
        events_bytes_max: All stored events of the job together; more fails it.
        wrapped: Adds to a reader what the gateway does to answers of its API.
        shelf: For long texts that are not done yet; None keeps all in memory.
    """

    job: Job
    request: Request
    input: Callable[[Speech], Any]
    target: str
    speech: Speech
    retry_policy: RetryPolicy
    events_bytes_max: int
    attempts_max: int = 1
    is_limited_alone: bool = False
    is_credential_lost: bool = False
    obstacle: Abandoned | None = None
    wrapped: Callable[[AnswerReader, Speech], AnswerReader] = lambda reader, speech: reader
    shelf: Shelf | None = None

    def body(self, speech: Speech) -> bytes:
        """The body of its call. Raises: Refusal, if the API cannot say it."""
        return speech.body(self.request, self.input(speech), self.job.tenant)


_CREDENTIAL_LOST = Abandoned(
    "The caller's credential was kept in memory only and was lost when the gateway restarted; "
    "the backend refused the call without it.",
    Reason.CREDENTIAL_LOST,
)


class JobMachine:
    """One run.

    Attributes:
        has_output: Some of what was appended is output.
        is_over: It has given its last command.
    """

    def __init__(self, task: Task) -> None:
        self._task = task
        self._speech = task.speech.to(task.request.get("model"))
        self._calls = 0
        self._first_seq = min(task.job.next_seq, FIRST_OUTPUT_SEQ)
        self._next_seq = self._first_seq  # of the first event that nobody was told yet, while none is held
        self._held: list[Append] = []
        self.has_output = False
        self.is_over = task.job.status.is_terminal
        self._listen()

    @property
    def held_bytes(self) -> int:
        """How much of the output lies in memory, about."""
        return self._transcript.held_bytes

    @property
    def notices(self) -> Collection[Notice]:
        """What the operator should know of the backend's answer, so far."""
        return self._transcript.notices

    def receive(self, item: Input, now: Moment) -> list[Command]:
        """What to do because of `item`; nothing once the run is over.

        Raises:
            Refusal: Of a plain request whose client has been told nothing yet: the API cannot say it.
        """
        if self.is_over:
            return []
        match item:
            case UpstreamFrames() | UpstreamAnswer() | UpstreamFailed() | UpstreamClosed():
                return self._answered(item, now)
            case Started():
                return [*self._rewind(), *self._call(now)]
            case ClientWaits():
                return [*self._begin()]
            case OtherApi(speech):
                return self._call_again(speech, now)
            case CancelRequested() | DeadlinePassed() | Abandoned():
                return self._finish(self._transcript.stop(item, now))
            case _:
                assert_never(item)

    # -- calls

    def _listen(self) -> None:
        """Be ready for the answer to a call that is made in the present way."""
        task, job = self._task, self._task.job
        self._told = task.input(self._speech)
        tools = self._speech.tools(task.request, self._told)
        self._omitted: tuple[str, ...] = ()
        if tools.omitted and (response := responses.with_tools(job.response, tools.shown)) != job.response:
            self._omitted = tuple(tool.family for tool in tools.omitted)
            job = replace(job, response=response)
        if job.next_seq != self._next_seq:
            job = replace(job, next_seq=self._next_seq)
        self._reader = self._speech.reader(job.id, task.request, self._told)
        self._transcript = Transcript(
            job,
            events_bytes_max=task.events_bytes_max,
            reader=task.wrapped(self._reader, self._speech),
            shelf=task.shelf,
        )
        self._held = [] if self.is_over else self._transcript.start()

    def _rewind(self) -> list[Rewind]:
        return [Rewind(self._first_seq)] if self._first_seq < self._task.job.next_seq else []

    def _call(self, now: Moment, lesson: str | None = None) -> list[Command]:
        task, job = self._task, self._task.job
        began = [*self._begin()] if job.is_background else []
        if task.obstacle is not None:
            return [*began, *self._finish(self._transcript.stop(task.obstacle, now))]
        try:
            self._sent = self._speech.body(task.request, self._told, job.tenant)
        except Refusal as why:  # found out too late to refuse the request
            if not job.is_background and self._is_untold:
                raise
            broken = Broken(failure(why.message, "invalid_prompt"), Reason.UNSUPPORTED)
            return [*began, *self._finish(self._transcript.fail(broken, now))]
        version, self._calls = self._calls, self._calls + 1
        target = self._speech.target(task.target)
        alone = task.is_limited_alone
        return [*began, CallBackend(target, self._sent, self._speech, version, lesson, self._omitted, alone)]

    def _call_again(self, speech: Speech, now: Moment, lesson: str | None = None) -> list[Command]:
        self._speech = speech
        self._listen()
        return self._call(now, lesson)

    # -- answers

    @property
    def _is_untold(self) -> bool:
        return self._next_seq == self._first_seq and not self.has_output

    def _begin(self) -> list[Append]:
        """The events before output, once. The client of a plain request is not told them before something
        decides with which HTTP status it is answered."""
        held, self._held = self._held, []
        self._next_seq += sum(append.count for append in held)
        return held

    def _answered(self, item: UpstreamItem, now: Moment) -> list[Command]:
        commands: list[Command] = []
        for step in self._transcript.receive(item, now):
            match step:
                case Append():
                    if self._held:
                        commands += self._begin()
                    commands.append(step)
                    self.has_output = True
                case Broken():
                    commands += self._broken(step, item, now)
                case Outcome():
                    learned = self._speech.after_answer(self._reader, self._transcript.output())
                    commands += self._finish(step, speech=learned)
        return commands

    def _broken(self, broken: Broken, item: UpstreamItem, now: Moment) -> list[Command]:
        """Learn from a refusal and call again; or run again, later; or fail."""
        task, failed = self._task, broken.failed
        if task.is_credential_lost and isinstance(item, UpstreamFailed) and item.status in (401, 403):
            return self._finish(self._transcript.stop(_CREDENTIAL_LOST, now))
        said = self._refusal(broken, item)
        if said is not None and (found := refusal.lesson(self._speech, said, self._sent, task.body)):
            return self._call_again(found[1], now, lesson=found[0])
        rest: list[Command] = []
        if failed is not None and failed.reason is Reason.PUT_OFF and failed is not item:
            is_callers = retry.is_callers_limit(failed.failure, is_limited_alone=task.is_limited_alone)
            failed = replace(failed, is_callers=is_callers)
            if task.job.is_background and not is_callers:
                rest = [BackOff(failed.retry_after_s)]
        again = self._again(broken.reason, failed, now)
        lacks_budget = again is not None and not task.job.is_background and now.retry_in_s > 0
        if again is not None and not lacks_budget:
            self.is_over = True
            return [*rest, again]
        outcome = self._transcript.fail(broken, now)
        return [*rest, *self._finish(outcome, failed=failed, lacks_budget=lacks_budget)]

    def _refusal(self, broken: Broken, item: UpstreamItem) -> bytes | None:
        """The backend's words, if it refused the call before it did any work; else None."""
        if self.has_output or broken.output:
            return None
        if not isinstance(item, UpstreamFailed):
            return orjson.dumps(broken.error) if refusal.may_teach(None, self._calls) else None
        return item.said if item.said and refusal.may_teach(item.status, self._calls) else None

    def _again(self, reason: Reason, failed: UpstreamFailed | None, now: Moment) -> Again | None:
        task, job = self._task, self._task.job
        if not job.is_background:
            return retry.anew(reason, job)
        return retry.again(
            reason,
            failed,
            job,
            task.retry_policy,
            attempts_max=task.attempts_max,
            was_shown=job.is_followable and self.has_output,
            now=now,
        )

    def _finish(
        self,
        outcome: Outcome,
        *,
        speech: Speech | None = None,
        failed: UpstreamFailed | None = None,
        lacks_budget: bool = False,
    ) -> list[Command]:
        self.is_over = True
        is_all = self._is_untold and outcome.event_count == 1
        began = [] if is_all and outcome.status is Status.FAILED else self._begin()
        return [*began, Finish(outcome, speech, failed, is_all, lacks_budget)]
