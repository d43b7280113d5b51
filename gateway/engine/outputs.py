"""How much of the output of responses lies in memory, and who waits when it is too much.

A run keeps what its final Response is made of. Long texts go on a shelf until they are done, and most of the
rest is small; but the limits of single responses, times as many as may run, are more than any machine has.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from gateway.engine.shelf import FileShelf

_LARGE_BYTES = 2**20


class Outputs:
    """The output of all runs.

    While it is more than `bytes_max`, the backends of runs with more than their share are not read on until
    others have ended. The largest goes on, so that there is always an end to wait for; small ones do as ever.

    Args:
        directory: For shelves.

    Attributes:
        total: Bytes in memory, about.
        paused: Runs whose backends are not read at present.
    """

    def __init__(self, bytes_max: int, directory: Path) -> None:
        self._bytes_max = bytes_max
        self._directory = directory
        self._held: dict[str, int] = {}
        self._ended = asyncio.Event()
        self._reading = asyncio.Lock()
        self.total = 0
        self.paused = 0

    def shelf(self) -> FileShelf:
        """One for a run; it must be closed."""
        return FileShelf(self._directory)

    def holds(self, response_id: str, size: int) -> None:
        """A run has so much in memory now."""
        self.total += size - self._held.get(response_id, 0)
        self._held[response_id] = size

    def drops(self, response_id: str) -> None:
        """A run is over."""
        self.total -= self._held.pop(response_id, 0)
        self._ended.set()

    def has_room(self, response_id: str) -> bool:
        """Whether a run may have more."""
        return self.total <= self._bytes_max or self._may_grow(response_id)

    async def room(self, response_id: str) -> None:
        """Wait until a run may have more."""
        while not self.has_room(response_id):
            self._ended.clear()
            self.paused += 1
            try:
                await self._ended.wait()
            finally:
                self.paused -= 1

    def _may_grow(self, response_id: str) -> bool:
        is_small = self._held.get(response_id, 0) * 2 * len(self._held) <= self._bytes_max
        return is_small or response_id == max(self._held, key=self._held.__getitem__)

    @asynccontextmanager
    async def reading(self, size: int) -> AsyncIterator[None]:
        """Read all events of a response and make its output of them: of large ones, one at a time."""
        if size <= _LARGE_BYTES:
            yield
            return
        async with self._reading:
            yield
