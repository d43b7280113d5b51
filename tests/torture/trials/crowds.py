"""Very many responses under way at once."""

from __future__ import annotations

import asyncio
import time

import aiohttp
import orjson

from tests.acceptance.harness import KEY, frames, payload
from tests.torture import oracle
from tests.torture.flood import flood
from tests.torture.gateway import HEADERS, Gateway
from tests.torture.journal import Story
from tests.torture.model import create_body
from tests.torture.trial import Bench, trial
from tests.torture.trials.kills import note_verdict
from tests.torture.watch import MIB, Watch, metrics

_A_ROUND = 1000
_EVENTS = 20
_CREATES_AT_ONCE = 32
_ENDED_S = 180
_RSS_MAX = 1536 * MIB


@trial(
    "T41",
    f"a thousand responses more in each round, of {_EVENTS} events, all under way at once",
    pass_mark=f"all at once; 0 lost or doubled; all ended within {_ENDED_S} s; "
    f"RSS at most {_RSS_MAX // MIB:,} MiB",
    runs=10,
    round_s=60,
)
async def run_very_many_at_once(bench: Bench) -> None:
    count = _A_ROUND * bench.runs
    model = await bench.model()
    gateway = await bench.gateway(
        model.url,
        upstream__concurrency_max=count,
        background__queue_max=count,
        background__queue_per_tenant_max=count,
        stream__readers_per_tenant_max=20_000,
    )
    # Several processes on the machine of one accept more slowly: the first answer must last until then.
    crowd = _Crowd(gateway, pace_ms=(200 + 380 * bench.runs) * bench.replicas)
    started = time.monotonic()
    async with Watch(gateway) as watch, crowd:
        for number in bench.rounds():
            await crowd.more(number * _A_ROUND, _A_ROUND)
        bench.figure("all accepted after s", round(time.monotonic() - started, 1))
        at_once = 0.0
        while (now := await metrics(gateway)).total("backburner_jobs_finished_total") < count:
            at_once = max(at_once, now.of("backburner_running"))
            if time.monotonic() - started > _ENDED_S:
                break
            await asyncio.sleep(0.5)
        ended_s = time.monotonic() - started
    bench.figure("at once", int(at_once))
    bench.figure("ended after s", round(ended_s, 1))
    bench.figure("CPU s", round(watch.samples[-1].cpu_s, 1))
    bench.figure("RSS MiB", watch.rss_max() // MIB)
    bench.figure("loop lag p99 s", now.loop_lag_s(0.99))
    bench.figure("loop lag max s", now.loop_lag_s(1.0))
    bench.require(at_once >= 0.98 * count, f"no more than {at_once:g} were under way at once")
    bench.require(ended_s <= _ENDED_S, f"{now.total('backburner_jobs_finished_total'):g} have ended")
    bench.require(watch.rss_max() <= _RSS_MAX, f"it took {watch.rss_max() // MIB} MiB")
    note_verdict(bench, await oracle.audit(gateway, crowd.stories.values()))
    calls = await model.calls()
    bench.require(len(calls) == count, f"{len(calls)} calls for {count} responses")


_QUEUED = 10_000
_SLOTS = 256
_RECOVERED_S = 5.0


@trial(
    "T41b",
    f"kill -9 with {_QUEUED:,} responses queued behind {_SLOTS} that run",
    pass_mark=f"as many run again {_RECOVERED_S:g} s after the start of the next process; 0 lost",
    runs=3,
    round_s=180,
)
async def kill_with_a_long_queue(bench: Bench) -> None:
    for number in bench.rounds():
        model = await bench.model()
        gateway = await bench.gateway(
            model.url, background__queue_per_tenant_max=_QUEUED, upstream__head_timeout_s=3600
        )
        posts = _QUEUED + _SLOTS
        answers = await flood(
            gateway.url, [KEY], posts=posts, seconds=1, connections=32, script={"head_ms": 3_600_000}
        )
        bench.require(len(answers.accepted) == posts, f"{len(answers.accepted)} of {posts} were accepted")
        await gateway.kill9()
        await model.forget()
        started = time.monotonic()
        await gateway.restart()
        bench.most("listens after s", time.monotonic() - started)
        while len(await model.calls()) < _SLOTS and time.monotonic() < started + 12 * _RECOVERED_S:
            await asyncio.sleep(0.05)
        took_s = time.monotonic() - started
        bench.most("runs again after s", took_s)
        bench.require(took_s <= _RECOVERED_S, f"kill {number}: they ran again after {took_s:.1f} s")
        now = await metrics(gateway)
        queued, running = (now.of(f'backburner_jobs{{status="{s}"}}') for s in ("queued", "in_progress"))
        bench.require(queued + running == posts, f"{queued:g} are queued and {running:g} run, of {posts}")
        bench.add("queued", int(queued))
        await gateway.kill9()


class _Crowd:
    """Of ten clients seven poll, two hang up after the first events, one reads to the end."""

    def __init__(self, gateway: Gateway, *, pace_ms: int) -> None:
        self.stories: dict[str, Story] = {}
        self._gateway = gateway
        self._pace_ms = pace_ms
        self._gate = asyncio.Semaphore(_CREATES_AT_ONCE)
        self._readers: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> _Crowd:
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0),
            timeout=aiohttp.ClientTimeout(total=None, sock_read=_ENDED_S),
            headers=HEADERS,
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._readers:
            await asyncio.wait(self._readers, timeout=10)
        for reader in self._readers:
            reader.cancel()
        await self._session.close()

    async def more(self, first: int, count: int) -> None:
        """So many creates; back when all were accepted."""
        async with asyncio.TaskGroup() as group:
            for number in range(first, first + count):
                group.create_task(self._one(number))

    async def _one(self, number: int) -> None:
        is_streamed = number % 10 < 3
        body = create_body(f"crowd.{number}", stream=is_streamed, deltas=_EVENTS, pace_ms=self._pace_ms)
        await self._gate.acquire()
        answer = await self._session.post(
            f"{self._gateway.url}/responses",
            data=orjson.dumps(body),
            headers={"Content-Type": "application/json"},
        )
        assert answer.status == 200, await answer.text()
        if not is_streamed:
            response_id = orjson.loads(await answer.read())["id"]
        else:
            first = await answer.content.readuntil(b"\n\n")
            response_id = payload(first)["response"]["id"]
        self._gate.release()
        story = Story(response_id, f"crowd.{number}", is_streamed, _EVENTS, time.monotonic())
        self.stories[response_id] = story
        if is_streamed:
            story.has_seen(first, time.monotonic())
            if number % 10 == 0:
                self._readers.add(asyncio.create_task(_read(answer, story)))
            else:
                answer.close()


async def _read(answer: aiohttp.ClientResponse, story: Story) -> None:
    buffer = b""
    async for chunk in answer.content.iter_any():
        whole, separator, buffer = (buffer + chunk).rpartition(b"\n\n")
        for event in frames(whole + separator):
            story.has_seen(event, time.monotonic())
    if story.ended_at is None:
        story.wrongs.append("its stream ended before it did")
