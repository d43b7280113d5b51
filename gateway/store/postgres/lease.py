"""That this gateway lives, and what time it is: both by the clock of the database, on a connection of their
own, so that no write of events is ever in front of a beat."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from typing import Any

import asyncpg

from gateway.core.job import StoreUnavailable
from gateway.store.postgres.connecting import Connector, closed
from gateway.store.postgres.health import FAILURES, Health, State, is_lost
from gateway.store.postgres.queries import QUERIES
from gateway.store.refused import DatabaseRefused

_GAP_MS = 4_000
"""Between two beats: a longer one says that something was amiss, here or there."""
_GAP_CUT_OFF_MS = 2_500
"""The same after a call that failed. One alone, as when a busy database frees the jobs of the dead too
slowly, is no gap: it would cost those jobs the time of steadiness once more, each time."""
_AGREED_MS = 10_000
"""Whoever has said for longer nothing is not asked whether it agrees."""
_ANSWER_S = 1.5


def _since_boot_ns() -> int:
    return time.clock_gettime_ns(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


class Replica:
    """This gateway among the others.

    Attributes:
        is_first: Of those that live; at the last beat, and not while none succeeds.
    """

    def __init__(self, connector: Connector, health: Health, replica_id: str) -> None:
        self._connector = connector
        self._health = health
        self._id = replica_id
        self._facts = "{}"
        self.is_first = False
        self._connection: asyncpg.Connection | None = None
        self._was_cut_off = False  # since the last beat: perhaps all were, and nobody is dead
        self._offset_ns = time.time_ns() - _since_boot_ns()

    def wall_ns(self) -> int:
        """The database's clock, as it was at the last beat, and steady time since."""
        return _since_boot_ns() + self._offset_ns

    async def beat(self) -> bool:
        """Say that we live. False: others took us for dead. Raises: StoreUnavailable."""
        asked_ns = _since_boot_ns()
        self.is_first = False
        row = await self._ask("beat", id=self._id, gap_ms=_GAP_CUT_OFF_MS if self._was_cut_off else _GAP_MS)
        self._was_cut_off = False
        middle_ns = (asked_ns + _since_boot_ns()) // 2
        self._offset_ns = row["now_ms"] * 1_000_000 - middle_ns
        self.is_first = row["is_first"]
        if not row["is_alive"]:
            await self._tell()
        return bool(row["is_alive"])

    async def abandon(self, dead_after_s: float) -> int:
        """Take the jobs of the dead from them. Returns how many. Raises: StoreUnavailable."""
        row = await self._ask("abandon", id=self._id, dead_after_ms=int(dead_after_s * 1000))
        return int(row["abandon"])

    async def agree(self, facts: str) -> None:
        """Raises: DatabaseRefused, if a gateway that lives goes by other facts; StoreUnavailable."""
        self._facts = facts
        row = await self._tell()
        if row is not None:
            raise DatabaseRefused(
                f"another gateway works on this database with another value of {row['key']}: it must be the "
                "same for all of them"
            )

    async def _tell(self) -> Any:
        """Also when others took us for dead: they forgot it with us."""
        return await self._ask("agree", id=self._id, facts=self._facts, dead_after_ms=_AGREED_MS)

    async def leave(self) -> None:
        """Nothing is ours any more: others may have it at once."""
        with suppress(StoreUnavailable):
            await self._ask("leave", id=self._id)
        if self._connection is not None:
            await closed(self._connection)

    async def _ask(self, query: str, **given: Any) -> Any:
        statement = QUERIES[query]
        was_open = self._connection is not None
        while True:
            try:
                async with asyncio.timeout(_ANSWER_S):
                    if not self._connector.is_usable(self._connection):
                        self._connector.drop(self._connection)
                        self._connection = await self._connector.connect()
                    row = await self._connection.fetchrow(statement.text, *statement.values(given))
            except FAILURES as error:
                connection, self._connection = self._connection, None
                self._was_cut_off = True
                self._connector.drop(connection, error)
                if was_open and is_lost(error, connection) and not isinstance(error, TimeoutError):
                    was_open = False  # it was cut: a new one says how it is
                    continue
                raise self._health.judge(error, is_lost=is_lost(error, connection)) from None
            self._health.become(State.OK)
            return row
