"""The statements of `sql/queries.sql`, by name, and the steps that lead to the tables of this version."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from typing import Any


@dataclass(frozen=True, slots=True)
class Query:
    """A statement as the server takes it, with the names of its parameters in their order."""

    text: str
    names: tuple[str, ...]

    def values(self, given: Mapping[str, Any]) -> tuple[Any, ...]:
        """The values of its parameters, by name; there may be more."""
        return tuple([_storable(given[name]) for name in self.names])


@dataclass(frozen=True, slots=True)
class Migration:
    """A step from one version of the tables to the next."""

    number: int
    text: str

    @property
    def digest(self) -> bytes:
        """Of the statements without their comments and spaces."""
        return hashlib.sha256(re.sub(r"--[^\n]*|\s+", "", self.text).encode()).digest()


def _storable(value: Any) -> Any:
    """A text of PostgreSQL has no NUL, which a client may write into a name: that is stored, and looked for,
    as a sign that says so."""
    if isinstance(value, str) and "\0" in value:
        return value.replace("\0", "\N{REPLACEMENT CHARACTER}")
    return value


def _query(text: str) -> Query:
    names: list[str] = []

    def numbered(match: re.Match[str]) -> str:
        name = match[1]
        if name not in names:
            names.append(name)
        return f"${names.index(name) + 1}"

    code = re.sub(r"--[^\n]*\n", "", text).strip().rstrip(";")
    return Query(re.sub(r"(?<!:):([a-z_]+)", numbered, code), tuple(names))


def _queries(text: str) -> dict[str, Query]:
    parts = re.split(r"^-- name: (\w+)$", text, flags=re.MULTILINE)
    return {name: _query(body) for name, body in zip(parts[1::2], parts[2::2], strict=True)}


_SQL = resources.files("gateway.store.postgres").joinpath("sql")

QUERIES = _queries(_SQL.joinpath("queries.sql").read_text(encoding="utf-8"))
MIGRATIONS = [
    Migration(int(file.name.removesuffix(".sql")), file.read_text(encoding="utf-8"))
    for file in sorted(_SQL.joinpath("migrations").iterdir(), key=lambda file: file.name)
    if file.name.endswith(".sql")
]
