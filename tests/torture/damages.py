"""What can have happened to a database while no process had it: each kind, done to its files at random.

Files are given as their contents by suffix: "" is the database, "-wal" its log, ".lock" what is remembered.
"""

from __future__ import annotations

import gzip
import random
import sqlite3
import tempfile
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from gateway.store.sqlite.schema import CURRENT

PAGE = 4096
_FRAME = 24 + PAGE
_LOG_HEADER = 32

Files = dict[str, bytes]

Path_ = Literal["served", "older", "judged", "damaged", "foreign"]
"""The path that is documented for it:

served   it starts, and all is there
older    it starts as it was at some earlier commit, or it is refused as damaged: what was only in the log
         may be gone
judged   it is refused as damaged, or what is served is what was stored, but for as many responses as
         there are places that were damaged
damaged  it is refused, or set aside if the settings say so
foreign  it is refused, whatever the settings say
"""


@dataclass(frozen=True, slots=True)
class Damage:
    """One kind.

    Attributes:
        do: Done to the files of a gateway that was killed; the second set is another gateway's.
        places: How many places it hits.
    """

    name: str
    path: Path_
    do: Callable[[Files, Files], None]
    places: int = 1


# -- pieces


def _edited(content: bytes, offset: int, piece: bytes) -> bytes:
    return content[:offset] + piece + content[offset + len(piece) :]


def _flip(suffix: str, count: int, first: int = 0, last: int | None = None) -> Callable[[Files, Files], None]:
    def do(files: Files, _other: Files) -> None:
        for _ in range(count):
            content = files[suffix]
            offset = random.randrange(first, min(last or len(content), len(content)))
            files[suffix] = _edited(content, offset, bytes([content[offset] ^ 1 << random.randrange(8)]))

    return do


