"""Words that are found again wherever they come to, also encoded, and in parts of a page."""

from __future__ import annotations

import base64
import re
import secrets
from collections.abc import Iterator


class Canaries:
    """Words with a mark of their own in common.

    Attributes:
        places: By the word, what was written with it.
    """

    def __init__(self, mark: str) -> None:
        self._mark = mark.encode()
        self.places: dict[str, str] = {}
        self._needles = list(_encodings(self._mark))
        self._whole = re.compile(self._mark + rb"[0-9a-f]{12}")
        for shift in range(3):  # the search finds what it is for
            padded = b"x" * shift + self._mark + b"yy"
            for text in (padded, padded.hex().encode(), base64.b64encode(padded)):
                assert self.found_in(text), text

    def new(self, place: str) -> str:
        """A word that was never seen before."""
        word = f"{self._mark.decode()}{secrets.token_hex(6)}"
        self.places[word] = place
        return word

    def many(self, place: str, size: int) -> str:
        """So many bytes of one word, with blanks."""
        word = self.new(place)
        return " ".join([word] * (size // (len(word) + 1) + 1))

    def found_in(self, content: bytes) -> set[str]:
        """Where the words come from that are in it."""
        found = {how for how, needle in self._needles if needle in content}
        words = {word.decode() for word in re.findall(self._whole, content)}
        return {self.places.get(word, word) for word in words} or found


def _encodings(mark: bytes) -> Iterator[tuple[str, bytes]]:
    yield "a part, as it is", mark
    yield "in hex", mark.hex().encode()
    yield "in hex", mark.hex().upper().encode()
    for shift in range(3):  # what stands before it shifts the bits; its ends depend on what is beside it
        encoded = base64.b64encode(b"x" * shift + mark)
        inner = encoded[4 if shift else 0 : len(encoded) // 4 * 4 - 4]
        yield "in base64", inner
        yield "in base64", inner.replace(b"+", b"-").replace(b"/", b"_")
