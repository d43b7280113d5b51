"""What a reader met that the operator should know of, and a client need not: no log, no counter, only a
value.

The engine tells it to the observer when the answer has ended.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

NOTICES_MAX = 64
"""Per answer, so that a backend that makes up names cannot fill the memory."""


class Notable(StrEnum):
    """Kinds of notices."""

    UNMAPPED_FIELD = "unmapped_field"
    """A field had content for which a response has no place."""
    NO_FINISH_REASON = "no_finish_reason"
    """The backend said that it was done, and never why."""
    UNKNOWN_FINISH_REASON = "unknown_finish_reason"
    """It ended with a word that is in no table."""


@dataclass(frozen=True, slots=True)
class Notice:
    """One thing that was met.

    Attributes:
        name: The field's place, as in `delta.audio.format`, or the backend's word. As it was sent: whoever
            shows it makes it fit.
    """

    what: Notable
    name: str = ""
