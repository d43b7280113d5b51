"""What a backend's answer says, item by item: events, one object, or what is wrong with it.

Nothing that a backend can send raises. Each failure has a message for the client in which neither an address
nor a key stands.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from functools import partial

from gateway import loop
from gateway.core.call import Taker
from gateway.core.reason import Reason
from gateway.core.retry import reason_of
from gateway.core.upstream import UpstreamAnswer, UpstreamClosed, UpstreamFailed, UpstreamFrames, UpstreamItem
from gateway.observe import Observer
from gateway.outbound.client import FAILURES
from gateway.outbound.jobcall import JobCall
from gateway.wire.answers.body import AnswerBody, NeitherOne
from gateway.wire.failures import failure, of_status
from gateway.wire.sse import FrameTooLarge

_ERROR_BODY_BYTES_MAX = 64 * 2**10


async def read_answer(
    answer: JobCall,
    *,
    idle_timeout_s: float,
    event_bytes_max: int,
    kind: str,
    observer: Observer,
    taker: Taker | None = None,
) -> AsyncGenerator[UpstreamItem, None]:
    """An answer that is no error, to its end.

    Args:
        taker: Takes frames as they come. Where it has left something to be done, no frames are given.
        idle_timeout_s: Longest silence.
        event_bytes_max: Of one event, and of an answer that is not a stream.
        kind: For the metrics: `background` or `passthrough`.
    """
    if (problem := _not_readable(answer)) is not None:
        yield problem
        return
    reading = _Reading(answer, idle_timeout_s)
    body = AnswerBody(event_bytes_max)
    if taker is not None:
        answer.push_to(partial(_push, reading, body, taker), taker.has_room)
    try:
        while (chunk := await reading.next()) != b"":
            if chunk is None:
                yield UpstreamFrames([])
                continue
            async with aclosing(loop.pieces(chunk)) as pieces:
                async for piece in pieces:
                    if frames := body.feed(piece):
                        yield UpstreamFrames(frames)
        last = body.close()
        if isinstance(last, bytes):
            yield UpstreamAnswer(last)
        elif last:
            yield UpstreamFrames(last)
        yield UpstreamClosed()
    except NeitherOne as neither:
        kind = answer.headers.get("Content-Type", "no type").partition(";")[0]
        words = f": {neither.words}" if neither.words else "."
        message = f"The backend answered with {kind!r} in place of an event stream{words}"
        yield UpstreamFailed(failure(message), Reason.BAD_TYPE, answer.status)
    except FrameTooLarge as too_large:
        yield UpstreamFrames(too_large.before)
        yield UpstreamFailed(
            failure(f"The backend sent more than {event_bytes_max} bytes in one event."), Reason.TOO_LARGE
        )
    except FAILURES:
        reason = Reason.TIMEOUT if reading.was_silent else Reason.CUT
        observer.upstream_failed(kind, reason.short)
        message = "The connection to the backend broke before the response was complete."
        if reading.was_silent:
            message = f"The backend sent nothing for {idle_timeout_s:g} s."
        yield UpstreamFailed(failure(message), reason)
    finally:
        reading.alarm.stop()


def _push(reading: _Reading, body: AnswerBody, taker: Taker, chunk: bytes) -> bool:
    reading.alarm.restart()
    frames = body.feed(chunk)
    return not frames or taker.take(UpstreamFrames(frames))


async def read_error(answer: JobCall, *, idle_timeout_s: float) -> UpstreamFailed:
    """What an answer with an error status says; of a body that breaks off, its beginning."""
    reading = _Reading(answer, idle_timeout_s)
    body = b""
    try:
        while len(body) < _ERROR_BODY_BYTES_MAX and (chunk := await reading.next()):
            body += chunk
    except FAILURES:
        pass
    finally:
        reading.alarm.stop()
    told = of_status(answer.status, body[:_ERROR_BODY_BYTES_MAX])
    return UpstreamFailed(
        told.failure, reason_of(told) or Reason.REFUSED, answer.status, told.asked_s, said=body
    )


class _Reading:
    """Reads an answer, and closes it when it has been silent for too long, which fails whoever waits for it.

    Silence is only what somebody waits for: while the store is slow, the backend is not.

    Attributes:
        alarm: Starts anew whenever something has come.
    """

    def __init__(self, answer: JobCall, silence_max_s: float) -> None:
        self._answer = answer
        self._is_waiting = False
        self.alarm = loop.Alarm(silence_max_s, self._look)
        self.was_silent = False

    async def next(self) -> bytes | None:
        """What has come; b"" at the end, None after a push: see `JobCall`. Raises: one of FAILURES."""
        self._is_waiting = True
        self.alarm.restart()
        chunk = await self._answer.next()
        self._is_waiting = False
        return chunk

    def _look(self) -> None:
        if self._is_waiting:
            self.was_silent = True
            self._answer.broke(TimeoutError(), is_unsent=False)
        else:
            self.alarm.restart()


def _not_readable(answer: JobCall) -> UpstreamFailed | None:
    """What is wrong with a head that promises neither events nor an object."""
    if 300 <= answer.status < 400:
        message = f"The backend answered with a redirect (status {answer.status}), which is not followed."
        return UpstreamFailed(failure(message), Reason.REDIRECT, answer.status)
    if answer.headers.get("Content-Encoding", "identity") != "identity":
        message = "The backend compressed its answer, which it was asked not to do."
        return UpstreamFailed(failure(message), Reason.BAD_ENCODING, answer.status)
    return None
