"""Events are written all the time, while somebody reads on and on, or while as many expire: nothing grows."""

from __future__ import annotations

import asyncio
import statistics
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
_LARGE_BYTES = 1000
_HELD_S = 20
_LONG = 15
"""Rounds. In less time the log would not grow so large: then it gets a smaller limit."""
_SMALL_WAL_MAX = 96 * MIB


@trial(
    "T21",
    f"{_EVENTS_PER_S:,} events a second are written while a read goes on without an end; {_HELD_S} s a round",
    pass_mark=f"WAL at most {_WAL_MAX // MIB} MiB (in less than {_LONG} rounds {_SMALL_WAL_MAX // MIB}); "
    "0 commits failed, 0 creates refused, all responses completed",
    runs=30,
    round_s=_HELD_S + 30,
)
async def hold_a_reader_open(bench: Bench) -> None:
    model = await bench.model()
    wal_max = _WAL_MAX if bench.runs >= _LONG else _SMALL_WAL_MAX
    gateway = await bench.prepared(
        model.url, store__wal_bytes_max=wal_max, store__wal_truncate_bytes=wal_max // 4
    )
    hold = gateway.database.with_name("hold")
    gateway.next_start("--hold-reads", str(hold))
    await gateway.start()
    hold.touch()
    async with Watch(gateway) as watch, _Load(bench, gateway, _LARGE_BYTES) as load:
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


_RETENTION_S, _SWEEP_S = 6.0, 3.0
_FILLER_BYTES = 300
_WARM_S = 2 * (_RETENTION_S + _SWEEP_S)
_ROUND_S = 10
_COMMIT_S = 0.05
_OFF_PLATEAU = 0.10
_OFF_EXPIRY_S = 1.0
_PROBES_EVERY_S = 0.5


@trial(
    "T22",
    f"{_EVENTS_PER_S:,} events a second are written, and as many expire and are swept; {_ROUND_S} s a round",
    pass_mark=f"commit p99 at most {_COMMIT_S * 1000:g} ms; the file within {_OFF_PLATEAU:.0%} of its size; "
    f"404 at the expiry, at most {_OFF_EXPIRY_S:g} s off",
    runs=90,
    round_s=3 * _ROUND_S,
)
async def expire_under_load(bench: Bench) -> None:
    model = await bench.model()
    gateway = await bench.gateway(
        model.url, background__retention_s=_RETENTION_S, store__sweep_interval_s=_SWEEP_S
    )
    sizes: list[int] = []
    async with _Load(bench, gateway, _FILLER_BYTES) as load, asyncio.TaskGroup() as probes:
        await asyncio.sleep(_WARM_S)
        before = await load.look()
        for _ in bench.rounds():
            ends = time.monotonic() + _ROUND_S
            while time.monotonic() < ends:
                probes.create_task(_expiry(bench, gateway))
                sizes.append(gateway.database.stat().st_size)
                await asyncio.sleep(_PROBES_EVERY_S)
            now = await load.look()
        swept = now.total("backburner_responses_swept_total") - before.total(
            "backburner_responses_swept_total"
        )
    bench.figure("swept", int(swept))
    bench.require(swept, "nothing was swept")
    p99_s = now.quantile("backburner_commit_seconds", 0.99, since=before)
    bench.figure("commit p99 at most s", p99_s)
    bench.require(p99_s <= _COMMIT_S, f"a commit in a hundred took longer than {_COMMIT_S} s ({p99_s})")
    plateau = statistics.median(sizes)
    off = max(abs(size - plateau) for size in sizes) / plateau
    bench.figure("file MiB", round(plateau / MIB, 1))
    bench.figure("file off its size %", round(100 * off, 1))
    bench.require(off <= _OFF_PLATEAU, f"the file was {off:.0%} off its {plateau / MIB:.1f} MiB")


async def _expiry(bench: Bench, gateway: Gateway) -> None:
    """A response is there until it expires, and not after. It ended before its stream did."""
    async with aiohttp.ClientSession(headers=HEADERS) as session:
        begun = time.monotonic()
        body = create_body("probe", stream=True, deltas=1)
        async with session.post(f"{gateway.url}/responses", json=body) as answer:
            text = await answer.text()
        ended = time.monotonic()
        response_id = text.partition('"id":"')[2].partition('"')[0]
        await asyncio.sleep(_RETENTION_S - 2 * _OFF_EXPIRY_S)
        there, gone = begun, 0.0
        while not gone and time.monotonic() < ended + _RETENTION_S + 5 * _OFF_EXPIRY_S:
            asked = time.monotonic()
            async with session.get(f"{gateway.url}/responses/{response_id}") as answer:
                if answer.status == 404:
                    gone = time.monotonic()
                else:
                    there = asked
            await asyncio.sleep(0.05)
        bench.add("expiries")
        early_s, late_s = begun + _RETENTION_S - gone, there - ended - _RETENTION_S
        bench.most("early s", max(0.0, early_s))
        bench.most("late s", max(0.0, late_s))
        bench.require(early_s <= _OFF_EXPIRY_S, f"{response_id} was gone {early_s:.2f} s early")
        bench.require(late_s <= _OFF_EXPIRY_S, f"{response_id} was there {late_s:.2f} s late")


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
            missing = now.total("backburner_jobs_accepted_total") - now.total(
                "backburner_jobs_finished_total"
            )
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
