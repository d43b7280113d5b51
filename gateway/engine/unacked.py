"""Creates whose answer may not have reached its client: a retry of one adopts its job.

A server cannot know what a client has read. It knows when the other side's TCP has taken the whole answer,
and whether the connection was still open a moment later: most paths that break have closed it by then. A
request that names the response settles it for good. What is not known to have arrived may be adopted, after
a restart too, by one retry at a time.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from gateway.config import BackgroundSettings
from gateway.core.job import Job, StoreUnavailable
from gateway.engine.clock import Clock
from gateway.observe import line
from gateway.store.port import JobStore

_ROUND_S = 1.0


class Arrival(Protocol):
    """Looks after one answer."""

    def handed_over(self) -> None:
        """What has been written by now is enough; without a call it is the whole answer."""

    def has_happened(self) -> bool:
        """Whether the other side has it, and is still there."""


@dataclass(frozen=True, slots=True)
class Delivery:
    """The answer to a create, on its way.

    Attributes:
        fingerprint: Stands for the request; a retry has the same.
        is_retry: The client says that it asks again.
    """

    fingerprint: bytes
    is_retry: bool
    arrival: Arrival


class Unacked:
    """The answers that are under way, and those that may have been lost."""

    def __init__(self, store: JobStore, clock: Clock, settings: BackgroundSettings) -> None:
        self._store = store
        self._clock = clock
        self._settle_s = settings.acknowledge_after_ms / 1000
        self._within_ms = int(settings.adopt_within_s * 1000)
        self._under_way: dict[tuple[bytes, bytes], set[asyncio.Event]] = {}
        self._held: set[str] = set()
        self._arrived: set[str] = set()

    def answer(self, tenant: bytes, delivery: Delivery) -> Callable[[str | None], None]:
        """An answer is under way. What is returned must be told of which response (None: of none)."""
        request, settled = (tenant, delivery.fingerprint), asyncio.Event()
        self._under_way.setdefault(request, set()).add(settled)

        def settle(response_id: str | None) -> None:
            if response_id is not None:
                self._held.discard(response_id)
                if delivery.arrival.has_happened():
                    self._arrived.add(response_id)
            settled.set()
            self._under_way[request].discard(settled)
            if not self._under_way[request]:
                del self._under_way[request]

        def tell(response_id: str | None) -> None:
            if response_id is None:
                settle(None)
            else:
                self._held.add(response_id)
                asyncio.get_running_loop().call_later(self._settle_s, settle, response_id)

        return tell

    async def adopt(self, tenant: bytes, delivery: Delivery) -> str | None:
        """The oldest response to the same request whose answer was lost: this retry is answered with it."""
        for settled in list(self._under_way.get((tenant, delivery.fingerprint), ())):
            await settled.wait()
        now_ms = self._clock.now_ms()
        lost = await self._store.unacked(
            tenant, delivery.fingerprint, since_ms=now_ms - self._within_ms, now_ms=now_ms
        )
        # No await from here on: of two retries that have read the same list, each takes another one.
        adopted = next((one for one in lost if one not in self._held and one not in self._arrived), None)
        if adopted is not None:
            self.answer(tenant, delivery)(adopted)
        return adopted

    def named(self, job: Job) -> None:
        """A client has named this response: it has its id."""
        if self._clock.now_ms() - job.created_at_ms < self._within_ms:
            self._arrived.add(job.id)

    async def run(self) -> None:
        """Forget what has arrived and what is too old, once a second, until cancelled."""
        while True:
            await asyncio.sleep(_ROUND_S)
            await self.try_to_forget()

    async def try_to_forget(self) -> None:
        """One round; what cannot be written is kept for the next."""
        arrived = list(self._arrived)
        try:
            await self._store.forget_unacked(arrived, before_ms=self._clock.now_ms() - self._within_ms)
        except StoreUnavailable as error:
            line("store_unavailable", level=logging.ERROR, doing="unacked", reason=str(error))
        else:
            self._arrived.difference_update(arrived)
