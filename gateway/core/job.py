"""What a job is: our run of one background response, and the moves it may make."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import StrEnum
from functools import cached_property

from gateway.core.reason import Reason
from gateway.wire.failures import Failure


class Status(StrEnum):
    """The API's own six."""

    QUEUED = "queued"
    IN_PROGRESS = "in_progress"
    COMPLETED = "completed"
    FAILED = "failed"
    INCOMPLETE = "incomplete"
    CANCELLED = "cancelled"

    @cached_property
    def is_terminal(self) -> bool:
        return not TRANSITIONS[self]


_ENDINGS = frozenset({Status.COMPLETED, Status.FAILED, Status.INCOMPLETE, Status.CANCELLED})

TRANSITIONS: dict[Status, frozenset[Status]] = {
    Status.QUEUED: frozenset({Status.IN_PROGRESS, Status.CANCELLED, Status.FAILED}),
    Status.IN_PROGRESS: _ENDINGS,
    Status.COMPLETED: frozenset(),
    Status.FAILED: frozenset(),
    Status.INCOMPLETE: frozenset(),
    Status.CANCELLED: frozenset(),
}
"""Nothing leaves a terminal status. The same table stands in the database, as a trigger."""

LIVE = frozenset(status for status, moves in TRANSITIONS.items() if moves)

FIRST_OUTPUT_SEQ = 3
"""created 0, queued 1, in_progress 2: what follows is output, and is what a re-run throws away."""


@dataclass(frozen=True, slots=True)
class Idempotency:
    """A client's promise that creates with one key are one create.

    Attributes:
        key: Stands for the client's own.
        fingerprint: Hash of the request: the same key with another request is a mistake.
    """

    key: str
    fingerprint: bytes


@dataclass(frozen=True, slots=True)
class Sealed:
    """What lies on disk encrypted, and by which key."""

    key_id: str
    text: bytes


@dataclass(frozen=True, slots=True)
class NewJob:
    """A job as it is accepted.

    Attributes:
        tenant: 32 bytes; whose job it is. Every read and every move asks for it.
        backend: Name of the one that it goes to.
        priority: The rank of its tier (core/tiers.py).
        response: JSON of the Response as accepted.
        request: JSON of the client's body without `input`.
        input: JSON of the client's `input`.
        is_background: False for a plain response that is kept as a turn.
        target: Raw path and query of the backend call.
        headers: JSON of the caller's headers that may lie on disk: no credential among them.
        is_streamed: Created with `stream: true`.
        is_followable: Its output may be shown before its end, to whatever kind of reader.
        webhook: URL of the caller's own that is to be told of its end.
        events: The first events, encoded, from sequence number 0.
        beginning: The event that comes next when a backend is about to be called.
        fingerprint: Of the request, where a retry may adopt the job until a request has named it.
        sealed: The caller's credential and private headers; gone from the store when the job ends.
        item_ids: Of the items by which a client may name them, if they do not tell where they are.
        model: As the client named it, for operators.
    """

    id: str
    tenant: bytes
    previous_id: str | None
    created_at_ms: int
    deadline_ms: int
    response: bytes
    request: bytes
    input: bytes
    target: str
    headers: bytes
    is_streamed: bool
    is_followable: bool
    is_rerunnable: bool
    events: bytes
    next_seq: int
    backend: str = "default"
    priority: int = 1
    is_background: bool = True
    idempotency: Idempotency | None = None
    fingerprint: bytes | None = None
    sealed: Sealed | None = None
    webhook: str | None = field(default=None, repr=False)
    item_ids: tuple[str, ...] = ()
    model: str | None = None
    beginning: bytes = b""

    def begun(self) -> NewJob:
        """The same as it is accepted where it is claimed in that very commit, which saves another one."""
        if not self.beginning:
            return self
        events = self.events + self.beginning
        return replace(self, events=events, next_seq=self.next_seq + 1, beginning=b"")


@dataclass(frozen=True, slots=True)
class Job:
    """A job as the store has it.

    Attributes:
        epoch: Raised by every claim; a write with an older one is refused.
        attempt: Calls that the backend may have accepted.
        put_offs: Calls that it sent away: it had no time.
        output_shown: A reader may have seen output: the job is not silent any more.
        final: JSON of the Response at its end; None before.
        has_previous: It goes on from a turn that is in the store.
        is_unnamed: No request has named it yet: a retry of its create may adopt it.
    """

    id: str
    tenant: bytes
    status: Status
    epoch: int
    attempt: int
    next_seq: int
    created_at_ms: int
    started_at_ms: int | None
    deadline_ms: int
    is_streamed: bool
    is_followable: bool
    is_rerunnable: bool
    output_shown: bool
    response: bytes
    final: bytes | None
    backend: str = "default"
    priority: int = 1
    is_background: bool = True
    has_previous: bool = False
    put_offs: int = 0
    is_unnamed: bool = False

    def ran_s(self, now_ms: int) -> float | None:
        """Seconds since it was first started; None if it never was."""
        return None if self.started_at_ms is None else (now_ms - self.started_at_ms) / 1000


def may_run(attempt: int, attempts_max: int, *, is_rerunnable: bool, output_shown: bool) -> bool:
    """Whether running a job from its start would go unnoticed, and is allowed once more. Both stores say the
    same in SQL, where they claim jobs and find orphans."""
    return not output_shown and (attempt == 0 or (is_rerunnable and attempt < attempts_max))


@dataclass(frozen=True, slots=True)
class Claim:
    """The right to write to a job, until somebody takes it over."""

    job: Job

    @property
    def id(self) -> str:
        return self.job.id

    @property
    def epoch(self) -> int:
        return self.job.epoch


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a job ends.

    Attributes:
        final: JSON of the Response.
        events: The last events, encoded, from `first_seq`; the terminal one is among them.
        error: For `failed`.
        reason: For the log: no text of a client or a backend.
        item_ids: Of the output, as of a new job's input.
    """

    status: Status
    final: bytes
    first_seq: int
    events: bytes
    event_count: int
    error: Failure | None
    reason: Reason
    item_ids: tuple[str, ...] = ()

    @property
    def code(self) -> str | None:
        """The API's error code."""
        return self.error["code"] if self.error else None


class ClaimLost(Exception):
    """Somebody took the job over, ended it or deleted it: nothing was written."""


class StoreUnavailable(Exception):
    """The store could not do it: nothing was written, and calling again is safe.

    Args:
        reason: For the log.
        code: What ails the store, for programs.
        meaning: The same for people, in half a sentence. Neither has a path or a word of SQLite's.
    """

    def __init__(
        self, reason: str, code: str = "store_unavailable", meaning: str = "it does not answer"
    ) -> None:
        super().__init__(reason)
        self.code = code
        self.meaning = meaning


class QueueFull(Exception):
    """No more jobs are accepted until some have started.

    Args:
        is_tenant: Whether it is the tenant's own share that is used up.
    """

    def __init__(self, is_tenant: bool) -> None:
        super().__init__("queue full")
        self.is_tenant = is_tenant


class PreviousGone(Exception):
    """The turn that a new job goes on from has expired since it was looked up: nothing was written."""


class IdTaken(Exception):
    """There is a response of this id already, perhaps another tenant's: nothing was written."""


class TooMuchNamed(Exception):
    """The items that a request names lie in more than may be read for it."""


class KeyReused(Exception):
    """The idempotency key was used for another request: nothing was written."""
