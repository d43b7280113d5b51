"""The way of log lines out of the process: a thread writes them, so that nobody else waits for their reader.

Whoever reads them may be slow, hung or gone. A bounded number of bytes waits for it; lines beyond that are
dropped, counted, and told of in a line of their own as soon as there is a reader again.
"""

from __future__ import annotations

import os
import select
import threading
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import Final

_BATCH_BYTES: Final = 16 * 2**10
"""Bytes written at once, and held beyond the bound."""

_LOOK_MS: Final = 1000
"""Pause while the reader of a non-blocking pipe catches up."""


class LogPipe:
    """Lines on their way to a file descriptor.

    `put` is for one thread at a time. Each count has one thread that changes it, and so needs no lock.

    Args:
        waiting_bytes_max: Of lines that the thread has not taken yet.
        say: Makes the line that so many were dropped.
    """

    def __init__(self, descriptor: int, *, waiting_bytes_max: int, say: Callable[[int], bytes]) -> None:
        self._descriptor = descriptor
        self._waiting_bytes_max = waiting_bytes_max
        self._say = say
        self._lines: SimpleQueue[bytes | threading.Event] = SimpleQueue()
        self._put_bytes = self._taken_bytes = 0
        self._refused = self._lost = self._told = 0
        self._is_closed = False
        threading.Thread(target=self._run, name="log", daemon=True).start()

    @property
    def dropped(self) -> int:
        """The number of dropped lines."""
        return self._refused + self._lost

    def put(self, line: bytes) -> None:
        """Have a line written, or count it as dropped; returns at once."""
        if self._put_bytes - self._taken_bytes + len(line) > self._waiting_bytes_max:
            self._refused += 1
            return
        self._put_bytes += len(line)
        self._lines.put(line)

    def flush(self, timeout_s: float) -> None:
        """Wait until what was put is written, but no longer than this."""
        written = threading.Event()
        self._lines.put(written)
        written.wait(timeout_s)

    def close(self) -> None:
        """Let the thread end once all is written; whoever wants to wait for that flushes first."""
        self._is_closed = True
        self._lines.put(threading.Event())

    # -- the thread

    def _run(self) -> None:
        while not (self._is_closed and self._lines.empty()):
            batch, mark = self._next_batch()
            if batch and not self._write(b"".join(batch)):
                self._lost += len(batch)
            news = self.dropped - self._told
            if news and self._lines.empty() and self._write(self._say(news)):
                self._told += news
            if mark is not None:
                mark.set()

    def _next_batch(self) -> tuple[list[bytes], threading.Event | None]:
        """The next lines, up to a mark or to some size. One at least, or a mark."""
        batch: list[bytes] = []
        size = 0
        item = self._lines.get()
        while not isinstance(item, threading.Event):
            batch.append(item)
            size += len(item)
            self._taken_bytes += len(item)
            if size >= _BATCH_BYTES:
                return batch, None
            try:
                item = self._lines.get_nowait()
            except Empty:
                return batch, None
        return batch, item

    def _write(self, lines: bytes) -> bool:
        """False if there is nobody to read them."""
        left = memoryview(lines)
        while left:
            try:
                left = left[os.write(self._descriptor, left) :]
            except BlockingIOError:  # somebody who shares the pipe has made it so
                poll = select.poll()
                poll.register(self._descriptor, select.POLLOUT)
                poll.poll(_LOOK_MS)
            except OSError:
                return False
        return True
