"""Whether what a backend sent is nothing but a refusal of the call, of which the next one may learn."""

from __future__ import annotations

import orjson

from gateway.core.job import Status
from gateway.core.machine import Command, Finish, Input, UpstreamFailed

CALLS_MAX = 6
"""Calls that one run may cost. Each but the last teaches one thing, and is refused before any work is done.
No conversation was seen to break more than three rules of one server."""

STATUSES = frozenset({400, 404, 409, 415, 422, 500})
"""llama.cpp says 500 of a conversation that its template does not take."""


def refusal(item: Input, commands: list[Command]) -> bytes | None:
    """The words of a refusal, if the run ended by them before there was any output.

    Args:
        commands: What the machine made of the item. An error event in a stream that has not begun is a
            refusal like one by HTTP.
    """
    match commands:
        case [Finish(outcome)] if outcome.status is Status.FAILED and outcome.event_count == 1:
            if not isinstance(item, UpstreamFailed):
                return orjson.dumps(outcome.error)
            return item.said if item.status in STATUSES and item.said else None
    return None


def is_answered(commands: list[Command]) -> bool:
    """Whether the run has just come to an end that the backend meant."""
    return any(isinstance(c, Finish) and c.outcome.status is not Status.FAILED for c in commands)
