"""All figures, in the order in which they are measured."""

from __future__ import annotations

from benchmarks.figure import Figure
from benchmarks.figures import background, day, growth, jobs, memory, passing, replicas, storage

FIGURES: list[Figure] = [
    passing.PASSING,
    passing.LATENCY,
    passing.STREAMS,
    jobs.CREATES,
    jobs.COST,
    jobs.FIRST,
    background.BACKGROUND,
    background.CHAT,
    jobs.CANCEL,
    storage.REPLAY,
    memory.MEMORY,
    storage.DATABASE,
    storage.RECOVERY,
    replicas.REPLICAS,
    growth.LOAD,
    growth.HISTORY,
    day.DAY,
]
