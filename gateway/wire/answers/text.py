"""A text that comes in pieces, and where a long one is kept."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Protocol


class Shelf(Protocol):
    """Keeps texts elsewhere than in memory."""

    def put(self, text: str) -> Callable[[], str] | None:
        """Take a text. Returns what gives it back; None if it cannot be kept."""


Sinks = tuple[Callable[[str], None], ...]
"""All that keep the pieces of one text."""

SHELVED_CHARS_MIN = 256 * 2**10
"""A shorter text stays in memory, in one piece."""


@dataclass(slots=True)
class Text:
    """A text that grows by deltas and is then done.

    Attributes:
        shelved: Its beginning, if that is on a shelf: functions that give the pieces.
        pieces: The rest, in memory; empty only if there is no text.
    """

    pieces: list[str] = field(default_factory=list)
    is_done: bool = False
    shelved: list[Callable[[], str]] = field(default_factory=list)

    def add(self, piece: str) -> None:
        """It goes on."""
        self.pieces.append(piece)

    def value(self) -> str:
        if self.shelved or len(self.pieces) > 1:
            self._becomes("".join(self._all()))
        return self.pieces[0] if self.pieces else ""

    def missing(self, full: str) -> str:
        """The delta that is missing to make up `full`."""
        end = 0
        for piece in self._all():
            if not full.startswith(piece, end):
                end = len(full)
                break
            end += len(piece)
        self._becomes(full)
        return full[end:]

    def shelve(self, shelf: Shelf) -> int:
        """Take less memory: many pieces make one, and a long one goes on the shelf. Returns bytes saved."""
        if len(self.pieces) < 2:
            return 0
        *most, last = self.pieces
        taken, text = sum(map(memory_of, most)), "".join(most)
        if len(text) < SHELVED_CHARS_MIN or (read := shelf.put(text)) is None:
            self.pieces = [text, last]
            return taken - memory_of(text)
        self.pieces = [last]
        self.shelved.append(read)
        return taken

    def _all(self) -> Iterator[str]:
        for read in self.shelved:
            yield read()
        yield from self.pieces

    def _becomes(self, text: str) -> None:
        self.pieces, self.shelved = [text], []


def memory_of(text: str) -> int:
    """Bytes that it takes in a list: one of a few letters takes fifty more than these."""
    return text.__sizeof__() + 8
