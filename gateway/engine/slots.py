"""Who may start a job at a backend: as many as there is room for, and nobody whose turn it is not."""

from __future__ import annotations

from collections import Counter, OrderedDict, defaultdict

from gateway.core.tiers import weight

_ABOUT_MS = 60_000
"""Milliseconds for which a caller counts as active after it sent a job or one of its jobs was started."""


class _About:
    """The active callers of one backend, each with the weight of the tier that it used last.

    Attributes:
        weight: The sum of these.
    """

    def __init__(self) -> None:
        self.running: Counter[bytes] = Counter()
        self._seen: OrderedDict[bytes, tuple[int, int]] = OrderedDict()  # since when, and weight
        self.weight = 0

    def seen(self, tenant: bytes, worth: int, now_ms: int) -> None:
        """A caller sent a job, or had one started."""
        self.weight += worth - self._seen.pop(tenant, (0, 0))[1]
        self._seen[tenant] = now_ms, worth

    def forget(self, now_ms: int) -> None:
        """Whoever was not seen for long, and has nothing running."""
        while self._seen and next(iter(self._seen.values()))[0] <= now_ms - _ABOUT_MS:
            tenant, (_, worth) = self._seen.popitem(last=False)
            self.weight -= worth
            if tenant in self.running:
                self.seen(tenant, worth, now_ms)

    def __len__(self) -> int:
        return len(self._seen)

    def with_their_share(self, slots: int, kept: int) -> set[bytes]:
        """Callers that run their share of the slots already, or all slots but the reserved ones."""
        return {
            tenant
            for tenant, jobs in self.running.items()
            if jobs >= min(slots - kept, slots * self._seen[tenant][1] / self.weight)
        }


class Slots:
    """The running jobs of each backend, by caller.

    Turns alone do not protect a caller with few jobs from one that floods the queue and takes every slot as
    soon as it is free. So the last few slots are reserved for callers with less than their share, while
    several callers are active. A caller is active as soon as it has sent a job: one of whose jobs none has
    started needs a slot most.
    """

    def __init__(self) -> None:
        self._about: defaultdict[str, _About] = defaultdict(_About)
        self._resting_ms: dict[tuple[str, bytes], int] = {}

    def sent(self, backend: str, tenant: bytes, rank: int, now_ms: int) -> None:
        """A job waits.

        Args:
            rank: Of its tier.
        """
        self._about[backend].seen(tenant, weight(rank), now_ms)

    def taken(self, backend: str, tenant: bytes, rank: int, now_ms: int) -> None:
        """A job was started."""
        self._about[backend].running[tenant] += 1
        self._about[backend].seen(tenant, weight(rank), now_ms)

    def freed(self, backend: str, tenant: bytes) -> None:
        """One has ended."""
        running = self._about[backend].running
        running[tenant] -= 1
        if not running[tenant]:
            del running[tenant]

    def running(self, backend: str) -> int:
        """How many there are."""
        return self._about[backend].running.total()

    def rest(self, backend: str, tenant: bytes, until_ms: int) -> None:
        """A caller's rate limit at a backend is used up until then."""
        self._resting_ms[backend, tenant] = until_ms

    def room(self, backend: str, slots: int, kept: int, now_ms: int) -> tuple[int, set[bytes]]:
        """How many jobs may be started now, and the callers of whom none may.

        Args:
            slots: How many may run in all.
            kept: How many of these are for callers who have less than their share.
        """
        about = self._about[backend]
        about.forget(now_ms)
        free = slots - about.running.total()
        resting = self._resting_at(backend, now_ms)
        if free <= 0 or not kept or len(about) < 2:
            return free, resting
        if free > kept:
            return free - kept, resting
        return 1, resting | about.with_their_share(slots, kept)

    def barred(self, backend: str, slots: int, kept: int, now_ms: int) -> dict[bytes, str]:
        """The callers of whom no job may be started now, and why: `share`, they have all that is theirs;
        `caller`, their rate limit at the backend is used up. Arguments: see `room`."""
        free, barred = self.room(backend, slots, kept, now_ms)
        if free <= 0:
            return {}
        resting = self._resting_at(backend, now_ms)
        return {tenant: "caller" if tenant in resting else "share" for tenant in barred}

    def _resting_at(self, backend: str, now_ms: int) -> set[bytes]:
        self._resting_ms = {key: until_ms for key, until_ms in self._resting_ms.items() if until_ms > now_ms}
        return {tenant for name, tenant in self._resting_ms if name == backend}
