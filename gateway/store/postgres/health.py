"""What the store can do at present: the one place that judges what PostgreSQL, and the way to it, complain
about."""

from __future__ import annotations

from enum import IntEnum

import asyncpg

from gateway.core.job import StoreUnavailable
from gateway.observe import Observer


class State(IntEnum):
    """How the store is; the worse, the larger."""

    OK = 0
    FULL = 1
    """There was no room for a write."""
    FAILING = 2
    """It cannot be reached, or does not answer in time."""


FAILURES = (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError)
"""All that a call may raise which is the database's or the way's fault; TimeoutError is an OSError."""

_LOST = (
    OSError,
    asyncpg.InternalClientError,  # the connection was cut at an odd moment
    asyncpg.PostgresConnectionError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
    asyncpg.CannotConnectNowError,
    asyncpg.TooManyConnectionsError,
    asyncpg.ReadOnlySQLTransactionError,  # a standby: it is not promoted yet
    asyncpg.IdleInTransactionSessionTimeoutError,
)
_CROSSED = (
    asyncpg.DeadlockDetectedError,
    asyncpg.SerializationError,
    asyncpg.LockNotAvailableError,
    asyncpg.ForeignKeyViolationError,  # what it leans on was swept at the same moment
)
"""Two gateways were in each other's way; one of them has to do it again."""


def is_lost(error: BaseException, connection: asyncpg.Connection | None = None) -> bool:
    """Whether a connection is of no more use after an error."""
    return isinstance(error, _LOST) or (connection is not None and connection.is_closed())


def is_crossed(error: BaseException) -> bool:
    """Whether it may well be done again."""
    return isinstance(error, _CROSSED)


def is_its_own(error: BaseException) -> bool:
    """Whether a statement is at fault itself, as by a constraint; not the database, nor the way to it."""
    own = (asyncpg.IntegrityConstraintViolationError, asyncpg.DataError)
    return not is_crossed(error) and (isinstance(error, own) or not isinstance(error, FAILURES))


class Health:
    """The state of one store, as this gateway sees it."""

    def __init__(self, observer: Observer) -> None:
        self._observer = observer
        self.state = State.OK
        observer.store_state.labels("ok").set(1)

    def judge(self, error: BaseException, *, is_lost: bool) -> StoreUnavailable:
        """Take note of an error, and make what the rest of the gateway gets to see of it."""
        reason = f"{type(error).__name__}: {error}"
        if is_lost:
            self._observer.store_failed("io")
            self.become(State.FAILING)
            return StoreUnavailable(reason, "store_failing", "it cannot be reached")
        if isinstance(error, asyncpg.InsufficientResourcesError):
            self._observer.store_failed("full")
            self.become(State.FULL)
            return StoreUnavailable(reason, "store_full", "it is full")
        if is_crossed(error):
            self._observer.store_failed("busy")
            return StoreUnavailable(reason, "store_busy")
        self._observer.store_failed("other")
        return StoreUnavailable(reason)

    def become(self, state: State) -> None:
        """It was tried, and is like this."""
        was, self.state = self.state, state
        if was is not state:
            self._observer.store_became(state.name.lower(), was.name.lower(), is_worse=state > was)
