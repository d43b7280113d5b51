"""What the commands write: tables as kubectl has them, on a terminal in colour and kept up to date.

Whatever comes from callers and backends is text: what a terminal would obey is shown as a box. `rich` is
loaded on a terminal only.
"""

from __future__ import annotations

import contextlib
import re
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console, Group
    from rich.table import Table
    from rich.text import Text

_OBEYED = re.compile(
    r"[\x00-\x1f\x7f-\x9f\xad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff]"
)
"""Control characters, ends of lines among them, what turns the direction of writing, and what nobody sees."""
_OBEYED_IN_PROSE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
_SHOWN_AS = "\N{REPLACEMENT CHARACTER}"

STYLES = {
    **{"completed": "green", "failed": "red", "cancelled": "yellow", "incomplete": "yellow"},
    **{"in_progress": "cyan", "queued": "bright_black"},
}
"""Of the states of responses."""


@dataclass(frozen=True, slots=True)
class Cell:
    """A cell of a table, in a style of rich's."""

    text: str
    style: str = ""


@dataclass(frozen=True, slots=True)
class Grid:
    """A table; without a header if its columns have no names."""

    columns: Sequence[str]
    rows: Sequence[Sequence[Cell | str]]
    title: str | None = None


def is_terminal() -> bool:
    """Whether somebody looks at the output."""
    return sys.stdout.isatty()


def write(text: str) -> None:
    """Whole, at once: whoever reads has it now."""
    print(text, flush=True)


def notice(text: str) -> None:
    """For people, beside what programs read."""
    print(f"backburner: {text}", file=sys.stderr, flush=True)


def one_line(text: str) -> str:
    """Text of strangers, on one line."""
    return _OBEYED.sub(_SHOWN_AS, text)


def prose(text: str) -> str:
    """Text of strangers, as it is broken into lines."""
    return _OBEYED_IN_PROSE.sub(_SHOWN_AS, text)


def span(seconds: float) -> str:
    """A length of time in words: `12 s`, `5 min`, `3 h`, `2 d`."""
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"


def age(seconds: float) -> str:
    """The same in a column, as kubectl has it: `12s`, `5m`, `3h`, `2d`."""
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= 2 * size:
            return f"{seconds // size:.0f}{unit}"
    return f"{max(0.0, seconds):.0f}s"


def table(columns: Sequence[str], rows: Iterable[Sequence[Cell | str]]) -> None:
    """Print a table."""
    show(Grid(columns, [*rows]))


def show(*grids: Grid) -> None:
    """Print tables, one below the other."""
    if is_terminal():
        console().print(drawn(*grids))
        return
    for number, grid in enumerate(grids):
        if number:
            print()
        if grid.title:
            print(grid.title)
        for line in aligned(grid):
            print(line)
    sys.stdout.flush()


def aligned(grid: Grid) -> Iterator[str]:
    """Its lines, columns aligned by two spaces."""
    lines = [grid.columns, *([one_line(_cell(cell).text) for cell in row] for row in grid.rows)]
    lines = lines if any(grid.columns) else lines[1:]
    widths = [max((len(line[number]) for line in lines), default=0) for number in range(len(grid.columns))]
    for line in lines:
        yield "  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip()


def drawn(*grids: Grid) -> Group:
    """Tables for a terminal, with colours."""
    from rich.console import Group
    from rich.padding import Padding

    return Group(*(Padding(_drawn(grid), (min(number, 1), 0, 0, 0)) for number, grid in enumerate(grids)))


def _drawn(grid: Grid) -> Table:
    from rich.table import Table

    found = Table(
        box=None,
        pad_edge=False,
        padding=(0, 2, 0, 0),
        show_header=any(grid.columns),
        header_style="bold",
        title=grid.title,
        title_style="bold",
        title_justify="left",
    )
    for number, name in enumerate(grid.columns):
        found.add_column(name, no_wrap=number < len(grid.columns) - 1, overflow="ellipsis")
    for row in grid.rows:
        found.add_row(*(_text(_cell(cell)) for cell in row))
    return found


def _cell(cell: Cell | str) -> Cell:
    return Cell(cell) if isinstance(cell, str) else cell


def _text(cell: Cell) -> Text:
    from rich.text import Text

    return Text(one_line(cell.text), style=cell.style)


def console() -> Console:
    """The terminal; NO_COLOR and TERM=dumb are heeded."""
    from rich.console import Console

    return Console(highlight=False, markup=False, emoji=False)


@contextlib.contextmanager
def kept_up_to_date(*, is_whole_screen: bool) -> Iterator[Callable[..., None]]:
    """Tables that are drawn anew in their place by each call, until the end of the block."""
    from rich.live import Live

    terminal = console()
    with Live(console=terminal, screen=is_whole_screen, auto_refresh=False, vertical_overflow="crop") as live:

        def draw(*grids: Grid) -> None:
            live.update(drawn(*grids), refresh=True)

        yield draw


def again_and_again(every_s: float) -> Iterator[None]:
    """At once, and then so often, until Ctrl-C."""
    while True:
        yield
        time.sleep(every_s)


def styled_status(job: dict[str, Any]) -> Cell:
    """The state of a job."""
    return Cell(job["status"], STYLES.get(job["status"], ""))
