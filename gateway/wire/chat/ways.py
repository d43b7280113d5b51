"""How one chat backend wants the messages of a conversation: what its settings say, and what its refusals
and its answers have taught since."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, StrEnum, auto


class System(StrEnum):
    """Where system messages go that stand after the first turn."""

    AUTO = "auto"
    """In place until the backend refuses one there."""
    IN_PLACE = "in_place"
    FIRST = "first"
    """Into the one at the front."""
    USER = "user"
    """Into the first user message: the model's template knows no such role."""


class ThoughtReplay(Enum):
    """Which reasoning of earlier messages goes back."""

    NEVER = auto()
    OPEN_TURN = auto()
    """That of the tool turn which is under way. Templates leave out older thoughts themselves."""
    CALLS = auto()
    """That of every message with calls. Such a message without a thought gets a blank one."""
    ALL = auto()


@dataclass(frozen=True, slots=True)
class Ways:
    """What one chat backend accepts and requires.

    Attributes:
        has_developer_role: It knows the role `developer`; else such messages go as `system`.
        alternates: The messages of user and assistant must take turns.
        refuses_empty: No message may have an empty text.
        thoughts: Which go back, once it is known under which name.
        reasoning_field: Their name in a message; `content` means parts of the content, of type `thinking`.
        has_short_ids: Ids of calls are nine letters and digits.
        needs_signatures: The first call of a message must bring a thought signature.
        refused: Fields of messages that it does not take.
    """

    has_developer_role: bool = False
    system: System = System.AUTO
    alternates: bool = False
    refuses_empty: bool = False
    thoughts: ThoughtReplay = ThoughtReplay.OPEN_TURN
    reasoning_field: str | None = None
    has_short_ids: bool = False
    needs_signatures: bool = False
    refused: frozenset[str] = frozenset()
