"""What the engine asks of a store, by role: each part of the engine takes the role that it needs. `JobStore`
joins them; `SqliteStore` keeps it, and `tests/store/exercise.py` holds any store to it.

Every write is one transaction, and has happened when the call returns. Reads give whole results. Any call
may raise `StoreUnavailable`.
Times are Unix milliseconds, given by the caller, whose clock follows the store's (`wall_ns`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Protocol

from gateway.core.job import Claim, Idempotency, Job, NewJob, Outcome, Sealed, Status
from gateway.store.bells import Bells
from gateway.store.insight import Insight
from gateway.store.notes import Notes
from gateway.store.outbox import Outbox
from gateway.store.pushes import Pushes
from gateway.wire.conversation.items import Turn


@dataclass(frozen=True, slots=True)
class QueueLimits:
    """How many queued jobs there may be."""

    total_max: int
    per_tenant_max: int


@dataclass(frozen=True, slots=True)
class StoredRequest:
    """What was asked for: see `NewJob`."""

    request: bytes
    input: bytes
    target: str
    headers: bytes
    sealed: Sealed | None = None


@dataclass(frozen=True, slots=True)
class Work(Claim):
    """A claim with all that a run needs: what was asked for, and the turns before it, oldest first."""

    call: StoredRequest
    turns: list[Turn]

    @property
    def size(self) -> int:
        """About how much of it is in memory."""
        return len(self.call.input) + sum(len(turn.input) + len(turn.final) for turn in self.turns)


@dataclass(slots=True)
class Page:
    """Events after a cursor, as many as fit. Nobody changes one; it is not frozen: see `wire.sse.Frame`.

    Attributes:
        events: Encoded, contiguous, the first one directly after the cursor.
        last_seq: Sequence number of the last one; the cursor itself if there is none.
        is_end: The job is over and nothing follows.
        has_more: There were further ones when it was read.
    """

    events: bytes
    last_seq: int
    is_end: bool
    has_more: bool = False


@dataclass(frozen=True, slots=True)
class DeletedJob:
    """A job that was deleted.

    Attributes:
        ended: The job, if it was live: the delete has ended it as cancelled.
    """

    ended: Job | None


class Chores(Protocol):
    """What a store in files has to do besides."""

    async def reclaim_space(self) -> None:
        """Give freed pages back, and leave no deleted byte in the files."""

    async def tend(self) -> None:
        """Keep the store in order and find out when trouble is over, until cancelled."""

    async def sizes(self) -> dict[str, int]:
        """Bytes on disk, by kind of file."""


class BellSource(Protocol):
    """It says when to look."""

    @property
    def bells(self) -> Bells:
        """What rings when something of this has changed."""


class OutboxStore(BellSource, Protocol):
    """For whoever tells of ends."""

    @property
    def outbox(self) -> Outbox:
        """What is to be told about jobs that have ended."""


class NoteStore(BellSource, Protocol):
    """For what operators have ordered."""

    @property
    def notes(self) -> Notes:
        """What holds for all gateways, besides jobs."""


class IntakeStore(Protocol):
    """From a create request to a stored job."""

    async def create(self, job: NewJob, limits: QueueLimits) -> str:
        """Accept a job. Returns its id; for a repeated create, that of the first, and nothing was written.

        Raises:
            KeyReused: The idempotency key was for another request; nothing was written.
            QueueFull: Nothing was written.
            PreviousGone: The turn it goes on from is not there (any more); nothing was written.
            StoreUnavailable: Nothing was written.
        """

    async def start(self, job: NewJob, limits: QueueLimits) -> tuple[str, Work | None]:
        """The same for a job that there is room to run: if none waits at its backend, it is claimed in the
        commit in which it is accepted, and stored as `begun`.

        Returns:
            Its id, as `create`; the claim, unless it waits like any other.

        Raises:
            Exception: As `create`.
        """

    async def repeated(self, tenant: bytes, idempotency: Idempotency, *, now_ms: int) -> str | None:
        """The job that the same key made, while it can be seen. Raises: KeyReused."""

    async def unnamed(self, tenant: bytes, fingerprint: bytes, *, since_ms: int, now_ms: int) -> str | None:
        """The newest job made of the same request since that time which no request has named yet."""

    async def name(self, response_id: str) -> None:
        """A request has named this job: no retry adopts it any more. Raises: StoreUnavailable."""


class TurnStore(Protocol):
    """What was asked and answered, for requests that go on from it."""

    async def record(
        self,
        job: NewJob,
        status: Status,
        final: bytes,
        *,
        finished_at_ms: int,
        expires_at_ms: int,
        item_ids: tuple[str, ...] = (),
    ) -> None:
        """Keep a plain response that has ended, as a turn of a conversation.

        Args:
            item_ids: Of its output: see `Outcome`.

        Raises:
            IdTaken, PreviousGone, StoreUnavailable: Nothing was written. Long before it is full, the store
                has no room for these.
        """

    async def find(self, response_id: str, tenant: bytes, *, now_ms: int) -> Job | None:
        """A client's job; None if it is unknown, expired, deleted or another tenant's."""

    async def request_of(self, response_id: str) -> StoredRequest | None:
        """What a job was asked for."""

    async def turns_before(self, response_id: str, tenant: bytes) -> list[Turn]:
        """The turns that a job goes on from, oldest first."""

    async def turns_with(
        self, item_ids: Collection[str], tenant: bytes, *, now_ms: int, bytes_max: int
    ) -> list[Turn]:
        """The responses in which these items are, newest first: of each item the newest that is shown, or is
        an earlier turn of one that is. `input` or `final` is empty where none of the items is in it.

        Args:
            bytes_max: Of all inputs and outputs to be read.

        Raises:
            TooMuchNamed: It would be more.
        """


class EventStore(BellSource, Protocol):
    """The events of a job."""

    @property
    def pushes(self) -> Pushes:
        """What other gateways hand over of what they commit."""

    async def page(
        self, response_id: str, tenant: bytes, *, after: int, bytes_max: int, now_ms: int
    ) -> Page | None:
        """Events after `after`; None if the job is not there (any more)."""

    async def all_events(self, response_id: str) -> bytes:
        """Every stored event of a job, encoded."""

    async def events_bytes(self, response_id: str) -> int:
        """How much that is."""


class ClientStore(IntakeStore, TurnStore, EventStore, Protocol):
    """All that a client's requests need."""


