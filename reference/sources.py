"""The gateway's source as trees: what is called where, with which constants."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

SOURCE = Path(__file__).resolve().parents[1] / "gateway"


@dataclass(frozen=True, slots=True)
class Called:
    """A call of a function by its plain name.

    Attributes:
        file: Where, from the root.
        has_more: It passes a mapping on, whose names are not seen here.
    """

    name: str
    file: str
    args: list[ast.expr]
    named: dict[str, ast.expr]
    has_more: bool


@cache
def trees() -> dict[str, ast.Module]:
    return {
        f"gateway/{path.relative_to(SOURCE)}": ast.parse(path.read_text())
        for path in sorted(SOURCE.rglob("*.py"))
    }


def calls(*names: str) -> Iterator[Called]:
    """All calls of these functions."""
    for file, tree in trees().items():
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in names:
                named = {word.arg: word.value for word in node.keywords if word.arg is not None}
                yield Called(node.func.id, file, node.args, named, len(named) < len(node.keywords))


def words(tree: ast.AST) -> set[str]:
    """The texts in an expression."""
    return {
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }
