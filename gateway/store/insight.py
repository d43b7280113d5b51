"""What a page or a command line asks of a store: lists, facts and counts, and no content."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Protocol

from gateway.core.job import Status

LOOKED_AT = 10_000
"""Most jobs that one look goes through, which takes some milliseconds."""
AT_FIRST = 500
"""Jobs that are looked at first: nearly every page of a list is complete with these."""
NEWEST = 2**62
LATER_MAX = 20
CROWDS_MAX = 500
NOBODY: Mapping[tuple[str, bytes], str] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Backlog:
    """Jobs by status, when the longest-waiting queued one was accepted (None: none is waiting), and by
    backend those that nobody runs."""

    by_status: dict[Status, int]
    oldest_queued_ms: int | None
    waiting: dict[str, WaitingJobs]


@dataclass(frozen=True, slots=True)
class WaitingJobs:
    """Jobs of a backend that nobody runs.

    Attributes:
        put_off: How many of them may not be started yet, after an attempt that failed.
        barred: How many of the others are of callers of whom none may be started, by the reason for that.
    """

    count: int
    put_off: int
    oldest_ms: int
    barred: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which jobs to list; None lets all pass.

    Attributes:
        tenant: First hex digits.
        error: API's error code.
        id: How the id begins.
    """

    statuses: Collection[Status] | None = None
    backend: str | None = None
    model: str | None = None
    tenant: str | None = None
    error: str | None = None
    id: str | None = None
    created_before_ms: int | None = None
    created_since_ms: int | None = None


@dataclass(frozen=True, slots=True)
class Facts:
    """A job as an operator may see it."""

    id: str
    tenant: str
    status: Status
    backend: str
    model: str | None
    error: str | None
    priority: int
    attempt: int
    put_offs: int
    event_count: int
    created_at_ms: int
    started_at_ms: int | None
    finished_at_ms: int | None
    not_before_ms: int


@dataclass(frozen=True, slots=True)
class Details(Facts):
    """One job, with what follows from its state.

    Attributes:
        is_owned: Somebody runs it.
        is_told: The caller named a URL of its own that is told of the end.
        ahead: Of the same caller and tier, jobs that go before it; 0 where somebody runs it, or it is over.
        events_bytes: Of all stored events.
        previous: The turn it goes on from.
        later: Turns that go on from it, the newest first; not all, if there are very many.
    """

    deadline_ms: int
    expires_at_ms: int | None
    epoch: int
    is_owned: bool
    is_streamed: bool
    is_followable: bool
    is_rerunnable: bool
    output_shown: bool
    is_told: bool
    ahead: int
    events_bytes: int
    previous: str | None
    later: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Crowd:
    """Live jobs that are alike: how many wait, how many run, and when the oldest that waits was accepted."""

    backend: str
    tenant: str
    model: str | None
    waiting: int
    running: int
    oldest_waiting_ms: int | None


@dataclass(frozen=True, slots=True)
class Listing:
    """Some jobs in the order that was asked for, and where to go on (None: there are no more).

    A look goes through a bounded number of jobs: there may be few here, or none, and more further on.
    """

    jobs: list[Facts]
    before: int | None


class Insight(Protocol):
    """The read side for operators."""

    async def jobs(
        self, wanted: Wanted, *, limit: int, before: int | None = None, is_oldest_first: bool = False
    ) -> Listing:
        """The newest jobs, or the oldest; those that expired or were deleted left out. Where only live ones
        are wanted, the others cost nothing.

        Args:
            before: Where the last listing ended.
        """

    async def details(self, response_id: str) -> Details | None:
        """One job; None if it is unknown, was deleted, or is a plain response that was kept."""

    async def crowds(self) -> list[Crowd]:
        """All live jobs, by backend, caller and model, the largest crowds first."""

    async def backlog(self, *, now_ms: int, barred: Mapping[tuple[str, bytes], str] = ...) -> Backlog:
        """For the metrics: at a cost that grows with the queue only, whatever else is stored.

        Args:
            barred: Backends and callers of whom no job may be started there, and for what reason.
        """
