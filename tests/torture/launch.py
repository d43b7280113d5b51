"""Starts the real gateway with something done to it from outside; the product itself has no hooks for tests.

    python -m tests.torture.launch [--kill-at POINT:N] [--without GUARD] [--poison TAG]
                                   [--dials FILE] [--names FILE] [--record FILE] [--faults FILE]
                                   [--wall FILE] [--hold-reads FILE] [--filesystem MAGIC] -- serve ...

`--kill-at` ends the process, as `kill -9` does, when it comes to a named point for the N-th time.
`--without` takes one guard away: some trial must then fail, or the guard is not tested.
`--poison` makes every job whose request contains a word kill the process that runs it.
`--dials` notes every address that is dialled in a file; `--names` lets names lead where a file says.
`--record` writes down what goes to the disk; `--faults` makes the disk fail as a file says.
`--wall` sets the wall clock off by the seconds that are in a file; `--hold-reads` lets a read go on for as
long as a file exists.
`--filesystem` is the kind that every directory seems to lie on, by its number in linux/magic.h.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from tests.torture import bending, dialling, disk, killing
from tests.torture.guards import GUARDS


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kill-at", metavar="POINT:N")
    parser.add_argument("--without", metavar="GUARD", choices=GUARDS)
    parser.add_argument("--poison", metavar="TAG")
    parser.add_argument("--dials", metavar="FILE", type=Path)
    parser.add_argument("--names", metavar="FILE", type=Path)
    parser.add_argument("--record", metavar="FILE", type=Path)
    parser.add_argument("--faults", metavar="FILE", type=Path)
    parser.add_argument("--wall", metavar="FILE", type=Path)
    parser.add_argument("--hold-reads", metavar="FILE", type=Path)
    parser.add_argument("--filesystem", metavar="MAGIC", type=lambda text: int(text, 16))
    parser.add_argument("command", nargs="+")
    args = parser.parse_args()
    if args.without:
        GUARDS[args.without].remove()
    if args.kill_at:
        point, _, count = args.kill_at.partition(":")
        killing.kill_at(point, int(count or 1))
    if args.poison:
        killing.poison(args.poison)
    if args.dials:
        dialling.note_dials(args.dials)
    if args.names:
        dialling.set_names(args.names)
    if args.record:
        disk.Disk(disk.Recorder(args.record)).install()
    if args.faults:
        disk.Disk(disk.Faults(args.faults)).install()
    if args.wall:
        bending.set_wall_clock(args.wall)
    if args.hold_reads:
        bending.hold_reads(args.hold_reads)
    if args.filesystem:
        bending.set_filesystem(args.filesystem)
    from gateway.__main__ import main as serve

    sys.argv[0] = "backburner"
    serve(args.command)


if __name__ == "__main__":
    main()
