"""What belongs to a thought besides its words: signatures and ciphertext, which backends want back unchanged.

OpenRouter and MiniMax stream `reasoning_details`, LiteLLM `thinking_blocks`. Their pieces are put together to
what a whole message would have, and kept on the reasoning item under the backend's own name.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from gateway.wire.chat.fields import kept
from gateway.wire.chat.known import has_text

_GROWING = ("text", "summary", "thinking")
_PLACE = ("type", "index")
_ENDS = ("signature", "data")
"""A signature stands at the end of what it signs; ciphertext comes whole."""
_DULL = frozenset({*_GROWING, *_PLACE, "id", "format"})


@dataclass(slots=True)
class _Entry:
    """One detail, with the pieces of its texts."""

    fields: dict[str, Any]
    texts: dict[str, list[str]]

    def goes_on_with(self, fields: dict[str, Any]) -> bool:
        is_alike = all(self.fields.get(name) == fields[name] for name in _PLACE if name in fields)
        return is_alike and not any(self.fields.get(name) for name in _ENDS)

    def add(self, fields: dict[str, Any]) -> None:
        for name, value in fields.items():
            if name in _GROWING and isinstance(value, str):
                self.texts.setdefault(name, []).append(value)
            else:
                self.fields[name] = value

    def shown(self) -> dict[str, Any]:
        return self.fields | {name: "".join(pieces) for name, pieces in self.texts.items()}


class ReasoningDetails:
    """Those of one reasoning item."""

    def __init__(self) -> None:
        self._entries: dict[str, list[_Entry]] = {}
        self._are_all = False

    def add(self, name: str, entries: list[Any], *, are_all: bool) -> None:
        """Take what a chunk has under a name.

        Args:
            are_all: The words came in no other field, and would go back in this one.
        """
        self._are_all = self._are_all or are_all
        known = self._entries.setdefault(name, [])
        for entry in entries:
            if isinstance(entry, dict) and (fields := kept(entry)):
                if not known or not known[-1].goes_on_with(fields):
                    known.append(_Entry({}, {}))
                known[-1].add(fields)

    def are_needed(self) -> bool:
        """True if they say more than the words of the thought, which are kept anyway."""
        others = [
            value
            for entries in self._entries.values()
            for entry in entries
            for name, value in entry.fields.items()
            if name not in _DULL
        ]
        return self._are_all or has_text(others)

    def shown(self) -> dict[str, Any]:
        """The fields of the item."""
        if not self.are_needed():
            return {}
        return {
            name: [entry.shown() for entry in entries] for name, entries in self._entries.items() if entries
        }
