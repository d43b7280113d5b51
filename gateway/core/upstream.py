"""What comes back from a call to a backend, item by item."""

from __future__ import annotations

from dataclasses import dataclass, field

from gateway.core.reason import Reason
from gateway.wire.failures import Failure
from gateway.wire.speech import Speech
from gateway.wire.sse import Frame


@dataclass(slots=True)
class UpstreamFrames:
    """Events of the backend: all that one read from its socket completed. Not frozen: see `Frame`."""

    frames: list[Frame]


@dataclass(frozen=True, slots=True)
class UpstreamAnswer:
    """The backend answered with one JSON object in place of a stream."""

    body: bytes


@dataclass(frozen=True, slots=True)
class UpstreamFailed:
    """The call ended by an error: refused, unreachable, too slow, cut, too large.

    Attributes:
        status: The backend's HTTP status, if it was its answer that said so.
        retry_after_s: How long it asked to be left alone.
        is_callers: That was said to this caller, by a rate limit of their own, and not to everybody.
        unreached_s: For how long no call has reached the backend.
        said: The beginning of an error answer, as it came. Nobody is shown it.
    """

    failure: Failure
    reason: Reason
    status: int | None = None
    retry_after_s: float | None = None
    is_callers: bool = False
    unreached_s: float = 0.0
    said: bytes = field(default=b"", repr=False)


@dataclass(frozen=True, slots=True)
class UpstreamClosed:
    """The backend ended its stream."""


@dataclass(frozen=True, slots=True)
class OtherApi:
    """The backend does not speak the API that it was supposed to speak, but this one."""

    speech: Speech


UpstreamItem = UpstreamFrames | UpstreamAnswer | UpstreamFailed | UpstreamClosed
Upstream = UpstreamItem | OtherApi
