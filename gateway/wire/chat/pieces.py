"""The pieces that a chat answer is read as, whatever the names and shapes in which a backend says them."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from enum import Enum, auto
from typing import Any, NamedTuple

from gateway.wire.chat.known import unsaid


class PieceKind(Enum):
    """Kinds of pieces, in the order in which the pieces of one delta are sent."""

    THOUGHT = auto()
    THOUGHT_DATA = auto()
    """What belongs to a thought and is for the next turn: signatures, ciphertext. Its text, if that stands
    nowhere else."""
    TEXT = auto()
    MARKED_TEXT = auto()
    """Text of which the delta says that it is thought, at least in part."""
    REFUSAL = auto()
    IMAGE = auto()
    AUDIO = auto()
    SOURCE = auto()
    VENDOR = auto()
    """A vendor's own data, for the next turn."""
    CALL = auto()
    UNMAPPED = auto()


class Piece(NamedTuple):
    """One thing that was said.

    Attributes:
        name: Of an unmapped piece its place; of others, the field.
        data: What is no text: an image, a source, a call as chat completions have it.
    """

    kind: PieceKind
    text: str = ""
    name: str = ""
    data: Any = None


def unknown(value: Any, place: str) -> Iterator[Piece]:
    """A field that is in no table, if it has any content: one name, however much there is in it."""
    if next(unsaid(value, place), None) is not None:
        yield Piece(PieceKind.UNMAPPED, name=place)


def unmapped(value: Any, place: str, said: Collection[str] = ()) -> Iterator[Piece]:
    """The content of a value that no piece has said."""
    for found in unsaid(value, place, said):
        yield Piece(PieceKind.UNMAPPED, name=found)
