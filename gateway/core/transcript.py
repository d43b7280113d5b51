"""The events of one response, without I/O: what a backend sends goes in, numbered events come out.

It keeps the output so far, and says when the answer is over: well, or broken. Broken is not yet an end: the
machine decides whether there is another call. One terminal event is written, and nothing after it. Restored
from the stored events it goes on where they stop: a cancel, a deadline and a crash end a response through the
same code as the backend does.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from typing import Any, assert_never

import orjson

from gateway.core import retry
from gateway.core.job import TRANSITIONS, Job, Outcome, Status
from gateway.core.reason import Reason
from gateway.core.retry import Moment
from gateway.core.upstream import UpstreamAnswer, UpstreamClosed, UpstreamFailed, UpstreamFrames, UpstreamItem
from gateway.wire import events as wire_events
from gateway.wire import failures, responses
from gateway.wire.answers import endings
from gateway.wire.answers.echo import Echoes
from gateway.wire.answers.endings import Ending
from gateway.wire.answers.normalise import Normaliser
from gateway.wire.answers.notices import Notice
from gateway.wire.answers.readers import AnswerReader, NotAnEvent, ResponsesReader
from gateway.wire.answers.text import Shelf, memory_of
from gateway.wire.events import LIFECYCLE, TERMINAL, Event
from gateway.wire.failures import Failure, ToldFailure, failure
from gateway.wire.item_ids import FIRST_OUTPUT, to_be_looked_up
from gateway.wire.sse import Frame, data_of, each_frame


@dataclass(slots=True)
class Append:
    """Store these events. `has_output`: some of them are output, not lifecycle. Not frozen: see `Frame`."""

    events: bytes
    count: int
    has_output: bool = True


@dataclass(frozen=True, slots=True)
class Broken:
    """The answer is over, and it is no good.

    Attributes:
        failed: How the backend failed, if it did: by the call, or by what it said in its answer.
        output: Events that came just before, not stored yet.
    """

    error: Failure
    reason: Reason
    failed: UpstreamFailed | None = None
    output: list[Event] = field(default_factory=list)


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
    reason: Reason


Stop = CancelRequested | DeadlinePassed | Abandoned
"""How a response is ended by somebody else than its backend."""

BACKGROUND = ("response.created", "response.queued", "response.in_progress")
FOREGROUND = ("response.created", "response.in_progress")
"""The events before output, in the order in which both official clients want them."""

_LOOSE_BYTES_MAX = 256 * 2**10
"""Bytes by which the output in memory may grow; then texts are joined, and long ones go to the shelf."""


_CLOSED_EARLY = Broken(
    failure("The backend closed the stream before the response was complete."), Reason.CLOSED_EARLY
)
_TOO_LATE = Broken(failure("The response was not complete before its deadline."), Reason.DEADLINE)
_TOO_MANY_EVENTS = Broken(
    failure("The response grew beyond the gateway's limit for the events of one response."),
    Reason.TOO_MANY_EVENTS,
)


class Unreadable(Exception):
    """No transcript can be made of these stored events: they are not what one has written."""


class Transcript:
    """One answer to one job.

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
        reader: AnswerReader | None = None,
        shelf: Shelf | None = None,
    ) -> None:
        self._job = job
        self._reader = reader or ResponsesReader()
        self._response: dict[str, Any] = orjson.loads(job.response)
        self._normaliser = Normaliser(job.id)
        self._next_seq = job.next_seq
        self._bytes_left = events_bytes_max
        self._answer: dict[str, Any] | None = None
        self._unexplained: ToldFailure | None = None  # an error without a word: what says why may yet come
        self._status = job.status
        self._shelf = shelf
        self._shelve_at = _LOOSE_BYTES_MAX
        self.held_bytes = 0
        self._echoes = Echoes()
        self._shown: list[Event] = []  # of the last call of `_events`
        self._shown_before = 0  # of these, before the last frame
        self._is_silent = False  # that frame

    @classmethod
    def restored(
        cls, job: Job, stored: bytes, *, events_bytes_max: int, shelf: Shelf | None = None
    ) -> Transcript:
        """The transcript as it was when the last of its stored events was written. Raises: Unreadable."""
        transcript = cls(job, events_bytes_max=events_bytes_max, shelf=shelf)
        try:
            for frame in each_frame(stored):
                event = wire_events.parse(data_of(frame))
                if event is not None and event["type"] not in LIFECYCLE | TERMINAL:
                    transcript._normaliser.feed(event)
                    transcript._holds(event, len(frame))
        except Exception as error:  # there is no telling how a damaged event fails whoever reads it
            raise Unreadable from error
        return transcript

    @property
    def notices(self) -> Collection[Notice]:
        """What the operator should know of the backend's answer, so far."""
        return self._reader.notices

    def output(self) -> list[dict[str, Any]]:
        """The items so far, open ones marked `in_progress`."""
        return self._normaliser.output("in_progress")

    @property
    def next_seq(self) -> int:
        """Number of the next event."""
        return self._next_seq

    def start(self) -> list[Append]:
        """The backend is about to be called."""
        if self._status.is_terminal:
            return []
        if self._status is Status.QUEUED:
            self._move(Status.IN_PROGRESS)
        order = BACKGROUND if self._response["background"] else FOREGROUND
        names = order[self._next_seq :]  # what a reader was told already is not told again
        if not names:
            return []
        self._response["status"] = Status.IN_PROGRESS
        events = [{"type": name, "response": self._response} for name in names]
        return [Append(self._encode(events), len(events), has_output=False)]

    def receive(self, item: UpstreamItem, now: Moment) -> list[Append | Broken | Outcome]:
        """What `item` comes to; nothing once the response has ended.

        Args:
            now: Its seconds are shown as `completed_at`.
        """
        if self._status.is_terminal:
            return []
        match item:
            case UpstreamFrames(frames):
                return self._frames(frames, now)
            case UpstreamAnswer(body):
                return self._events(self._answer_of(body), now)
            case UpstreamFailed() | UpstreamClosed() if self._unexplained is not None:
                return [self._told([], self._unexplained, Reason.ERROR_EVENT)]
            case UpstreamFailed(error, reason):
                return [Broken(error, reason, item)]
            case UpstreamClosed():
                steps = self._events(self._reader.end(), now)
                is_over = bool(steps) and not isinstance(steps[-1], Append)
                return steps if is_over else [*steps, _CLOSED_EARLY]
            case _:
                assert_never(item)

    def stop(self, stop: Stop, now: Moment) -> Outcome:
        """End it from outside."""
        match stop:
            case CancelRequested():
                return self._finish([], Status.CANCELLED, now, reason=Reason.CANCELLED)
            case DeadlinePassed():
                return self.fail(_TOO_LATE, now)
            case Abandoned(message, reason):
                return self.fail(Broken(failure(message), reason), now)
            case _:
                assert_never(stop)

    def fail(self, broken: Broken, now: Moment) -> Outcome:
        """Nothing more is tried: end it with what is wrong."""
        calls = retry.calls_made(self._job, broken.reason)
        error = broken.error if calls <= 1 else failures.after_calls(broken.error, calls)
        return self._finish(broken.output, Status.FAILED, now, error=error, reason=broken.reason)

    def _frames(self, frames: list[Frame], now: Moment) -> list[Append | Broken | Outcome]:
        """Deltas like the last one by its pattern; from the first other one on all by the reader."""
        steps, count = self._echoed(frames)
        if count < len(frames) and (not steps or isinstance(steps[-1], Append)):
            steps += self._events(self._read(frames[count:]), now)
            self._learn(frames[-1], steps)
        return steps

    def _read(self, frames: list[Frame]) -> Iterable[Event]:
        for frame in frames:
            self._shown_before = len(self._shown)
            events = self._reader.read(frame)
            self._is_silent = not events
            yield from events

    def _echoed(self, frames: list[Frame]) -> tuple[list[Append | Broken | Outcome], int]:
        """What was appended by the pattern, and of how many frames."""
        encoded: list[bytes] = []
        count = size = 0
        for frame in frames:
            if (taken := self._echoes.take(frame, self._next_seq)) is None:
                break
            count += 1
            if taken[0]:
                encoded.append(taken[0])
                self._next_seq += 1
                size += memory_of(taken[1])
        if not encoded:
            return [], count
        block = b"".join(encoded)
        self._bytes_left -= len(block)
        self._grows(size)
        return self._appended(block, len(encoded)), count

    def _learn(self, frame: Frame, steps: list[Append | Broken | Outcome]) -> None:
        """What the last frame was like: it said nothing, or the one event that was made of it is a delta."""
        self._echoes.forget()
        if (steps and not isinstance(steps[-1], Append)) or (echo := self._reader.echo()) is None:
            return
        if self._is_silent:
            self._echoes.learn_silence(frame)
        elif len(self._shown) == self._shown_before + 1:
            told = self._shown[-1]
            if (text := self._normaliser.text_of(told)) is not None:
                self._echoes.learn(frame, told, text, echo)

    def _events(self, events: Iterable[Event], now: Moment) -> list[Append | Broken | Outcome]:
        output: list[Event] = []
        self._shown = output
        try:
            for event in events:
                kind = event["type"]
                if kind == "error":
                    told = failures.of_event(event)
                    if not told.is_mute:
                        return [self._told(output, told, Reason.ERROR_EVENT)]
                    self._unexplained = told
                    continue
                if kind in TERMINAL:
                    return [self._terminal(output, event, now)]
                if kind in LIFECYCLE:
                    self._remember(event)
                else:
                    output += self._normaliser.feed(event)
        except NotAnEvent as problem:
            return [Broken(failure(str(problem)), Reason.BAD_EVENT, output=output)]
        if not output:
            return []
        return self._appended(self._encode(output), len(output))

    def _appended(self, block: bytes, count: int) -> list[Append | Broken | Outcome]:
        append = Append(block, count)
        return [append] if self._bytes_left >= 0 else [append, _TOO_MANY_EVENTS]

    def _answer_of(self, body: bytes) -> Iterable[Event]:
        """A backend that does not stream: what its one answer means, and nothing after it."""
        yield from self._reader.answer(body)

    def _remember(self, event: Event) -> None:
        answer = event.get("response")
        if isinstance(answer, dict):
            self._answer = answer

    def _terminal(self, output: list[Event], event: Event, now: Moment) -> Broken | Outcome:
        """The backend's ending, whatever its last event is called."""
        self._remember(event)
        answer = event.get("response")
        answer = answer if isinstance(answer, dict) else {}
        match ending := endings.ending_of(event):
            case Ending.COMPLETED | Ending.INCOMPLETE:
                output += self._normaliser.settle(answer.get("output"), ending)
                is_cut = ending is Ending.INCOMPLETE or self._normaliser.has_cut_call()
                status = Status.INCOMPLETE if is_cut else Status.COMPLETED
                return self._finish(output, status, now, reason=Reason.ENDED)
            case Ending.FAILED:
                output += self._normaliser.settle(answer.get("output"), None)
                return self._told(output, failures.of_failed(event), Reason.FAILED)
            case Ending.CANCELLED:
                output += self._normaliser.settle(answer.get("output"), None)
                error = failure("The backend cancelled the response.")
                return Broken(error, Reason.CANCELLED_THERE, output=output)
            case _:
                assert_never(ending)

    def _told(self, output: list[Event], told: ToldFailure, last_word: Reason) -> Broken:
        """The backend has said in its answer that it failed.

        Args:
            last_word: The reason, if there is none by which it may pass.
        """
        reason = retry.reason_of(told) or last_word
        failed = UpstreamFailed(told.failure, reason, told.status, told.asked_s)
        return Broken(told.failure, reason, failed, output)

    def _finish(
        self, last: list[Event], status: Status, now: Moment, *, reason: Reason, error: Failure | None = None
    ) -> Outcome:
        self._move(status)
        final = responses.ended(
            self._response,
            status=status,
            output=self._normaliser.output(),
            now_s=now.now_s,
            answer=self._answer,
            error=error,
        )
        # No `response.cancelled` exists for clients: a followed stream ends with `response.failed`, whose
        # embedded response says `cancelled`.
        name = Status.FAILED if status is Status.CANCELLED else status
        first_seq = self._next_seq
        return Outcome(
            status=status,
            final=orjson.dumps(final),
            first_seq=first_seq,
            events=self._encode([*last, {"type": f"response.{name}", "response": final}]),
            event_count=len(last) + 1,
            error=error,
            reason=reason,
            item_ids=to_be_looked_up(self._job.id, final["output"], FIRST_OUTPUT),
        )

    def _move(self, status: Status) -> None:
        """By the table of moves, and no other way."""
        if status not in TRANSITIONS[self._status]:
            raise AssertionError(f"no way from {self._status} to {status}")
        self._status = status

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
        self._grows(memory_of(delta) if isinstance(delta, str) else size)

    def _grows(self, size: int) -> None:
        self.held_bytes += size
        if self.held_bytes > self._shelve_at and self._shelf is not None:
            self.held_bytes -= self._normaliser.shelve(self._shelf)
            self._shelve_at = self.held_bytes + _LOOSE_BYTES_MAX
