"""Background work as backfill: held back while the engine's own queue is not empty.

An engine takes whatever it is sent and batches it; a background job that waits in its queue makes the
foreground request behind it wait too. The engine says in its metrics how long its queue is, so background
jobs can wait here instead, where they cost nobody anything.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

import aiohttp

from gateway import loop
from gateway.observe import line
from gateway.outbound.client import FAILURES, make_session, read_up_to, url_at

if TYPE_CHECKING:
    from gateway.outbound.backend import HttpBackend
    from gateway.outbound.pool import Replica

_NUMBER = rb"(?:\{.*\})? +([0-9]+(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?)(?: [0-9]+)?\r?$"
_WAITING = {
    "vllm": re.compile(rb"^vllm:num_requests_waiting" + _NUMBER, re.MULTILINE),
    "sglang": re.compile(rb"^sglang:num_queue_reqs" + _NUMBER, re.MULTILINE),
    "llamacpp": re.compile(rb"^llamacpp:requests_deferred" + _NUMBER, re.MULTILINE),
}
_PAGE_BYTES_MAX = 4 * 2**20
_NO_LIMIT = 2**31
_GROWTH = 4
"""From one look to the next, background calls may grow by a quarter of those under way, and by one at least.
An engine does not say how many requests it can batch, and every job beyond that delays the next caller."""


def queue_length(page: bytes, engine: str) -> float | None:
    """How many requests wait in an engine's own queue, by its metrics; None if they do not say."""
    values = [float(value) for value in _WAITING[engine].findall(page)]
    return sum(values) if values else None


class Backfill:
    """Watches one backend's queue. While nothing is known of it, nothing is held back.

    Attributes:
        is_busy: The queue is longer than it may be.
        slots_max: How many background calls may be under way, until the next look.
    """

    def __init__(self, backend: HttpBackend) -> None:
        self._backend = backend
        self.is_busy = False
        self.slots_max = _NO_LIMIT

    def held_until_ms(self, now_ms: int) -> int | None:
        """Only jobs accepted before this may go now; None if all may."""
        if not self.is_busy:
            return None
        return now_ms - int(self._backend.settings.backfill_hold_s * 1000)

    async def run(self) -> None:
        """Look again and again, until cancelled."""
        settings = self._backend.settings
        async with make_session(settings) as session:
            while True:
                pages = [await self._page(session, replica) for replica in self._backend.pool.replicas]
                self.looked([queue_length(page, settings.backfill) for page in pages])
                await asyncio.sleep(settings.backfill_poll_ms / 1000)

    def looked(self, queues: Sequence[float | None]) -> None:
        """Take in how many wait at each replica; None for one that does not say."""
        known = [waiting for waiting in queues if waiting is not None]
        was, self.is_busy = self.is_busy, sum(known) > self._backend.settings.backfill_waiting_max
        under_way = sum(replica.background for replica in self._backend.pool.replicas)
        # No limit where it is busy: only jobs that were held for too long go then, and those go anyway.
        is_growing = bool(known) and not self.is_busy
        self.slots_max = under_way + max(1, under_way // _GROWTH) if is_growing else _NO_LIMIT
        if was != self.is_busy:
            line("backfill", backend=self._backend.name, held=self.is_busy, waiting=sum(known))

    async def _page(self, session: aiohttp.ClientSession, replica: Replica) -> bytes:
        settings = self._backend.settings
        try:
            async with (
                loop.timeout(settings.lookup_timeout_s),
                session.get(
                    url_at(replica.origin, settings.backfill_metrics_path), allow_redirects=False
                ) as answer,
            ):
                return await read_up_to(answer, _PAGE_BYTES_MAX) if answer.status == 200 else b""
        except FAILURES:
            return b""
