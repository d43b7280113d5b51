"""Whether a job whose call has failed is run again: when, and whether the call was an attempt.

The one place that decides it. Pure: time and dice come as arguments. An attempt is a call that the backend
may have begun to work on. A call that never reached it, or that it sent away (429, 503 and their kin), is
none: it costs the job nothing but time. It is the same whether a status says so, or an error within a
stream.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, auto

from gateway.core.job import Job
from gateway.wire.failures import Told


class Kind(Enum):
    """What a failed call may have begun."""

    NOT_SENT = auto()
    """Nothing: no byte of the request left."""
    PUT_OFF = auto()
    """Nothing: the backend said that it has no time now, and perhaps when."""
    BROKEN_OFF = auto()
    """Perhaps some of the work; another attempt may not meet such an end."""


PUT_OFF = "upstream_put_off"
_ERROR = "upstream_error"

KINDS = {
    "upstream_unreachable": Kind.NOT_SENT,
    "upstream_unavailable": Kind.NOT_SENT,  # no replica takes calls at the moment
    PUT_OFF: Kind.PUT_OFF,
    _ERROR: Kind.BROKEN_OFF,
    "upstream_cut": Kind.BROKEN_OFF,
    "upstream_closed_early": Kind.BROKEN_OFF,
    "upstream_timeout": Kind.BROKEN_OFF,
    "bad_event": Kind.BROKEN_OFF,
}
"""By the reason of an ending; every other one is the backend's last word, or the client's."""

STATUSES = {
    408: _ERROR,  # RFC 9110: "may repeat the request"; both official SDKs do
    425: PUT_OFF,  # RFC 8470: not before the connection is sure
    429: PUT_OFF,
    498: PUT_OFF,  # Groq: the flex tier has no capacity, and the request was not processed
    499: _ERROR,  # nginx: whoever called the server behind it has gone away
    500: _ERROR,
    502: _ERROR,
    503: PUT_OFF,
    504: _ERROR,
    520: _ERROR,  # Cloudflare: the server sent nothing, or something odd
    521: PUT_OFF,  # Cloudflare: it refuses connections
    522: _ERROR,  # Cloudflare: no connection, or no sign of life on it
    523: PUT_OFF,  # Cloudflare: no route to it
    524: _ERROR,  # Cloudflare: no answer in time
    525: PUT_OFF,  # Cloudflare: no TLS with it
    526: PUT_OFF,  # Cloudflare: nor a valid certificate
    527: _ERROR,  # Cloudflare: cut between its own machines
    529: PUT_OFF,  # Anthropic: overloaded
    530: PUT_OFF,  # Cloudflare: its name cannot be resolved
    598: _ERROR,  # proxies: no answer in time
    599: _ERROR,  # proxies: no connection in time, perhaps after the request
}
"""The statuses that may pass, and by which reason a response ends if they do not. Every other one is the
backend's last word."""

UNANSWERED = frozenset({502, 504, *range(520, 528), 530, 598, 599})
"""Those that something in front of a server sends since it has got no answer from it."""

_LAST_WORDS = frozenset(
    {
        "context_length_exceeded",
        "insufficient_quota",
        "content_filter",
        "invalid_api_key",
        "model_not_found",
        "permission_denied",
    }
)
"""Codes that no waiting changes, whatever status they come with."""

_DOUBLINGS_MAX = 30
_EARLIEST, _LATEST = 0.9, 1.05
"""Of a wait that the backend asked for: who was sent away together must not come back so. Until a job whose
time has come is claimed and called takes a moment more; with that, too, it should be within a tenth."""


@dataclass(frozen=True, slots=True)
class Patience:
    """What one backend may cost its jobs.

    Attributes:
        down_wait_s: Longest wait for a backend that cannot be reached.
        put_offs_max: How often one job lets itself be sent away.
        put_off_first_s: Wait where the backend does not say how long; it doubles each time.
        put_off_max_s: Longest wait, whatever the backend says.
        backoff_first_s, backoff_max_s: Before anything else is tried again.
    """

    down_wait_s: float
    put_offs_max: int
    put_off_first_s: float
    put_off_max_s: float
    backoff_first_s: float
    backoff_max_s: float

    def backoff_s(self, tries: int, roll: float) -> float:
        """Full jitter: what failed together must not be tried again together.

        Args:
            tries: How often it was tried again already.
            roll: From 0 to 1, at random.
        """
        return roll * min(self.backoff_max_s, self.backoff_first_s * 2.0 ** min(tries, _DOUBLINGS_MAX))

    def put_off_s(self, asked_s: float | None, times: int) -> float:
        """How long a backend is to be left alone.

        Args:
            asked_s: What it said itself; None if it did not, or not in a way that can be understood.
            times: How often in a row it sent somebody away before.
        """
        doubled = 2.0 ** min(times, _DOUBLINGS_MAX)
        if asked_s is None:
            return min(self.put_off_max_s, self.put_off_first_s * doubled)
        # "At once", said again and again, is not what it means.
        return min(self.put_off_max_s, max(asked_s, self.backoff_first_s * doubled))


