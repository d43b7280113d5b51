"""The synchronous call that a job makes of its backend, and the ports through which it is made."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Collection
from dataclasses import dataclass, field
from typing import Protocol

from gateway.core.machine import Input
from gateway.wire.calls import Speech


@dataclass(frozen=True, slots=True)
class Credential:
    """A header that proves who the caller is. Never logged, never on disk in clear."""

    name: str
    value: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class BackendCall:
    """One attempt.

    Attributes:
        job_id: Also sent as `Idempotency-Key`, for backends that honour it.
        target: Raw path and query.
        headers: The caller's other headers.
        is_background: False for a call that a client is waiting for.
    """

    job_id: str
    target: str
    body: bytes = field(repr=False)
    headers: dict[str, str] = field(repr=False)
    credential: Credential | None
    is_background: bool = True


class Backend(Protocol):
    """A model server, or several that serve the same models."""

    @property
    def speech(self) -> Speech:
        """How to talk to it, as far as is known."""

    async def ask(self, credential: Credential | None) -> Speech:
        """Find out how to talk to it, by asking.

        Args:
            credential: The caller's, for a server that answers nothing without one.
        """

    def stream(self, call: BackendCall) -> AsyncGenerator[Input, None]:
        """Make the call; what comes back, item by item. Never raises for what a backend does wrong.

        Closing the iterator closes the connection, which is how a model server is told to stop.
        """


class Backends(Protocol):
    """All model servers, by name."""

    @property
    def names(self) -> Collection[str]:
        """Of those that the settings have."""

    def get(self, name: str) -> Backend | None:
        """The one of this name; None if the settings no longer have it."""

    def slots(self, name: str) -> int:
        """How many background calls may be under way there in all, at this moment."""

    def held_until_ms(self, name: str, now_ms: int) -> int | None:
        """While background jobs are held back: only those accepted before this time may go. None: all may."""
