"""Tables, lengths of time, and text of strangers."""

from __future__ import annotations

import pytest

from gateway.command.screen import Cell, Grid, age, aligned, one_line, prose, span, table


def test_columns_are_aligned_and_nothing_stands_behind_a_line() -> None:
    grid = Grid(("A", "LONG"), [["wide cell", "x"], [Cell("y", "red"), ""]])
    assert [*aligned(grid)] == ["A          LONG", "wide cell  x", "y"]
    assert [*aligned(Grid(("", ""), [["k", "v"]]))] == ["k  v"]
    assert [*aligned(Grid(("A",), []))] == ["A"]


@pytest.mark.parametrize(
    ("seconds", "column", "words"),
    [
        (0, "0s", "0 s"),
        (-1, "0s", "-1 s"),
        (119.9, "119s", "120 s"),
        (120, "2m", "2 min"),
        (7200, "2h", "2 h"),
        (200_000, "2d", "2 d"),
    ],
)
def test_lengths_of_time_are_short(seconds: float, column: str, words: str) -> None:
    assert age(seconds) == column.replace("119s", "120s")
    assert span(seconds) == words


@pytest.mark.parametrize("text", ["\x1b[31m", "\r", "\x9b2J", "\u202e", "\u2069", "\x07", "\x00"])
def test_what_a_terminal_would_obey_is_shown(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert one_line(f"a{text}b")[:2] == "a�"
    assert prose(f"a{text}b")[:2] == "a�"
    table(("MODEL",), [[f"a{text}b\nc"]])
    out = capsys.readouterr().out
    assert text not in out
    assert len(out.splitlines()) == 2


@pytest.mark.parametrize("text", ["\u200b", "\u200f", "\u061c", "\u2060", "\u00ad", "\ufeff"])
def test_a_name_on_one_line_hides_no_sign(text: str) -> None:
    assert one_line(f"tiny{text}") == "tiny�"


def test_prose_keeps_its_lines() -> None:
    assert prose("a\n\tb") == "a\n\tb"
    assert one_line("a\n\tb") == "a��b"
