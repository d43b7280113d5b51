"""Events are written all the time, while somebody reads on and on: nothing grows."""

from __future__ import annotations

import asyncio
import time
from collections import Counter

import aiohttp

from tests.torture.gateway import HEADERS, Gateway
from tests.torture.model import create_body
from tests.torture.trial import Bench, trial
from tests.torture.watch import MIB, Metrics, Watch, metrics

_EVENTS_PER_S = 2000
_DELTAS, _PACE_MS = 40, 50
_JOBS_PER_S = 1.1 * _EVENTS_PER_S / _DELTAS
"""A tenth more than is asked for, and the events around the text come on top: a busy machine delays some."""
_RUN_S = 60.0

_WAL_MAX = 256 * MIB
_FILLER_BYTES = 1000
_HELD_S = 20
_LONG = 15
"""Rounds. In less time the log would not grow so large: then a quarter of it is the limit."""


@trial(
    "T21",
    f"{_EVENTS_PER_S:,} events a second are written while a read goes on without an end; {_HELD_S} s a round",
    pass_mark=f"WAL at most {_WAL_MAX // MIB} MiB (in less than {_LONG} rounds: a quarter of it); "
    "0 commits failed, 0 creates refused, all responses completed",
    runs=30,
    short_runs=1,
    round_s=_HELD_S + 30,
)
async def hold_a_reader_open(bench: Bench) -> None:
    model = await bench.model()
    wal_max = _WAL_MAX if bench.runs >= _LONG else _WAL_MAX // 4
    gateway = bench.prepared(model.url, store__wal_bytes_max=wal_max, store__wal_truncate_bytes=wal_max // 4)
    hold = gateway.database.with_name("hold")
    gateway.next_start("--hold-reads", str(hold))
    await gateway.start()
    hold.touch()
    async with Watch(gateway) as watch, _Load(bench, gateway, _FILLER_BYTES) as load:
        for _ in bench.rounds():
            await asyncio.sleep(_HELD_S)
            now = await load.look()
            wal = max(sample.wal_bytes for sample in watch.samples)
            bench.most("WAL MiB", wal / MIB)
            bench.figure("reads broken off", int(now.of("backburner_store_log_too_large_total")))
            bench.require(wal <= wal_max, f"the WAL grew to {wal / MIB:.0f} MiB")
            watch.samples.clear()
        hold.unlink()
    bench.require(now.of("backburner_store_log_too_large_total"), "no read stood in the way for long enough")


class _Load:
    """An async context: responses are created at an even pace inside it; when it is left, all have to end.

    Args:
        filler: Bytes more in each event.
    """

    def __init__(self, bench: Bench, gateway: Gateway, filler: int = 0) -> None:
        self._bench = bench
        self._filler = filler
        self._gateway = gateway
        self._session = aiohttp.ClientSession(headers=HEADERS)
        self._answers: Counter[int] = Counter()
        self._creates: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> _Load:
        self._creating = asyncio.create_task(self._create_all())
        self._started, self._events = time.monotonic(), 0.0
        return self

    async def __aexit__(self, *_: object) -> None:
        self._creating.cancel()
        await asyncio.wait([self._creating, *self._creates])
        await self._session.close()
        seconds = time.monotonic() - self._started
        ended = await self._all_ended()
        rate = ended.total("backburner_events_total") / seconds
        self._bench.figure("responses", self._answers[200])
        self._bench.figure("events a second", int(rate))
        self._bench.require(
            rate >= _EVENTS_PER_S, f"{rate:.0f} events a second came: this wants two cores to itself"
        )
        self._bench.require(set(self._answers) == {200}, f"creates were answered {dict(self._answers)}")
        failed = ended.without("backburner_jobs_finished_total", 'outcome="completed"')
        self._bench.require(not failed, f"not all responses completed: {failed}")

    async def look(self) -> Metrics:
        """The metrics; and nothing has failed."""
        now = await metrics(self._gateway)
        errors = now.without("backburner_store_errors_total", 'kind="interrupted"')
        self._bench.figure("commits failed", int(sum(errors.values())))
        self._bench.require(not errors, f"the store failed calls: {errors}")
        return now

    async def _all_ended(self) -> Metrics:
        deadline = time.monotonic() + _RUN_S
        while True:
            now = await self.look()
            missing = now.of("backburner_jobs_accepted_total") - now.total("backburner_jobs_finished_total")
            if not missing or time.monotonic() > deadline:
                self._bench.require(not missing, f"{missing:g} responses did not end")
                return now
            await asyncio.sleep(0.2)

    async def _create_all(self) -> None:
        number, started = 0, time.monotonic()
        while True:
            number += 1
            create = asyncio.create_task(self._create(f"load.{number}"))
            self._creates.add(create)
            create.add_done_callback(self._creates.discard)
            await asyncio.sleep(started + number / _JOBS_PER_S - time.monotonic())

    async def _create(self, tag: str) -> None:
        body = create_body(tag, stream=False, deltas=_DELTAS, pace_ms=_PACE_MS, filler=self._filler)
        async with self._session.post(f"{self._gateway.url}/responses", json=body) as answer:
            await answer.read()
            self._answers[answer.status] += 1
