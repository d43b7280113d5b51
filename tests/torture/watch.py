"""What a gateway takes of its machine while a trial goes on: memory, files, and turns of its event loop."""

from __future__ import annotations

import asyncio
import os
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import aiohttp

from tests.torture.gateway import Gateway

_EVERY_S = 0.25
MIB = 2**20


@dataclass(frozen=True, slots=True)
class Sample:
    """One look. `at` is on the monotonic clock; `cpu_s` is of all threads, since the start."""

    at: float
    rss_bytes: int
    cpu_s: float
    files: int
    wal_bytes: int


class Watch:
    """An async context: looks at the present process of a gateway four times a second.

    Attributes:
        samples: What was seen, of one process after the other.
    """

    def __init__(self, gateway: Gateway, every_s: float = _EVERY_S) -> None:
        self._gateway = gateway
        self._every_s = every_s
        self._task: asyncio.Task[None] | None = None
        self.samples: list[Sample] = []

    async def __aenter__(self) -> Watch:
        self._task = asyncio.create_task(self._look())
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._task is not None
        self._task.cancel()
        await asyncio.wait([self._task])

    async def _look(self) -> None:
        while True:
            with suppress(OSError):  # it has just ended
                self.samples.append(_together([look(each) for each in self._gateway.processes]))
            await asyncio.sleep(self._every_s)

    def rss_max(self) -> int:
        return max(sample.rss_bytes for sample in self.samples)

    def between(self, start: float, end: float) -> list[Sample]:
        return [sample for sample in self.samples if start <= sample.at <= end]


def _together(samples: list[Sample]) -> Sample:
    """Of several processes: the largest, and what they take in all."""
    return Sample(
        samples[0].at,
        max(each.rss_bytes for each in samples),
        sum(each.cpu_s for each in samples),
        sum(each.files for each in samples),
        sum(each.wal_bytes for each in samples),
    )


def look(gateway: Gateway) -> Sample:
    """Raises: OSError, if there is no process."""
    process = Path(f"/proc/{gateway.pid}")
    pages = int((process / "statm").read_text().split()[1])
    times = (process / "stat").read_text().rpartition(")")[2].split()[11:13]
    wal = gateway.database.with_name(gateway.database.name + "-wal")
    return Sample(
        time.monotonic(),
        pages * os.sysconf("SC_PAGE_SIZE"),
        sum(map(int, times)) / os.sysconf("SC_CLK_TCK"),
        len(os.listdir(process / "fd")),
        wal.stat().st_size if wal.exists() else 0,
    )


def loop_busy_s(gateway: Gateway) -> float:
    """CPU time that the thread of its event loop has taken (Linux).

    Who waited for an answer has waited for the gateway only as long as that was busy: the rest is the
    machine's.
    """
    taken = Path(f"/proc/{gateway.pid}/task/{gateway.pid}/schedstat").read_text()
    return int(taken.split()[0]) / 1e9


@dataclass(frozen=True, slots=True)
class Metrics:
    """One scrape of the admin port."""

    samples: dict[str, float]

    def of(self, sample: str) -> float:
        """0 if it never moved."""
        return self.samples.get(sample, 0.0)

    def total(self, name: str) -> float:
        """Over all labels."""
        return sum(value for sample, value in self.samples.items() if sample.partition("{")[0] == name)

    def without(self, name: str, label: str) -> dict[str, float]:
        """What has moved of it, but for what has this label."""
        return {
            sample: value
            for sample, value in self.samples.items()
            if value and sample.startswith(f"{name}{{") and label not in sample
        }

    def loop_lag_s(self, share: float) -> float:
        """So much of all turns came no later than this (the bound of a bucket); 1.0 is the latest of all."""
        return self.quantile("backburner_loop_lag_seconds", share)

    def quantile(self, name: str, share: float, *, since: Metrics | None = None) -> float:
        """So much of a histogram without labels is no larger than this (the bound of a bucket)."""
        bounds = {
            float(sample.split('"')[1]): value - (since.of(sample) if since else 0.0)
            for sample, value in self.samples.items()
            if sample.startswith(f"{name}_bucket")
        }
        total = max(bounds.values(), default=0)
        return min((bound for bound, count in bounds.items() if count >= share * total), default=0.0)


async def metrics(gateway: Gateway) -> Metrics:
    """Of several processes the sum."""
    samples: Counter[str] = Counter()
    async with aiohttp.ClientSession() as session:
        for each in gateway.processes:
            async with session.get(f"{each.admin}/metrics") as answer:
                lines = [line.rpartition(" ") for line in (await answer.text()).splitlines()]
            samples.update({name: float(value) for name, _, value in lines if name[0] != "#"})
    return Metrics(dict(samples))