def _overwrite(make: Callable[[bytes], bytes], pages: int = 1) -> Callable[[Files, Files], None]:
    """Other contents for some pages, none of them the first."""

    def do(files: Files, _other: Files) -> None:
        for _ in range(pages):
            offset = PAGE * random.randrange(1, len(files[""]) // PAGE)
            page = files[""][offset : offset + PAGE]
            files[""] = _edited(files[""], offset, make(page))

    return do


def _set(suffix: str, make: Callable[[bytes], bytes]) -> Callable[[Files, Files], None]:
    def do(files: Files, _other: Files) -> None:
        files[suffix] = make(files.get(suffix, b""))

    return do


def _without(*suffixes: str) -> Callable[[Files, Files], None]:
    def do(files: Files, _other: Files) -> None:
        for suffix in suffixes:
            files.pop(suffix, None)

    return do


def _all(*steps: Callable[[Files, Files], None]) -> Callable[[Files, Files], None]:
    def do(files: Files, other: Files) -> None:
        for step in steps:
            step(files, other)

    return do


def _cut(content: bytes, least: int = 1) -> bytes:
    return content[: random.randrange(least, len(content))]


def _cut_at_a_frame(log: bytes) -> bytes:
    return log[: _LOG_HEADER + _FRAME * random.randrange(len(log) // _FRAME)]


def _cut_at_a_page(content: bytes) -> bytes:
    return content[: PAGE * random.randrange(1, len(content) // PAGE)]


def _zeroed(log: bytes) -> bytes:
    return _edited(log, random.randrange(len(log) // 2), bytes(8 * PAGE))


def _swap_pages(files: Files, _other: Files) -> None:
    count = len(files[""]) // PAGE
    one, two = (PAGE * page for page in random.sample(range(1, count), 2))
    first, second = files[""][one : one + PAGE], files[""][two : two + PAGE]
    files[""] = _edited(_edited(files[""], one, second), two, first)


def _sql(*statements: str) -> Callable[[Files, Files], None]:
    """What somebody else did to the file with SQLite, its log included."""

    def do(files: Files, _other: Files) -> None:
        with tempfile.TemporaryDirectory() as place:
            path = Path(place, "x.db")
            for suffix in ("", "-wal"):
                Path(f"{path}{suffix}").write_bytes(files.pop(suffix, b""))
            with closing(sqlite3.connect(path, isolation_level=None)) as raw:
                for statement in statements:
                    raw.execute(statement)
            files[""] = path.read_bytes()

    return do


def _foreign_database(*statements: str) -> Callable[[Files, Files], None]:
    make = ("CREATE TABLE job (id TEXT)", "INSERT INTO job VALUES ('theirs')")
    return _all(_without("", "-wal"), _sql(*statements, *make))


def _foreign_log(files: Files, other: Files) -> None:
    files["-wal"] = other["-wal"]


def _log_of_nothing(files: Files, _other: Files) -> None:
    """One transaction of somebody who knew nothing of ours, with checksums that are right."""
    with tempfile.TemporaryDirectory() as place:
        path = Path(place, "x.db")
        raw = sqlite3.connect(path, isolation_level=None)
        raw.execute("PRAGMA journal_mode = WAL")
        raw.execute("CREATE TABLE recipes (name TEXT)")
        files["-wal"] = Path(f"{path}-wal").read_bytes()
        raw.close()


def _journal(files: Files, _other: Files) -> None:
    """A journal of somebody's unfinished change, which SQLite would undo."""
    with tempfile.TemporaryDirectory() as place:
        path = Path(place, "x.db")
        path.write_bytes(files[""])
        raw = sqlite3.connect(path, isolation_level=None)
        raw.execute("PRAGMA journal_mode = DELETE")
        raw.execute("PRAGMA cache_size = 1")
        raw.execute("BEGIN")
        raw.execute("UPDATE segment SET events = zeroblob(length(events))")
        files["-journal"] = Path(f"{path}-journal").read_bytes()
        raw.close()


def _random(size: int) -> bytes:
    return random.randbytes(size)


_TEXT = b"the only copy of somebody's thesis, in plain text\n" * 400
_GARBAGE = [
    ("a text", _TEXT),
    ("zeros", bytes(40 * PAGE)),
    ("an archive", gzip.compress(_TEXT) * 50),
    ("noise", random.Random(1).randbytes(40 * PAGE)),
    ("a line", b"\n"),
    ("nearly a database", b"SQLite format 3\x00" + bytes(5000)),
]


def _forgotten(name: str, content: bytes) -> Damage:
    """In its place, where nothing remembers that there was a database."""
    return Damage(
        f"{name} in its place", "foreign", _all(_without("-wal", ".lock"), _set("", lambda _: content))
    )


DAMAGES = [
    # the database
    Damage("one bit", "judged", _flip("", 1)),
    Damage("one bit, another", "judged", _flip("", 1)),
    Damage("16 bits", "judged", _flip("", 16), places=16),
    Damage("a bit of the header", "judged", _flip("", 1, last=100)),
    Damage("a bit of the schema", "judged", _flip("", 1, first=100, last=PAGE)),
    Damage("a page of zeros", "judged", _overwrite(lambda page: bytes(PAGE))),
    Damage("20 pages of zeros", "judged", _overwrite(lambda page: bytes(PAGE), pages=20), places=20),
    Damage("a page of noise", "judged", _overwrite(lambda page: _random(PAGE))),
    Damage("half a page of noise", "judged", _overwrite(lambda page: page[: PAGE // 2] + _random(PAGE // 2))),
    Damage("the first page of zeros", "judged", _set("", lambda content: bytes(PAGE) + content[PAGE:])),
    Damage("two pages swapped", "judged", _swap_pages, places=2),
    Damage("cut short", "judged", _set("", _cut)),
    Damage("cut short at a page", "judged", _set("", _cut_at_a_page)),
    Damage("cut within the header", "damaged", _set("", lambda content: content[: random.randrange(1, 100)])),
    Damage("more at its end", "judged", _set("", lambda content: content + _random(3 * PAGE))),
    Damage("empty", "damaged", _set("", lambda _: b"")),
    Damage("empty, and nothing remembers it", "damaged", _all(_set("", lambda _: b""), _without(".lock"))),
    Damage("gone, its log left", "damaged", _without("")),
    Damage("gone, its log left, and nothing remembers it", "damaged", _without("", ".lock")),
    Damage("another text in its place", "damaged", _all(_without("-wal"), _set("", lambda _: _TEXT))),
    # its log
    Damage("its log gone", "older", _without("-wal")),
    Damage("its log empty", "older", _set("-wal", lambda _: b"")),
    Damage("its log cut short", "older", _set("-wal", _cut)),
    Damage("its log cut at a frame", "older", _set("-wal", _cut_at_a_frame)),
    Damage("a bit of its log", "older", _flip("-wal", 1)),
    Damage("a bit of its log's header", "older", _flip("-wal", 1, last=_LOG_HEADER)),
    Damage("zeros in its log", "older", _set("-wal", _zeroed)),
    Damage("noise for a log", "older", _set("-wal", lambda log: _random(len(log)))),
    Damage("another gateway's log", "judged", _foreign_log, places=0),
    Damage("another program's log", "judged", _log_of_nothing, places=0),
    Damage("another program's journal", "damaged", _journal),
    Damage("noise at the end of its log", "served", _set("-wal", lambda log: log + _random(5000))),
    Damage("its log's index gone", "served", _without("-shm")),
    Damage("noise for its log's index", "served", _set("-shm", lambda _: _random(32768))),
    # what else lies beside it
    Damage("what was remembered gone", "served", _without(".lock")),
    Damage("noise for what was remembered", "served", _set(".lock", lambda _: _random(200))),
    Damage("noise for the ballast", "served", _set(".ballast", lambda _: _random(5000))),
    Damage("the ballast gone", "served", _without(".ballast")),
    # other versions, other programs
    Damage("an older version", "foreign", _sql("PRAGMA user_version = 0")),
    Damage("a newer version", "foreign", _sql(f"PRAGMA user_version = {CURRENT.number + 1}")),
    Damage("a much newer version", "foreign", _sql("PRAGMA user_version = 99", "DROP TABLE secret")),
    Damage("an unreleased version", "foreign", _sql("DELETE FROM meta WHERE key = 'schema'")),
    Damage("another program's database", "foreign", _foreign_database()),
    Damage("another program's, with a log", "foreign", _foreign_database("PRAGMA journal_mode = WAL")),
    Damage("another program's, under our version", "foreign", _foreign_database("PRAGMA user_version = 1")),
    Damage("another program's, nothing remembered", "foreign", _all(_without(".lock"), _foreign_database())),
    *(_forgotten(name, content) for name, content in _GARBAGE),
]  # fmt: skip
