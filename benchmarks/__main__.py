"""What things cost, in one run: all figures or some, beside proxies that are known.

SHORT=1 takes some two minutes; ONLY=requests,background measures these figures; AGAINST=FILE tells what has
changed since a stored run; SAVE=DIRECTORY says where to keep it; GATEWAY=COMMAND measures another checkout;
GROWTH=1 adds a day and ten times of everything, which takes long.

    make bench        python -m benchmarks --help
"""

from __future__ import annotations

import argparse
import shlex
import sys
from pathlib import Path

from benchmarks import charts, table
from benchmarks.compare import compare
from benchmarks.figure import Figure
from benchmarks.figures import FIGURES
from benchmarks.lab import open_lab
from benchmarks.load import NoCompiler
from benchmarks.progress import Progress
from benchmarks.results import Run
from benchmarks.session import measured


def options() -> argparse.ArgumentParser:
    names = ", ".join(figure.name for figure in FIGURES)
    parser = argparse.ArgumentParser(
        prog="benchmarks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--short", action="store_true", help="shorter rounds, fewer of them, fewer cases")
    parser.add_argument("--only", default="", help=f"figures, with commas: {names}")
    parser.add_argument("--growth", action="store_true", help="those, too, that are run only when named")
    parser.add_argument("--rounds", type=int, default=0, help="that count, of each figure")
    parser.add_argument("--against", type=Path, help="a stored run to compare with")
    parser.add_argument(
        "--save", type=Path, default=Path("bench-results"), help="directory of JSON and charts"
    )
    parser.add_argument(
        "--gateway", default=f"{sys.executable} -m gateway", help="the command that is measured"
    )
    return parser


def chosen(only: str, *, growth: bool, short: bool) -> list[Figure]:
    """The figures of a run. Raises: ValueError, for a name that there is none of."""
    names = [name for name in only.split(",") if name]
    if unknown := set(names) - {figure.name for figure in FIGURES}:
        raise ValueError(f"no figure is called {', '.join(sorted(unknown))}")
    if names:
        return [figure for figure in FIGURES if figure.name in names]
    usual = [each for each in FIGURES if not each.only_if_named and (each.short_rounds or not short)]
    return usual + [each for each in FIGURES if growth and each.only_if_named]


def main() -> int:
    parser = options()
    given = parser.parse_args()
    try:
        figures = chosen(given.only, growth=given.growth, short=given.short)
        before = Run.load(given.against) if given.against else None
    except ValueError as error:
        parser.error(str(error))
    with open_lab(gateway_command=shlex.split(given.gateway), short=given.short) as lab:
        run = measured(lab, figures, rounds=given.rounds, progress=Progress())
    for line in (*table.table(run), *table.goals(run), *table.remarks(run)):
        print(line)
    if before:
        for line in table.changes(compare(before, run)):
            print(line)
    run.save(given.save / "run.json")
    drawn = charts.save(run, {figure.name: figure.charted for figure in figures}, given.save)
    print(f"\nKept in {given.save}: run.json and {len(drawn)} charts")
    return 1 if run.failed else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except NoCompiler as error:
        sys.exit(str(error))
