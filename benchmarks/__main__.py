"""What things cost: one run of all figures, or of some.

python -m benchmarks [--short] [--only NAME,...] [--against FILE] [--gateway COMMAND] [--save FILE]
"""

from __future__ import annotations

import argparse
import shlex
import sys

from benchmarks.figures import FIGURES
from benchmarks.lab import open_lab
from benchmarks.load import NoCompiler
from benchmarks.rounds import Progress, Spread, play, ratios


def main() -> int:
    parser = argparse.ArgumentParser(prog="benchmarks", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--only", default="")
    parser.add_argument("--short", action="store_true")
    parser.add_argument("--gateway", default=f"{sys.executable} -m gateway")
    parser.add_argument("--rounds", type=int, default=0)
    given = parser.parse_args()
    names = [name for name in given.only.split(",") if name]
    progress = Progress()
    with open_lab(gateway_command=shlex.split(given.gateway), short=given.short) as lab:
        for figure in FIGURES:
            if figure.name not in names if names else figure.only_if_named:
                continue
            progress.heading = figure.name
            print(f"\n{figure.title}")
            for trials in figure.groups(lab):
                count = given.rounds or (figure.short_rounds if given.short else figure.rounds)
                played = play(trials, count, lab.now, progress.tell)
                progress.clear()
                note = (
                    f" (strangers {max(r.strangers for r in played.rounds):.2f})" if played.disturbed else ""
                )
                for r in played.rounds:
                    r.values.update(figure.derived(r.values))
                for key in sorted({k for r in played.rounds for k in r.values}):
                    measure, case, subject = key
                    values = [r.values[key] for r in played.rounds if key in r.values]
                    anchors = [r.values.get((measure, case, figure.anchor), 0) for r in played.rounds]
                    s, q = Spread.of(values), ratios(values, anchors)
                    print(
                        f"  {case:28} {measure:10} {subject:9} {s.median:10.1f} [{s.least:.1f}–{s.largest:.1f}] {figure.measures[measure].unit:15}"
                        + (f" {q.median:6.2f} [{q.least:.2f}–{q.largest:.2f}] × {figure.anchor}" if q else "")
                        + note,
                        flush=True,
                    )
        for name, why in lab.skipped.items():
            print(f"skipped: {name}: {why}")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except NoCompiler as error:
        sys.exit(str(error))
