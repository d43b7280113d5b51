"""What happened to each job, for the page that shows it: when it was started, called, put off and ended.

It lies in memory, for so many jobs at most, and is lost with the process: what must be known is in the store.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

_JOBS_MAX = 5_000
"""The newest ones. Each takes about a kilobyte."""
_MOVES_MAX = 40
"""Of one job. Of more, those in the middle are left out."""


@dataclass(frozen=True, slots=True)
class Move:
    """Something that happened to a job.

    Attributes:
        to: A word, as log lines have it.
        facts: What is known of it; nothing of a client's or a backend's text.
    """

    at_ms: int
    to: str
    facts: dict[str, Any]


class Journal:
    """The latest jobs."""

    def __init__(self) -> None:
        self._jobs: OrderedDict[str, list[Move]] = OrderedDict()

    def note(self, response_id: str, to: str, **facts: Any) -> None:
        """It happened now. Facts that are None are left out."""
        moves = self._jobs.get(response_id)
        if moves is None:
            moves = self._jobs[response_id] = []
            if len(self._jobs) > _JOBS_MAX:
                self._jobs.popitem(last=False)
        elif len(moves) >= _MOVES_MAX:
            del moves[_MOVES_MAX // 2]
        given = {name: value for name, value in facts.items() if value is not None}
        moves.append(Move(time.time_ns() // 1_000_000, to, given))

    def of(self, response_id: str) -> list[Move]:
        """What is remembered of a job, the earliest first."""
        return list(self._jobs.get(response_id, ()))

    def latest(self, response_id: str, name: str) -> Any:
        """The last known value of a fact."""
        moves = self._jobs.get(response_id, ())
        return next((move.facts[name] for move in reversed(moves) if name in move.facts), None)
