"""Points at which a gateway can be made to die, in its own process: see `launch`.

Most of them are statements of the store: what runs a batch on the writing connection gets one that counts
what goes through it. The others are calls of the store and of the engine, tapped when they return.
"""

from __future__ import annotations

import functools
import os
import random
import signal
from collections.abc import Awaitable, Callable
from typing import Any

from gateway.core.machine import JobMachine
from gateway.engine.jobs import Jobs
from gateway.store.sqlite import database, writer
from gateway.store.sqlite.connection import truncate_wal
from gateway.store.sqlite.queries import QUERIES
from gateway.store.sqlite.store import SqliteStore
from tests.torture.guards import replace

_CHECKPOINT_S = 0.004
"""About as long as a checkpoint of a trial's log takes: the end comes at a random moment of it."""

_BEFORE_STATEMENTS = {"before-commit": "COMMIT"}
_AFTER_STATEMENTS = {
    "mid-batch": "RELEASE operation",
    "after-commit": "COMMIT",
    "mid-claim": QUERIES["claim"],
    "mid-append": QUERIES["append"],
    "mid-finish": QUERIES["finish"],
    "mid-sweep": QUERIES["purge_segment"],
    "mid-recovery": QUERIES["abandon"],
}
_AFTER_CALLS: dict[str, tuple[type, str]] = {
    "before-200": (Jobs, "accept"),
    "started": (SqliteStore, "start"),
    "claimed": (SqliteStore, "claim"),
    "appended": (SqliteStore, "append"),
    "finished": (SqliteStore, "finish"),
    "taken-over": (SqliteStore, "take_over"),
    "mid-handover": (SqliteStore, "release"),
}

POINTS = sorted([*_BEFORE_STATEMENTS, *_AFTER_STATEMENTS, *_AFTER_CALLS, "mid-checkpoint"])


def kill_at(point: str, count: int) -> None:
    """From now on, die at the `count`-th time that the point is reached."""
    reached = _Fuse(count)
    if point in _AFTER_CALLS:
        _tap_call(*_AFTER_CALLS[point], reached)
    elif point == "mid-checkpoint":
        _tap_checkpoint(reached)
    else:
        _tap_statements(_BEFORE_STATEMENTS.get(point), _AFTER_STATEMENTS.get(point), reached)


def poison(word: str) -> None:
    """Die when an event of the backend has this word in it, as a defect in a parser would have it."""
    receive = JobMachine.receive

    def receive_or_die(machine: JobMachine, item: Any, now: Any) -> Any:
        if word.encode() in b"".join(frame.data for frame in getattr(item, "frames", ())):
            die()
        return receive(machine, item, now)

    replace(JobMachine, "receive", receive_or_die)


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


class _Fuse:
    def __init__(self, count: int) -> None:
        self._left = count

    def __call__(self, die: Callable[[], None] = die) -> None:
        self._left -= 1
        if self._left == 0:
            die()


def _tap_call(owner: type, name: str, reached: _Fuse) -> None:
    call: Callable[..., Awaitable[Any]] = getattr(owner, name)

    @functools.wraps(call)
    async def tapped(*args: Any, **kwargs: Any) -> Any:
        result = await call(*args, **kwargs)
        if result != []:  # a claim of nothing is none
            reached()
        return result

    replace(owner, name, tapped)


class _Tapped:
    """A connection that tells which statements it executes."""

    def __init__(self, raw: Any, before: str | None, after: str | None, reached: _Fuse) -> None:
        self._raw, self._before, self._after, self._reached = raw, before, after, reached

    def __getattr__(self, name: str) -> Any:
        return getattr(self._raw, name)

    def execute(self, statement: str, *values: Any) -> Any:
        if statement == self._before:
            self._reached()
        result = self._raw.execute(statement, *values)
        if statement == self._after:
            self._reached()
        return result


def _tap_statements(before: str | None, after: str | None, reached: _Fuse) -> None:
    commit: Callable[..., None] = writer._commit
    replace(writer, "_commit", lambda batch, raw: commit(batch, _Tapped(raw, before, after, reached)))


def _tap_checkpoint(reached: _Fuse) -> None:
    truncate = truncate_wal

    def within_checkpoint() -> None:
        # SIGALRM's own action is to end the process: the kernel does it, in the middle of SQLite's code.
        signal.setitimer(signal.ITIMER_REAL, random.uniform(1e-6, _CHECKPOINT_S))

    def tapped(raw: Any, busy_ms: int) -> bool:
        reached(within_checkpoint)
        return truncate(raw, busy_ms)

    replace(database, "truncate_wal", tapped)
