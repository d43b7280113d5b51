"""The arguments of one call, put together from what engines send of them.

Most send pieces. Some send all of them anew with each piece, or once more at the end, or as an object, or as
JSON within JSON. What is shown is always the beginning of what they are in the end, where that can be had.
"""

from __future__ import annotations

from typing import Any

import orjson

_VALUE_MAY_FOLLOW = (":", ",", "[")


class Arguments:
    """The text so far."""

    def __init__(self) -> None:
        self._pieces: list[str] = []
        self._chars = 0
        self._repeats = False
        """Each piece has all of the earlier ones in it."""
        self._shown = 0
        self._first = self._last = ""

    def __bool__(self) -> bool:
        return bool(self._chars)

    def add(self, piece: str) -> str:
        """Take a piece; what can be shown now and could not before."""
        if not piece:
            return ""
        if not self._chars and "}{" in piece:
            piece = _once(piece) or piece
        self._first, self._last = self._first or piece, piece
        if self._chars and len(piece) >= self._chars and (known := self._whole_in(piece)) is not None:
            self._pieces, self._chars = [known], len(known)
        elif not self._is_repetition(piece):
            self._pieces.append(piece)
            self._chars += len(piece)
        return self._next()

    def text(self) -> str:
        if len(self._pieces) > 1:
            self._pieces = ["".join(self._pieces)]
        return self._pieces[0] if self._pieces else ""

    def is_whole(self) -> bool:
        """True if they are an object, with nothing after it."""
        last = self._pieces[-1].rstrip()[-1:] if self._pieces else ""
        return last in ("", "}") and isinstance(_parsed(self.text()), dict)

    def are(self, text: str) -> bool:
        """True if they say the same as a text."""
        return self.text() == text or (is_json(text) and _parsed(self.text()) == _parsed(text))

    def are_followed_by(self, piece: str) -> bool:
        """True if a piece begins other arguments, these being whole."""
        return (
            bool(piece.strip()) and self.is_whole() and not self.are(piece) and not self._is_repetition(piece)
        )

    def final(self) -> str:
        """The final arguments as JSON, mended where the meaning is clear."""
        text = self.text()
        value = _parsed(text)
        if isinstance(value, str) and isinstance(_parsed(value), dict):
            return value  # Granite on vLLM's hermes parser: JSON within JSON
        if value is None and text.strip() == "null":
            return "{}"  # a function without parameters
        if value is not _NOT_JSON:
            return text
        if self._last.startswith(self._first) and isinstance(_parsed(self._last), dict):
            return self._last  # all of it in each piece, and not seen in time
        return text

    # -- rules of repetition

    def _whole_in(self, piece: str) -> str | None:
        """All of the arguments, if a piece has the earlier ones in it once more."""
        text = self.text()
        if text.strip() == "{}" and piece.lstrip().startswith("{"):
            return piece  # Anthropic-like: an empty object holds the place until the first piece comes
        if not text.lstrip().startswith("{") or not piece.startswith(text):
            return None
        # DeepSeek on Qianfan, Vercel's gateway: all so far in each piece. GLM, opencodex: all of it again at
        # the end. But an object may have one in it that begins alike.
        if not self._repeats and text.rstrip().endswith(_VALUE_MAY_FOLLOW):
            return None
        self._repeats = True
        return piece

    def _is_repetition(self, piece: str) -> bool:
        """True if whole arguments are told once more, in another way of writing."""
        if self._repeats and self.text().startswith(piece):
            return True
        if piece.lstrip()[:1] not in ("{", '"'):
            return False
        value = _parsed(piece)
        value = _parsed(value) if isinstance(value, str) else value  # LiteLLM's last chunk
        return isinstance(value, dict) and self.is_whole() and bool(value == _parsed(self.text()))

    def _next(self) -> str:
        """What is not shown yet. Nothing is, until it is clear that it will stay: of what is no object, and
        of an empty one."""
        if not self._shown and (not self._begins_object() or self.text().strip() == "{}"):
            return ""
        if self._chars - self._shown == len(self._pieces[-1]):
            fresh = self._pieces[-1]
        else:
            fresh = self.text()[self._shown :]
        self._shown = self._chars
        return fresh

    def _begins_object(self) -> bool:
        return self.text().lstrip().startswith("{")


class _NotJson:
    pass


_NOT_JSON = _NotJson()


def _parsed(text: str) -> Any:
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        return _NOT_JSON


def is_json(text: str) -> bool:
    """True if a program can read it."""
    return _parsed(text) is not _NOT_JSON


def _once(text: str) -> str | None:
    """One copy of an object that was sent several times in a row (codex-lb); None if it was not."""
    for times in range(2, 9):
        size, rest = divmod(len(text), times)
        if not rest and text == text[:size] * times and isinstance(_parsed(text[:size]), dict):
            return text[:size]
    return None
