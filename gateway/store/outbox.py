"""What the engine asks of the outbox, which is part of a store: see `gateway.store.port`."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Protocol

from gateway.core.webhooks import Delivery, Endpoint, Judge, Standing, unchanged


@dataclass(frozen=True, slots=True)
class LaneBacklog:
    """How many events wait in a lane, when the response ended that has waited longest, and since when the
    receiver is down (None: it is up)."""

    lane: str
    count: int
    oldest_ms: int
    down_since_ms: int | None = None


@dataclass(frozen=True, slots=True)
class Disabled:
    """An endpoint that wanted no more."""

    name: str
    since_ms: int


@dataclass(frozen=True, slots=True)
class GivenUp:
    """An event that will not be told any more."""

    response_id: str
    lane: str


@dataclass(frozen=True, slots=True)
class Due:
    """Events that are ours to send now, and when to look again if no bell rings (None: no time is known)."""

    deliveries: list[Delivery]
    next_at_ms: int | None


class Outbox(Protocol):
    """Events that are still to be told. The ending of a background job puts them there, in its transaction:
    one for each endpoint that wants to know of it, and one for a URL of the caller's own."""

    async def set_endpoints(self, endpoints: Collection[Endpoint], *, due_by_ms: int = ...) -> None:
        """From now on, these are told. One that was disabled is so still, if it is the same receiver.
        Whoever is down is tried at once, and what a dead gateway was sending is nobody's.

        Args:
            due_by_ms: Nothing is put off for longer: it may have been by another clock.
        """

    async def claim(self, *, now_ms: int, lease_ms: int, per_lane_max: int, own_url_max: int) -> Due:
        """Take what may be sent now: to endpoints that there are and that are not disabled, and to callers'
        URLs. Of a receiver that is down one event, when it is time for that. It is not taken again until
        `put_off`, or the end of the lease.

        Args:
            per_lane_max: So many to one endpoint, or to one caller's URLs, at once, by all gateways.
            own_url_max: The same, of all callers' URLs together.
        """

    async def remove(self, delivery: Delivery, judge: Judge = unchanged) -> tuple[Standing, Standing]:
        """It was taken, or is given up. Returns the receiver's standing, before and now."""

    async def put_off(
        self, delivery: Delivery, *, due_at_ms: int, failure: str, judge: Judge = unchanged
    ) -> tuple[Standing, Standing]:
        """An attempt has failed; the next one is not before a time. Returns the receiver's standing, before
        and now."""

    async def disable(self, name: str, *, now_ms: int) -> bool:
        """Send an endpoint nothing more; its events wait. False if it was so already, or is not there."""

    async def enable(self, name: str) -> bool:
        """Send to an endpoint again, and at once what waits. False if there is none of this name."""

    async def hurry(self, response_id: str) -> list[str]:
        """Try again now, before all else, whatever waits about a response. Returns in which lanes: also
        those of endpoints that want no more, where nothing is sent all the same."""

    async def about(self, response_id: str) -> list[Delivery]:
        """What waits to be told of a response."""

    async def tell_again(self, response_id: str) -> list[str]:
        """Put all that is to be told of a response that has ended into the outbox once more, also what was
        taken already, and try it before all else. Returns in which lanes; none if there is nobody to tell."""

    async def give_up_old(self, *, ended_before_ms: int) -> list[GivenUp]:
        """Remove events of responses that ended before a time: some of them; none when nothing is left."""

    async def give_up_surplus(self, lane: str, surplus: int) -> list[GivenUp]:
        """Remove up to so many of a lane's events, the oldest."""

    async def lane_backlogs(self) -> list[LaneBacklog]:
        """What waits, by lane."""

    async def disabled(self) -> list[Disabled]:
        """Endpoints that get nothing."""

    async def failing(self, *, limit: int) -> list[Delivery]:
        """Events with failed attempts, those of the latest ends first."""
