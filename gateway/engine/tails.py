"""The latest events of watched responses, in memory: readers that keep up need no store.

Whoever has fallen behind a tail, or whose tail had to make room for others, reads from the store; so these
bytes can be thrown away at any time.
"""

from __future__ import annotations

from collections import deque

from gateway.store.port import Page
from gateway.wire.sse import split_frames


class Tail:
    """The last committed events of one response, in the blocks in which they were committed.

    Attributes:
        size: In bytes.
    """

    def __init__(self) -> None:
        self._blocks: deque[tuple[int, Page]] = deque()
        self.size = 0

    @property
    def end(self) -> int:
        """Number of the last event."""
        return self._blocks[-1][1].last_seq

    def add(self, first_seq: int, page: Page, bytes_max: int) -> None:
        if self._blocks and first_seq != self._blocks[-1][1].last_seq + 1:
            # There are some that nobody here was told of.
            self._blocks.clear()
            self.size = 0
        self._blocks.append((first_seq, page))
        self.size += len(page.events)
        while self.size > bytes_max and len(self._blocks) > 1:
            self.size -= len(self._blocks.popleft()[1].events)

    def after(self, cursor: int, bytes_max: int) -> Page | None:
        """What follows the cursor, in about so many bytes; None if it is not here."""
        if not self._blocks or cursor + 1 < self._blocks[0][0] or cursor > self._blocks[-1][1].last_seq:
            return None
        wanted: list[tuple[int, Page]] = []
        for block in reversed(self._blocks):  # most readers want the last one only
            if block[1].last_seq <= cursor:
                break
            wanted.append(block)
        if not wanted:
            return Page(b"", cursor, self._blocks[-1][1].is_end)
        pieces: list[bytes] = []
        size, last = 0, wanted[-1][1]
        for first_seq, page in reversed(wanted):
            events = page.events
            if first_seq <= cursor:  # the cursor is inside
                events = b"".join(split_frames(events)[cursor + 1 - first_seq :])
            if pieces and size + len(events) > bytes_max:
                break
            pieces.append(events)
            size += len(events)
            last = page
        return Page(b"".join(pieces), last.last_seq, last.is_end)


class Tails:
    """The tails of all watched responses.

    Args:
        each_bytes_max: Of one tail; its last block stays even if it is larger.
        all_bytes_max: Of all together: beyond it those go first that have been quiet for longest.
    """

    def __init__(self, *, each_bytes_max: int, all_bytes_max: int) -> None:
        self._each_bytes_max = each_bytes_max
        self._all_bytes_max = all_bytes_max
        self._tails: dict[str, Tail] = {}  # the one that grew last comes last
        self.size = 0

    def add(self, response_id: str, first_seq: int, page: Page) -> None:
        """Events were committed; in order."""
        tail = self._tails.pop(response_id, None) or Tail()
        self._tails[response_id] = tail
        self.size -= tail.size
        tail.add(first_seq, page, self._each_bytes_max)
        self.size += tail.size
        while self.size > self._all_bytes_max:
            self.drop(next(iter(self._tails)))

    def after(self, response_id: str, cursor: int, bytes_max: int) -> Page | None:
        """As `Tail.after`."""
        tail = self._tails.get(response_id)
        return None if tail is None else tail.after(cursor, bytes_max)

    def end(self, response_id: str) -> int | None:
        """Number of the last event that is here; None if none is."""
        tail = self._tails.get(response_id)
        return None if tail is None else tail.end

    def drop(self, response_id: str) -> None:
        if (tail := self._tails.pop(response_id, None)) is not None:
            self.size -= tail.size
