"""What the store can do at present: the one place that judges what SQLite complains about.

Six states, each worse than the one before. What is refused in which is said where it is asked for
(`require_below`); what gets a store out of a state again is in `upkeep`.
"""

from __future__ import annotations

import sqlite3
from enum import IntEnum

from gateway.core.job import StoreUnavailable
from gateway.observe import Observer


class State(IntEnum):
    """How the store is; the worse, the larger."""

    OK = 0
    NEARLY_FULL = 1
    """The last tenth of the quota is for those who were accepted already."""
    TAKEN_AWAY = 2
    """The file was deleted, moved or replaced: what is written to it is lost unless it comes back."""
    FULL = 3
    """There was no room for a write: what is going on is kept in memory for a while."""
    FAILING = 4
    """The disk failed a write or a flush: nothing is written until the file has been opened anew."""
    CORRUPT = 5
    """The file is damaged: nothing more is written to it."""


_CODES = {
    State.NEARLY_FULL: ("store_full", "it is nearly full"),
    State.TAKEN_AWAY: ("store_failing", "its file was taken away"),
    State.FULL: ("store_full", "it is full"),
    State.FAILING: ("store_failing", "its disk reports errors"),
    State.CORRUPT: ("store_corrupt", "its file is damaged"),
}

# By SQLite's primary result code: how it is called in the metrics, and what state it puts the store into.
_ERRORS = {
    sqlite3.SQLITE_FULL: ("full", State.FULL),
    sqlite3.SQLITE_IOERR: ("io", State.FAILING),
    sqlite3.SQLITE_CANTOPEN: ("io", State.FAILING),
    sqlite3.SQLITE_READONLY: ("io", State.FAILING),
    sqlite3.SQLITE_PERM: ("io", State.FAILING),
    sqlite3.SQLITE_PROTOCOL: ("io", State.FAILING),
    sqlite3.SQLITE_CORRUPT: ("corrupt", State.CORRUPT),
    sqlite3.SQLITE_NOTADB: ("corrupt", State.CORRUPT),
    sqlite3.SQLITE_BUSY: ("busy", State.OK),
    sqlite3.SQLITE_LOCKED: ("busy", State.OK),
    sqlite3.SQLITE_INTERRUPT: ("interrupted", State.OK),
}


def state_after(error: BaseException) -> State:
    """The state that an error puts a store into."""
    return _ERRORS.get(primary_code(error), ("other", State.OK))[1]


def is_everybodys(error: sqlite3.Error) -> bool:
    """Whether the file is at fault, or the machine; not the one statement, such as by a constraint."""
    return primary_code(error) in _ERRORS or primary_code(error) == sqlite3.SQLITE_NOMEM


def primary_code(error: BaseException) -> int:
    """SQLite's result code without its details; 0 if it is none of SQLite's errors."""
    return int(getattr(error, "sqlite_errorcode", 0)) & 0xFF


class Health:
    """The state of one store."""

    def __init__(self, observer: Observer) -> None:
        self._observer = observer
        self.state = State.OK
        observer.store_state.labels("ok").set(1)

    def require_below(self, state: State) -> None:
        """Raises: StoreUnavailable, if the store is in this state or a worse one."""
        if self.state >= state:
            raise refusal(self.state)

    def judge(self, error: Exception, *, was_reading: bool = False) -> StoreUnavailable:
        """Take note of an error, and make what the rest of the gateway gets to see of it.

        Args:
            was_reading: A page that cannot be read is one reader's trouble; a damaged file is everybody's.
        """
        kind, state = _ERRORS.get(primary_code(error), ("other", State.OK))
        self._observer.store_failed(kind)
        if not was_reading or state is State.CORRUPT:
            self.worsen(state)
        code, meaning = _CODES.get(state, (f"store_{kind}" if kind == "busy" else "store_unavailable", None))
        reason = f"{type(error).__name__}: {error}"
        return StoreUnavailable(reason, code, meaning) if meaning else StoreUnavailable(reason, code)

    def worsen(self, state: State) -> None:
        """It is at least as bad as this."""
        if state > self.state:
            self._become(state)

    def improve(self, state: State) -> None:
        """It was tried, and is no worse than this. A damaged file stays one while the process runs."""
        if state < self.state < State.CORRUPT:
            self._become(state)

    def _become(self, state: State) -> None:
        was, self.state = self.state, state
        self._observer.store_became(state.name.lower(), was.name.lower(), is_worse=state > was)


def refusal(state: State) -> StoreUnavailable:
    """What a call gets that the store does not even try in this state."""
    code, meaning = _CODES[state]
    return StoreUnavailable(f"the store is {state.name.lower()}", code, meaning)
