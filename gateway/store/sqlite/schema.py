"""The tables of this release, their number, and the steps that bring a file of an earlier release to them.

A release that changes `sql/schema.sql` adds `sql/migrations/NNNN.sql`: the step to its number. Between
releases tables change without a number, so a file also remembers a digest of the tables that it
was made with.
"""

from __future__ import annotations

import hashlib
import re
import sqlite3
from contextlib import closing
from dataclasses import dataclass
from functools import cached_property
from importlib import resources

from gateway.store.sqlite.queries import SCHEMA


@dataclass(frozen=True, slots=True)
class Migration:
    """The step that leads to the tables of a number."""

    number: int
    text: str


@dataclass(frozen=True)
class Schema:
    """What a new file is made of, and how an older one gets there."""

    text: str
    migrations: tuple[Migration, ...]

    @property
    def number(self) -> int:
        """The first release with migrations had 1."""
        return 1 + len(self.migrations)

    @cached_property
    def digest(self) -> bytes:
        """Of the statements without their comments and spaces."""
        return hashlib.sha256(_bare(self.text).encode()).digest()

    @cached_property
    def parts(self) -> dict[str, str]:
        """Every table, index and trigger of a new file, as it was written."""
        with closing(sqlite3.connect(":memory:", isolation_level=None)) as raw:
            raw.executescript(self.text)
            return parts_of(raw)

    def steps_from(self, number: int) -> str:
        """All that is missing in a file of an earlier number."""
        return "".join(step.text for step in self.migrations if step.number > number)


def parts_of(raw: sqlite3.Connection) -> dict[str, str]:
    """Every table, index and trigger of an open file, without comments and spaces."""
    rows = raw.execute("SELECT name, sql FROM sqlite_schema WHERE sql IS NOT NULL").fetchall()
    return {name: _bare(text) for name, text in rows}


def _bare(text: str) -> str:
    return re.sub(r'--[^\n]*|\s+|"', "", text)  # a table that was renamed has quotes around its name


def _load() -> tuple[Migration, ...]:
    folder = resources.files("gateway.store.sqlite").joinpath("sql", "migrations")
    files = sorted(
        (file for file in folder.iterdir() if file.name.endswith(".sql")), key=lambda file: file.name
    )
    return tuple(
        Migration(int(file.name.removesuffix(".sql")), file.read_text(encoding="utf-8")) for file in files
    )


CURRENT = Schema(SCHEMA, _load())
