"""Plain responses where the gateway has to speak for a backend that knows chat completions only.

The same machine as for background responses makes the same events; they go to the one client that waits,
and to nobody else.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Any

from gateway.config import BackgroundSettings
from gateway.core.acceptance import foreground_job
from gateway.core.call import Backend, BackendCall
from gateway.core.job import Outcome
from gateway.core.machine import Append, Command, Finish, Input, JobMachine, Started, UpstreamFailed
from gateway.core.retry import may_ask_anew
from gateway.engine.clock import Clock
from gateway.engine.credentials import CallerHeaders


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

    def __init__(self, clock: Clock, settings: BackgroundSettings) -> None:
        self._clock = clock
        self._settings = settings

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
        async with aclosing(self._run(plain, backend)) as commands:
            async for command in commands:
                if isinstance(command, Finish):
                    return command.outcome.final
        raise AssertionError("a run ends with a Finish")

    async def stream(self, plain: Plain, backend: Backend) -> AsyncGenerator[bytes, None]:
        """Its events as they come. Raises: as `finish`, by the first block."""
        async with aclosing(self._run(plain, backend, is_streamed=True)) as commands:
            async for command in commands:
                match command:
                    case Append():
                        yield command.events
                    case Finish(outcome):
                        yield outcome.events

    async def _run(
        self, plain: Plain, backend: Backend, *, is_streamed: bool = False
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
            commands = machine.receive(Started(), now_s=self._clock.now_s())
            has_begun = False
            while True:
                commands += machine.receive(item, now_s=self._clock.now_s())
                _raise_if_failed(commands, is_streamed=is_streamed, has_begun=has_begun)
                for command in commands:
                    if isinstance(command, Finish) and plain.keep is not None:
                        await plain.keep(command.outcome)
                    yield command
                    if isinstance(command, Finish):
                        return
                commands, has_begun = [], True
                item = await anext(items)


def _raise_if_failed(commands: list[Command], *, is_streamed: bool, has_begun: bool) -> None:
    """A client that waits for one object gets an error as an HTTP error. So does one that would get nothing
    else in its stream; but one that has begun has begun with 200."""
    for command in commands:
        if isinstance(command, Finish) and (error := command.outcome.error) is not None:
            is_all = not has_begun and command.outcome.event_count == 1
            if is_all or not is_streamed:
                failed = command.failed or UpstreamFailed(error, command.outcome.reason)
                raise BackendRefused(replace(failed, failure=error))
