"""`make figures`: puts the last figures of every trial into docs/promises.md."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from tests.torture import report
from tests.torture.trial import Trial, all_trials

PAGE = Path(__file__).parents[2] / "docs" / "promises.md"
BEGIN, END = "<!-- figures -->\n", "<!-- end of figures -->\n"


def main() -> int:
    played = {row["test"]: row for row in report.read()}
    before, _, rest = PAGE.read_text().partition(BEGIN)
    table, _, after = rest.partition(END)
    kept = {row.split("|")[1].strip(): row for row in table.splitlines() if row.startswith("| T")}
    rows = [
        _row(trial, played[trial.name]) if trial.name in played else kept.get(trial.name, _row(trial, {}))
        for trial in all_trials()
    ]
    head = ["| | what is done | pass mark | runs | figures | | day |", "|---|---|---|---|---|---|---|"]
    PAGE.write_text(before + BEGIN + "\n".join([*head, *rows]) + "\n" + END + after)
    return 0


def _row(trial: Trial, played: dict[str, Any]) -> str:
    figures = report.told(played["figures"]) if played else ""
    verdict = ("pass" if played["passed"] else "**not reached**") if played else "not run"
    cells = (
        *(trial.name, trial.title, trial.pass_mark),
        *(f"{played.get('runs', 0):,}", figures, verdict, played.get("day", "")),
    )
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


if __name__ == "__main__":
    sys.exit(main())
