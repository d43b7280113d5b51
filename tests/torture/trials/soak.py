"""Hours of everything, with a kill now and then: nothing may grow, and nothing may get slower.

A round is a minute. 30 are for every day, 1440 for a release.
"""

from __future__ import annotations

import asyncio
import random
import statistics
import time

from tests.torture.clients import Crowd, Mix
from tests.torture.gateway import Gateway
from tests.torture.journal import Journal
from tests.torture.trial import Bench, trial
from tests.torture.trials.kills import judge, require_whole
from tests.torture.watch import MIB, Sample, Watch, metrics

_CLIENTS = 16
_MINUTE_S = 60.0
_RETENTION_S = 300
_KILLS_EVERY_MAX = 60
_WAL_MAX = 64 * MIB
_LAG_S = 0.05
_FILES_MORE_MAX = 20
_WARM_S = 3600.0
_SLOPE_MAX = 1 * MIB
_RISE_MAX = 16 * MIB
"""Where there is no hour to get warm in: of the second half of a life against the first."""

_MIX = Mix(streamed=0.5, faults=("", "", "", "", "", "cut", "reset", "error"), paces_ms=(0, 5, 20, 60))


@trial(
    "T43",
    "minutes of mixed load, with kill -9 now and then",
    pass_mark=f"RSS grows by at most {_SLOPE_MAX // MIB} MiB an hour after the first (in less time: "
    f"{_RISE_MAX // MIB} MiB in all); files flat; WAL at most {_WAL_MAX // MIB} MiB; loop lag p99 at most "
    f"{_LAG_S * 1000:g} ms; 0 lost, 0 wrong",
    runs=30,
    round_s=2.5 * _MINUTE_S,
)
async def soak(bench: Bench) -> None:
    model = await bench.model()
    gateway = await bench.gateway(model.url, background__retention_s=_RETENTION_S)
    kills_every = max(1, min(_KILLS_EVERY_MAX, bench.runs // 3))
    async with Watch(gateway, every_s=min(5.0, bench.runs / 4)) as watch:
        life = _Life(gateway)
        for number in bench.rounds():
            notes = Journal(bench.directory / "journal")
            async with notes, Crowd(gateway, notes, _CLIENTS, _MIX):
                if number % kills_every != kills_every - 1:
                    await asyncio.sleep(_MINUTE_S)
                else:
                    before_s = random.uniform(0.3, 0.7) * _MINUTE_S
                    await asyncio.sleep(before_s)
                    await life.end(bench, watch)
                    await gateway.kill9()
                    bench.add("kills")
                    require_whole(bench, gateway, f"the kill in minute {number}")
                    await gateway.restart()
                    life = _Life(gateway)
                    await asyncio.sleep(_MINUTE_S - before_s)
            await judge(bench, gateway, model, notes)
            notes.path.unlink()
            await model.forget()
        await life.end(bench, watch)
    bench.most("WAL MiB", max(sample.wal_bytes for sample in watch.samples) / MIB)
    wal_max = max(sample.wal_bytes for sample in watch.samples)
    bench.require(wal_max <= _WAL_MAX, f"the WAL grew to {wal_max / MIB:.0f} MiB")


class _Life:
    """One process, from its start to its end."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self._started = time.monotonic()

    async def end(self, bench: Bench, watch: Watch) -> None:
        """Hold what it took at its end against what it took at its start."""
        now = await metrics(self._gateway)
        lag_s = now.loop_lag_s(0.99)
        bench.most("loop lag p99 s", lag_s)
        bench.require(lag_s <= _LAG_S, f"one turn in a hundred came more than {_LAG_S} s late ({lag_s})")
        samples = watch.between(self._started, time.monotonic())
        half = len(samples) // 2
        if half < 2:
            return
        files = statistics.median(sample.files for sample in samples[half:])
        early = statistics.median(sample.files for sample in samples[:half])
        bench.most("RSS MiB", max(sample.rss_bytes for sample in samples) / MIB)
        bench.most("files more", files - early)
        bench.require(files - early <= _FILES_MORE_MAX, f"{files - early:g} files more are open")
        warm = [sample for sample in samples if sample.at >= self._started + _WARM_S]
        if warm and warm[-1].at - warm[0].at >= _WARM_S / 2:
            slope = _slope(warm)
            bench.most("RSS MiB more an hour", slope / MIB)
            bench.require(slope <= _SLOPE_MAX, f"it grew by {slope / MIB:.2f} MiB an hour")
        else:
            rise = statistics.median(s.rss_bytes for s in samples[half:]) - statistics.median(
                s.rss_bytes for s in samples[:half]
            )
            bench.most("RSS MiB more", rise / MIB)
            bench.require(rise <= _RISE_MAX, f"it grew by {rise / MIB:.1f} MiB")


def _slope(samples: list[Sample]) -> float:
    """Bytes an hour."""
    line = statistics.linear_regression([s.at for s in samples], [s.rss_bytes for s in samples])
    return line.slope * 3600
