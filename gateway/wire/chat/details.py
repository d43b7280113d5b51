"""What belongs to a thought besides its words: signatures and ciphertext, which backends want back as they
were.

OpenRouter and MiniMax stream `reasoning_details`, LiteLLM `thinking_blocks`. Their pieces are put together to
what a whole message would have, and kept on the reasoning item under the backend's own name.
"""

from __future__ import annotations

from typing import Any

from gateway.wire.chat.fields import kept

_GROWING = ("text", "summary", "thinking")
_NEEDED = ("signature", "data")
"""A signature stands at the end of what it signs."""


class Details:
    """Those of one reasoning item."""

    def __init__(self) -> None:
        self._entries: dict[str, list[dict[str, Any]]] = {}
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
                if known and _goes_on(known[-1], fields):
                    known[-1] = _joined(known[-1], fields)
                else:
                    known.append(fields)

    def are_needed(self) -> bool:
        """Whether they say more than the words of the thought, which are kept anyway."""
        return self._are_all or any(
            entry.get(name) for each in self._entries.values() for entry in each for name in _NEEDED
        )

    def join(self, later: Details) -> None:
        """Take those that came later."""
        for name, entries in later._entries.items():
            self.add(name, entries, are_all=later._are_all)

    def shown(self) -> dict[str, Any]:
        """The fields of the item."""
        return {name: each for name, each in self._entries.items() if each} if self.are_needed() else {}


def _goes_on(last: dict[str, Any], entry: dict[str, Any]) -> bool:
    is_alike = all(last.get(name) == entry.get(name) for name in ("type", "index") if name in entry)
    return is_alike and not any(last.get(name) for name in _NEEDED)


def _joined(last: dict[str, Any], entry: dict[str, Any]) -> dict[str, Any]:
    grown = {
        name: last[name] + entry[name]
        for name in _GROWING
        if isinstance(last.get(name), str) and isinstance(entry.get(name), str)
    }
    return {**last, **entry, **grown}
