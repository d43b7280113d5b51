"""Refusals of a call from which the next one may learn: nothing but a refusal, before any work was done."""

from __future__ import annotations

from collections.abc import Callable

from gateway.wire.speech import Speech

_CALLS_MAX = 6
"""Calls that one run may cost. Each but the last teaches one thing, and is refused before any work is done.
No conversation was seen to break more than three rules of one server."""

_STATUSES = frozenset({400, 404, 409, 415, 422, 500})
"""llama.cpp says 500 of a conversation that its template does not take."""


def may_teach(status: int | None, calls: int) -> bool:
    """Whether an answer may be a refusal that says how the call should have been made.

    Args:
        status: None for an error event at the start of a stream, which counts like an HTTP error.
        calls: Number of calls so far.
    """
    return (status is None or status in _STATUSES) and calls < _CALLS_MAX


def lesson(
    speech: Speech, said: bytes, sent: bytes, retell: Callable[[Speech], bytes]
) -> tuple[str, Speech] | None:
    """How to make a call otherwise that was refused, after a word for what was learned; None: nothing was.

    Args:
        speech: How it was made.
        said: The backend's error.
        retell: The call as it would be made. One that is the same again would be refused again.
    """
    for name, taught in speech.after_refusal(said, sent):
        if retell(taught) != sent:
            return name, taught
    return None
