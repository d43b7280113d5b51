"""Between a machine and its backend: makes the calls that it wants, and gives it what comes back."""

from __future__ import annotations

import random
import time
from collections.abc import AsyncGenerator
from typing import Protocol, assert_never

from gateway.core.backends import JobBackend
from gateway.core.call import BackendCall
from gateway.core.job import Job
from gateway.core.machine import BackOff, CallBackend, Command, Finish, Input, JobMachine, Rewind, Started
from gateway.core.retry import Again
from gateway.core.transcript import Append
from gateway.core.upstream import Upstream, UpstreamFrames
from gateway.engine.clock import Clock
from gateway.engine.credentials import CallerHeaders
from gateway.observe import Observer
from gateway.wire.speech import Request


class Log(Protocol):
    """What takes the events of a run."""

    def append(self, command: Append) -> None:
        """Take some."""

    def has_room(self) -> bool:
        """Whether there is some for what comes next."""

    async def room(self) -> None:
        """Wait until there is."""


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
        backend: JobBackend,
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
        self._log: Log | None = None
        self._left: list[Command] = []  # of what was taken as it came
        self.since_s: float | None = None
        self.is_told = False

    def receive(self, item: Input) -> list[Command]:
        """What the machine wants done about it."""
        return self.machine.receive(item, self._moment)

    def forget(self) -> None:
        """The output is not needed any more. The frames of a cancelled task live until the garbage collector
        comes (a TaskGroup keeps its own error), and would keep it."""
        del self.machine

    # -- what comes back, as it comes

    def has_room(self) -> bool:
        return self._log is not None and self._log.has_room()

    def take(self, item: UpstreamFrames) -> bool:
        assert self._log is not None
        self.since_s = time.monotonic()
        for number, command in enumerate(commands := self.receive(item)):
            if not isinstance(command, Append):
                self._left = commands[number:]
                return False
            self._log.append(command)
        return True

    # -- the run

    async def commands(
        self, log: Log | None = None
    ) -> AsyncGenerator[Rewind | Append | Again | Finish, None]:
        """What is left to be done for the run, the last of it an `Again` or a `Finish`.

        Args:
            log: Takes events, many of them at once when they come; without one, each `Append` is given.

        Raises:
            Refusal: See `JobMachine.receive`.
        """
        self._log = log
        items: AsyncGenerator[Upstream, None] | None = None
        try:
            commands = self.receive(Started())
            while True:
                for command in commands:
                    match command:
                        case CallBackend():
                            if items is not None:
                                await items.aclose()
                            items = self._made(command)
                        case Append() if log is not None:
                            log.append(command)
                        case Rewind() | Append():
                            yield command
                        case BackOff(asked_s):
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
                if log is not None:
                    await log.room()
                commands, self._left = self._left or self.receive(item), []
        finally:
            if items is not None:
                await items.aclose()

    def _made(self, call: CallBackend) -> AsyncGenerator[Upstream, None]:
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
                is_limited_alone=call.is_limited_alone,
                taker=None if self._log is None else self,
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

    def __init__(self, clock: Clock, backend: JobBackend) -> None:
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
