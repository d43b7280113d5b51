"""`make figures`: puts the last figures of every trial into docs/figures.md."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

from tests.torture import report
from tests.torture.trial import Trial, all_trials

PAGE = Path(__file__).parents[2] / "docs" / "figures.md"
BEGIN, END = "<!-- figures -->\n", "<!-- end of figures -->\n"


def main() -> int:
    played = {row["test"]: row for row in report.read()}
    before, _, rest = PAGE.read_text().partition(BEGIN)
    table, _, after = rest.partition(END)
    kept = dict(re.findall(r"^\*\*Found\*\* \((T\w+)\) (.*)$", table, re.MULTILINE))
    parts = [
        part(trial, _found(played[trial.name]) if trial.name in played else kept.get(trial.name, "not run."))
        for trial in all_trials()
    ]
    PAGE.write_text(before + BEGIN + "\n".join(parts) + END + after)
    return 0


def part(trial: Trial, found: str) -> str:
    """What the page says of a trial."""
    return (
        f"## {trial.name}\n\n{trial.title}.\n\n**Must hold:** {trial.pass_mark}.\n\n"
        f"**Found** ({trial.name}) {found}\n"
    )


def _found(played: dict[str, Any]) -> str:
    verdict = "pass" if played["passed"] else "**not reached**"
    said = report.told(played["figures"])
    return f"{verdict} in {played.get('runs', 0):,} runs, {played.get('day', '')}: {said}."


if __name__ == "__main__":
    sys.exit(main())
