"""Which of the events that are due are taken, by whatever store: within the limits, and in what order."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from gateway.core.webhooks import HURRIED, OWN_URL, owner_of


class AttemptLimits:
    """How many attempts may be begun, beside those that are under way."""

    def __init__(self, in_lane: Mapping[str, int], per_owner_max: int, own_url_max: int) -> None:
        self._per_owner_max = per_owner_max
        self._in_lane = in_lane
        self._of_owner: Counter[str] = Counter()
        self.own_free = own_url_max
        for lane, count in in_lane.items():
            self.take(lane, count)

    def busy(self) -> list[str]:
        """Owners of lanes who have none left."""
        return [owner for owner, count in self._of_owner.items() if count >= self._per_owner_max]

    def at(self, lane: str, *, is_down: bool) -> int:
        free = self._per_owner_max - self._of_owner[owner_of(lane)]
        if lane.startswith(OWN_URL):
            free = min(free, self.own_free)
        return min(free, 1 - self._in_lane.get(lane, 0)) if is_down else free

    def take(self, lane: str, count: int) -> None:
        self._of_owner[owner_of(lane)] += count
        self.own_free -= count if lane.startswith(OWN_URL) else 0


def in_order(put_off: list[Any], fresh: list[Any], *, is_down: bool) -> list[Any]:
    """What was put off until now, and the oldest of the rest. Of a receiver that is down the other way
    round: an event that it will never take must not be all that it is ever tried with."""
    if is_down:
        put_off.sort(key=lambda row: row["due_at_ms"] != HURRIED)
        hurried = sum(row["due_at_ms"] == HURRIED for row in put_off)
        return [*put_off[:hurried], *fresh, *put_off[hurried:]]
    return [*put_off, *fresh]
