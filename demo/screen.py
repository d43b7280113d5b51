"""How the play looks on a terminal: numbered steps, quiet notes, words wrapped as they come.

Rich leaves the colours out by itself where stdout is no terminal.
"""

from __future__ import annotations

from rich.console import Console
from rich.table import Table
from rich.text import Text

from demo.proof import Check

_INDENT = "     "
_WIDTH_MAX = 96


class Screen:
    def __init__(self, console: Console) -> None:
        self._console = console
        self._column = 0
        self._steps = 0

    def title(self, text: str) -> None:
        self._console.print(Text(text, style="bold"))

    def step(self, text: str, code: str = "") -> None:
        """Open a numbered step; `code` is the call that does it, as a reader would write it."""
        self._end_words()
        self._steps += 1
        self._console.print()
        self._console.print(Text.assemble((f"  {self._steps}  ", "bold cyan"), (text, "bold")))
        if code:
            self.line(code, style="dim")

    def line(self, text: str, style: str = "") -> None:
        """Print one line that is never broken, for it may be meant for copying."""
        self._end_words()
        self._console.print(Text(_INDENT + text, style=style), soft_wrap=True)

    def fact(self, name: str, value: str) -> None:
        self._end_words()
        self._console.print(Text.assemble(_INDENT, (f"{name:<14}", "dim"), value), soft_wrap=True)

    def words(self, delta: str) -> None:
        """Print a piece of text at once; a line is broken before the piece that would not fit."""
        delta = delta.replace("\n", "\n" + _INDENT)
        width = min(self._console.width, _WIDTH_MAX)
        if self._column + len(delta.rstrip()) > width:
            self._end_words()
        if self._column == 0:
            delta = _INDENT + delta.lstrip()
        self._console.print(Text(delta), end="", soft_wrap=True)
        self._column = len(delta.rsplit("\n", 1)[1]) if "\n" in delta else self._column + len(delta)

    def checks(self, checks: list[Check]) -> None:
        self._end_words()
        table = Table(show_header=False, box=None, padding=(0, 1), pad_edge=False)
        for check in checks:
            mark = Text("ok", style="green") if check.is_ok else Text("FAILED", style="bold red")
            table.add_row(_INDENT[1:], mark, check.name, Text(check.found))
        self._console.print(table)

    def failure(self, text: str) -> None:
        self._end_words()
        self._console.print()
        self._console.print(Text(text, style="bold red"), soft_wrap=True)

    def gap(self) -> None:
        self._end_words()
        self._console.print()

    def _end_words(self) -> None:
        if self._column:
            self._console.print()
            self._column = 0
