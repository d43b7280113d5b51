"""How the connections are set up, and which files are refused."""

from __future__ import annotations

import secrets
import sqlite3
from pathlib import Path

from gateway.config import StoreSettings
from gateway.store.file import DatabaseRefused
from gateway.store.queries import QUERIES, SCHEMA, TALLY

SCHEMA_VERSION = 1
_APPLICATION_ID = 0x6275726E  # "burn": a file that is not ours is never touched
_PAGE_BYTES = 4096
_VACUUM_PAGES = 200


def prepare_writer(raw: sqlite3.Connection, settings: StoreSettings) -> bytes:
    """Settings of the writing connection, the schema if the file is new, and the file's pepper."""
    path = settings.database
    raw.row_factory = sqlite3.Row
    try:
        is_new = raw.execute("PRAGMA schema_version").fetchone()[0] == 0
        if not is_new:
            _refuse_foreign(raw, path)  # first: the settings below write to the file
        raw.execute("PRAGMA auto_vacuum = INCREMENTAL")  # only takes hold before the first table
        raw.execute("PRAGMA journal_mode = WAL")
        raw.execute(f"PRAGMA synchronous = {'FULL' if settings.durability == 'disk' else 'NORMAL'}")
        raw.execute("PRAGMA foreign_keys = ON")
        raw.execute("PRAGMA secure_delete = ON")
        raw.execute("PRAGMA temp_store = MEMORY")
        raw.execute("PRAGMA trusted_schema = OFF")
        raw.execute("PRAGMA cell_size_check = ON")
        raw.execute("PRAGMA mmap_size = 0")
        raw.execute("PRAGMA wal_autocheckpoint = 1000")
        raw.execute("PRAGMA journal_size_limit = 67108864")
        raw.execute(f"PRAGMA max_page_count = {max(256, settings.database_bytes_max // _PAGE_BYTES)}")
        if is_new:
            _create(raw)
        check = raw.execute("PRAGMA quick_check(1)").fetchone()[0]
        if check != "ok":
            raise DatabaseRefused(f"{path} is damaged: {check}")
        raw.executescript(TALLY)
        return bytes(raw.execute(QUERIES["get_meta"], {"key": "pepper"}).fetchone()[0])
    except sqlite3.DatabaseError as error:
        raise DatabaseRefused(f"{path} cannot be used: {error}") from None


def _refuse_foreign(raw: sqlite3.Connection, path: Path) -> None:
    if raw.execute("PRAGMA application_id").fetchone()[0] != _APPLICATION_ID:
        raise DatabaseRefused(f"{path} is a SQLite file of some other program")
    found = raw.execute("PRAGMA user_version").fetchone()[0]
    if found != SCHEMA_VERSION:
        raise DatabaseRefused(f"{path} has schema version {found}; this program knows {SCHEMA_VERSION}")


def _create(raw: sqlite3.Connection) -> None:
    """All in one transaction: a file half made by a process that was killed would be refused for ever."""
    marks = f"PRAGMA application_id = {_APPLICATION_ID};PRAGMA user_version = {SCHEMA_VERSION};"
    raw.executescript(f"BEGIN IMMEDIATE;{SCHEMA};{marks}")
    raw.execute(QUERIES["put_meta"], {"key": "pepper", "value": secrets.token_bytes(32)})
    raw.execute("COMMIT")


def prepare_reader(raw: sqlite3.Connection) -> None:
    raw.row_factory = sqlite3.Row
    raw.execute("PRAGMA query_only = ON")
    raw.execute("PRAGMA wal_autocheckpoint = 0")
    raw.execute("PRAGMA mmap_size = 0")


def reclaim_pages(raw: sqlite3.Connection) -> None:
    # The pragma frees a page at each step, and `execute` makes one: a row without columns is no row to it.
    raw.executescript(f"PRAGMA incremental_vacuum({_VACUUM_PAGES})")
    truncate_wal(raw)


def truncate_wal(raw: sqlite3.Connection) -> None:
    """Copy the log into the file and empty it: deleted bytes would stay in it otherwise."""
    raw.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
