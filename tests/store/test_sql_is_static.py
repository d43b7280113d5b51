"""Every statement is written down beforehand: no value of a caller can become a part of one."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import gateway

ROOT = Path(gateway.__file__).parent
_CALLS = frozenset({"execute", "executemany", "executescript", "fetch", "fetchrow", "fetchval", "fetchmany"})
_WHOLE = frozenset({"SCHEMA", "TALLY"})
"""Files of SQL, as they are."""


def _problems(source: str, name: str) -> Iterator[str]:
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in _CALLS:
            statement = node.args[0] if node.args else None
            if not (_is_fixed(statement) or (name == "connection.py" and _is_setting(statement))):
                yield f"{name}:{node.lineno}"


def _is_fixed(statement: ast.expr | None) -> bool:
    """Text, or a named statement of `queries.sql`."""
    match statement:
        case ast.Constant(value=str()):
            return True
        case ast.Subscript(value=ast.Name(id="QUERIES")):
            return True
        case ast.Attribute(attr="text"):  # of a `Query` or a `Migration`: see below
            return True
        case ast.Name(id=name):
            return name in _WHOLE
    return False


def _is_setting(statement: ast.expr | None) -> bool:
    """A pragma, which takes no parameters, with a value out of the settings; and the making of a new file."""
    if not isinstance(statement, ast.JoinedStr) or not isinstance(statement.values[0], ast.Constant):
        return False
    beginning = str(statement.values[0].value)
    return beginning.startswith("PRAGMA ") or beginning == "BEGIN IMMEDIATE;"


def test_no_statement_is_put_together() -> None:
    files = list(ROOT.rglob("*.py"))
    found = [problem for path in files for problem in _problems(path.read_text(), path.name)]
    assert found == []
    assert sum("execute(" in path.read_text() for path in files) >= 3  # so there was something to look at


def test_statements_for_postgresql_are_made_of_files_only() -> None:
    made_in = [
        path.relative_to(ROOT).as_posix()
        for path in ROOT.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id in ("Query", "Migration")
    ]
    assert set(made_in) == {"store/postgres/queries.py", "store/sqlite/schema.py"}


@pytest.mark.parametrize(
    "line",
    [
        'raw.execute(f"SELECT * FROM job WHERE id = {x}")',
        "raw.execute(\"SELECT * FROM job WHERE id = '%s'\" % x)",
        'raw.execute("SELECT * FROM job WHERE id = " + x)',
        'raw.execute("SELECT {}".format(x))',
        "raw.execute(x)",
        'raw.executescript(QUERIES["a"] + x)',
        'connection.fetch(QUERIES["a"].text + x)',
        'connection.fetchrow(f"SELECT {x}")',
        'raw.execute(f"PRAGMA user_version = {x}")',
    ],
)
def test_the_check_finds_what_it_is_for(line: str) -> None:
    assert list(_problems(line, "sqlite.py")) == ["sqlite.py:1"]


@pytest.mark.parametrize("store", ["sqlite", "postgres"])
def test_named_statements_have_parameters_and_no_places_to_format(store: str) -> None:
    text = (ROOT / "store" / store / "sql" / "queries.sql").read_text()
    code = "\n".join(line for line in text.splitlines() if not line.startswith("--"))
    assert "%s" not in code
    assert "{" not in code
    assert "?" not in code
