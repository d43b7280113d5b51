"""Pages of many responses by one statement: what is asked for in one turn of the event loop, or while such a
statement runs, is read by the next one. Who follows many responses of other gateways asks the database hardly
more often than who follows one."""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from gateway.store.port import Page
from gateway.store.postgres.connections import Connections
from gateway.store.postgres.queries import QUERIES
from gateway.store.rows import to_page

_TOGETHER_MAX = 64
_BYTES_MAX = 8 * 2**20
"""Of all that one statement may give; one page always fits."""


@dataclass(frozen=True, slots=True)
class _Asked:
    """A page, and whoever waits for it: see `JobStore.page`."""

    id: str
    tenant: bytes
    after: int
    bytes_max: int
    now_ms: int
    done: asyncio.Future[Page | None]


class Pages:
    """Reads them.

    Args:
        at_once_max: So many statements may run at the same time.
    """

    def __init__(self, reading: Connections, at_once_max: int) -> None:
        self._reading = reading
        self._at_once_max = at_once_max
        self._asked: deque[_Asked] = deque()
        self._reads: set[asyncio.Task[None]] = set()
        self._is_due = False

    async def page(
        self, response_id: str, tenant: bytes, *, after: int, bytes_max: int, now_ms: int
    ) -> Page | None:
        """As `JobStore.page`."""
        loop = asyncio.get_running_loop()
        asked = _Asked(response_id, tenant, after, bytes_max, now_ms, loop.create_future())
        self._asked.append(asked)
        if not self._is_due:
            self._is_due = True
            loop.call_soon(self._read)  # after all who were woken by the same ring
        return await asked.done

    def _read(self) -> None:
        self._is_due = False
        while self._asked and len(self._reads) < self._at_once_max:
            task = asyncio.create_task(self._answer(self._next()))
            self._reads.add(task)
            task.add_done_callback(self._read_on)

    def _read_on(self, task: asyncio.Task[None]) -> None:
        self._reads.discard(task)
        self._read()

    def _next(self) -> list[_Asked]:
        together = [self._asked.popleft()]
        size = together[0].bytes_max
        while self._asked and len(together) < _TOGETHER_MAX:
            size += self._asked[0].bytes_max
            if size > _BYTES_MAX:
                break
            together.append(self._asked.popleft())
        return together

    async def _answer(self, together: list[_Asked]) -> None:
        try:
            found = await self._found(together)
        except Exception as error:  # whatever it is: nobody may wait for ever
            for asked in together:
                if not asked.done.done():
                    asked.done.set_exception(error)
            return
        for number, asked in enumerate(together, 1):
            if not asked.done.done():  # whoever asked may have gone
                asked.done.set_result(to_page(found.get(number, ()), asked.after, asked.bytes_max))

    async def _found(self, together: list[_Asked]) -> dict[int, list[Any]]:
        """Their rows, by their places."""
        rows = await self._reading.all(
            QUERIES["events_after"],
            ids=[asked.id for asked in together],
            tenants=[asked.tenant for asked in together],
            afters=[asked.after for asked in together],
            sizes=[asked.bytes_max for asked in together],
            now_ms=max(asked.now_ms for asked in together),
        )
        return {number: list(group) for number, group in groupby(rows, key=lambda row: row["number"])}
