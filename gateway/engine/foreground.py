"""Plain responses where the gateway has to speak for a backend that knows chat completions only.

The same machine as for background responses makes the same events; they go to the one client that waits,
and to nobody else.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing, closing
from dataclasses import dataclass
from typing import Any

from gateway.config import BackgroundSettings
from gateway.core.acceptance import foreground_job
from gateway.core.call import Backend, BackendCall
from gateway.core.job import Outcome
from gateway.core.machine import Append, Command, Finish, Input, JobMachine, Started, UpstreamFailed
from gateway.core.retry import may_ask_anew
from gateway.engine.clock import Clock
from gateway.engine.credentials import CallerHeaders
from gateway.engine.outputs import Outputs
from gateway.wire.output import Shelf


@dataclass(frozen=True, slots=True)
class Plain:
    """A plain create request.

    Attributes:
        input: Earlier turns included.
        keep: Called with its ending before the client sees it, if it is to be kept as a turn.
    """

    response_id: str
    tenant: bytes
    body: dict[str, Any]
    input: Any
    target: str
    headers: CallerHeaders
    keep: Callable[[Outcome], Awaitable[None]] | None = None


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
    """Runs plain requests; each lives as long as its client waits."""

    def __init__(self, clock: Clock, settings: BackgroundSettings, outputs: Outputs) -> None:
        self._clock = clock
        self._settings = settings
        self._outputs = outputs

    async def finish(self, plain: Plain, backend: Backend) -> bytes:
        """JSON of the whole Response. Raises: BackendRefused; Refusal, if the API cannot say it."""
        try:
            return await self._finish_once(plain, backend)
        except BackendRefused as refused:
            if not may_ask_anew(refused.reason) or not backend.may_retry():
                raise
            # Its client has not had a byte: as good as a request that was not answered, which goes elsewhere.
            return await self._finish_once(plain, backend)

    async def _finish_once(self, plain: Plain, backend: Backend) -> bytes:
        with closing(self._outputs.shelf()) as shelf:
            async with aclosing(self._run(plain, backend, shelf)) as commands:
                async for command in commands:
                    if isinstance(command, Finish):
                        return command.outcome.final
        raise AssertionError("a run ends with a Finish")

    async def stream(self, plain: Plain, backend: Backend) -> AsyncGenerator[bytes, None]:
        """Its events as they come. Raises: as `finish`, by the first block."""
        with closing(self._outputs.shelf()) as shelf:
            async with aclosing(self._run(plain, backend, shelf, is_streamed=True)) as commands:
                async for command in commands:
                    match command:
                        case Append():
                            yield command.events
                        case Finish(outcome):
                            yield outcome.events

    async def _run(
        self, plain: Plain, backend: Backend, shelf: Shelf, *, is_streamed: bool = False
    ) -> AsyncGenerator[Command, None]:
        """The commands of one run, the last of them a Finish."""
        speech = backend.speech
        job = foreground_job(
            plain.body, response_id=plain.response_id, tenant=plain.tenant, now_ms=self._clock.now_ms()
        )
        machine = JobMachine(
            job,
            events_bytes_max=self._settings.events_bytes_max,
            reader=speech.reader(plain.response_id, plain.body),
            shelf=shelf,
        )
        call = BackendCall(
            plain.response_id,
            speech.target(plain.target),
            speech.body({**plain.body, "previous_response_id": None}, plain.input, plain.tenant),
            plain.headers.others,
            plain.headers.credential,
            is_background=False,
        )
        async with aclosing(backend.stream(call)) as items:
            item: Input = await anext(items)
            if isinstance(item, UpstreamFailed):
                raise BackendRefused(item)
            for command in machine.receive(Started(), now_s=self._clock.now_s()):
                yield command
            while True:
                for command in machine.receive(item, now_s=self._clock.now_s()):
                    _raise_if_failed(command, item, is_streamed)
                    if isinstance(command, Finish) and plain.keep is not None:
                        await plain.keep(command.outcome)
                    yield command
                    if isinstance(command, Finish):
                        return
                item = await anext(items)


def _raise_if_failed(command: Command, item: Input, is_streamed: bool) -> None:
    """A client that waits for one object gets an error as an HTTP error; a stream has begun with 200."""
    if is_streamed or not isinstance(command, Finish):
        return
    if command.outcome.error is not None:
        status = item.status if isinstance(item, UpstreamFailed) else None
        raise BackendRefused(UpstreamFailed(command.outcome.error, command.outcome.reason, status))
