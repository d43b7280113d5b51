"""The database file and its lock: one process per file, and readable by its owner only."""

from __future__ import annotations

import fcntl
import os
import stat
from pathlib import Path


class DatabaseInUse(Exception):
    """Another process has the file."""


class DatabaseRefused(Exception):
    """The file must not be used as it is."""


class DatabaseLock:
    """An exclusive lock beside the database, held until the process ends.

    A lock file and not SQLite's exclusive mode: that would shut our own readers out.

    Raises:
        DatabaseInUse: Names the other process.
        DatabaseRefused: Wrong kind of file, owner or mode.
    """

    def __init__(self, database: Path) -> None:
        database.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        path = database.with_name(database.name + ".lock")
        self._descriptor = _open_private(path)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            holder = os.read(self._descriptor, 32).decode("ascii", "replace").strip()
            os.close(self._descriptor)
            raise DatabaseInUse(f"{database} is in use by process {holder or '?'}") from None
        os.ftruncate(self._descriptor, 0)
        os.pwrite(self._descriptor, f"{os.getpid()}\n".encode(), 0)
        try:
            os.close(_open_private(database))  # before SQLite opens it, so that -wal and -shm inherit 0600
        except BaseException:
            self.release()
            raise

    def release(self) -> None:
        """Let the next process have it."""
        os.close(self._descriptor)


def _open_private(path: Path) -> int:
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise DatabaseRefused(f"{path}: {error.strerror} (symbolic links are not followed)") from None
    state = os.fstat(descriptor)
    problem = None
    if not stat.S_ISREG(state.st_mode):
        problem = "is not a regular file"
    elif state.st_nlink > 1:
        problem = "has more than one hard link"
    elif state.st_uid != os.geteuid():
        problem = f"belongs to user {state.st_uid}, not to {os.geteuid()}"
    elif stat.S_IMODE(state.st_mode) & 0o077:
        problem = f"has mode {stat.S_IMODE(state.st_mode):04o}; it holds prompts and answers, make it 0600"
    if problem:
        os.close(descriptor)
        raise DatabaseRefused(f"{path} {problem}")
    return descriptor
