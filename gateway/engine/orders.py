"""What operators have ordered of backends: a pause, another number of slots.

An order lies in the store. So it holds at every gateway that works on it, whichever was asked, and after a
restart, until it is taken back; the settings of no gateway are above it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from gateway.core.backends import Controls
from gateway.core.job import StoreUnavailable
from gateway.engine.clock import Clock
from gateway.observe import Observer, line
from gateway.store.bells import note
from gateway.store.port import NoteStore

PAUSE, SLOTS = "pause", "slots"

_LOOK_S = 5.0
"""Seconds between two looks for orders at other gateways, in case a dead connection lost the bell."""


@dataclass(frozen=True, slots=True)
class Order:
    """One that holds.

    Attributes:
        doing: `pause` or `slots`.
        by: The address from which it came.
        slots: Per replica of the backend; None with a pause.
    """

    doing: str
    by: str | None
    since_ms: int
    slots: int | None


class Orders:
    """All of them, as of the last look.

    Args:
        names: Of the backends that this gateway has; orders of others are theirs who have them.
        changed: Called when another one holds, or one no more.
    """

    def __init__(
        self,
        store: NoteStore,
        controls: Controls,
        names: Collection[str],
        clock: Clock,
        observer: Observer,
        changed: Callable[[], None],
    ) -> None:
        self._store = store
        self._controls = controls
        self._names = names
        self._clock = clock
        self._observer = observer
        self._changed = changed
        self._looking = asyncio.Lock()  # a look that began earlier must not end later
        self._all: dict[tuple[str, str], Order] = {}

    def of(self, backend: str) -> list[Order]:
        """Those that hold there."""
        return [found for doing in (PAUSE, SLOTS) if (found := self._all.get((doing, backend))) is not None]

    async def give(self, doing: str, backend: str, *, by: str | None, slots: int | None = None) -> None:
        """It holds here when this returns, and at the others a moment later. Raises: StoreUnavailable."""
        said = {"by": by, "since_ms": self._clock.now_ms(), "slots": slots}
        await self._store.notes.put(doing, backend, said)
        await self.look(is_ours=True)

    async def take_back(self, doing: str, backend: str) -> None:
        """The settings hold again. Raises: StoreUnavailable."""
        await self._store.notes.take(doing, backend)
        await self.look(is_ours=True)

    async def run(self) -> None:
        """Hear of what is ordered at other gateways, until cancelled."""
        rung = asyncio.Event()
        bells = self._store.bells
        with bells.listen(rung.set, note(PAUSE), note(SLOTS)):
            while True:
                with suppress(TimeoutError):
                    async with asyncio.timeout(None if bells.look_s is None else _LOOK_S):
                        await rung.wait()
                rung.clear()
                try:
                    await self.look()
                except StoreUnavailable as error:
                    line("store_unavailable", level=logging.DEBUG, doing="orders", reason=str(error))

    async def look(self, *, is_ours: bool = False) -> None:
        """Do what is ordered. Raises: StoreUnavailable.

        Args:
            is_ours: Whoever changes something says so in the log.
        """
        async with self._looking:
            found = {
                (doing, backend): _order(doing, said)
                for doing in (PAUSE, SLOTS)
                for backend, said in (await self._store.notes.all(doing)).items()
                if backend in self._names
            }
            was, self._all = self._all, found
            for key in was.keys() | found.keys():
                if was.get(key) != found.get(key):
                    self._obey(*key, found.get(key), is_ours=is_ours)

    def _obey(self, doing: str, backend: str, order: Order | None, *, is_ours: bool) -> None:
        if doing == PAUSE:
            self._controls.pause(backend, is_paused=order is not None)
        else:
            self._controls.resize(backend, order.slots if order is not None else None)
        if not is_ours:
            self._observer.order_heard(
                "resume" if doing == PAUSE and order is None else doing,
                backend,
                peer=order.by if order is not None else None,
                limit=order.slots if order is not None else None,
            )
        self._changed()


def _order(doing: str, said: dict[str, Any]) -> Order:
    return Order(doing, said["by"], said["since_ms"], said["slots"])
