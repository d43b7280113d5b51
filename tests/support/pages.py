"""The documents, and what somebody who reads them would paste."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
_OUTSIDE = ("README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "deploy/README.md")
PAGES = [*(ROOT / name for name in _OUTSIDE), *sorted((ROOT / "docs").rglob("*.md"))]
_FENCE = re.compile(r"^```(\w+)\n(.*?)^```", re.DOTALL | re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Block:
    """One fenced block of a page, which has its path from the root as its name."""

    page: str
    language: str
    text: str

    @property
    def commands(self) -> list[str]:
        """What a person types: lines after `$ `, with the lines that go on from them, without comments."""
        commands: list[str] = []
        for line in self.text.splitlines():
            if line.startswith("$ "):
                commands.append(line[2:])
            elif commands and commands[-1].endswith("\\"):
                commands[-1] += "\n" + line
        return [re.split(r" {2,}# ", command)[0].rstrip() for command in commands]


BLOCKS = [
    Block(page.relative_to(ROOT).as_posix(), language, text)
    for page in PAGES
    for language, text in _FENCE.findall(page.read_text())
]


def only(page: str, language: str, containing: str = "") -> Block:
    """The one block of a page that has this in it."""
    found = [
        each for each in BLOCKS if (each.page, each.language) == (page, language) and containing in each.text
    ]
    assert len(found) == 1, (page, language, containing, len(found))
    return found[0]
