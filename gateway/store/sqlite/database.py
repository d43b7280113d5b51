"""The open file: its lock, its connections, its ballast, and how it is. `opening` makes one."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

from gateway.config import StoreSettings
from gateway.core.job import StoreUnavailable
from gateway.observe import Observer
from gateway.store.refused import DatabaseRefused
from gateway.store.sqlite.ballast import Ballast
from gateway.store.sqlite.connection import truncate_wal, used_share, vacuum
from gateway.store.sqlite.file import DatabaseLock, beside
from gateway.store.sqlite.health import Health, State, refusal
from gateway.store.sqlite.location import FileLocation
from gateway.store.sqlite.read_connections import ReadConnections
from gateway.store.sqlite.restore import restore
from gateway.store.sqlite.writer import Writer

T = TypeVar("T")

ACCEPTING_SHARE = 0.9
"""Share of the quota above which no new response is accepted; the rest is for those already accepted."""

RECORDING_SHARE = 0.7
"""Share of the quota above which plain responses are not kept, so that background ones are still accepted."""


_DELETED_BYTES_MAX = 2**20
"""Most bytes that one transaction deletes: other writes wait for it."""

_RESTORE_INTERVAL_S = 5.0
"""Seconds between two attempts to restore a deleted file."""


class Database:
    """One file and all that is needed to work with it. It must be closed.

    Attributes:
        place: Whether it lies where it did.
        pepper: Random bytes of this file, from which tenants are derived.
        is_checked: Whether its structure was looked over when it was opened.
        owes_truncation: Deleted bytes are still in the log.
    """

    def __init__(
        self,
        settings: StoreSettings,
        lock: DatabaseLock,
        ballast: Ballast,
        health: Health,
        writer: Writer,
        readers: ReadConnections,
        place: FileLocation,
        observer: Observer,
        pepper: bytes,
        *,
        is_checked: bool,
    ) -> None:
        self.settings = settings
        self.lock = lock
        self.ballast = ballast
        self.health = health
        self.writer = writer
        self.readers = readers
        self.place = place
        self._observer = observer
        self.pepper = pepper
        self.is_checked = is_checked
        self.owes_truncation = True  # so may whoever had the file before, and died
        self._restoring = asyncio.Lock()
        self._failed_at_s = -_RESTORE_INTERVAL_S
        self._busy_ms = int(settings.busy_timeout_s * 1000)
        self._is_closed = False

    async def record(self, operation: Callable[[sqlite3.Connection], T], size: int) -> T:
        """Run `operation`, which keeps what could as well not be kept. Raises: as `accept`."""
        return await self.accept(operation, size, share=RECORDING_SHARE)

    async def accept(
        self, operation: Callable[[sqlite3.Connection], T], size: int, *, share: float = ACCEPTING_SHARE
    ) -> T:
        """Run `operation`, which takes up something new, in a transaction.

        Args:
            share: Of the quota that may be taken then.

        Raises:
            Exception: Whatever the operation raised; nothing of it was written.
            StoreUnavailable: It was not tried, or failed; nothing was written.
        """

        def with_room(raw: sqlite3.Connection) -> T:
            if not self.place.is_kept():
                raise refusal(State.TAKEN_AWAY)
            if used_share(raw, self.settings, size) > share:
                raise refusal(State.NEARLY_FULL)
            return operation(raw)

        try:
            self.health.require_below(State.NEARLY_FULL)
            waiting = self.writer.waiting_bytes
            if waiting and waiting + size > self.settings.waiting_bytes_max:
                raise StoreUnavailable("too much is waiting to be written", "store_busy", "it is too slow")
            return await self.writer.ask(with_room, size)
        except StoreUnavailable as error:
            if error.code == "store_failing":  # see to it before it is told: the process may end any time
                await self.is_in_place()
            raise

    async def is_in_place(self) -> bool:
        """Whether the file lies at its path. One that was deleted there is written anew, once."""
        async with self._restoring:
            lost = self.place.lost()
            if lost is not None and self.health.state < State.TAKEN_AWAY:
                self._observer.store_taken_away(lost)
            if lost is not None:
                self.health.worsen(State.TAKEN_AWAY)
                lost = await self._restored(lost)
            if lost is None:
                with suppress(OSError, DatabaseRefused):  # the lock on the database itself holds
                    self.lock.renew()
                if self.health.state is State.TAKEN_AWAY:
                    self.health.improve(State.OK)  # whether it is full is found out when it is measured
        return lost is None

    async def _restored(self, lost: str) -> str | None:
        """What is lost still."""
        is_due = time.monotonic() - self._failed_at_s >= _RESTORE_INTERVAL_S
        may_be = self.place.may_be_filled(is_deleted=self.lock.is_database_deleted)
        if not (may_be and is_due and self.health.state < State.FAILING):
            return lost
        try:
            await restore(self.settings, self.lock, self.place, self.writer, self.readers)
        except Exception as error:  # whatever it is, what is open is as it was
            self._failed_at_s = time.monotonic()
            self._observer.store_not_restored(str(error))
            return lost
        self._observer.store_restored()
        return self.place.lost()

    async def delete(self, operation: Callable[[sqlite3.Connection, int], T]) -> T:
        """Run `operation`, which deletes, in a transaction; on a full volume, in the room of the ballast.

        Args:
            operation: Is told how many bytes it should delete at most: they go through the log.

        Raises:
            StoreUnavailable: There was no room even so.
        """
        self.owes_truncation = True
        try:
            return await self.writer.ask(lambda raw: operation(raw, _DELETED_BYTES_MAX))
        except StoreUnavailable:
            if self.health.state is not State.FULL or not self.ballast.size:
                raise
        return await self.writer.outside_transaction(lambda raw: self._with_ballast(raw, operation))

    def _with_ballast(self, raw: sqlite3.Connection, operation: Callable[[sqlite3.Connection, int], T]) -> T:
        bytes_max = min(_DELETED_BYTES_MAX, self.ballast.size // 4)
        with self.ballast.lent():
            truncate_wal(raw, self._busy_ms)
            raw.execute("BEGIN IMMEDIATE")
            try:
                result = operation(raw, bytes_max)
                raw.execute("COMMIT")
            except BaseException:
                if raw.in_transaction:
                    raw.execute("ROLLBACK")
                raise
            vacuum(raw)
            truncate_wal(raw, self._busy_ms)
        return result

    async def reclaim(self) -> None:
        """Give free pages back, and leave no deleted byte in the log. Raises: StoreUnavailable."""
        await self.writer.outside_transaction(vacuum)
        await self.empty_log()

    async def empty_log(self) -> bool:
        """Copy the log into the file and empty it; False if somebody is reading an old state of the file.

        Raises:
            StoreUnavailable: There was no room, or the disk failed.
        """
        owed, self.owes_truncation = self.owes_truncation, False  # before: more may be deleted meanwhile
        is_empty = False
        try:
            is_empty = await self.writer.outside_transaction(lambda raw: truncate_wal(raw, self._busy_ms))
        finally:
            self.owes_truncation = self.owes_truncation or (owed and not is_empty)
        return is_empty

    async def used_share(self) -> float:
        """How much of the quota is taken by what is stored. Raises: StoreUnavailable."""
        return await self.readers.read(lambda raw: used_share(raw, self.settings))

    def sizes(self) -> dict[str, int]:
        """Bytes on disk, by kind of file."""
        path = self.settings.database
        files = {"db": path, "wal": beside(path, "-wal")}
        found = {name: file.stat().st_size if file.exists() else 0 for name, file in files.items()}
        return found | {"ballast": self.ballast.size}

    async def close(self) -> None:
        """Commit what was asked for, then close. Again: does nothing."""
        if self._is_closed:
            return
        self._is_closed = True
        lost = self.place.lost()
        if lost is not None:
            self._observer.store_left(lost)
        try:
            await self.writer.finish()
            await self.readers.close()
            # All is committed: what stays in the log is there at the next start.
            await self.writer.close(lambda raw: truncate_wal(raw, self._busy_ms))
        finally:
            self.lock.release()
