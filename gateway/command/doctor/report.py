"""Shows what the doctor has found: a table, what to change, and settings to paste."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import Any

from gateway.command import screen
from gateway.command.doctor.findings import Finding, Level
from gateway.command.effective import value_of
from gateway.command.screen import Cell, Grid

_STYLES = {Level.OK: "green", Level.NOTE: "yellow", Level.WRONG: "bold red"}
_COLUMNS = ("", "CHECK", "FOUND")


def show(findings: Sequence[Finding], pasted: str) -> None:
    """For people."""
    grids = [
        Grid(_COLUMNS, [_row(each) for each in findings if each.about == about], about)
        for about in dict.fromkeys(each.about for each in findings)
    ]
    screen.show(*grids)
    advised = [each for each in findings if each.advice or each.level is Level.WRONG]
    if advised:
        print()
        screen.show(Grid(("", "", ""), [_advice(each) for each in advised], "What to change"))
    if pasted:
        print(f"\nSettings to paste\n{pasted}")


def as_json(findings: Iterable[Finding], pasted: str) -> str:
    """For programs."""
    ones = [{**asdict(each), "settings": dict(each.settings)} for each in findings]
    return json.dumps({"findings": ones, "settings": pasted}, ensure_ascii=False)


def _row(found: Finding) -> Sequence[Cell | str]:
    return Cell(found.level, _STYLES[found.level]), found.check, found.found


def _advice(found: Finding) -> Sequence[Cell | str]:
    said = found.advice or "see the settings below"
    settings = ", ".join(f"{name}: {value_of(value)}" for name, value in found.settings)
    said = f"{said} {settings}" if said.endswith(" or") else said
    return Cell(found.level, _STYLES[found.level]), f"{found.about}, {found.check}", said


def pasted(findings: Iterable[Finding], *, is_single: bool) -> str:
    """The settings that the findings ask for, as a file has them; "" if there are none.

    Args:
        is_single: The one backend is called `upstream` in the file.
    """
    tree: dict[str, dict[str, Any]] = {}
    backends: dict[str, dict[str, Any]] = {}
    for found in findings:
        kind, _, name = found.about.partition(" ")
        for setting, value in found.settings:
            section, _, key = setting.rpartition(".")
            if kind == "backend":
                place = tree.setdefault("upstream", {}) if is_single else backends.setdefault(name, {})
                place[setting] = value
            else:
                tree.setdefault(section, {})[key] = value
    lines = []
    for section, values in tree.items():
        lines += [f"{section}:", *(f"  {key}: {value_of(value)}" for key, value in values.items())]
    if backends:
        lines.append("backends:")
    for name, values in backends.items():
        lines += [f"  {name}:", *(f"    {key}: {value_of(value)}" for key, value in values.items())]
    return "\n".join(lines)