@dataclass(frozen=True, slots=True)
class Failed:
    """A call that failed, as far as it matters here.

    Attributes:
        reason: One of `KINDS`, or any other.
        asked_s: How long the backend asked to be left alone.
        is_callers: It has no time for this caller; others may still come.
        unreached_s: How long it has not been reached by anybody.
    """

    reason: str
    asked_s: float | None = None
    is_callers: bool = False
    unreached_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Again:
    """Run the job once more from its start.

    Attributes:
        after_s: Not before.
        is_attempt: The call that failed counts as an attempt.
        is_put_off: It counts as one of the times that the job was sent away.
        caller_rests_s: For so long none of its caller's jobs should be sent there; 0: that is up to them.
    """

    after_s: float
    is_attempt: bool
    is_put_off: bool = False
    caller_rests_s: float = 0.0


def calls_made(job: Job, reason: str) -> int:
    """How often the backend was asked for a job that ends for this reason; 0 if that is not what ended it."""
    if reason not in KINDS:
        return 0
    return job.attempt + job.put_offs - (KINDS[reason] is Kind.NOT_SENT)


def may_ask_anew(reason: str) -> bool:
    """Whether a plain request that was broken off may be made once more, by a client that has not had a byte.

    Who has waited for the whole of a timeout does not wait for another one.
    """
    return reason in ("upstream_cut", "upstream_closed_early")


def reason_of(told: Told) -> str | None:
    """The reason of an ending by what a backend told of its failure; None if that was its last word."""
    if told.is_last_word or told.failure["code"] in _LAST_WORDS or told.status is None:
        return None
    return STATUSES.get(told.status)


def again(
    failed: Failed,
    job: Job,
    patience: Patience,
    *,
    attempts_max: int,
    was_shown: bool,
    now_ms: int,
    roll: float,
    book_s: Callable[[], float],
) -> Again | None:
    """What to do with a job whose run has come to a failure; None: it fails.

    Args:
        attempts_max: Of one job.
        book_s: Takes the next retry that there is in the backend's budget, and says in how many seconds. Only
            a call on which the backend may have worked costs one: the others are no load to be kept small.
        was_shown: A reader may have seen output of it. Two generations are never spliced.
        roll: From 0 to 1, at random.
    """
    decided = None
    if not (was_shown or job.output_shown):
        match KINDS.get(failed.reason):
            case Kind.NOT_SENT:
                waited_s = min(failed.unreached_s, (now_ms - job.created_at_ms) / 1000)
                if waited_s < patience.down_wait_s:
                    decided = Again(patience.backoff_s(_DOUBLINGS_MAX, roll), is_attempt=False)
            case Kind.PUT_OFF:
                if job.put_offs < patience.put_offs_max:
                    decided = _put_off(failed, job, patience, roll)
            case Kind.BROKEN_OFF:
                if job.may_rerun(attempts_max):
                    after_s = max(patience.backoff_s(job.attempt, roll), book_s())
                    decided = Again(after_s, is_attempt=True)
            case None:
                pass
    if decided is not None and now_ms + decided.after_s * 1000 >= job.deadline_ms:
        return None  # it could only wait for its deadline: better the reason now
    return decided


def _put_off(failed: Failed, job: Job, patience: Patience, roll: float) -> Again:
    wait_s = patience.put_off_s(failed.asked_s, job.put_offs)
    first_s, last_s = rest_s(wait_s), min(patience.put_off_max_s, wait_s * _LATEST)
    return Again(
        first_s + roll * (last_s - first_s),
        is_attempt=False,
        is_put_off=True,
        caller_rests_s=first_s if failed.is_callers else 0.0,
    )


def rest_s(wait_s: float) -> float:
    """How long nobody goes where a job was sent away for `wait_s`: until the first of them may come back."""
    return wait_s * _EARLIEST
