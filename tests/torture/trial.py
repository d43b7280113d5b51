"""What a trial is, and what it plays on.

A trial is a coroutine that does something cruel many times over and requires something each time. It runs by
`make torture` with the full number of runs, by `SHORT=1` with fewer, and, where that takes seconds, within
`make test`. Its figures go into one table; it passes if nothing was required in vain.
"""

from __future__ import annotations

import importlib
import pkgutil
import time
import traceback
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from demo.postgres import Postgres, binaries, postgres
from tests.acceptance.harness import within
from tests.acceptance.spread import front
from tests.torture import trials
from tests.torture.gateway import Gateway
from tests.torture.model import Model
from tests.torture.process import NotStarted
from tests.torture.proxy import Proxy
from tests.torture.several import Several

Play = Callable[["Bench"], Awaitable[None]]

_FAILURES_KEPT = 20


@dataclass(frozen=True, slots=True)
class Trial:
    """One row of the fault plan.

    Attributes:
        name: Its number in the plan, `T1`.
        pass_mark: What must hold, in words.
        runs: Rounds in full; `short_runs` and `quick_runs` in less time (None: it needs minutes, and is in no
            short run; not in `make test`).
        round_s: No round may take longer, on average.
    """

    name: str
    title: str
    pass_mark: str
    runs: int
    short_runs: int | None
    quick_runs: int | None
    round_s: float
    play: Play


TRIALS: dict[str, Trial] = {}


def trial(
    name: str,
    title: str,
    *,
    pass_mark: str,
    runs: int,
    short_runs: int | None = None,
    quick_runs: int | None = None,
    round_s: float = 60,
) -> Callable[[Play], Play]:
    """Enter a coroutine in the plan."""

    def enter(play: Play) -> Play:
        assert name not in TRIALS, f"two trials are called {name}"
        TRIALS[name] = Trial(name, title, pass_mark, runs, short_runs, quick_runs, round_s, play)
        return play

    return enter


def all_trials() -> list[Trial]:
    """Every trial of every module in `trials`, in the order of the plan."""
    for module in pkgutil.iter_modules(trials.__path__):
        importlib.import_module(f"{trials.__name__}.{module.name}")
    return sorted(TRIALS.values(), key=lambda one: (int("".join(filter(str.isdigit, one.name))), one.name))


@dataclass(slots=True)
class Result:
    """How a trial went.

    Attributes:
        failures: The first few things that did not hold; `failed`: how many there were.
        obstacle: Why it could not be played to its end. That is no broken promise, and no proof of one kept.
    """

    trial: Trial
    runs: int
    seconds: float = 0.0
    figures: dict[str, Any] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)
    failed: int = 0
    obstacle: str | None = None

    @property
    def is_passed(self) -> bool:
        return not self.failed and self.obstacle is None

    @property
    def verdict(self) -> str:
        return "FAIL" if self.failed else "pass" if self.is_passed else "not played"

    def as_json(self) -> dict[str, Any]:
        return {
            "test": self.trial.name,
            "day": f"{datetime.now(UTC):%Y-%m-%d}",
            "title": self.trial.title,
            "runs": self.runs,
            "figures": self.figures,
            "pass_mark": self.trial.pass_mark,
            "passed": self.is_passed,
            "obstacle": self.obstacle,
            "seconds": round(self.seconds, 1),
            "failures": self.failures,
        }


