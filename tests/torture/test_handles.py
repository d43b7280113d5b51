"""Trials reach into the gateway by names; here each of them is still one."""

from __future__ import annotations

import subprocess
import sys

from tests.acceptance.harness import ROOT
from tests.torture.killing import POINTS

_ALL = """
from tests.torture.guards import GUARDS
from tests.torture.killing import POINTS, kill_at
for guard in GUARDS.values():
    guard.remove()
for point in POINTS:
    kill_at(point, 10**9)
print(len(POINTS))
"""


def test_every_guard_can_be_taken_away_and_every_point_be_died_at() -> None:
    done = subprocess.run([sys.executable, "-c", _ALL], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.strip()) == (0, str(len(POINTS))), done.stderr
