"""Looks after the file, once a second: the log stays small, and trouble ends when its cause does."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress

from gateway.core.job import StoreUnavailable
from gateway.observe import Observer, line
from gateway.store.refused import DatabaseRefused
from gateway.store.sqlite.connection import damage, is_largely_free
from gateway.store.sqlite.connector import connect_reader
from gateway.store.sqlite.database import ACCEPTING_SHARE, Database
from gateway.store.sqlite.file import FileCondition
from gateway.store.sqlite.health import State
from gateway.store.sqlite.queries import QUERIES

_TICK_S = 1.0
_TRUNCATION_INTERVAL_S = 5.0
_ALARM_SHARE = 0.75
"""Share of `wal_bytes_max` above which the longest read is interrupted. The rest is room for what is written
until the log is empty."""
_RUNNING_SHARE = 0.95
"""Share of the quota: a store that was full runs responses again only when no more than this is used."""


class Upkeep:
    """The file's own housekeeping, apart from what is in it."""

    def __init__(self, database: Database, observer: Observer) -> None:
        self._database = database
        self._health = database.health
        self._observer = observer
        self._tried_at_s = 0.0

    async def run(self) -> None:
        """Run both rounds every second, until cancelled. The log's round is a task of its own: the other one
        reads, and might wait for the very read that keeps the log from being emptied."""
        async with asyncio.TaskGroup() as group:
            if not self._database.is_checked:
                group.create_task(self._check(), name="store-check")
            for work in (self._keep_log_small, self._keep_going):
                group.create_task(self._rounds(work), name=f"store{work.__name__}")

    async def _rounds(self, work: Callable[[], Awaitable[None]]) -> None:
        while True:
            await self._try(work)
            await asyncio.sleep(_TICK_S)

    async def run_once(self) -> None:
        """One round of both."""
        await self._try(self._keep_log_small)
        await self._try(self._keep_going)

    async def _try(self, work: Callable[[], Awaitable[None]]) -> None:
        with suppress(StoreUnavailable):  # judged already
            await work()

    async def _keep_going(self) -> None:
        """Find out how the store is, and get it out of trouble when that has passed."""
        if self._health.state is State.CORRUPT:
            if self._database.lock.known is not FileCondition.DAMAGED:
                self._database.lock.remember(FileCondition.DAMAGED)
            return
        if not await self._database.is_in_place():
            return
        if self._health.state is State.FAILING:
            await self._reopen()
        await self._measure()
        if await self._database.readers.read(is_largely_free):
            await self._database.reclaim()

    async def _reopen(self) -> None:
        try:
            await self._database.writer.reopen()
        except Exception as error:  # whatever it is, the store fails still, and the next round tries again
            raise self._health.judge(error) from None
        self._health.improve(State.FULL)  # `_measure` finds out whether there is room

    async def _keep_log_small(self) -> None:
        """Empty the log if it has grown or holds deleted bytes; interrupt the read that prevents it."""
        self._health.require_below(State.FAILING)
        size, settings = self._database.sizes()["wal"], self._database.settings
        is_due = time.monotonic() - self._tried_at_s >= _TRUNCATION_INTERVAL_S
        if self._database.owes_truncation or (size > settings.wal_truncate_bytes and is_due):
            self._tried_at_s = time.monotonic()
            if await self._database.empty_log():
                return
        if size > _ALARM_SHARE * settings.wal_bytes_max:
            is_ours = await self._database.readers.interrupt_oldest()
            self._observer.log_too_large(size, is_ours=is_ours)
            # At once: the next long read may begin at any time.
            if not (is_ours and await self._database.empty_log()):
                self._tried_at_s = 0.0  # again in the next round

    async def _measure(self) -> None:
        """Set the state by the space that is used. A store that was full recovers only after a commit has
        succeeded."""
        share, is_log_large = await self._database.used_share(), self._is_log_too_large()
        self._observer.store_used.set(share)
        if self._health.state is State.FULL:
            # On the writing connection's thread: a sweep may have the ballast just now.
            make, writer = self._database.ballast.make, self._database.writer
            if share > _RUNNING_SHARE or not await writer.outside_transaction(lambda _: make()):
                return
            await writer.ask(lambda raw: raw.execute(QUERIES["fence"]) and None)
        if share > ACCEPTING_SHARE or is_log_large:
            self._health.worsen(State.NEARLY_FULL)
            self._health.improve(State.NEARLY_FULL)
        else:
            self._health.improve(State.OK)

    def _is_log_too_large(self) -> bool:
        return self._database.sizes()["wal"] > self._database.settings.wal_bytes_max

    async def _check(self) -> None:
        """Look a large file over while it is in use."""
        try:
            found = await self._database.readers.read_apart(
                await connect_reader(self._database.settings), damage
            )
        except (sqlite3.Error, DatabaseRefused, StoreUnavailable) as error:
            line("check_failed", level=logging.WARNING, reason=str(error))
            return
        line("checked", level=logging.ERROR if found else logging.INFO, found=found or "ok")
        if found:
            self._health.worsen(State.CORRUPT)
