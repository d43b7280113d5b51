"""The heartbeat of this gateway, and the time, both by the clock of the database. They use a connection of
their own, so that a beat never waits behind a write of events."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from typing import Any

import asyncpg

from gateway.core.job import StoreUnavailable
from gateway.store.postgres.connections import PostgresConnector, closed
from gateway.store.postgres.health import FAILURES, Health, State, is_lost
from gateway.store.postgres.queries import QUERIES
from gateway.store.refused import DatabaseRefused

_GAP_MS = 4_000
"""Longest time between two beats, in milliseconds; a longer one says that something was wrong, here or there,
and the gateway's steady time starts anew. Only a gateway that has been steady may declare others dead."""
_GAP_CUT_OFF_MS = 2_500
"""The same after a failed call. One failed call alone must not exceed it: a busy database may free the jobs
of dead gateways too slowly, and if each such failure restarted the steady time, those jobs would wait for it
again each time."""
_AGREED_MS = 10_000
"""Milliseconds without a beat after which the settings of a gateway no longer count."""
_ANSWER_S = 1.5


def _since_boot_ns() -> int:
    return time.clock_gettime_ns(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


class Membership:
    """This gateway among the others.

    Attributes:
        is_first: Of those that live; at the last beat, and not while none succeeds.
    """

    def __init__(self, connector: PostgresConnector, health: Health, gateway_id: str) -> None:
        self._connector = connector
        self._health = health
        self._id = gateway_id
        self._facts = "{}"
        self.is_first = False
        self._connection: asyncpg.Connection | None = None
        self._was_cut_off = False  # since the last beat: perhaps all were, and nobody is dead
        self._offset_ns = time.time_ns() - _since_boot_ns()

    def wall_ns(self) -> int:
        """The database's clock, as it was at the last beat, and steady time since."""
        return _since_boot_ns() + self._offset_ns

    async def beat(self) -> bool:
        """Renew the heartbeat. False: others took this gateway for dead. Raises: StoreUnavailable."""
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
        """Free the jobs of dead gateways. Returns how many. Raises: StoreUnavailable."""
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
        """Store our settings; again after others took us for dead, as they deleted them with our entry."""
        return await self._ask("agree", id=self._id, facts=self._facts, dead_after_ms=_AGREED_MS)

    async def leave(self) -> None:
        """Delete this gateway's entry, so that others may take its jobs at once."""
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
