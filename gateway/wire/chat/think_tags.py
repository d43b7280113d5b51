"""Thoughts that a server without a reasoning parser leaves in the text, between tags.

Tags are looked for where a model writes them: where a text begins, and where a line does. A tag within a line
is somebody's word about tags. Chunks may cut a tag anywhere: what could become one is held back until it is
clear.

Some templates put the opening tag into the prompt, so that only the closing one comes. What comes before it
was thought, which cannot be known until then: a text that does not begin with a tag is held back until its
closing tag comes, or the text ends, and is shown at once then. Most of a thought is held so, but nothing of
the answer after it; only an answer without any thought comes late.
"""

from __future__ import annotations

import re
from enum import Enum, auto

TAGS = {
    "<think>": "</think>",  # DeepSeek-R1, Qwen3, GLM, MiniMax and most others
    "<thinking>": "</thinking>",  # models that were told to by a prompt
    "<thought>": "</thought>",  # Gemini's chat API
    "[THINK]": "[/THINK]",  # Magistral
    "<seed:think>": "</seed:think>",  # Seed-OSS
    "◁think▷": "◁/think▷",  # Kimi-VL
}
"""Closing tags, by the opening one."""

HELD_CHARS_MAX = 262_144
"""Longest text that waits for its closing tag. A longer one is taken for text."""

_OPENING = re.compile("|".join(map(re.escape, TAGS)))
_CLOSING = re.compile("|".join(map(re.escape, TAGS.values())))
_TAGS = (*TAGS, *TAGS.values())
_TAG_CHARS_MAX = max(map(len, _TAGS))
_FIRST_CHARS = frozenset(tag[0] for tag in _TAGS)

MarkedText = tuple[bool, str]
"""A piece of text, and whether it was thought."""


class _State(Enum):
    HELD = auto()
    """It may all turn out to have been thought."""
    TEXT = auto()
    THOUGHT = auto()


class ThinkTags:
    """Tells thoughts from text in one answer.

    Args:
        may_close_alone: The opening tag may have been part of the prompt.
    """

    def __init__(self, *, may_close_alone: bool) -> None:
        self._state = _State.HELD if may_close_alone else _State.TEXT
        self._held: list[str] = []
        self._held_chars = 0
        self._tail = ""
        """Text that may begin a tag, or blanks before one."""
        self._is_at_start = True
        """Of a line, or of the text."""
        self._skips_blank = False
        self._is_marked = False
        """It is thought by a mark on the chunk, and not by a tag."""
        self._closing: re.Pattern[str] = _CLOSING

    def feed(self, text: str, *, is_marked: bool = False) -> list[MarkedText]:
        """What a piece of content says, as far as is clear.

        Args:
            is_marked: The chunk says that it is thought. Gemini writes a tag as well, in most cases, and
                marks a
                whole answer if some of it is thought.
        """
        said: list[MarkedText] = []
        if is_marked and self._state is not _State.THOUGHT and not self._may_open(text):
            self._begin_thought(_CLOSING)
            self._is_marked = True
        elif self._is_marked and not is_marked:
            said += self.end()
            text = _CLOSING.sub("", text, count=1) if _CLOSING.match(text) else text
        work, self._tail = self._tail + text, ""
        while work:
            work = self._step(work, said)
        return [(is_thought, piece) for is_thought, piece in said if piece]

    def _may_open(self, text: str) -> bool:
        start = (self._tail + text).lstrip()
        return any(tag.startswith(start[: len(tag)]) for tag in TAGS)

    def end(self) -> list[MarkedText]:
        """The rest at the end of the text. The next text begins anew."""
        rest, self._tail = "".join(self._held) + self._tail, ""
        is_thought = self._state is _State.THOUGHT
        self._state, self._held, self._held_chars = _State.TEXT, [], 0
        self._is_at_start, self._skips_blank, self._is_marked = True, False, False
        rest = rest.rstrip() if is_thought else rest
        return [(is_thought, rest)] if rest else []

    def _step(self, work: str, said: list[MarkedText]) -> str:
        """Take a part of what is at hand; the rest of it."""
        if self._skips_blank:
            work = work.lstrip()
            if not work:
                return ""
            self._skips_blank = False
        if self._state is _State.THOUGHT:
            return self._thought(work, said)
        opening = self._opening_in(work)
        closing = _CLOSING.search(work) if self._state is _State.HELD else None
        if opening is not None and (closing is None or opening.start() < closing.start()):
            self._text(work[: opening.start()], said)
            self._release(said)
            self._begin_thought(re.compile(re.escape(TAGS[opening[0]])))
            return work[opening.end() :]
        if closing is not None:
            thought = "".join(self._held) + work[: closing.start()]
            said.append((True, thought.strip()))
            self._held, self._held_chars = [], 0
            self._end_thought()
            return work[closing.end() :]
        kept = _unclear(work)
        self._text(work[: len(work) - kept], said)
        self._tail = work[len(work) - kept :]
        return ""

    def _opening_in(self, work: str) -> re.Match[str] | None:
        for found in _OPENING.finditer(work):
            _, newline, blank = work[: found.start()].rpartition("\n")
            if not blank.strip() and (newline or self._is_at_start):
                return found
        return None

    def _thought(self, work: str, said: list[MarkedText]) -> str:
        if (closing := self._closing.search(work)) is not None:
            said.append((True, work[: closing.start()].rstrip()))
            self._end_thought()
            return work[closing.end() :]
        kept = _unclear(work)
        clear = work[: len(work) - kept].rstrip()
        said.append((True, clear))
        self._tail = work[len(clear) :]
        return ""

    def _text(self, text: str, said: list[MarkedText]) -> None:
        if not text:
            return
        _, newline, blank = text.rpartition("\n")
        self._is_at_start = not blank.strip() and (bool(newline) or self._is_at_start)
        if self._state is not _State.HELD:
            said.append((False, text))
            return
        self._held.append(text)
        self._held_chars += len(text)
        if self._held_chars > HELD_CHARS_MAX:
            self._release(said)
            self._state = _State.TEXT

    def _release(self, said: list[MarkedText]) -> None:
        held, self._held, self._held_chars = "".join(self._held), [], 0
        # Blank space before a tag is no answer.
        said.append((False, "" if held.isspace() else held))

    def _begin_thought(self, closing: re.Pattern[str]) -> None:
        self._state, self._closing, self._skips_blank = _State.THOUGHT, closing, True

    def _end_thought(self) -> None:
        self._state, self._skips_blank, self._is_at_start = _State.TEXT, True, True
        self._is_marked = False


def _unclear(work: str) -> int:
    """How many characters at the end may be the beginning of a tag."""
    end = work[1 - _TAG_CHARS_MAX :]
    starts = [at for at, char in enumerate(end) if char in _FIRST_CHARS]
    return next((len(end) - at for at in starts if any(tag.startswith(end[at:]) for tag in _TAGS)), 0)
