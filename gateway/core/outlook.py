"""Two sentences about a job: why it waits, and what happens to it if the gateway dies now.

Pure: all that they follow from comes as arguments. They say what `engine.Runner` and `engine.Sweeper` do; a
rule that is changed there is changed here.
"""

from __future__ import annotations

from dataclasses import dataclass

from gateway.core.job import may_run


@dataclass(frozen=True, slots=True)
class Outlook:
    """An answer.

    Attributes:
        why: In a word, for programs.
        sentence: For people.
    """

    why: str
    sentence: str


@dataclass(frozen=True, slots=True)
class Subject:
    """The job."""

    backend: str
    is_over: bool
    is_owned: bool
    attempt: int
    put_offs: int
    is_rerunnable: bool
    output_shown: bool
    event_count: int
    ahead: int
    created_at_ms: int
    not_before_ms: int
    deadline_ms: int


@dataclass(frozen=True, slots=True)
class Around:
    """What it is up against.

    Attributes:
        slots, running: Of its backend: how many jobs may run there, and how many do.
        is_known: The settings have its backend.
        paused_for_s: Since an operator has paused it; None: nobody has.
        halted: Why no job is started there: `breaker` | `rest` | `hold`; None: one may.
        barred: Why none of its caller is: `share` | `caller`; None: one may.
        held_until_ms: While background work is held back there, when this job goes all the same.
        unreached_s: For how long no server of the backend was reached.
        down_wait_s: Longest that jobs wait for that.
        is_draining: The gateway takes no new jobs and starts none.
        can_store: The store takes what a run would produce.
        attempts_max: Of one job.
        is_credential_held: The caller's credential is in this process only.
        is_shared: Other gateways work on the same store.
        silent_s: Since its backend has sent something; None if nobody runs it here.
    """

    now_ms: int
    slots: int
    running: int
    is_known: bool = True
    paused_for_s: float | None = None
    halted: str | None = None
    barred: str | None = None
    held_until_ms: int | None = None
    unreached_s: float = 0.0
    down_wait_s: float = 0.0
    is_draining: bool = False
    can_store: bool = True
    attempts_max: int = 1
    is_credential_held: bool = False
    is_shared: bool = False
    silent_s: float | None = None


def why_it_waits(job: Subject, around: Around) -> Outlook | None:
    """Why nobody works on it; None if somebody does, or it is over."""
    if job.is_over or job.is_owned:
        return None
    told = what_holds(job, around)
    left_s = (job.deadline_ms - around.now_ms) / 1000
    end = (
        f"It fails at its deadline, in {span(left_s)}."
        if left_s > 0
        else "Its deadline has passed: it fails now."
    )
    return Outlook(told.why, f"{told.sentence} {end}")


def what_holds(job: Subject, around: Around) -> Outlook:
    """What a job that nobody runs waits for. Any job will do for what holds of all jobs of a backend."""
    name, now_ms = job.backend, around.now_ms
    if not around.is_known:
        return Outlook("removed", f"The settings have no backend {name} any more: it fails within a second.")
    if around.is_draining:
        return Outlook("draining", "The gateway is shutting down: it goes on after the next start.")
    if not around.can_store:
        return Outlook("store", "The store cannot take output at present, so nothing is started.")
    if around.paused_for_s is not None:
        said = f"An operator has paused the queue of {name}, {span(around.paused_for_s)} ago"
        return Outlook("paused", f"{said}: resume it, and jobs start again.")
    if job.not_before_ms > now_ms:
        in_s = span((job.not_before_ms - now_ms) / 1000)
        if job.put_offs:
            said = f"{name} has sent it away (429 or 503) {_times(job.put_offs)}"
            return Outlook("retry_after", f"{said}: it is tried again in {in_s}.")
        return Outlook("retry", f"A call of it has failed: it is tried again in {in_s}.")
    match around.halted:
        case "breaker":
            return Outlook("breaker", _breaker(name, around))
        case "rest":
            said = f"{name} has said (429 or 503) that it has no time for background jobs"
            return Outlook("rest", f"{said}: none is sent there for a while.")
        case "hold" if around.held_until_ms is None or around.held_until_ms > now_ms:
            until = (
                ""
                if around.held_until_ms is None
                else (f", or in {span((around.held_until_ms - now_ms) / 1000)} in any case")
            )
            said = f"{name} has requests waiting in its own queue, and background jobs are backfill"
            return Outlook("backfill", f"{said}: it goes when that queue is short{until}.")
    match around.barred:
        case "share":
            said = (
                f"Its caller has its share of the {around.slots} slots of {name}, and other callers are about"
            )
            return Outlook("share", f"{said}: it goes when a job of the caller ends.")
        case "caller":
            return Outlook("caller", f"The rate limit of its caller at {name} is used up for a while.")
    if around.slots <= around.running:
        if around.slots == 0:
            return Outlook(
                "slot", f"{name} has no slot for background jobs: plain requests take all of them."
            )
        return Outlook("slot", f"All {around.slots} slots of {name} are taken.{_ahead(job)}")
    return Outlook("next", f"There is room at {name}: it starts in a moment.{_ahead(job)}")


def _breaker(name: str, around: Around) -> str:
    if around.unreached_s >= 1:
        waits = f"jobs wait up to {span(around.down_wait_s)} for that, then fail"
        return (
            f"{name} has not been reached for {span(around.unreached_s)}: it is down, or still starting; "
            f"{waits}."
        )
    return f"Calls to {name} have failed, and its breaker is open: the next one tries whether that is over."


def _ahead(job: Subject) -> str:
    if not job.ahead:
        return ""
    are = "1 job of its caller goes" if job.ahead == 1 else f"{job.ahead} jobs of its caller go"
    return f" {are} before it."


def if_the_gateway_dies(job: Subject, around: Around) -> Outlook:
    """What becomes of it if the process is killed now, and started again or replaced by another."""
    if job.is_over:
        return Outlook("kept", "Nothing: it is over, and its result and its events are stored.")
    caveat = (
        " Its caller's credential is in memory only (no credentials.sealing_keys): if the backend refuses "
        "the call without it, it fails."
        if around.is_credential_held
        else ""
    )
    runs = may_run(
        job.attempt, around.attempts_max, is_rerunnable=job.is_rerunnable, output_shown=job.output_shown
    )
    if runs and not job.is_owned:
        then = "another gateway runs it" if around.is_shared else "runs after the restart"
        return Outlook("waits_again", f"It keeps its place in the queue, and {then}.{caveat}")
    if runs:
        nth = f"attempt {job.attempt + 1} of {around.attempts_max}"
        again = (
            "Another gateway runs it again from its start, within seconds"
            if around.is_shared
            else "It runs again from its start"
        )
        return Outlook("runs_again", f"{again}: nobody has seen output ({nth}).{caveat}")
    kept = f"with its {job.event_count} events kept"
    if job.output_shown:
        return Outlook(
            "fails", f"It fails, {kept}: a reader may have seen output, and two are never spliced."
        )
    if not job.is_rerunnable:
        return Outlook("fails", f"It fails, {kept}: its tools may have effects that must not happen twice.")
    return Outlook("fails", f"It fails, {kept}: it has had {_attempts(job.attempt)}, and may not have more.")


def _attempts(count: int) -> str:
    return "1 attempt" if count == 1 else f"{count} attempts"


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count} times"


def span(seconds: float) -> str:
    """A length of time for people: `12 s`, `5 min`, `3 h`, `2 days`."""
    for unit, size in (("days", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s" if seconds >= 1 else "less than 1 s"
