"""The synchronous call that a job makes of its backend, and the ports through which it is made."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Collection
from dataclasses import dataclass, field
from typing import Any, Protocol

from gateway.core.retry import Patience
from gateway.core.upstream import Upstream, UpstreamFrames
from gateway.wire.http.head import Credential, Headers
from gateway.wire.speech import Speech


class Taker(Protocol):
    """Takes the frames of an answer as they come, without a turn of the event loop for each."""

    def has_room(self) -> bool:
        """Whether it may be given some now."""

    def take(self, item: UpstreamFrames) -> bool:
        """Take some. False: there is something left to be done, by whoever reads the answer."""


@dataclass(frozen=True, slots=True)
class BackendCall:
    """One attempt.

    Attributes:
        job_id: Also sent as `Idempotency-Key`, for backends that honour it.
        target: Raw path and query.
        headers: The caller's other headers.
        is_background: False for a call that a client is waiting for.
        is_again: One of its job was made before.
        version: Of its body. A backend that knows the key of an earlier one would answer as before.
        is_limited_alone: The backend knows the caller by a credential of their own, and may limit that one.
        speech: How it is made.
        taker: Frames may go there, and are not given to whoever reads the answer then.
    """

    job_id: str
    target: str
    body: bytes = field(repr=False)
    headers: dict[str, str] = field(repr=False)
    credential: Credential | None
    speech: Speech
    is_background: bool = True
    is_again: bool = False
    version: int = 0
    is_limited_alone: bool = False
    taker: Taker | None = field(default=None, repr=False)


class Limit(Protocol):
    """A deadline that moves."""

    def restart(self) -> None:
        """From now on, for as long as before."""


class RequestBody(Protocol):
    """The body of a client's request, which is sent on as it comes.

    Attributes:
        failure: Why it could not be read; that is not the backend's fault.
        limit: The deadline of the answer's head. Each piece moves it; None once the head is there.
    """

    failure: Exception | None
    limit: Limit | None

    @property
    def is_whole(self) -> bool:
        """Whether all of it is still here, and could be sent to somebody else."""

    def __aiter__(self) -> AsyncIterator[bytes]: ...


@dataclass(frozen=True, slots=True)
class Begun:
    """A call that was made of one server already, which has not answered.

    Attributes:
        server: Which one it was; whoever made the call knows.
    """

    server: object
    error: Exception


@dataclass(frozen=True, slots=True)
class PlainCall:
    """A call on behalf of a client that waits for its answer.

    Attributes:
        target: Raw path and query.
        headers: All that the client has sent.
        limit_s: From the end of the request to the answer's head.
        kind: For the metrics: `passthrough` or `lookup`.
        body: Makes what is sent to one server; None: nothing of the client's body goes with the call.
        bytes: Size of a body that has been read already, and so decoded.
        is_seen: The answer must come uncompressed.
        is_upgrade: A WebSocket is asked for.
        begun: It was sent to one server before, and what came of that is still to be judged.
    """

    request_id: str
    method: str
    target: str
    headers: Headers = field(repr=False)
    limit_s: float
    kind: str = "passthrough"
    body: Callable[[], RequestBody | None] | None = None
    bytes: int | None = None
    is_seen: bool = False
    is_upgrade: bool = False
    begun: Begun | None = None


class Backend(Protocol):
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
    def patience(self) -> Patience:
        """What its jobs bear with."""

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
        """A job was told within its answer, which is still open, that there is no time: keep others away,
        too."""

    def stream(self, call: BackendCall) -> AsyncGenerator[Upstream, None]:
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
        """Start no more background jobs there, or again. Those that run go on."""

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
