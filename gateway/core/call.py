"""The synchronous call that a job makes of its backend, and the port through which it is made."""

from __future__ import annotations

from collections.abc import AsyncGenerator
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
    """

    job_id: str
    target: str
    body: bytes = field(repr=False)
    headers: dict[str, str] = field(repr=False)
    credential: Credential | None


class Backend(Protocol):
    """A model server."""

    async def speech(self, credential: Credential | None) -> Speech:
        """How to talk to it; found out by asking, once, unless the settings say it.

        Args:
            credential: The caller's, for a server that answers nothing without one.
        """

    def stream(self, call: BackendCall) -> AsyncGenerator[Input, None]:
        """Make the call; what comes back, item by item. Never raises for what a backend does wrong.

        Closing the iterator closes the connection, which is how a model server is told to stop.
        """
