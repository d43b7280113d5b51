"""Room that is kept back on the volume, so that something can still be deleted when it is full.

Deleting writes: the log grows before the file shrinks. The room is given up only for as long as a sweep holds
the writing connection, so that nobody else can take it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from gateway.config import StoreSettings
from gateway.store.refused import DatabaseRefused
from gateway.store.sqlite.file import beside, open_private

_SHARE = 8
"""The ballast takes at most one eighth of the quota, and of the volume."""


class Ballast:
    """A file of zeros beside the database."""

    def __init__(self, settings: StoreSettings) -> None:
        self._path = beside(settings.database, ".ballast")
        volume = os.statvfs(self._path.absolute().parent)
        volume_bytes = volume.f_blocks * volume.f_frsize
        self._bytes = min(
            settings.ballast_bytes, settings.database_bytes_max // _SHARE, volume_bytes // _SHARE
        )

    @property
    def is_whole(self) -> bool:
        """It is there, or there is to be none."""
        return self.size == self._bytes

    @property
    def size(self) -> int:
        """Bytes that it takes at present."""
        return self._path.stat().st_size if self._path.exists() else 0

    def make(self) -> bool:
        """Take the room, if there is so much. Returns whether it is taken."""
        if self.is_whole:
            return True
        try:
            descriptor = open_private(self._path)
        except DatabaseRefused:  # no room for a name, or somebody put something else there
            return False
        try:
            os.ftruncate(descriptor, 0)
            if self._bytes:
                os.posix_fallocate(descriptor, 0, self._bytes)
        except OSError:
            os.ftruncate(descriptor, 0)  # a part of it would only be in the way
        finally:
            os.close(descriptor)
        return self.is_whole

    def give_up(self) -> None:
        """Make room. `make` takes it back."""
        if self._path.exists():
            os.truncate(self._path, 0)

    @contextmanager
    def lent(self) -> Iterator[None]:
        """Without it, for as long as the block runs."""
        self.give_up()
        try:
            yield
        finally:
            self.make()
