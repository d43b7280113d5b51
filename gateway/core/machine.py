"""One run of a job, without I/O: what the backend sends goes in, what to store comes out.

The machine numbers events, keeps the output so far, and decides how the response ends. It emits exactly one
terminal event, and nothing after it. Restored from the stored events it goes on where they stop: a cancel, a
deadline and a crash end a response through the same code as the backend does.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field, replace
from typing import Any, assert_never

import orjson

from gateway.core import retry
from gateway.core.job import Job, Outcome, Status
from gateway.wire import events as wire_events
from gateway.wire import failures, responses
from gateway.wire.answers import endings
from gateway.wire.answers.endings import Ending
from gateway.wire.answers.normalise import Normaliser
from gateway.wire.answers.notices import Notice
from gateway.wire.answers.output import Shelf, memory_of
from gateway.wire.answers.readers import NotAnEvent, Reader, ResponsesReader
from gateway.wire.events import LIFECYCLE, TERMINAL, Event
from gateway.wire.failures import Failure, Told, failure
from gateway.wire.item_ids import FIRST_OUTPUT, to_be_looked_up
from gateway.wire.sse import Frame, data_of, each_frame


@dataclass(frozen=True, slots=True)
class Started:
    """The job was claimed; the backend is about to be called."""


@dataclass(frozen=True, slots=True)
class UpstreamFrames:
    """Events of the backend: all that one read from its socket completed."""

    frames: list[Frame]


@dataclass(frozen=True, slots=True)
class UpstreamAnswer:
    """The backend answered with one JSON object in place of a stream."""

    body: bytes


@dataclass(frozen=True, slots=True)
class UpstreamFailed:
    """The call ended by an error: refused, unreachable, too slow, cut, too large.

    Attributes:
        status: The backend's HTTP status, if it was its answer that said so.
        retry_after_s: How long it asked to be left alone.
        is_callers: That was said to this caller, by a rate limit of their own, and not to everybody.
        said: The beginning of an error answer, as it came. Nobody is shown it.
    """

    failure: Failure
    reason: str
    status: int | None = None
    retry_after_s: float | None = None
    is_callers: bool = False
    said: bytes = field(default=b"", repr=False)


@dataclass(frozen=True, slots=True)
class UpstreamClosed:
    """The backend ended its stream."""


@dataclass(frozen=True, slots=True)
class CancelRequested:
    """The client does not want it any more."""


@dataclass(frozen=True, slots=True)
class DeadlinePassed:
    """It took longer than the configured time from its acceptance."""


@dataclass(frozen=True, slots=True)
class Abandoned:
    """It cannot go on, through no fault of the backend: a restart, a lost credential, a defect."""

    message: str
    reason: str


Input = (
    Started
    | UpstreamFrames
    | UpstreamAnswer
    | UpstreamFailed
    | UpstreamClosed
    | CancelRequested
    | DeadlinePassed
    | Abandoned
)


@dataclass(frozen=True, slots=True)
class Append:
    """Store these events. `has_output`: some of them are output, not lifecycle."""

    events: bytes
    count: int
    has_output: bool


@dataclass(frozen=True, slots=True)
class Finish:
    """Store the ending.

    Attributes:
        failed: How the backend failed, if that is what ended it: by the call, or by what it said in its
            answer.
    """

    outcome: Outcome
    failed: UpstreamFailed | None = None


Command = Append | Finish

BACKGROUND = ("response.created", "response.queued", "response.in_progress")
FOREGROUND = ("response.created", "response.in_progress")
"""The events before output, in the order in which both official clients want them."""

_ERROR_EVENT = "upstream_error_event"


_LOOSE_BYTES_MAX = 256 * 2**10
"""Of a text in many pieces; then they are put together, and a long one on the shelf."""


class Unreadable(Exception):
    """No machine can be made of these stored events: they are not what a machine has written."""


class JobMachine:
    """One run of one job.

    Args:
        events_bytes_max: All stored events of the job together; more fails it.
        reader: Knows the API that the backend speaks.
        shelf: For long texts that are not done yet; None keeps all in memory.

    Attributes:
        held_bytes: How much of the output lies in memory, about.
    """

    def __init__(
        self,
        job: Job,
        *,
        events_bytes_max: int,
        reader: Reader | None = None,
        shelf: Shelf | None = None,
    ) -> None:
        self._job = job
        self._reader = reader or ResponsesReader()
        self._response: dict[str, Any] = orjson.loads(job.response)
        self._normaliser = Normaliser(job.id)
        self._next_seq = job.next_seq
        self._bytes_left = events_bytes_max
        self._answer: dict[str, Any] | None = None
        self._unexplained: Told | None = None  # an error without a word: what says why may yet come
        self._is_finished = job.status.is_terminal
        self._shelf = shelf
        self._shelve_at = _LOOSE_BYTES_MAX
        self.held_bytes = 0

    @classmethod
    def restored(
        cls, job: Job, stored: bytes, *, events_bytes_max: int, shelf: Shelf | None = None
    ) -> JobMachine:
        """The machine as it was when the last of its stored events was written. Raises: Unreadable."""
        machine = cls(job, events_bytes_max=events_bytes_max, shelf=shelf)
        try:
            for frame in each_frame(stored):
                event = wire_events.parse(data_of(frame))
                if event is not None and event["type"] not in LIFECYCLE | TERMINAL:
                    machine._normaliser.feed(event)
                    machine._holds(event, len(frame))
        except Exception as error:  # there is no telling how a damaged event fails whoever reads it
            raise Unreadable from error
        return machine

    @property
    def notices(self) -> Collection[Notice]:
        """What the operator should know of the backend's answer, so far."""
        return self._reader.notices

    def output(self) -> list[dict[str, Any]]:
        """The items so far, open ones marked `in_progress`."""
        return self._normaliser.output("in_progress")

    def receive(self, item: Input, *, now_s: int) -> list[Command]:
        """What to store because of `item`; nothing once the response has ended.

        Args:
            now_s: Unix seconds, shown as `completed_at`.
        """
        if self._is_finished:
            return []
        match item:
            case Started():
                return self._started()
            case UpstreamFrames(frames):
                return self._events((event for frame in frames for event in self._reader.read(frame)), now_s)
            case UpstreamAnswer(body):
                return self._events(self._answer_of(body), now_s)
            case UpstreamFailed() | UpstreamClosed() if self._unexplained is not None:
                return [self._told([], self._unexplained, _ERROR_EVENT, now_s)]
            case UpstreamFailed(error, reason):
                return [self._failed(error, reason, now_s, failed=item)]
            case UpstreamClosed():
                commands = self._events(self._reader.end(), now_s)
                return commands if self._is_finished else [*commands, self._closed_early(now_s)]
            case CancelRequested():
                return [self._finish([], Status.CANCELLED, now_s, reason="cancelled")]
            case DeadlinePassed():
                message = "The response was not complete before its deadline."
                return [self._failed(failure(message), "deadline", now_s)]
            case Abandoned(message, reason):
                return [self._failed(failure(message), reason, now_s)]
            case _:
                assert_never(item)

    def _started(self) -> list[Command]:
        order = BACKGROUND if self._response["background"] else FOREGROUND
        names = order[self._next_seq :]  # what a reader was told already is not told again
        if not names:
            return []
        self._response["status"] = Status.IN_PROGRESS
        events = [{"type": name, "response": self._response} for name in names]
        return [Append(self._encode(events), len(events), has_output=False)]

    def _events(self, events: Iterable[Event], now_s: int) -> list[Command]:
        output: list[Event] = []
        try:
            for event in events:
                kind = event["type"]
                if kind == "error":
                    told = failures.of_event(event)
                    if not told.is_mute:
                        return self._with(output, self._told(output, told, _ERROR_EVENT, now_s))
                    self._unexplained = told
                    continue
                if kind in TERMINAL:
                    return self._with(output, self._terminal(output, event, now_s))
                if kind in LIFECYCLE:
                    self._remember(event)
                else:
                    output += self._normaliser.feed(event)
        except NotAnEvent as problem:
            error = failure(str(problem))
            return self._with(output, self._failed_after(output, error, "bad_event", now_s))
        return self._with(output, None)

    def _answer_of(self, body: bytes) -> Iterable[Event]:
        """A backend that does not stream: what its one answer means, and nothing after it."""
        yield from self._reader.answer(body)

    def _closed_early(self, now_s: int) -> Finish:
        message = "The backend closed the stream before the response was complete."
        return self._failed(failure(message), "upstream_closed_early", now_s)

    def _with(self, output: list[Event], finish: Finish | None) -> list[Command]:
        """The commands for some output and, perhaps, the ending that took it in."""
        if finish is not None:
            return [finish]
        if not output:
            return []
        events = self._encode(output)
        if self._bytes_left < 0:
            message = "The response grew beyond the gateway's limit for the events of one response."
            return [Append(events, len(output), True), self._failed(failure(message), "too_many_events", 0)]
        return [Append(events, len(output), has_output=True)]

    def _remember(self, event: Event) -> None:
        answer = event.get("response")
        if isinstance(answer, dict):
            self._answer = answer

    def _terminal(self, output: list[Event], event: Event, now_s: int) -> Finish:
        """The backend's ending, whatever its last event is called."""
        self._remember(event)
        answer = event.get("response")
        answer = answer if isinstance(answer, dict) else {}
        match ending := endings.ending_of(event):
            case Ending.COMPLETED | Ending.INCOMPLETE:
                output += self._normaliser.settle(answer.get("output"), ending)
                is_cut = ending is Ending.INCOMPLETE or self._normaliser.has_cut_call()
                status = Status.INCOMPLETE if is_cut else Status.COMPLETED
                return self._finish(output, status, now_s, reason="upstream_ended")
            case Ending.FAILED:
                output += self._normaliser.settle(answer.get("output"), None)
                return self._told(output, failures.of_failed(event), "upstream_failed", now_s)
            case Ending.CANCELLED:
                output += self._normaliser.settle(answer.get("output"), None)
                error = failure("The backend cancelled the response.")
                return self._failed_after(output, error, "upstream_cancelled", now_s)
            case _:
                assert_never(ending)

    def _failed(
        self, error: Failure, reason: str, now_s: int, *, failed: UpstreamFailed | None = None
    ) -> Finish:
        return self._failed_after([], error, reason, now_s, failed=failed)

    def _told(self, output: list[Event], told: Told, last_word: str, now_s: int) -> Finish:
        """The backend has said in its answer that it failed.

        Args:
            last_word: The reason, if there is none by which it may pass.
        """
        reason = retry.reason_of(told) or last_word
        failed = UpstreamFailed(told.failure, reason, told.status, told.asked_s)
        return self._failed_after(output, told.failure, reason, now_s, failed=failed)

    def _failed_after(
        self,
        output: list[Event],
        error: Failure,
        reason: str,
        now_s: int,
        *,
        failed: UpstreamFailed | None = None,
    ) -> Finish:
        calls = retry.calls_made(self._job, reason)
        if calls > 1:
            error = failures.after_calls(error, calls)
        finish = self._finish(output, Status.FAILED, now_s, error=error, reason=reason)
        return replace(finish, failed=failed)

    def _finish(
        self, last: list[Event], status: Status, now_s: int, *, reason: str, error: Failure | None = None
    ) -> Finish:
        final = responses.ended(
            self._response,
            status=status,
            output=self._normaliser.output(),
            now_s=now_s,
            answer=self._answer,
            error=error,
        )
        # No `response.cancelled` exists for clients: a followed stream ends with `response.failed`, whose
        # embedded response says `cancelled`.
        name = Status.FAILED if status is Status.CANCELLED else status
        first_seq = self._next_seq
        events = self._encode([*last, {"type": f"response.{name}", "response": final}])
        self._is_finished = True
        return Finish(
            Outcome(
                status=status,
                final=orjson.dumps(final),
                first_seq=first_seq,
                events=events,
                event_count=len(last) + 1,
                error=error,
                reason=reason,
                item_ids=to_be_looked_up(self._job.id, final["output"], FIRST_OUTPUT),
            )
        )

    def _encode(self, events: list[Event]) -> bytes:
        encoded = []
        for event in events:
            encoded.append(wire_events.frame(event, self._next_seq))
            self._next_seq += 1
            self._holds(event, len(encoded[-1]))
        block = b"".join(encoded)
        self._bytes_left -= len(block)
        return block

    def _holds(self, event: Event, size: int) -> None:
        """An event of this size went through the normaliser, which keeps what is in it."""
        delta = event.get("delta")
        self.held_bytes += memory_of(delta) if isinstance(delta, str) else size
        if self.held_bytes > self._shelve_at and self._shelf is not None:
            self.held_bytes -= self._normaliser.shelve(self._shelf)
            self._shelve_at = self.held_bytes + _LOOSE_BYTES_MAX
