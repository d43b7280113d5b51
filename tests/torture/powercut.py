"""What a power cut leaves of files, made from a record of every write and every flush: see `disk`.

What came before the last flush of a file is on it. Of what came after, a disk may have done anything: each
change is there, or is not, or is there in some of its sectors, and in any order. That is worse than most
disks are, and what SQLite promises to bear (sqlite.org/atomiccommit.html, section 2: a sector is old or new).
"""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from tests.torture.disk import Entry, recorded

_SECTORS = (512, 4096)


@dataclass(slots=True)
class Damage:
    """What was done to unflushed changes."""

    kept: int = 0
    dropped: int = 0
    torn: int = 0

    @property
    def lost(self) -> int:
        return self.dropped + self.torn


def remember(database: Path) -> dict[str, bytes]:
    """The files as they lie there, all of it flushed: the state that a record begins with."""
    return {path.name: path.read_bytes() for path in _files(database) if path.exists()}


def cut(database: Path, before: dict[str, bytes], record: Path) -> Damage:
    """Replace the files by what a power cut at the end of the record leaves of them."""
    damage = Damage()
    after = surviving(before, recorded(record), damage)
    for path in _files(database):
        path.unlink(missing_ok=True)
        if (content := after.get(path.name)) is not None:
            path.touch(mode=0o600)
            path.write_bytes(content)
    database.with_name(f"{database.name}-shm").unlink(missing_ok=True)
    return damage


def surviving(before: dict[str, bytes], entries: Iterable[Entry], damage: Damage) -> dict[str, bytes]:
    """Files by name, as a power cut after the last entry leaves them."""
    listed = list(entries)
    flushed, named = _flushes(before, listed)
    after: dict[str, bytearray | None] = {name: bytearray(content) for name, content in before.items()}
    for number, entry in enumerate(listed):
        is_flushed = number <= (named if entry.kind == "d" else flushed.get(entry.name, -1))
        after[entry.name] = _changed(after.get(entry.name), entry, None if is_flushed else damage)
    # The name of a new file that was never flushed is not on disk either.
    return {
        name: bytes(content)
        for name, content in after.items()
        if content is not None and (name in before or name in flushed)
    }


def _flushes(before: dict[str, bytes], entries: list[Entry]) -> tuple[dict[str, int], int]:
    """The last flush of each file; and that of the directory, which goes with the first flush of each log or
    journal that SQLite makes (os_unix.c, UNIXFILE_DIRSYNC)."""
    flushed: dict[str, int] = {}
    named = -1
    new = {entry.name for entry in entries} - before.keys()
    for number, entry in enumerate(entries):
        if entry.kind == "d":
            new.add(entry.name)
        elif entry.kind == "s":
            flushed[entry.name] = number
            if entry.name in new:
                new.discard(entry.name)
                named = number
    return flushed, named


def _changed(content: bytearray | None, entry: Entry, damage: Damage | None) -> bytearray | None:
    """Args: damage: Counts what is done to the change; None if it was flushed, and so is done in full."""
    if entry.kind == "s":
        return content
    fate = "kept" if damage is None else random.choice(("kept", "dropped", "torn"))
    if entry.kind != "w" and fate == "torn":
        fate = "dropped"
    if damage is not None:
        setattr(damage, fate, getattr(damage, fate) + 1)
    if fate == "dropped":
        return content
    if entry.kind == "d":
        return None
    content = bytearray() if content is None else content
    if entry.kind == "t":
        return content[: entry.offset] + bytes(max(0, entry.offset - len(content)))
    sector = random.choice(_SECTORS)
    end = entry.offset + len(entry.data)
    if len(content) < end:
        content += bytes(end - len(content))
    for start in range(entry.offset // sector * sector, end, sector):
        if fate == "kept" or random.random() < 0.5:
            first, last = max(start, entry.offset), min(start + sector, end)
            content[first:last] = entry.data[first - entry.offset : last - entry.offset]
    return content


def _files(database: Path) -> list[Path]:
    return [database.with_name(database.name + suffix) for suffix in ("", "-wal", "-journal")]
