"""What a backend's answer says, item by item: events, one object, or what is wrong with it.

Nothing that a backend can send raises. Each failure has a message for the client in which neither an address
nor a key stands.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

import aiohttp

from gateway.core.machine import Input, UpstreamAnswer, UpstreamClosed, UpstreamFailed, UpstreamFrames
from gateway.core.retry import reason_of
from gateway.observe import Observer
from gateway.outbound.client import FAILURES
from gateway.wire.failures import failure, of_status
from gateway.wire.sse import FrameTooLarge, SseDecoder

_ERROR_BODY_BYTES_MAX = 64 * 2**10


async def read_answer(
    answer: aiohttp.ClientResponse, *, idle_timeout_s: float, event_bytes_max: int, observer: Observer
) -> AsyncGenerator[Input, None]:
    """The answer to a call, to its end. A stream begins without a frame: its head has come.

    Args:
        idle_timeout_s: Longest silence.
        event_bytes_max: Of one event, and of an answer that is not a stream.
    """
    problem = _not_a_stream(answer)
    silence = _Silence(answer, idle_timeout_s)
    try:
        if problem is not None:
            yield problem
        elif not 200 <= answer.status < 300:
            yield await _error(answer, silence)
        elif answer.content_type == "application/json":
            yield UpstreamAnswer(await _body(answer, event_bytes_max, silence))
        else:
            yield UpstreamFrames([])
            decoder = SseDecoder(event_bytes_max)
            while chunk := await answer.content.readany():
                silence.broken()
                if frames := decoder.feed(chunk):
                    yield UpstreamFrames(frames)
            if frames := decoder.close():
                yield UpstreamFrames(frames)
            yield UpstreamClosed()
    except FrameTooLarge as too_large:
        yield UpstreamFrames(too_large.before)
        yield UpstreamFailed(
            failure(f"The backend sent more than {event_bytes_max} bytes in one event."), "upstream_too_large"
        )
    except FAILURES:
        reason = "timeout" if silence.is_too_long else "cut"
        observer.upstream_failed("background", reason)
        message = "The connection to the backend broke before the response was complete."
        if silence.is_too_long:
            message = f"The backend sent nothing for {idle_timeout_s:g} s."
        yield UpstreamFailed(failure(message), f"upstream_{reason}")
    finally:
        silence.stop()


async def read_error(answer: aiohttp.ClientResponse, *, idle_timeout_s: float) -> UpstreamFailed:
    """What an answer with an error status says; of a body that breaks off, its beginning."""
    silence = _Silence(answer, idle_timeout_s)
    try:
        return await _error(answer, silence)
    finally:
        silence.stop()


async def _error(answer: aiohttp.ClientResponse, silence: _Silence) -> UpstreamFailed:
    body = await _body(answer, _ERROR_BODY_BYTES_MAX, silence)
    failed = of_status(answer.status, body)
    return UpstreamFailed(failed, reason_of(answer.status, failed["code"]), answer.status)


async def _body(answer: aiohttp.ClientResponse, bytes_max: int, silence: _Silence) -> bytes:
    """A whole body; of one that is longer, or broken off, an error keeps its beginning."""
    chunks: list[bytes] = []
    size = 0
    try:
        while chunk := await answer.content.readany():
            silence.broken()
            chunks.append(chunk)
            size += len(chunk)
            if size > bytes_max:
                if answer.status < 300:
                    raise FrameTooLarge
                break
    except FAILURES:
        if answer.status < 300:
            raise
    return b"".join(chunks)[:bytes_max]


class _Silence:
    """Closes an answer that has been silent for too long, which fails whoever reads it.

    One timer that looks at a clock, and not a timeout around each read: a stream is thousands of reads.
    """

    def __init__(self, answer: aiohttp.ClientResponse, seconds_max: float) -> None:
        self._answer = answer
        self._seconds_max = seconds_max
        self._loop = asyncio.get_running_loop()
        self._since = self._loop.time()
        self._timer = self._loop.call_later(seconds_max, self._look)
        self.is_too_long = False

    def broken(self) -> None:
        """Something came."""
        self._since = self._loop.time()

    def stop(self) -> None:
        self._timer.cancel()

    def _look(self) -> None:
        left = self._since + self._seconds_max - self._loop.time()
        if left > 0:
            self._timer = self._loop.call_later(left, self._look)
            return
        self.is_too_long = True
        self._answer.close()


def _not_a_stream(answer: aiohttp.ClientResponse) -> UpstreamFailed | None:
    """What is wrong with a head that promises neither events, nor an object, nor a readable error."""
    encoding = answer.headers.get("Content-Encoding", "identity")
    if encoding != "identity" and answer.status < 300:
        message = "The backend compressed its answer, which it was asked not to do."
        return UpstreamFailed(failure(message), "upstream_bad_encoding", answer.status)
    if 300 <= answer.status < 400:
        message = f"The backend answered with a redirect (status {answer.status}), which is not followed."
        return UpstreamFailed(failure(message), "upstream_redirect", answer.status)
    if answer.status < 300 and answer.content_type not in ("text/event-stream", "application/json"):
        message = f"The backend answered with {answer.content_type!r} in place of an event stream."
        return UpstreamFailed(failure(message), "upstream_bad_type", answer.status)
    return None