class Bench:
    """What a trial plays on: its rounds, its directory, the processes it starts, and what it found.

    Args:
        directory: Empty, and the trial's own.
        without: A guard (see `launch`) that every gateway of this bench goes without.
        replicas: How many processes each gateway is, on a PostgreSQL if there is more than one.
        progress: Told of every round: how many are done, and the figures so far.
    """

    def __init__(
        self,
        trial: Trial,
        directory: Path,
        runs: int,
        *,
        without: str | None = None,
        replicas: int = 1,
        progress: Callable[[int, dict[str, Any]], None] = lambda done, figures: None,
    ) -> None:
        self.directory = directory
        self.runs = runs
        self.result = Result(trial, runs)
        self.without = without
        self.replicas = replicas
        self._databases: Postgres | None = None
        self._progress = progress
        self._stack = AsyncExitStack()
        self._started = 0

    # -- rounds and findings

    def rounds(self) -> Iterator[int]:
        """0, 1, 2 …, one for each round."""
        for number in range(self.runs):
            self._progress(number, self.result.figures)
            yield number
        self._progress(self.runs, self.result.figures)

    def require(self, condition: object, message: str) -> bool:
        """Note a failure unless `condition` holds; the trial goes on. Returns whether it holds."""
        if not condition:
            self.result.failed += 1
            if len(self.result.failures) < _FAILURES_KEPT:
                self.result.failures.append(message)
        return bool(condition)

    def figure(self, name: str, value: Any) -> None:
        """Set a figure of the table."""
        self.result.figures[name] = value

    def add(self, name: str, amount: float = 1) -> None:
        """Count a figure of the table up."""
        self.result.figures[name] = self.result.figures.get(name, 0) + amount

    def most(self, name: str, value: float) -> None:
        """Keep the largest value of a figure, rounded to the millisecond."""
        self.result.figures[name] = max(self.result.figures.get(name, 0), round(value, 3))

    # -- processes; all of them end with the bench

    async def model(self, *flags: str) -> Model:
        """A scripted model server."""
        return await self._stack.enter_async_context(Model(*flags))

    async def proxy(self, host: str, port: int) -> Proxy:
        """A TCP proxy with faults, in front of a port."""
        return await self._stack.enter_async_context(Proxy(host, port))

    async def gateway(
        self,
        upstream: str,
        *,
        tolerates_defects: bool = False,
        flags: tuple[str, ...] = (),
        **settings: object,
    ) -> Gateway:
        """A gateway on a file of its own, started and ready; settings as `background__retention_s=5`."""
        gateway = await self.prepared(upstream, tolerates_defects=tolerates_defects, flags=flags, **settings)
        await gateway.start()
        return gateway

    async def prepared(
        self,
        upstream: str,
        *,
        tolerates_defects: bool = False,
        flags: tuple[str, ...] = (),
        **settings: object,
    ) -> Gateway:
        """The same, not yet started."""
        self._started += 1
        directory = self.directory / f"gateway-{self._started}"
        directory.mkdir(mode=0o700)
        if self.replicas == 1:
            gateway = Gateway(upstream, directory, self.without, *flags, **settings)
        else:
            front_door = await self._stack.enter_async_context(front())
            url = await self.database()
            gateway = Several(
                self.replicas, front_door, url, upstream, directory, self.without, *flags, **settings
            )
        self._stack.push_async_callback(self._end, gateway, tolerates_defects)
        return gateway

    async def database(self) -> str:
        """The URL of an empty one, of a PostgreSQL that ends with the bench."""
        if self._databases is None:
            if binaries() is None:
                raise NotStarted("there is no PostgreSQL on this machine")
            self._databases = self._stack.enter_context(postgres())
        return await self._databases.new_database()

    @property
    def takeover_s(self) -> float:
        """What dead processes had is with others by then, or with their next ones: of a file, at once."""
        return 0.0 if self.replicas == 1 else 8.0

    async def _end(self, gateway: Gateway, tolerates_defects: bool) -> None:
        await gateway.end()
        if not tolerates_defects:
            for defect in gateway.defects:
                self.require(False, f"the gateway logged a defect: {defect}")

    # -- the whole of it

    async def run(self) -> Result:
        """Play the trial, and clear up."""
        started = time.monotonic()
        limit_s = 120 + self.runs * self.result.trial.round_s
        try:
            async with self._stack:
                await within(self.result.trial.play(self), limit_s)
        except NotStarted as error:
            self.result.obstacle = str(error)
        except Exception as error:
            last = traceback.format_exception(error)[-6:]
            self.require(False, f"{type(error).__name__}: {error}\n{''.join(last)}".strip())
        self.result.seconds = time.monotonic() - started
        return self.result