class RunStore(Protocol):
    """A run, from its claim to its end."""

    async def claim(
        self,
        limit: int,
        *,
        attempts_max: int,
        now_ms: int,
        backend: str = "default",
        accepted_before_ms: int | None = None,
        resting: Collection[bytes] = (),
        bytes_max: int = ...,
        running_max: int | None = None,
    ) -> list[Work]:
        """Take up to `limit` waiting jobs of a backend.

        Tenants take turns, and share by the weights of their tiers; of one tenant the higher tier goes first,
        of one tier the oldest.

        Args:
            accepted_before_ms: Jobs accepted later stay in the queue.
            resting: Tenants whose jobs stay in the queue.
            bytes_max: Stop after so many bytes of jobs.
            running_max: Most jobs of the backend that may run, at all gateways together.
        """

    def append(
        self, claim: Claim, first_seq: int, count: int, events: bytes, *, has_output: bool
    ) -> asyncio.Future[None]:
        """Store the next events of a run: a future, so that no task need wake for it.

        Raises:
            ClaimLost, StoreUnavailable: By the future; nothing was written.
        """

    async def rewind(self, claim: Claim, seq: int) -> None:
        """Throw the events from `seq` on away, which a lost run left.

        Raises:
            ClaimLost, StoreUnavailable: Nothing was written.
        """

    async def finish(self, claim: Claim, outcome: Outcome, *, now_ms: int, expires_at_ms: int) -> None:
        """End a job: last events, status, final Response and expiry, in one transaction.

        Raises:
            ClaimLost, StoreUnavailable: Nothing was written.
        """


