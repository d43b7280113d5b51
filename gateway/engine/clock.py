"""The store's time: steady, whatever is done to the wall clock while the gateway runs."""

from __future__ import annotations

import time


class Clock:
    """Wall clock at the start, plus monotonic time since."""

    def __init__(self) -> None:
        self._offset_ms = time.time_ns() // 1_000_000 - time.monotonic_ns() // 1_000_000

    def now_ms(self) -> int:
        """Unix milliseconds."""
        return time.monotonic_ns() // 1_000_000 + self._offset_ms

    def now_s(self) -> int:
        """Unix seconds, as the API shows them."""
        return self.now_ms() // 1000
