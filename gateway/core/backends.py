"""The ports through which jobs reach their model servers, and operators see these."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Collection
from typing import Any, Protocol

from gateway.core.call import BackendCall
from gateway.core.retry import RetryPolicy
from gateway.core.upstream import Upstream
from gateway.wire.http.head import Credential
from gateway.wire.speech import Speech


class JobBackend(Protocol):
    """A model server, or several that serve the same models."""

    @property
    def name(self) -> str:
        """As in the settings."""

    @property
    def sees_callers(self) -> bool:
        """Whether it gets the callers' own credentials."""

    @property
    def speech(self) -> Speech:
        """How to talk to it, as far as is known."""

    @property
    def retry_policy(self) -> RetryPolicy:
        """How long, and how often, its jobs wait and retry."""

    @property
    def unreached_s(self) -> float:
        """For how long no call has reached any of its servers; 0 while calls do, or none was made."""

    @property
    def retry_in_s(self) -> float:
        """When the budget for retries has room for one more call."""

    def book_retry(self) -> None:
        """Take that room."""

    def retry_refused(self) -> None:
        """There was none for a retry that cannot wait."""

    async def ask(self, credential: Credential | None) -> Speech:
        """Find out how to talk to it, by asking.

        Args:
            credential: The caller's, for a server that answers nothing without one.
        """

    def learned(self, lesson: str) -> None:
        """A refusal has taught how a call should have been made."""

    def remember(self, model: Any, speech: Speech) -> None:
        """It has answered for this model when it was talked to so."""

    def rest(self, job_id: str, asked_s: float | None) -> None:
        """Keep other jobs away for a while: within an answer still open, it has put one off."""

    def stream(self, call: BackendCall) -> AsyncGenerator[Upstream, None]:
        """Make the call; what comes back, item by item. Never raises for what a backend does wrong.

        Closing the iterator closes the connection, which is how a model server is told to stop.
        """


class JobBackends(Protocol):
    """All model servers, by name."""

    @property
    def names(self) -> Collection[str]:
        """Of those that the settings have."""

    def get(self, name: str) -> JobBackend | None:
        """The one of this name; None if the settings no longer have it."""

    def slots(self, name: str) -> int:
        """How many background calls may be under way there in all, at this moment."""

    def slots_kept(self, name: str) -> int:
        """How many of these are for callers who have less than their share, while several have jobs there."""

    def held_until_ms(self, name: str, now_ms: int) -> int | None:
        """While background jobs are held back: only those accepted before this time may go. None: all may."""

    def halted(self, name: str) -> str | None:
        """Why no job may be started there, whoever's it is: `paused` | `breaker` | `rest` | `hold`; None: one
        may."""


class Controls(Protocol):
    """What operators see of backends, and can have done about them."""

    def pause(self, name: str, *, is_paused: bool) -> None:
        """Stop starting background jobs there, or start them again. Running jobs go on."""

    def is_paused(self, name: str) -> bool: ...

    def resize(self, name: str, slots: int | None) -> None:
        """How many background calls may be under way there, per replica; None: as the settings say. It is
        `slots_min` at least: gateways may differ in what they keep for plain requests."""

    def slots_min(self, name: str) -> int:
        """The least that leaves background calls a slot beside those kept for plain requests."""

    def sizes(self, name: str) -> tuple[int, int]:
        """The slots per replica: now, and by the settings."""

    def state(self) -> dict[str, Any]:
        """How each backend and each of its replicas is."""
