"""What an answer has said so far, for servers that say it again.

Some send a whole `message` after their deltas (MiniMax, at the end), or beside each (Perplexity); others send
`message` where a `delta` is due, with a piece in it, or with all so far. Of each only what is new is told.
"""

from __future__ import annotations

from gateway.wire.chat.pieces import PieceKind

TEXTS = (PieceKind.THOUGHT, PieceKind.TEXT, PieceKind.REFUSAL)


class Heard:
    """The texts of one answer, by their kind.

    Attributes:
        in_deltas: What came in deltas: of that, a message is the whole, and no piece.
    """

    def __init__(self) -> None:
        self.in_deltas: set[PieceKind] = set()
        self._pieces: dict[PieceKind, list[str]] = {}

    def add(self, kind: PieceKind, text: str) -> None:
        """One more piece."""
        self._pieces.setdefault(kind, []).append(text)

    def rest(self, kind: PieceKind, text: str, *, is_last: bool) -> str | None:
        """What is new in the text of a message; None if it says something else than the deltas did.

        Args:
            is_last: The message came with a finish reason.
        """
        known = "".join(self._pieces.get(kind, ()))
        if known:
            self._pieces[kind] = [known]
        has_deltas = bool(self.in_deltas)
        if text.startswith(known) and (has_deltas or is_last or len(text) > len(known)):
            return text[len(known) :]
        if not has_deltas:
            return text  # a piece
        return "" if known.strip().startswith(text.strip()) else None
