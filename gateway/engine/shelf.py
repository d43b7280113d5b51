"""Where a run puts what it has received and need not have at hand: a file without a name, which is gone with
the run, and with the process however that ends."""

from __future__ import annotations

import functools
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import IO


class FileShelf:
    """The `Shelf` of one run. There is no file until something is put into it. It must be closed.

    Args:
        directory: The one of the database: what lies there may have prompts and answers in it.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._file: IO[bytes] | None = None
        self._size = 0

    def put(self, text: str) -> Callable[[], str] | None:
        encoded = text.encode("utf-8", "surrogatepass")
        try:
            if self._file is None:
                self._file = tempfile.TemporaryFile(dir=self._directory, buffering=0)  # noqa: SIM115  (see close)
            if os.pwrite(self._file.fileno(), encoded, self._size) < len(encoded):
                return None
        except OSError:  # no room, or no directory any more: it stays in memory
            return None
        read = functools.partial(self._read, self._file.fileno(), self._size, len(encoded))
        self._size += len(encoded)
        return read

    @staticmethod
    def _read(descriptor: int, start: int, size: int) -> str:
        return os.pread(descriptor, size, start).decode("utf-8", "surrogatepass")

    def close(self) -> None:
        """Nothing of it can be read any more."""
        if self._file is not None:
            self._file.close()
