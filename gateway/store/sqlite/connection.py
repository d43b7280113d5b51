"""What is done on a raw connection: how it is set up, what it refuses, and what keeps a file in order."""

from __future__ import annotations

import hashlib
import secrets
import sqlite3
from pathlib import Path

from gateway.config import StoreSettings
from gateway.store.refused import DatabaseDamaged, DatabaseRefused, DatabaseUnreachable
from gateway.store.sqlite import schema
from gateway.store.sqlite.file import FileCondition
from gateway.store.sqlite.health import State, primary_code, state_after
from gateway.store.sqlite.queries import QUERIES, TALLY

_APPLICATION_ID = 0x6275726E  # "burn": a file that is not ours is never touched
_PAGE_BYTES = 4096
_VACUUM_PAGES = 200
_FREE_SHARE_MAX = 0.25
"""Share of free pages up to which they stay in the file: they are the first to be reused."""
_CHECKPOINT_BUSY_MS = 20
"""Milliseconds for which a checkpoint waits for reads. These are short, but every write waits with it."""


def prepare_writer(raw: sqlite3.Connection, settings: StoreSettings, known: FileCondition) -> None:
    """Settings of the writing connection, and the schema if the file is being made.

    Raises:
        DatabaseRefused: It is not ours, or of another version.
        sqlite3.Error: See `refused`.
    """
    path = settings.database
    raw.row_factory = sqlite3.Row
    is_new = known is FileCondition.MAKING and _has_no_tables(raw)
    if is_new:
        raw.execute("PRAGMA auto_vacuum = INCREMENTAL")  # only takes hold before the first table
    else:
        _require_ours(raw, path, known)  # first: the settings below write to the file
    if raw.execute("PRAGMA journal_mode = WAL").fetchone()[0] != "wal":
        raise DatabaseRefused(f"{path} lies where SQLite can keep no write-ahead log")
    raw.execute(f"PRAGMA synchronous = {'FULL' if settings.durability == 'disk' else 'NORMAL'}")
    raw.execute("PRAGMA foreign_keys = ON")
    raw.execute("PRAGMA secure_delete = ON")
    raw.execute("PRAGMA temp_store = MEMORY")
    raw.execute("PRAGMA trusted_schema = OFF")
    raw.execute("PRAGMA cell_size_check = ON")
    raw.execute("PRAGMA mmap_size = 0")
    raw.execute("PRAGMA wal_autocheckpoint = 1000")
    raw.execute(f"PRAGMA journal_size_limit = {settings.wal_truncate_bytes}")
    raw.execute(f"PRAGMA max_page_count = {_quota_pages(settings)}")
    if is_new:
        _create(raw)
    raw.executescript(TALLY)


def pepper_of(raw: sqlite3.Connection) -> bytes:
    """Random bytes that the file was made with.

    Raises:
        ValueError: They are others now, and every response would belong to nobody.
    """
    pepper = _meta(raw, "pepper")
    if pepper is None or _meta(raw, "pepper_digest") != hashlib.sha256(pepper).digest():
        raise ValueError("the key by which it knows its tenants is not what it was")
    return pepper


def _has_no_tables(raw: sqlite3.Connection) -> bool:
    return bool(raw.execute("PRAGMA schema_version").fetchone()[0] == 0)


def _require_ours(
    raw: sqlite3.Connection, path: Path, known: FileCondition, *, may_be_older: bool = False
) -> None:
    if known in (FileCondition.OURS, FileCondition.DAMAGED) and _has_no_tables(raw):
        raise DatabaseDamaged(f"{path} is empty, though it has been in use")
    if raw.execute("PRAGMA application_id").fetchone()[0] != _APPLICATION_ID:
        raise DatabaseRefused(f"{path} is a SQLite file of some other program")
    found, ours = schema_number(raw), schema.CURRENT.number
    if found > ours:
        raise DatabaseRefused(
            f"{path} was made or upgraded by a newer version of this program (schema {found}; this one knows "
            f"{ours}); run that version, restore the backup from before the upgrade, or give another file"
        )
    if may_be_older and 0 < found < ours:
        return
    if found != ours or _meta(raw, "schema") != schema.CURRENT.digest:
        raise _unreleased(path)


def _unreleased(path: Path) -> DatabaseRefused:
    return DatabaseRefused(
        f"{path} was made by an unreleased version of this program, whose tables were others; "
        "run that version, or give another file"
    )


def schema_number(raw: sqlite3.Connection) -> int:
    """The number of the file's tables: see `schema`."""
    return int(raw.execute("PRAGMA user_version").fetchone()[0])


def _meta(raw: sqlite3.Connection, key: str) -> bytes | None:
    row = raw.execute(QUERIES["get_meta"], {"key": key}).fetchone()
    return None if row is None else bytes(row[0])


