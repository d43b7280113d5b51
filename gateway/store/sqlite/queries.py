"""The statements of `sql/queries.sql`, by name; the tables of the file, and those of the writer alone."""

from __future__ import annotations

import re
from importlib import resources


def _load(name: str) -> str:
    return resources.files("gateway.store.sqlite").joinpath("sql", name).read_text(encoding="utf-8")


def _by_name(text: str) -> dict[str, str]:
    parts = re.split(r"^-- name: (\w+)$", text, flags=re.MULTILINE)
    return {name: body.strip().rstrip(";") for name, body in zip(parts[1::2], parts[2::2], strict=True)}


SCHEMA = _load("schema.sql")
TALLY = _load("tally.sql")
QUERIES = _by_name(_load("queries.sql"))
