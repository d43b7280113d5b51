"""Charts as SVG: bars for each case, with the spread of the rounds; readable on light and on dark pages."""

from __future__ import annotations

import re
from html import escape
from pathlib import Path

from benchmarks.results import Row, Run
from benchmarks.table import number

_WIDTH, _LEFT, _RIGHT = 720, 140, 100
_BAR, _HEAD, _GAP, _TOP = 15, 20, 10, 40
_COLOURS = {
    "gateway": "#2f6fde",
    "PostgreSQL": "#2f6fde",
    "chat-only": "#6a4fc0",
    "nginx": "#2e9e5b",
    "haproxy": "#c98a1b",
    "aiohttp": "#c2504a",
    "litellm": "#b0569c",
}
_OTHER = "#8a8f98"
_STYLE = """
text { font: 12px system-ui, sans-serif; fill: #1f2328; }
.title { font-weight: 600; font-size: 14px; }
.quiet { fill: #656d76; }
line { stroke: #1f2328; }
@media (prefers-color-scheme: dark) {
  text { fill: #e6edf3; }
  .quiet { fill: #9198a1; }
  line { stroke: #e6edf3; }
}
"""


def chart(title: str, lines: list[list[Row]]) -> str:
    """One measure: a block of bars for each case, a bar for each subject."""
    largest = max(row.spread.largest for line in lines for row in line) or 1
    scale = (_WIDTH - _LEFT - _RIGHT) / largest
    parts, y = [], _TOP
    for line in lines:
        parts.append(f'<text x="8" y="{y + 12}">{escape(line[0].case)}</text>')
        y += _HEAD
        for row in line:
            parts += _bar(row, y, scale)
            y += _BAR + 3
        y += _GAP
    head = f'<text class="title" x="8" y="22">{escape(title)}</text>'
    body = "\n".join([f"<style>{_STYLE}</style>", head, *parts])
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {y}" role="img" '
        f'aria-label="{escape(title, quote=True)}">\n{body}\n</svg>\n'
    )


def _bar(row: Row, y: int, scale: float) -> list[str]:
    found = row.spread
    end, colour = _LEFT + max(1.0, found.median * scale), _COLOURS.get(row.subject.partition(",")[0], _OTHER)
    least, largest, middle = _LEFT + found.least * scale, _LEFT + found.largest * scale, y + _BAR / 2
    return [
        f'<text class="quiet" x="{_LEFT - 6}" y="{y + 12}" text-anchor="end">{escape(row.subject)}</text>',
        f'<rect x="{_LEFT}" y="{y}" width="{end - _LEFT:.1f}" height="{_BAR}" rx="2" fill="{colour}"/>',
        f'<line x1="{least:.1f}" x2="{largest:.1f}" y1="{middle}" y2="{middle}" stroke-width="1.5"/>',
        f'<text x="{max(end, largest) + 6:.1f}" y="{y + 12}">{number(found.median)}</text>',
    ]


def save(run: Run, charted: dict[str, tuple[str, ...]], folder: Path) -> list[Path]:
    """A file for each measure that is `charted`, by figure. Returns those that were written."""
    written = []
    for figure, measures in charted.items():
        for measure in measures:
            lines = [line for line in run.lines(figure) if line[0].measure == measure]
            if not lines:
                continue
            file = folder / f"{figure}-{re.sub(r'[^a-z0-9]+', '-', measure.lower())}.svg"
            file.write_text(chart(f"{run.titles[figure]}: {lines[0][0].unit}", lines))
            written.append(file)
    return written