def _create(raw: sqlite3.Connection) -> None:
    """All in one transaction, and at once in the file itself: without its log it must not look new."""
    marks = f"PRAGMA application_id = {_APPLICATION_ID};PRAGMA user_version = {schema.CURRENT.number};"
    raw.executescript(f"BEGIN IMMEDIATE;{schema.CURRENT.text};{marks}")
    pepper = secrets.token_bytes(32)
    digests = {"pepper_digest": hashlib.sha256(pepper).digest(), "schema": schema.CURRENT.digest}
    for key, value in ({"pepper": pepper} | digests).items():
        raw.execute(QUERIES["put_meta"], {"key": key, "value": value})
    raw.execute("COMMIT")
    raw.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def migrate(raw: sqlite3.Connection, path: Path) -> None:
    """Bring a file of an earlier release up to the tables of this one: all steps in one transaction, or none.

    Raises:
        DatabaseRefused: It would not have our tables even then; nothing was written.
        sqlite3.Error: See `refused`; nothing was written.
    """
    raw.execute("PRAGMA foreign_keys = OFF")  # a table may have to be made anew; checked at the end
    raw.execute("PRAGMA secure_delete = ON")
    steps = schema.CURRENT.steps_from(schema_number(raw))
    try:
        raw.executescript(f"BEGIN IMMEDIATE;{steps};PRAGMA user_version = {schema.CURRENT.number};")
        raw.execute(QUERIES["put_meta"], {"key": "schema", "value": schema.CURRENT.digest})
        is_ours = schema.parts_of(raw) == schema.CURRENT.parts
        if not is_ours or raw.execute("PRAGMA foreign_key_check").fetchone() is not None:
            raise _unreleased(path)
        raw.execute("COMMIT")
    finally:
        if raw.in_transaction:
            raw.execute("ROLLBACK")


def prepare_reader(raw: sqlite3.Connection, path: Path, known: FileCondition) -> None:
    """Settings of a reading connection, which changes nothing.

    Raises:
        DatabaseRefused: The file is not ours, or of another version.
        sqlite3.Error: See `refused`.
    """
    raw.row_factory = sqlite3.Row
    raw.execute("PRAGMA query_only = ON")
    raw.execute("PRAGMA wal_autocheckpoint = 0")
    raw.execute("PRAGMA mmap_size = 0")
    # The first read opens the log. From here on the writing connection is never the last one to leave it, so
    # that one which has failed takes its unfinished commit with it.
    _require_ours(raw, path, known, may_be_older=True)


def damage(raw: sqlite3.Connection) -> str | None:
    """What is wrong with the structure of the file; None if nothing is. It reads all of it.

    SQLite's quick check takes two thirds of the time, and does not see what an index has lost: to whoever
    looks a response up by its id, that is gone.
    """
    found = str(raw.execute("PRAGMA integrity_check(1)").fetchone()[0])
    raw.execute("PRAGMA shrink_memory")  # what it has read is not what will be asked for
    return None if found == "ok" else found


def refused(error: sqlite3.Error, path: Path, known: FileCondition) -> Exception:
    """What an error while opening means for the process.

    Args:
        known: Whether the file was ours. What never was and is no database belongs to somebody else.
    """
    if known in (FileCondition.OURS, FileCondition.DAMAGED):
        if state_after(error) is State.CORRUPT:
            return DatabaseDamaged(f"{path} is damaged: {error}")
        if getattr(error, "sqlite_errorcode", 0) == sqlite3.SQLITE_READONLY_ROLLBACK:
            why = "another program has begun to change it, and left a journal"
            return DatabaseDamaged(f"{path} is damaged: {why}")
    if primary_code(error) in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_BUSY):
        return DatabaseUnreachable(f"{path} cannot be opened at present: {error}")
    return DatabaseRefused(f"{path} cannot be used: {error}")


def fence(raw: sqlite3.Connection) -> None:
    """Commit something. What a failed commit left in the log after the last good one is overwritten by it,
    so that no later recovery takes it for committed."""
    raw.execute("BEGIN IMMEDIATE")
    raw.execute(QUERIES["fence"])
    raw.execute("COMMIT")


def vacuum(raw: sqlite3.Connection) -> None:
    """Give some free pages back to the volume."""
    # The pragma frees a page at each step, and `execute` makes one: a row without columns is no row to it.
    raw.executescript(f"PRAGMA incremental_vacuum({_VACUUM_PAGES})")


def truncate_wal(raw: sqlite3.Connection, busy_ms: int) -> bool:
    """Copy the log into the file and empty it: deleted bytes would stay in it otherwise.

    Args:
        busy_ms: What the connection waits for locks otherwise.

    Returns:
        False if somebody is reading an old state.
    """
    raw.execute(f"PRAGMA busy_timeout = {_CHECKPOINT_BUSY_MS}")
    try:
        return bool(raw.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0] == 0)
    finally:
        raw.execute(f"PRAGMA busy_timeout = {busy_ms}")


def used_share(raw: sqlite3.Connection, settings: StoreSettings, more_bytes: int = 0) -> float:
    """How much of the quota is taken by what is stored, and would be by `more_bytes`."""
    pages = raw.execute("PRAGMA page_count").fetchone()[0] - _free_pages(raw)
    return float((pages + more_bytes / _PAGE_BYTES) / _quota_pages(settings))


def is_largely_free(raw: sqlite3.Connection) -> bool:
    """Whether pages should go back to the volume, though nothing was deleted just now."""
    return bool(_free_pages(raw) > _FREE_SHARE_MAX * raw.execute("PRAGMA page_count").fetchone()[0])


def _free_pages(raw: sqlite3.Connection) -> int:
    return int(raw.execute("PRAGMA freelist_count").fetchone()[0])


def _quota_pages(settings: StoreSettings) -> int:
    return max(256, settings.database_bytes_max // _PAGE_BYTES)
