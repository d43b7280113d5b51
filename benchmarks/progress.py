"""One line on a terminal that says what is measured just now; on anything else, a line for each figure."""

from __future__ import annotations

import sys
import time

_WIDTH = 110


class Progress:
    """How far a run has come."""

    def __init__(self) -> None:
        self._is_terminal = sys.stderr.isatty()
        self._started = time.monotonic()
        self._heading = ""

    def begin(self, heading: str) -> None:
        """A figure begins."""
        self._heading = heading
        if not self._is_terminal:
            print(f"[{self._passed()}] {heading}", file=sys.stderr, flush=True)

    def tell(self, what: str) -> None:
        """What is under way."""
        if self._is_terminal:
            line = f"[{self._passed()}] {self._heading}: {what}"
            sys.stderr.write(f"\r\x1b[K{line[:_WIDTH]}")
            sys.stderr.flush()

    def clear(self) -> None:
        """Make room for other output."""
        if self._is_terminal:
            sys.stderr.write("\r\x1b[K")

    def _passed(self) -> str:
        passed = int(time.monotonic() - self._started)
        return f"{passed // 60}:{passed % 60:02}"
