"""What is told to whom when a response has ended, and the port through which it is sent."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Protocol

from gateway.core.job import Status

OWN_URL = "@"
"""How the lane of a caller begins: no endpoint has such a name."""

CALLERS = "@callers"
"""All callers' own URLs together, as one receiver."""


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
        lane: What it waits in: an endpoint's name or, for a URL of a caller's own, `@` and which caller.
        url: Only for a caller's own.
        attempts: How many there were.
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


class Verdict(Enum):
    """What follows from an attempt."""

    TAKEN = auto()
    AGAIN = auto()
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


class Sender(Protocol):
    """Sends events."""

    async def send(self, delivery: Delivery) -> Attempt:
        """One attempt. Never raises for what a receiver does wrong."""
