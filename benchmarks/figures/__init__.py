"""All figures, in the order in which they are measured."""

from __future__ import annotations

from benchmarks.figure import Figure
from benchmarks.figures import background, passing

FIGURES: list[Figure] = [passing.PASSING, passing.LATENCY, passing.STREAMS, background.BACKGROUND]
