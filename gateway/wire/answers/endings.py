"""How a backend that speaks the Responses API ended: from its last event to one of our statuses.

The status inside the event decides, not the event's name: vLLM sends `response.completed` for incomplete
answers too. A word that is in no row is taken for an answer that was cut: its text is kept, and nobody takes
it for whole.
"""

from __future__ import annotations

from enum import StrEnum, auto
from typing import Any

_WORD_CHARS_MAX = 64


class Ending(StrEnum):
    """The meaning of a backend's ending."""

    COMPLETED = auto()
    INCOMPLETE = auto()
    FAILED = auto()
    CANCELLED = auto()


# The word: what it means, and who says it.
_WORDS: dict[str, tuple[Ending, str]] = {
    "completed": (Ending.COMPLETED, "all"),
    "requires_action": (Ending.COMPLETED, "Perplexity: a call waits for its client"),
    "done": (Ending.COMPLETED, "as the event's name: OpenAI's Realtime API, and gateways that follow it"),
    "incomplete": (Ending.INCOMPLETE, "all"),
    "failed": (Ending.FAILED, "all"),
    "error": (Ending.FAILED, "gateways that name it by the event"),
    "expired": (Ending.FAILED, "OpenAI's Assistants API, and who follows it"),
    "cancelled": (Ending.CANCELLED, "all"),
    "canceled": (Ending.CANCELLED, "xAI, gateways in Go"),
}

# The word: the reason that the specification has for it.
_REASONS = {
    "length": "max_output_tokens",  # OGX
    "max_tokens": "max_output_tokens",
    "model_length": "max_output_tokens",
    "max_completion_tokens": "max_output_tokens",
    "content_filtered": "content_filter",
    "safety": "content_filter",
}
_NO_ENDINGS = frozenset({"", "queued", "in_progress", "done"})
"""Statuses that say nothing: an engine that did not write its status anew means what it calls the event."""


def ending_of(event: dict[str, Any]) -> Ending:
    """The ending that a backend's last event means."""
    response = event.get("response")
    status = _status_of(response) if isinstance(response, dict) else ""
    word = str(event["type"]).removeprefix("response.") if status in _NO_ENDINGS else status
    return _WORDS[word][0] if word in _WORDS else Ending.INCOMPLETE


def incomplete_details(answer: dict[str, Any]) -> dict[str, Any]:
    """Why an answer is incomplete, in the specification's words. A reason that it does not have is kept, and
    so is a status of which nobody knows what it means."""
    details = answer.get("incomplete_details")
    details = details if isinstance(details, dict) else {}
    reason = details.get("reason")
    reason = reason if isinstance(reason, str) and reason else "max_output_tokens"
    status = _status_of(answer)
    own = {} if status in _WORDS or status in _NO_ENDINGS else {"status": status}
    return {**details, **own, "reason": _REASONS.get(reason, reason)}


def _status_of(response: dict[str, Any]) -> str:
    status = response.get("status")
    return status[:_WORD_CHARS_MAX] if isinstance(status, str) else ""
