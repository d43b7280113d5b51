"""Who may start a job at a backend: as many as there is room for, and nobody whose turn it is not."""

from __future__ import annotations

from collections import Counter, OrderedDict, defaultdict

_ACTIVE_MS = 60_000
"""A caller whose last job was started so long ago is expected to send another one soon."""


class Slots:
    """The running jobs of each backend, by caller.

    A caller who floods the queue takes every slot as soon as it is free, and whoever sends a job now and then
    waits for one to end: turns alone do not help against that. So the last few slots are kept for callers who
    have less than their share, while there are any about.
    """

    def __init__(self) -> None:
        self._running: defaultdict[str, Counter[bytes]] = defaultdict(Counter)
        self._seen_ms: defaultdict[str, OrderedDict[bytes, int]] = defaultdict(OrderedDict)
        self._resting_ms: dict[tuple[str, bytes], int] = {}

    def taken(self, backend: str, tenant: bytes, now_ms: int) -> None:
        """A job was started."""
        self._running[backend][tenant] += 1
        self._seen_ms[backend][tenant] = now_ms
        self._seen_ms[backend].move_to_end(tenant)

    def freed(self, backend: str, tenant: bytes) -> None:
        """One has ended."""
        self._running[backend][tenant] -= 1
        if not self._running[backend][tenant]:
            del self._running[backend][tenant]

    def rest(self, backend: str, tenant: bytes, until_ms: int) -> None:
        """A caller's rate limit at a backend is used up until then."""
        self._resting_ms[backend, tenant] = until_ms

    def room(self, backend: str, slots: int, kept: int, now_ms: int) -> tuple[int, set[bytes]]:
        """How many jobs may be started now, and the callers of whom none may.

        Args:
            slots: How many may run in all.
            kept: How many of these are for callers who have less than their share.
        """
        running = self._running[backend]
        free = slots - running.total()
        resting = self._resting_at(backend, now_ms)
        if free <= 0 or not kept:
            return free, resting
        active = self._active_at(backend, now_ms)
        if active < 2:
            return free, resting
        if free > kept:
            return free - kept, resting
        share = slots / active
        return 1, resting | {tenant for tenant, jobs in running.items() if jobs >= share}

    def _active_at(self, backend: str, now_ms: int) -> int:
        """How many callers have jobs there, or had until a moment ago."""
        seen, running = self._seen_ms[backend], self._running[backend]
        while seen and next(iter(seen.values())) <= now_ms - _ACTIVE_MS:
            tenant, _ = seen.popitem(last=False)
            if tenant in running:
                seen[tenant] = now_ms
        return len(seen)

    def _resting_at(self, backend: str, now_ms: int) -> set[bytes]:
        self._resting_ms = {key: until_ms for key, until_ms in self._resting_ms.items() if until_ms > now_ms}
        return {tenant for name, tenant in self._resting_ms if name == backend}
