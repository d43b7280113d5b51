"""Plain responses where the gateway has to speak for a backend that knows chat completions only.

The same machine as for background responses makes the same events; they go to the one client that waits,
and to nobody else.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager, closing
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from gateway import loop
from gateway.config import BackgroundSettings
from gateway.core.acceptance import foreground_job
from gateway.core.backends import JobBackend
from gateway.core.job import Outcome
from gateway.core.machine import ClientWaits, Finish, JobMachine, Rewind, Task
from gateway.core.retry import Again
from gateway.core.transcript import Append
from gateway.core.upstream import UpstreamFailed
from gateway.engine.clock import Clock
from gateway.engine.credentials import CallerHeaders
from gateway.engine.exchange import Exchange
from gateway.engine.outputs import Outputs
from gateway.engine.thoughts import Thoughts
from gateway.observe import Observer
from gateway.wire.answers.text import Shelf

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class PlainCreate:
    """A plain create request.

    Attributes:
        input: Earlier turns included.
        keep: Called with its ending, if it is to be kept as a turn; gives the ending that the client sees.
    """

    response_id: str
    tenant: bytes
    body: dict[str, Any]
    input: Any
    target: str
    headers: CallerHeaders
    keep: Callable[[Outcome], Awaitable[Outcome]] | None = None


class BackendRefused(Exception):
    """There is no response, only an error.

    Attributes:
        status: The backend's HTTP status; None if it did not come to one.
        retry_after_s: How long it asked to be left alone.
    """

    def __init__(self, failed: UpstreamFailed) -> None:
        super().__init__(failed.reason)
        self.failure = failed.failure
        self.reason = failed.reason
        self.status = failed.status
        self.retry_after_s = failed.retry_after_s


class Foreground:
    """Runs plain requests; each lives as long as its client waits.

    Args:
        head_wait_s: Longest wait of a stream for its status. Then it begins with 200, and a later error is
            its last event.
    """

    def __init__(
        self,
        clock: Clock,
        settings: BackgroundSettings,
        thoughts: Thoughts,
        observer: Observer,
        outputs: Outputs,
        *,
        head_wait_s: float,
    ) -> None:
        self._clock = clock
        self._settings = settings
        self._thoughts = thoughts
        self._observer = observer
        self._outputs = outputs
        self._head_wait_s = head_wait_s

    async def finish(self, plain: PlainCreate, backend: JobBackend) -> bytes:
        """JSON of the whole Response. Raises: BackendRefused; Refusal, if the API cannot say it."""
        async with aclosing(self._commands(plain, backend)) as commands:
            async for command in commands:
                if isinstance(command, Finish):
                    return command.outcome.final
        raise AssertionError("a run ends with a Finish")

    async def stream(self, plain: PlainCreate, backend: JobBackend) -> AsyncGenerator[bytes, None]:
        """Its events as they come, the first of them with the head of the backend's answer. Raises: as
        `finish`, by the first block."""
        async with aclosing(self._commands(plain, backend)) as commands:
            async for command in commands:
                yield command.outcome.events if isinstance(command, Finish) else command.events

    async def _commands(
        self, plain: PlainCreate, backend: JobBackend
    ) -> AsyncGenerator[Append | Finish, None]:
        """The commands of one run. If it was cut before its client had a byte, those of a second run follow:
        it may go elsewhere, like any request that was not answered."""
        attempt, is_streamed = 1, plain.body.get("stream") is True
        while True:
            with closing(self._outputs.shelf()) as shelf:
                exchange = self._exchange(plain, backend, shelf, attempt)
                async with aclosing(self._begun(exchange, is_streamed)) as commands:
                    attempt += 1
                    async for command in commands:
                        match command:
                            case Append():
                                yield command
                            case Again():
                                self._observer.retried(backend.name, "asked_anew")
                            case Finish(outcome):
                                _raise_if_failed(command, is_streamed=is_streamed)
                                if plain.keep is not None:
                                    command = replace(command, outcome=await plain.keep(outcome))
                                yield command
                                return

    async def _begun(
        self, exchange: Exchange, is_streamed: bool
    ) -> AsyncGenerator[Rewind | Append | Again | Finish, None]:
        """The commands of a run. A client whose stream has not begun in time is told that it has."""
        async with aclosing(exchange.commands()) as commands, _first(commands) as first:
            wait_s = self._head_wait_s if is_streamed else None
            if not await loop.are_done([first], wait_s):
                for command in exchange.receive(ClientWaits()):
                    if isinstance(command, Append):
                        yield command
            yield await first
            async for command in commands:
                yield command

    def _exchange(self, plain: PlainCreate, backend: JobBackend, shelf: Shelf, attempt: int) -> Exchange:
        """A run of the request."""
        request, speech = {**plain.body, "previous_response_id": None}, backend.speech
        job = foreground_job(
            plain.body,
            response_id=plain.response_id,
            tenant=plain.tenant,
            tools=speech.to(plain.body.get("model")).tools(plain.body, plain.input).shown,
            now_ms=self._clock.now_ms(),
        )
        task = Task(
            replace(job, attempt=attempt),
            request,
            lambda _: plain.input,
            plain.target,
            speech,
            backend.retry_policy,
            self._settings.events_bytes_max,
            wrapped=lambda reader, speech: self._thoughts.sealing(
                reader, plain.body, speech.api, plain.tenant
            ),
            shelf=shelf,
        )
        return Exchange(
            JobMachine(task),
            backend,
            job,
            request,
            plain.headers,
            self._clock,
            self._observer,
            is_again=attempt > 1,
        )


@asynccontextmanager
async def _first(items: AsyncGenerator[T, None]) -> AsyncIterator[asyncio.Future[T]]:
    """The first of them, which may be waited for more than once."""
    first = asyncio.ensure_future(anext(items))
    try:
        yield first
    finally:
        first.cancel()
        await asyncio.wait({first})
        if not first.cancelled():
            first.exception()  # nobody may have waited for it


def _raise_if_failed(finish: Finish, *, is_streamed: bool) -> None:
    """Turn a failure into an HTTP error for a client that waits for one object, and for one whose stream
    would hold nothing else. A stream that has begun has answered 200 already."""
    error = finish.outcome.error
    if error is not None and (finish.is_all or not is_streamed):
        failed = finish.failed or UpstreamFailed(error, finish.outcome.reason)
        raise BackendRefused(replace(failed, failure=error))
