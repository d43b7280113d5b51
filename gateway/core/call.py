"""The calls that are made of backends, for a job or for a client that waits."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Protocol

from gateway.core.upstream import UpstreamFrames
from gateway.wire.http.head import Credential, Headers
from gateway.wire.speech import Speech


class Taker(Protocol):
    """Takes the frames of an answer as they come, without a turn of the event loop for each."""

    def has_room(self) -> bool:
        """Whether it may be given some now."""

    def take(self, item: UpstreamFrames) -> bool:
        """Take some. False: whoever reads the answer has something to do now."""


@dataclass(frozen=True, slots=True)
class BackendCall:
    """One call that a job makes of its backend.

    Attributes:
        job_id: Also sent as `Idempotency-Key`, for backends that honour it.
        target: Raw path and query.
        headers: The caller's other headers.
        is_background: False for a call that a client is waiting for.
        is_again: The job has made a call before.
        version: Number of its body; part of its key, as a backend answers a key that it knows as before.
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