class ClaimStore(Protocol):
    """Who may write to a job."""

    async def take_over(self, response_id: str, *, epoch: int | None = None) -> Claim | None:
        """Become the only one who may write to a live job; None if it is not live (any more).

        Args:
            epoch: Only if nobody has taken it since the claim that has this one.
        """

    async def release(
        self, claim: Claim, *, attempts_returned: int, put_offs: int = 0, not_before_ms: int = 0
    ) -> None:
        """Let a silent job be run again from its start, not before a time. It keeps its place in the queue.

        Args:
            attempts_returned: Calls that no backend has accepted.
            put_offs: Calls among them that it sent away.

        Raises:
            ClaimLost, StoreUnavailable: Nothing was written.
        """


class OperatorStore(Protocol):
    """What is done to a job besides."""

    async def set_priority(self, response_id: str, priority: int) -> bool:
        """Put a job that waits for its first start into another tier, where it keeps its place by age. False
        if it does not wait so, or is not there."""

    async def delete(self, response_id: str, tenant: bytes, *, now_ms: int) -> DeletedJob | None:
        """Make a job vanish, running or not. None if there was none."""


class LeaseStore(ClaimStore, Protocol):
    """One gateway among others."""

    @property
    def is_first(self) -> bool:
        """Whether this gateway reports what all have in common, such as queue gauges. For moments, none
        does."""

    async def beat(self) -> bool:
        """Renew this gateway's heartbeat. False if others took it for dead: its jobs are not its own now."""

    async def agree(self, facts: Mapping[str, str], backends: Collection[str]) -> None:
        """Publish the settings that must be equal at all gateways, and the names of this gateway's backends,
        which may differ.

        Raises:
            DatabaseRefused: A live gateway has another value.
        """

    async def abandon(self, *, dead_after_s: float) -> None:
        """Free the live jobs of owners whose last beat is older than this; 0 frees those of all owners.

        Where one process alone can open the store, all earlier owners are dead at once.
        """


class SealedStore(Protocol):
    """What is sealed in it."""

    async def sealing_keys(self) -> dict[str, int]:
        """Ids of the keys by which something is sealed, and for how many jobs."""


class SweepStore(Chores, Protocol):
    """What must end, and what must go."""

    async def orphans(self, *, attempts_max: int, limit: int) -> list[str]:
        """Live jobs without an owner that must not be run again."""

    async def of_other_backends(self, names: Collection[str], *, limit: int) -> list[str]:
        """Live jobs whose backend is none of these, nor one that another gateway has."""

    async def waiting_since(self, accepted_before_ms: int, *, backend: str, limit: int) -> list[str]:
        """Live jobs of a backend that nobody runs, accepted before a time."""

    async def overdue(self, *, now_ms: int, limit: int) -> list[str]:
        """Live jobs past their deadline."""

    async def sweep(self, *, now_ms: int) -> int:
        """Purge what has expired or was deleted, in pieces between which others write.

        Returns:
            How many jobs are gone.
        """


class JobStore(
    OutboxStore,
    NoteStore,
    ClientStore,
    RunStore,
    OperatorStore,
    LeaseStore,
    SealedStore,
    SweepStore,
    Protocol,
):
    """A store of jobs and their events, with all that comes with it."""

    @property
    def insight(self) -> Insight:
        """What operators are shown of it."""

    @property
    def pepper(self) -> bytes:
        """Random bytes of this store, from which tenants are derived."""

    def wall_ns(self) -> int:
        """Unix nanoseconds by the clock that all gateways share."""

    def state(self) -> str:
        """`ok`, or one word for the trouble that it is in."""

    async def close(self) -> None:
        """Finish what was asked for, then close. Nothing may be asked after. Again: does nothing."""
