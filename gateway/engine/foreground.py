"""Plain responses where the gateway has to speak for a backend that knows chat completions only.

The same machine as for background responses makes the same events; they go to the one client that waits,
and to nobody else.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager, closing
from dataclasses import dataclass, replace
from typing import Any

from gateway import loop
from gateway.config import BackgroundSettings
from gateway.core.acceptance import foreground_job
from gateway.core.call import Backend, BackendCall
from gateway.core.job import Outcome
from gateway.core.machine import Append, Command, Finish, Input, JobMachine, Started, UpstreamFailed
from gateway.core.refusal import CALLS_MAX, is_answered, refusal
from gateway.core.retry import may_ask_anew
from gateway.engine.clock import Clock
from gateway.engine.credentials import CallerHeaders
from gateway.engine.outputs import Outputs
from gateway.engine.thoughts import Thoughts
from gateway.observe import Observer
from gateway.wire.answers.output import Shelf
from gateway.wire.answers.readers import Reader
from gateway.wire.calls import Speech


@dataclass(frozen=True, slots=True)
class Plain:
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

    def told(self, speech: Speech) -> bytes:
        """The body of its call. Raises: Refusal, if the API cannot say it."""
        return speech.body({**self.body, "previous_response_id": None}, self.input, self.tenant)


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
        head_wait_s: Longest that a stream waits for what decides with which status the client is answered.
            Then it begins without, and ends with the error, if there is one.
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
        """Its events as they come, the first of them with the head of the backend's answer. Raises: as
        `finish`, by the first block."""
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
        speech = backend.speech.to(plain.body.get("model"))
        for number in range(CALLS_MAX):
            machine, call, reader = self._call(plain, speech, number, shelf)
            async with aclosing(backend.stream(call)) as items, _first(items) as first:
                began = machine.receive(Started(), now_s=self._clock.now_s())
                wait_s = self._head_wait_s if is_streamed else None
                has_begun = not await loop.are_done([first], wait_s)
                if has_begun:
                    for command in began:
                        yield command
                item = await first
                commands = machine.receive(item, now_s=self._clock.now_s())
                may_learn = not has_begun and number + 1 < CALLS_MAX
                said = refusal(item, commands) if may_learn else None
                if said is not None and (
                    taught := backend.after_refusal(speech, said, call.body, plain.told)
                ):
                    speech = taught
                    continue
                if isinstance(item, UpstreamFailed) and not has_begun:
                    raise BackendRefused(item)
                while True:
                    if is_answered(commands):
                        learned = speech.after_answer(reader, machine.output())
                        backend.remember(plain.body.get("model"), learned)
                    if any(isinstance(command, Finish) for command in commands):
                        self._observer.backend_noticed(backend.name, machine.notices)
                    _raise_if_failed(commands, is_streamed=is_streamed, has_begun=has_begun)
                    for command in commands if has_begun else (*began, *commands):
                        if isinstance(command, Finish) and plain.keep is not None:
                            command = Finish(await plain.keep(command.outcome))
                        yield command
                        if isinstance(command, Finish):
                            return
                    has_begun = True
                    item = await anext(items)
                    commands = machine.receive(item, now_s=self._clock.now_s())

    def _call(
        self, plain: Plain, speech: Speech, number: int, shelf: Shelf
    ) -> tuple[JobMachine, BackendCall, Reader]:
        """A run of the request, and the call that it is of."""
        job = foreground_job(
            plain.body,
            response_id=plain.response_id,
            tenant=plain.tenant,
            tools=speech.tools(plain.body, plain.input).shown,
            now_ms=self._clock.now_ms(),
        )
        reader = speech.reader(plain.response_id, plain.body, plain.input)
        sealing = self._thoughts.sealing(reader, plain.body, speech.api, plain.tenant)
        events_bytes_max = self._settings.events_bytes_max
        machine = JobMachine(job, events_bytes_max=events_bytes_max, reader=sealing, shelf=shelf)
        call = BackendCall(
            plain.response_id,
            speech.target(plain.target),
            plain.told(speech),
            plain.headers.others,
            plain.headers.credential,
            is_background=False,
            version=number,
        )
        return machine, call, reader


@asynccontextmanager
async def _first(items: AsyncGenerator[Input, None]) -> AsyncIterator[asyncio.Future[Input]]:
    """The first of them, which may be waited for more than once."""
    first = asyncio.ensure_future(anext(items))
    try:
        yield first
    finally:
        first.cancel()
        await asyncio.wait({first})
        if not first.cancelled():
            first.exception()  # nobody may have waited for it


def _raise_if_failed(commands: list[Command], *, is_streamed: bool, has_begun: bool) -> None:
    """A client that waits for one object gets an error as an HTTP error. So does one that would get nothing
    else in its stream; but one that has begun has begun with 200."""
    for command in commands:
        if isinstance(command, Finish) and (error := command.outcome.error) is not None:
            is_all = not has_begun and command.outcome.event_count == 1
            if is_all or not is_streamed:
                failed = command.failed or UpstreamFailed(error, command.outcome.reason)
                raise BackendRefused(replace(failed, failure=error))
