"""The database file and what lies beside it: one process per file, and readable by its owner only."""

from __future__ import annotations

import fcntl
import os
import stat
import time
from contextlib import suppress
from enum import StrEnum
from pathlib import Path

from gateway.store.refused import DatabaseDamaged, DatabaseInUse, DatabaseRefused

_HEADER_BYTES = 100
_CONTENT = ("", "-wal", "-journal")
"""Files in which something is stored."""


class FileCondition(StrEnum):
    """What is remembered of a file beside it, since one that is damaged or empty cannot tell."""

    NOTHING = ""
    MAKING = "making"
    """It is new, and nothing is in it yet."""
    OURS = "ours"
    DAMAGED = "damaged"
    """Ours, and found to be damaged while it was in use: the next start checks it, whatever its size."""


class DatabaseLock:
    """An exclusive lock beside the database, and one on the file itself, held until the process ends.

    A lock file and not SQLite's exclusive mode: that would shut our own readers out. It says who has the
    database and what is known of it, and is there before that is. The lock on the database holds also if
    somebody has tidied the lock file away. It is one of flock(2), which leaves SQLite's own alone.

    Raises:
        DatabaseInUse: Names the other process.
        DatabaseRefused: Wrong kind of file, owner or mode.
    """

    def __init__(self, database: Path) -> None:
        self._database = database
        self._held: list[int] = []
        self._descriptor = open_private(beside(database, ".lock"))
        pid, _, known = os.pread(self._descriptor, 64, 0).decode("ascii", "replace").partition("\n")
        if not _locks(self._descriptor):
            os.close(self._descriptor)
            raise DatabaseInUse(f"{database} is in use by process {pid or '?'}")
        self.known = (
            FileCondition(known.strip()) if known.strip() in set(FileCondition) else FileCondition.NOTHING
        )
        self.remember(self.known)

    def hold(self, path: Path) -> None:
        """Lock the database itself, before SQLite opens it.

        Args:
            path: Where the file is at present.

        Raises:
            DatabaseInUse: Another process has it, though not the lock file.
        """
        descriptor = open_private(path)
        if not _locks(descriptor):
            os.close(descriptor)
            raise DatabaseInUse(f"{self._database} is in use by another process, whose lock file was removed")
        self._held.append(descriptor)

    def let_go_of_earlier(self) -> None:
        """Unlock earlier databases. SQLite must have closed them: closing any descriptor of a file drops its
        locks."""
        while len(self._held) > 1:
            os.close(self._held.pop(0))

    def let_go_of_the_last(self) -> None:
        """Of the database that was locked last."""
        os.close(self._held.pop())

    @property
    def is_database_deleted(self) -> bool:
        """Whether the file has lost its last name, and is gone when it is closed."""
        return os.fstat(self._held[-1]).st_nlink == 0

    def renew(self) -> None:
        """Make the lock file again, if somebody has removed it. Raises: OSError, DatabaseRefused."""
        path = beside(self._database, ".lock")
        if path.exists() and os.path.samestat(path.stat(), os.fstat(self._descriptor)):
            return
        descriptor = open_private(path)
        if not _locks(descriptor):  # it is another one's, who will find the database locked
            os.close(descriptor)
            return
        os.close(self._descriptor)
        self._descriptor = descriptor
        self.remember(self.known)

    def remember(self, known: FileCondition) -> None:
        """Write it down for the next start."""
        self.known = known
        content = f"{os.getpid()}\n{known}\n".encode()
        os.pwrite(self._descriptor, content, 0)
        os.ftruncate(self._descriptor, len(content))
        os.fsync(self._descriptor)

    def release(self) -> None:
        """Let the next process have it."""
        for descriptor in (*self._held, self._descriptor):
            os.close(descriptor)


def _locks(descriptor: int) -> bool:
    """Whether nobody else has a lock on a file; now we have."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def beside(database: Path, suffix: str) -> Path:
    """A file that belongs to the database: `.lock`, `.ballast`, SQLite's `-wal`, `-shm` and `-journal`."""
    return database.with_name(database.name + suffix)


def make_file(database: Path, lock: DatabaseLock) -> None:
    """Make the file, if there is none: before SQLite does, so that its log inherits the mode 0600. Lock it.

    Raises:
        DatabaseInUse: Another process has it.
        DatabaseRefused: It, or one of the files beside it, is not ours alone.
        DatabaseDamaged: It is gone or as good as empty, and was not.
    """
    is_there = os.path.lexists(database)
    if is_there:
        os.close(open_private(database))
    for suffix in ("-wal", "-shm", "-journal", ".ballast"):
        if os.path.lexists(beside(database, suffix)):
            os.close(open_private(beside(database, suffix)))
    beside(database, ".restored").unlink(missing_ok=True)  # of a process that died as it wrote it
    size = database.stat().st_size if is_there else 0
    if size >= _HEADER_BYTES:
        lock.hold(database)
        return
    if is_there and lock.known in (FileCondition.OURS, FileCondition.DAMAGED):
        raise DatabaseDamaged(f"{database} is empty, though it has been in use")
    if size:  # SQLite takes a file of one byte for an empty one
        raise DatabaseRefused(f"{database} cannot be used: it is no database")
    if _size(beside(database, "-wal")):  # SQLite would delete it
        raise DatabaseDamaged(f"{database} is {'empty' if is_there else 'missing'}, and its log is there")
    lock.remember(FileCondition.MAKING)
    lock.hold(database)
    sync_directory(database)


def set_aside(database: Path) -> Path:
    """Rename what is left of a database and its logs, so that a new one can be made. Returns the new name."""
    at = time.strftime(".corrupt-%Y%m%dT%H%M%SZ", time.gmtime())
    aside, number = beside(database, at), 1
    while any(os.path.lexists(beside(aside, suffix)) for suffix in _CONTENT):
        number += 1
        aside = beside(database, f"{at}-{number}")
    for suffix in _CONTENT:
        with suppress(FileNotFoundError):
            beside(database, suffix).rename(beside(aside, suffix))
    beside(database, "-shm").unlink(missing_ok=True)
    sync_directory(database)
    return aside


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def sync_directory(database: Path) -> None:
    """Let new names survive a power cut. SQLite does it for the files that it makes itself."""
    descriptor = os.open(database.absolute().parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def open_private(path: Path) -> int:
    """A descriptor of a file that is ours alone, made if there is none. Raises: DatabaseRefused."""
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
