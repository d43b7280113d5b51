"""Whether a job whose call has failed is run again: when, and whether the call was an attempt.

The one place that decides it. Pure: time and dice come as arguments. An attempt is a call that the backend
may have begun to work on. A call that never reached it, or that it sent away (429, 503 and their kin), is
none: it costs the job nothing but time. It is the same whether a status says so, or an error within a
stream.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, assert_never

from gateway.core.job import Job, may_run
from gateway.core.reason import Reason, RetryKind
from gateway.core.upstream import UpstreamFailed
from gateway.wire.failures import Failure, ToldFailure

STATUSES = {
    408: Reason.ERROR,  # RFC 9110: "may repeat the request"; both official SDKs do
    425: Reason.PUT_OFF,  # RFC 8470: not before the connection is sure
    429: Reason.PUT_OFF,
    498: Reason.PUT_OFF,  # Groq: the flex tier has no capacity, and the request was not processed
    499: Reason.ERROR,  # nginx: whoever called the server behind it has gone away
    500: Reason.ERROR,
    502: Reason.ERROR,
    503: Reason.PUT_OFF,
    504: Reason.ERROR,
    520: Reason.ERROR,  # Cloudflare: the server sent nothing, or something odd
    521: Reason.PUT_OFF,  # Cloudflare: it refuses connections
    522: Reason.ERROR,  # Cloudflare: no connection, or no sign of life on it
    523: Reason.PUT_OFF,  # Cloudflare: no route to it
    524: Reason.ERROR,  # Cloudflare: no answer in time
    525: Reason.PUT_OFF,  # Cloudflare: no TLS with it
    526: Reason.PUT_OFF,  # Cloudflare: nor a valid certificate
    527: Reason.ERROR,  # Cloudflare: cut between its own machines
    529: Reason.PUT_OFF,  # Anthropic: overloaded
    530: Reason.PUT_OFF,  # Cloudflare: its name cannot be resolved
    598: Reason.ERROR,  # proxies: no answer in time
    599: Reason.ERROR,  # proxies: no connection in time, perhaps after the request
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
"""Range of a retry's wait, as a share of the wait that the backend asked for: jobs that were put off together
come back spread out. Claiming a job takes a moment more, and the sum should stay within 10 %."""


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How often, and how long, the jobs of one backend wait and retry.

    Attributes:
        down_wait_s: Longest wait for a backend that cannot be reached.
        put_offs_max: How often one job waits after it was put off (429, 503 …) before it fails.
        put_off_first_s: First such wait if the backend does not say how long; it doubles each time.
        put_off_max_s: Longest such wait, whatever the backend says.
        backoff_first_s, backoff_max_s: Longest pause before the first other retry, and before any.
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


class Moment(Protocol):
    """Time, dice and budget, for the decisions that need them. They are read only then: most of what a
    backend sends needs no decision."""

    @property
    def now_ms(self) -> int:
        """Unix milliseconds."""

    @property
    def now_s(self) -> int:
        """Unix seconds."""

    @property
    def roll(self) -> float:
        """From 0 to 1, at random."""

    @property
    def retry_in_s(self) -> float:
        """When the backend's budget has room for one more call. Only a call on which the backend may have
        worked costs one: the others are no load to be kept small."""


@dataclass(frozen=True, slots=True)
class Now:
    """A moment that is kept."""

    now_ms: int
    roll: float = 0.0
    retry_in_s: float = 0.0

    @property
    def now_s(self) -> int:
        """Unix seconds."""
        return self.now_ms // 1000


@dataclass(frozen=True, slots=True)
class Again:
    """Run the job once more from its start.

    Attributes:
        reason: Why this run has failed.
        after_s: Not before.
        is_attempt: The call that failed counts as an attempt, and the next one is booked in the budget.
        is_put_off: It counts as one of the times that the job was sent away.
        caller_rests_s: For so long none of its caller's jobs should be sent there; 0: that is up to them.
    """

    reason: Reason
    after_s: float
    is_attempt: bool
    is_put_off: bool = False
    caller_rests_s: float = 0.0


def calls_made(job: Job, reason: Reason) -> int:
    """How often the backend was asked for a job that ends for this reason; 0 if that is not what ended it."""
    if reason.kind is RetryKind.LAST_WORD or not job.is_background:
        return 0
    return job.attempt + job.put_offs - (reason.kind is RetryKind.NOT_SENT)


def reason_of(told: ToldFailure) -> Reason | None:
    """The reason of an ending by what a backend told of its failure; None if that was its last word."""
    if told.is_last_word or told.failure["code"] in _LAST_WORDS or told.status is None:
        return None
    return STATUSES.get(told.status)


def is_callers_limit(failure: Failure, *, is_limited_alone: bool) -> bool:
    """Whether a backend that has no time has none for this caller only, by a rate limit of their own."""
    return is_limited_alone and failure["code"] == "rate_limit_exceeded"


def anew(reason: Reason, job: Job) -> Again | None:
    """The retry of a plain request that failed before its client had a byte; None: it fails.

    It is made at once or, if the budget has no room, not at all. A request that timed out is not retried: its
    client has waited for long enough.
    """
    if reason not in (Reason.CUT, Reason.CLOSED_EARLY) or job.is_streamed or job.attempt > 1:
        return None
    return Again(reason, 0, is_attempt=True)


def again(
    reason: Reason,
    failed: UpstreamFailed | None,
    job: Job,
    retry_policy: RetryPolicy,
    *,
    attempts_max: int,
    was_shown: bool,
    now: Moment,
) -> Again | None:
    """What to do with a job whose run has come to a failure; None: it fails.

    Args:
        attempts_max: Of one job.
        was_shown: A reader may have seen output of it. Two generations are never spliced.
    """
    if was_shown or job.output_shown:
        return None
    decided = None
    match reason.kind:
        case RetryKind.NOT_SENT:
            unreached_s = failed.unreached_s if failed is not None else 0.0
            if min(unreached_s, (now.now_ms - job.created_at_ms) / 1000) < retry_policy.down_wait_s:
                decided = Again(reason, retry_policy.backoff_s(_DOUBLINGS_MAX, now.roll), is_attempt=False)
        case RetryKind.PUT_OFF:
            if failed is not None and job.put_offs < retry_policy.put_offs_max:
                decided = _put_off(failed, job, retry_policy, now.roll)
        case RetryKind.BROKEN_OFF:
            if may_run(
                job.attempt, attempts_max, is_rerunnable=job.is_rerunnable, output_shown=job.output_shown
            ):
                after_s = max(retry_policy.backoff_s(job.attempt, now.roll), now.retry_in_s)
                decided = Again(reason, after_s, is_attempt=True)
        case RetryKind.LAST_WORD:
            pass
        case _:
            assert_never(reason.kind)
    if decided is not None and now.now_ms + decided.after_s * 1000 >= job.deadline_ms:
        return None  # it could only wait for its deadline: better the reason now
    return decided


def _put_off(failed: UpstreamFailed, job: Job, retry_policy: RetryPolicy, roll: float) -> Again:
    wait_s = retry_policy.put_off_s(failed.retry_after_s, job.put_offs)
    first_s, last_s = rest_s(wait_s), min(retry_policy.put_off_max_s, wait_s * _LATEST)
    return Again(
        Reason.PUT_OFF,
        first_s + roll * (last_s - first_s),
        is_attempt=False,
        is_put_off=True,
        caller_rests_s=first_s if failed.is_callers else 0.0,
    )


def rest_s(wait_s: float) -> float:
    """How long other jobs stay away after one was put off for `wait_s`: until the first retry may be due."""
    return wait_s * _EARLIEST
