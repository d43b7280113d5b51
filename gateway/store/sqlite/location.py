"""Whether the open files still lie where they did. What is written to one that was deleted, moved or replaced
is not there for the next process: nothing may be promised by it."""

from __future__ import annotations

import os
import time
from pathlib import Path

from gateway.store.sqlite.file import beside

_SUFFIXES = ("", "-wal", "-shm")


class FileLocation:
    """The database and its log, by path and by what lay there when they were opened.

    Paths are followed anew each time, so that a renamed directory, a changed link or another mount is noticed
    like a file that is gone.

    Args:
        within_s: How old the answer of `is_kept` may be.
    """

    def __init__(self, database: Path, within_s: float) -> None:
        self._paths = {suffix: beside(database.absolute(), suffix) for suffix in _SUFFIXES}
        self._within_s = within_s
        self._known: dict[str, tuple[int, int] | None] = {}
        self._looked_at_s = 0.0
        self._is_kept = True

    def settle(self) -> None:
        """Take the files that lie there now for the open ones."""
        self._known = {suffix: self._at(suffix) for suffix in _SUFFIXES}
        self._is_kept = True

    def lost(self) -> str | None:
        """What is not in its place: `database`, `-wal` or `-shm`."""
        lost = next((suffix for suffix in _SUFFIXES if self._at(suffix) != self._known[suffix]), None)
        self._is_kept, self._looked_at_s = lost is None, time.monotonic()
        return lost or ("database" if lost is not None else None)

    def is_kept(self) -> bool:
        """Whether all was in its place, at most `within_s` ago."""
        if time.monotonic() - self._looked_at_s >= self._within_s:
            self.lost()
        return self._is_kept

    def may_be_filled(self, *, is_deleted: bool) -> bool:
        """Whether the files may be written anew: the database is in its place still, or it was deleted and
        nothing of another's lies there.

        Args:
            is_deleted: The database has no name any more, here or elsewhere.
        """
        if self._at("") == self._known[""]:
            return True
        return is_deleted and all(
            self._at(suffix) == self._known[suffix] or not os.path.lexists(path)
            for suffix, path in self._paths.items()
        )

    def _at(self, suffix: str) -> tuple[int, int] | None:
        try:
            found = os.stat(self._paths[suffix])
        except OSError:  # gone; or it cannot be looked at, and nobody could open it either
            return None
        return found.st_dev, found.st_ino
