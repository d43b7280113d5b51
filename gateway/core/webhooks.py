"""What is told to whom when a response has ended, and the port through which it is sent."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum, auto
from typing import Protocol
from urllib.parse import urlsplit

from gateway.core.job import Status

OWN_URL = "@"
"""How the lane of a caller begins: no endpoint has such a name."""

CALLERS = "@callers"
"""All callers' own URLs together, as one receiver."""

HURRIED = 1
"""When an event is due that an operator wants to be tried."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A receiver that the settings name.

    Attributes:
        tenants: The first eight hex digits of each whose responses it is told of; none means everybody's.
        fingerprint: Of what it is sent to and signed with: with another one, it is another receiver.
    """

    name: str
    statuses: frozenset[Status]
    tenants: frozenset[str]
    fingerprint: bytes


@dataclass(frozen=True, slots=True)
class Delivery:
    """The event of one response, for one receiver, until it is taken or given up.

    Attributes:
        lane: What it waits in: an endpoint's name or, for a URL of a caller's own, see `own_lane`.
        url: Only for a caller's own.
        attempts: How many there were.
        due_at_ms: Not before; 0 if it was never put off, `HURRIED` if it is to be tried before all others.
        failure: What became of the last one.
    """

    response_id: str
    lane: str
    url: str | None = field(repr=False)
    status: Status
    ended_at_ms: int
    attempts: int
    due_at_ms: int
    failure: str | None

    @property
    def key(self) -> tuple[str, str]:
        """There is one event for each response and receiver."""
        return self.response_id, self.lane

    @property
    def receiver(self) -> str:
        """What may be shown and counted: no caller's name or URL."""
        return receiver_of(self.lane)


def receiver_of(lane: str) -> str:
    """An endpoint's name, or `CALLERS`."""
    return CALLERS if lane.startswith(OWN_URL) else lane


def own_lane(tenant: bytes, url: str) -> str:
    """The lane of a caller's own URL: which caller, and a digest of the host. Whoever is down at one host
    holds up nothing at another, and no other caller."""
    host = urlsplit(url).netloc.lower().removesuffix(":443")
    return f"{OWN_URL}{tenant.hex()}/{hashlib.sha256(host.encode()).hexdigest()[:16]}"


def owner_of(lane: str) -> str:
    """Whose limits hold for a lane: the endpoint's, or the caller's."""
    return lane.partition("/")[0] if lane.startswith(OWN_URL) else lane


class Verdict(Enum):
    """What an attempt says about the event, and about the receiver."""

    TAKEN = auto()
    AGAIN = auto()
    """It may have been about this event."""
    DOWN = auto()
    """It was not: the receiver is not there, or has trouble of its own."""
    STOP = auto()
    """Send it nothing more (410)."""
    NEVER = auto()
    """This URL will not be dialled, now or later."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """How one went.

    Attributes:
        reason: `http_` and the status, or a word for what was below HTTP: no text of a receiver.
    """

    verdict: Verdict
    reason: str


_JITTER = 0.1


@dataclass(frozen=True, slots=True)
class Schedule:
    """When an event is tried again, and until when.

    Attributes:
        delays_s: After the first attempt, the second, …; the last one again and again.
        retry_for_s: Since the end that it tells of.
    """

    delays_s: Sequence[float]
    retry_for_s: float

    def delays_ms(self, roll: float) -> list[int]:
        """A tenth shorter to a tenth longer, so that attempts do not come at once everywhere.

        Args:
            roll: From 0 to 1.
        """
        spread = 1000 * (1 + _JITTER * (2 * roll - 1))
        return [int(delay_s * spread) for delay_s in self.delays_s]

    def delay_ms(
        self, delivery: Delivery, verdict: Verdict, *, now_ms: int, delays_ms: Sequence[int]
    ) -> int | None:
        """Until the next attempt; None if there is none: it was taken, or it is given up."""
        delay_ms = delays_ms[min(delivery.attempts, len(delays_ms) - 1)]
        is_last = now_ms + delay_ms > delivery.ended_at_ms + self.retry_for_s * 1000
        return None if is_last or verdict in (Verdict.TAKEN, Verdict.NEVER) else delay_ms


_STRIKES = {Verdict.AGAIN: 1, Verdict.DOWN: 10}
_STRIKES_MAX = 30
"""Strikes at which a receiver counts as down: after 3 failures of its own in a row, or after 30 events in a
row that it refused, as a receiver that refuses so many refuses all."""


@dataclass(frozen=True, slots=True)
class Standing:
    """What the last attempts say of a receiver. One that is down is tried with one event at a time, with a
    delay after each that grows: all others wait. What it takes ends that.

    Attributes:
        strikes: Failures since it last took an event, by their weight.
        probes: Attempts in vain since it is down.
        probe_at_ms: No attempt before this; 0 while it is up.
        down_since_ms: None while it is up.
    """

    strikes: int = 0
    probes: int = 0
    probe_at_ms: int = 0
    down_since_ms: int | None = None

    def after(self, verdict: Verdict, *, now_ms: int, delays_ms: Sequence[int]) -> Standing:
        """What one more attempt says.

        Args:
            delays_ms: After the first probe, the second, …; the last one again and again.
        """
        if verdict is Verdict.TAKEN:
            return UP
        if now_ms < self.probe_at_ms or verdict not in _STRIKES:
            return self  # begun when it was up still, or nothing to do with how it is
        strikes = min(_STRIKES_MAX, self.strikes + _STRIKES[verdict])
        if self.down_since_ms is None and strikes < _STRIKES_MAX:
            return replace(self, strikes=strikes)
        delay_ms = delays_ms[min(self.probes, len(delays_ms) - 1)]
        since_ms = now_ms if self.down_since_ms is None else self.down_since_ms
        return Standing(strikes, self.probes + 1, now_ms + delay_ms, since_ms)


UP = Standing()

Judge = Callable[[Standing], Standing]
"""What becomes of a standing by an attempt."""


def unchanged(standing: Standing) -> Standing:
    """It says nothing."""
    return standing


class WebhookSender(Protocol):
    """Sends events."""

    async def send(self, delivery: Delivery) -> Attempt:
        """One attempt. Never raises for what a receiver does wrong."""
