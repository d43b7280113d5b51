"""Why a run ended: one word each, with all that follows from it.

The words stand in the log and in metrics. Whether a run that ended so may be made again, and what a client
that waits for the answer gets, is said here and nowhere else.
"""

from __future__ import annotations

from enum import Enum, StrEnum, auto


class RetryKind(Enum):
    """What a call that failed may have begun."""

    NOT_SENT = auto()
    """Nothing: no byte of the request left."""
    PUT_OFF = auto()
    """Nothing: the backend said that it has no time now, and perhaps when."""
    BROKEN_OFF = auto()
    """Perhaps some of the work. Another attempt may go better."""
    LAST_WORD = auto()
    """It is not made again: the backend meant it, or the client, or it is no call that failed."""


class Reason(StrEnum):
    """A word, what it means for a retry, and the HTTP status and code where the backend gave none."""

    kind: RetryKind
    http_status: int
    code: str | None

    def __new__(
        cls, word: str, kind: RetryKind = RetryKind.LAST_WORD, http_status: int = 502, code: str | None = None
    ) -> Reason:
        reason = str.__new__(cls, word)
        reason._value_ = word
        reason.kind, reason.http_status, reason.code = kind, http_status, code
        return reason

    # -- calls that came to no answer
    UNREACHABLE = "upstream_unreachable", RetryKind.NOT_SENT, 502, "backend_unreachable"
    UNAVAILABLE = (
        "upstream_unavailable",
        RetryKind.NOT_SENT,
        503,
        "backend_unavailable",
    )  # no replica takes calls
    PUT_OFF = "upstream_put_off", RetryKind.PUT_OFF
    ERROR = "upstream_error", RetryKind.BROKEN_OFF
    CUT = "upstream_cut", RetryKind.BROKEN_OFF, 502, "backend_disconnected"
    TIMEOUT = "upstream_timeout", RetryKind.BROKEN_OFF, 504, "backend_timeout"
    REFUSED = "upstream_refused"
    REDIRECT = "upstream_redirect"
    BAD_ENCODING = "upstream_bad_encoding"
    BAD_TYPE = "upstream_bad_type"
    TOO_LARGE = "upstream_too_large"
    # -- answers
    ENDED = "upstream_ended"
    FAILED = "upstream_failed"
    CANCELLED_THERE = "upstream_cancelled"
    CLOSED_EARLY = "upstream_closed_early", RetryKind.BROKEN_OFF
    ERROR_EVENT = "upstream_error_event"
    BAD_EVENT = "bad_event", RetryKind.BROKEN_OFF
    TOO_MANY_EVENTS = "too_many_events"
    # -- the client, time, and the gateway itself
    CANCELLED = "cancelled"
    DEADLINE = "deadline"
    UNSUPPORTED = "unsupported_by_backend"
    CREDENTIAL_LOST = "credential_lost"
    CREDENTIAL_UNREADABLE = "credential_unreadable"
    BACKEND_REMOVED = "backend_removed"
    RESTART = "interrupted_by_restart"
    SHUTDOWN = "interrupted_by_shutdown"
    STORE_UNAVAILABLE = "store_unavailable"
    EVENTS_UNREADABLE = "events_unreadable"
    DEFECT = "defect"

    @property
    def short(self) -> str:
        """As metrics have it."""
        return self.removeprefix("upstream_")
