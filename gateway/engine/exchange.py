"""Between a machine and its backend: makes the calls that it wants, and gives it what comes back."""

from __future__ import annotations

import random
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import assert_never

from gateway.core.call import Backend, BackendCall
from gateway.core.job import Job
from gateway.core.machine import Call, Command, Finish, Input, JobMachine, Rest, Rewind, Started
from gateway.core.retry import Again
from gateway.core.transcript import Append
from gateway.core.upstream import Upstream
from gateway.engine.clock import Clock
from gateway.engine.credentials import CallerHeaders
from gateway.observe import Observer
from gateway.wire.speech import Request


class Exchange:
    """One run, as far as its backend goes.

    Args:
        headers: Of each call.
        is_again: A call of this job was made by an earlier run.

    Attributes:
        since_s: Since when the backend is waited for, by the monotonic clock; None while it is not.
        is_told: That wait was named in the log.
    """

    def __init__(
        self,
        machine: JobMachine,
        backend: Backend,
        job: Job,
        request: Request,
        headers: CallerHeaders,
        clock: Clock,
        observer: Observer,
        *,
        is_again: bool = False,
    ) -> None:
        self.machine = machine
        self._backend = backend
        self._job = job
        self.response_id = job.id
        self.backend = job.backend
        self._model = request.get("model")
        self._headers = headers
        self._moment = _Moment(clock, backend)
        self._observer = observer
        self._is_again = is_again
        self.since_s: float | None = None
        self.is_told = False

    def receive(self, item: Input) -> list[Command]:
        """What the machine wants done about it."""
        return self.machine.receive(item, self._moment)

    def forget(self) -> None:
        """The output is not needed any more. The frames of a cancelled task live until the garbage collector
        comes (a TaskGroup keeps its own error), and would keep it."""
        del self.machine

    async def commands(
        self, room: Callable[[], Awaitable[None]] | None = None
    ) -> AsyncGenerator[Rewind | Append | Again | Finish, None]:
        """What is left to be done for the run, the last of it an `Again` or a `Finish`.

        Args:
            room: Waits until there is some for what comes next.

        Raises:
            Refusal: See `JobMachine.receive`.
        """
        items: AsyncGenerator[Upstream, None] | None = None
        try:
            commands = self.receive(Started())
            while True:
                for command in commands:
                    match command:
                        case Call():
                            if items is not None:
                                await items.aclose()
                            items = self._made(command)
                        case Rewind() | Append():
                            yield command
                        case Rest(asked_s):
                            self._backend.rest(self._job.id, asked_s)
                        case Again() | Finish():
                            self._over(command)
                            yield command
                            return
                        case _:
                            assert_never(command)
                assert items is not None, "a run begins with a call, or with its end"
                self.since_s = time.monotonic()
                item = await anext(items)
                self.since_s = None
                if room is not None:
                    await room()
                commands = self.receive(item)
        finally:
            if items is not None:
                await items.aclose()

    def _made(self, call: Call) -> AsyncGenerator[Upstream, None]:
        if call.lesson is not None:
            self._backend.learned(call.lesson)
        if call.omitted:
            self._observer.tools_omitted(self._job.backend, call.omitted)
        return self._backend.stream(
            BackendCall(
                self._job.id,
                call.target,
                call.body,
                self._headers.others,
                self._headers.credential,
                call.speech,
                is_background=self._job.is_background,
                is_again=self._is_again,
                version=call.version,
            )
        )

    def _over(self, command: Again | Finish) -> None:
        self._observer.backend_noticed(self._backend.name, self.machine.notices)
        if isinstance(command, Again):
            if command.is_attempt:
                self._backend.book_retry()
        else:
            if command.lacks_budget:
                self._backend.retry_refused()
            if command.speech is not None:
                self._backend.remember(self._model, command.speech)


class _Moment:
    """The one at which it is looked at."""

    __slots__ = ("_backend", "_clock")

    def __init__(self, clock: Clock, backend: Backend) -> None:
        self._clock = clock
        self._backend = backend

    @property
    def now_ms(self) -> int:
        return self._clock.now_ms()

    @property
    def now_s(self) -> int:
        return self._clock.now_s()

    @property
    def roll(self) -> float:
        return random.random()  # noqa: S311  not a secret

    @property
    def retry_in_s(self) -> float:
        return self._backend.retry_in_s
