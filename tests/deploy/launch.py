"""Starts the real gateway on a disk that is slow, or with a wall clock that jumps, as files say.

    python -m tests.deploy.launch SLOW_FILE WALL_FILE serve …

While SLOW_FILE exists, each flush takes a third of a second. WALL_FILE has the seconds by which the clock
is off.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

from tests.torture import bending
from tests.torture.disk import Call, Disk, Watch

_SLOW_S = 0.35


class _Slow(Watch):
    def __init__(self, file: Path) -> None:
        self._file = file

    def sync(self, name: str, go: Call) -> int:
        if self._file.exists():
            time.sleep(_SLOW_S)
        return go()


def main() -> None:
    slow, wall, *command = sys.argv[1:]
    Disk(_Slow(Path(slow))).install()
    bending.set_wall_clock(Path(wall))
    from gateway.__main__ import main as gateway

    gateway(command)


if __name__ == "__main__":
    main()
