"""How a torture run looks: progress while it goes on, one table at its end, and the same as JSON."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import orjson
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from tests.torture.trial import Result, Trial

REPORT = Path("torture-report.json")
_FIGURES_SHOWN = 4
_EVERY = 10
"""Without a terminal: a line for every tenth of the rounds."""


class Screen:
    def __init__(self) -> None:
        self.console = Console(highlight=False, width=None if sys.stdout.isatty() else 160)

    @contextmanager
    def playing(self, trial: Trial, runs: int) -> Iterator[Any]:
        """Show one trial while it is played: gives what has to be told of every round."""
        if self.console.is_terminal:
            columns = (
                TextColumn("[bold cyan]{task.fields[name]:<4}[/] {task.description}"),
                *(BarColumn(bar_width=24), MofNCompleteColumn(), TimeElapsedColumn()),
                TextColumn("[dim]{task.fields[figures]}"),
            )
            with Progress(*columns, console=self.console, transient=True) as progress:
                task = progress.add_task(trial.title, total=runs, name=trial.name, figures="")
                yield lambda done, figures: progress.update(task, completed=done, figures=_short(figures))
        else:
            self.console.print(f"{trial.name:<4} {trial.title} ({runs} runs)", soft_wrap=True)
            yield (
                lambda done, figures: (
                    self.console.print(f"     {done}/{runs}  {_short(figures)}", soft_wrap=True)
                    if done and done % max(1, runs // _EVERY) == 0
                    else None
                )
            )

    def ended(self, result: Result, evidence: Path | None) -> None:
        """One line for a trial that is over, and what did not hold."""
        mark = _mark(result)
        name = Text(f"{result.trial.name:<4} ", style="bold cyan")
        line = Text.assemble(name, mark, f"  {result.trial.title}  ({result.seconds:.0f} s)")
        self.console.print(line, soft_wrap=True)
        for failure in result.failures:
            self.console.print(Text(f"     {failure}", style="red"), soft_wrap=True)
        if result.failed > len(result.failures):
            self.console.print(Text(f"     … {result.failed} in all", style="red"))
        if result.obstacle is not None:
            self.console.print(Text(f"     {result.obstacle}", style="yellow"), soft_wrap=True)
        if evidence is not None:
            self.console.print(f"     files, logs and journals: {evidence}", soft_wrap=True)

    def table(self, results: list[Result]) -> None:
        table = Table(title="Torture", title_justify="left", header_style="bold")
        for name in ("test", "what is done", "runs", "figures", "pass mark", "", "time"):
            table.add_column(name, justify="right" if name in ("runs", "time") else "left", overflow="fold")
        for result in results:
            mark = _mark(result)
            table.add_row(
                result.trial.name,
                result.trial.title,
                str(result.runs),
                told(result.figures),
                result.trial.pass_mark,
                mark,
                f"{result.seconds:.0f} s",
            )
        self.console.print(table)


def _mark(result: Result) -> Text:
    return Text(result.verdict, style="green" if result.is_passed else "bold red")


def write(results: list[Result], path: Path = REPORT) -> None:
    """The table for programs: of each trial the last time that it was played."""
    rows = {row["test"]: row for row in read(path)}
    rows |= {result.trial.name: result.as_json() for result in results}
    path.write_bytes(orjson.dumps(list(rows.values()), option=orjson.OPT_INDENT_2) + b"\n")


def read(path: Path = REPORT) -> list[dict[str, Any]]:
    """What `write` wrote, run after run; nothing, if no trial was played yet."""
    return list(orjson.loads(path.read_bytes())) if path.exists() else []


def _short(figures: dict[str, Any]) -> str:
    return told(dict(list(figures.items())[:_FIGURES_SHOWN]))


def told(figures: dict[str, Any]) -> str:
    """Figures in one line."""
    return ", ".join(f"{name} {_number(value)}" for name, value in figures.items())


def _number(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:g}" if value == int(value) else f"{value:.3g}"
    return f"{value:,}" if isinstance(value, int) else str(value)
