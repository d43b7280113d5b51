"""Background work as backfill: held back while the engine's own queue is not empty.

An engine takes whatever it is sent and batches it; a background job that waits in its queue makes the
foreground request behind it wait too. The engine says in its metrics how long its queue is, so background
jobs can wait here instead, where they cost nobody anything.
"""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING

from gateway.observe import line
from gateway.outbound.client import FAILURES, make_session, read_up_to, url_at

if TYPE_CHECKING:
    from gateway.outbound.backend import HttpBackend

_WAITING = {
    "vllm": re.compile(rb"^vllm:num_requests_waiting(?:\{[^}]*\})? ([0-9.e+]+)", re.MULTILINE),
    "sglang": re.compile(rb"^sglang:num_queue_reqs(?:\{[^}]*\})? ([0-9.e+]+)", re.MULTILINE),
    "llamacpp": re.compile(rb"^llamacpp:requests_deferred(?:\{[^}]*\})? ([0-9.e+]+)", re.MULTILINE),
}
_PAGE_BYTES_MAX = 4 * 2**20


class Backfill:
    """Watches one backend's queue. While nothing is known of it, nothing is held back."""

    def __init__(self, backend: HttpBackend) -> None:
        self._backend = backend
        self.is_busy = False

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
                waiting = 0.0
                for replica in self._backend.pool.replicas:
                    try:
                        async with (
                            asyncio.timeout(settings.lookup_timeout_s),
                            session.get(url_at(replica.origin, settings.backfill_metrics_path)) as answer,
                        ):
                            page = await read_up_to(answer, _PAGE_BYTES_MAX)
                    except FAILURES:
                        continue
                    waiting += sum(float(value) for value in _WAITING[settings.backfill].findall(page))
                was, self.is_busy = self.is_busy, waiting > settings.backfill_waiting_max
                if was != self.is_busy:
                    line("backfill", backend=self._backend.name, held=self.is_busy, waiting=waiting)
                await asyncio.sleep(settings.backfill_poll_ms / 1000)
