"""Readers that do not read, beside readers that do."""

from __future__ import annotations

import asyncio
import select
import socket
import statistics
import time
from contextlib import suppress
from urllib.parse import urlsplit

import aiohttp
import orjson

from tests.acceptance.harness import KEY, frames, payload
from tests.torture import oracle
from tests.torture.flood import percentile
from tests.torture.gateway import HEADERS, Gateway
from tests.torture.journal import Story
from tests.torture.model import create_body
from tests.torture.trial import Bench, trial
from tests.torture.trials.kills import note_verdict
from tests.torture.watch import MIB, Watch, metrics

_NORMAL = 100
_STALLED = 500
_TRICKLING = 500
_LATE_S = 5
_RSS_MORE_MAX = 100 * MIB
_SLOWER_MAX = 1.2
_NOISE_S = 0.010
"""What two quiet stretches of a minute differ by on a shared machine."""
_CALM_S = 8.0
_OPENED_PER_S = 100
"""So fast do the slow ones come: what a thousand new connections cost is not what is asked here."""
_PACE_MS = 50
_FILLER = 1000


@trial(
    "T17",
    f"{_STALLED} readers that take nothing and {_TRICKLING} that take 10 B/s, of live and of ended "
    f"responses, beside {_NORMAL} that read",
    pass_mark=f"RSS at most {_RSS_MORE_MAX // MIB} MiB more; p99 of the others' events in a second, median, "
    f"at most {_SLOWER_MAX:g} times as late (or {_NOISE_S * 1000:g} ms later); all slow ones cut off within "
    f"{_LATE_S} s of the limit; all responses whole",
    runs=3,
    round_s=150,
)
async def read_slowly(bench: Bench) -> None:
    stall_s = 30 if bench.runs > 1 else 6
    for _ in bench.rounds():
        model = await bench.model()
        gateway = await bench.gateway(
            model.url, server__write_stall_timeout_s=stall_s, stream__readers_per_tenant_max=20_000
        )
        opened_s = (_STALLED + _TRICKLING) / _OPENED_PER_S
        seconds = _CALM_S + opened_s + stall_s + 2 * _LATE_S
        async with Watch(gateway) as watch, Normal(gateway, seconds) as normal:
            ended = await _long_ended(gateway, (_STALLED + _TRICKLING) // 2 // 16 + 1)
            calm_from = time.monotonic()
            await asyncio.sleep(_CALM_S)
            calm_to = time.monotonic()
            slow = Slow(gateway, [*normal.stories][:_NORMAL], ended)
            await slow.start()
            gone_s = await slow.all_gone(stall_s + 3 * _LATE_S)
            slow_to = time.monotonic()
        before = max(sample.rss_bytes for sample in watch.between(calm_from, calm_to))
        beside = max(sample.rss_bytes for sample in watch.between(calm_to, slow_to))
        calm_s, slow_s = normal.late_s(calm_from, calm_to), normal.late_s(calm_to, slow_to)
        bench.most("RSS MiB more", (beside - before) / MIB)
        bench.most("p99 s before", calm_s)
        bench.most("p99 s beside", slow_s)
        bench.most("p99 s beside, of all events", percentile(normal.lates(calm_to, slow_to), 0.99))
        bench.most("last one cut off after s", gone_s)
        bench.add("not cut off", slow.left)
        bench.require(not slow.left, f"{slow.left} slow readers were not cut off")
        bench.require(gone_s <= stall_s + _LATE_S, f"a slow reader was cut off after {gone_s:.1f} s")
        bench.require(beside - before <= _RSS_MORE_MAX, f"they took {(beside - before) / MIB:.0f} MiB")
        bench.require(
            slow_s <= max(_SLOWER_MAX * calm_s, calm_s + _NOISE_S),
            f"the others' events came {slow_s * 1000:.0f} ms late in place of {calm_s * 1000:.0f} (p99)",
        )
        note_verdict(bench, await oracle.audit(gateway, normal.stories.values()))
        readers = (await metrics(gateway)).of("backburner_followers")
        bench.require(not readers, f"the gateway still counts {readers:g} readers")
        await gateway.kill9()


class Normal:
    """Clients that create a response each and read it as it comes; an async context, to the end of all."""

    def __init__(self, gateway: Gateway, seconds: float) -> None:
        self.stories: dict[str, Story] = {}
        self._gateway = gateway
        self._deltas = int(seconds * 1000 / _PACE_MS)
        self._late: list[tuple[float, float]] = []  # when an event came, and how long after it was sent
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Normal:
        self._session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), headers=HEADERS)
        self._tasks = [asyncio.create_task(self._read(number)) for number in range(_NORMAL)]
        while len(self.stories) < _NORMAL:
            await asyncio.sleep(0.05)
        return self

    async def __aexit__(self, *_: object) -> None:
        await asyncio.gather(*self._tasks)
        await self._session.close()

    def late_s(self, start: float, end: float) -> float:
        """The p99 of a second, in the median of all: one in which the machine stood still changes nothing."""
        seconds = [start + number for number in range(int(end - start))]
        return statistics.median(percentile(self.lates(one, one + 1), 0.99) for one in seconds)

    def lates(self, start: float, end: float) -> list[float]:
        return [late for at, late in self._late if start <= at <= end]

    async def _read(self, number: int) -> None:
        tag = f"normal.{number}"
        body = create_body(tag, stream=True, deltas=self._deltas, pace_ms=_PACE_MS, filler=_FILLER)
        story: Story | None = None
        buffer = b""
        async with self._session.post(f"{self._gateway.url}/responses", json=body) as answer:
            async for chunk in answer.content.iter_any():
                whole, separator, buffer = (buffer + chunk).rpartition(b"\n\n")
                at = time.monotonic()
                for event in frames(whole + separator):
                    content = payload(event)
                    if story is None:
                        response_id = content["response"]["id"]
                        story = self.stories[response_id] = Story(response_id, tag, True, self._deltas, at)
                    story.has_seen(event, at)
                    if "sent_at" in content:
                        self._late.append((at, at - content["sent_at"]))
        if story is not None and story.ended_at is None:
            story.wrongs.append("its stream ended before it did")


class Slow:
    """Connections that ask for a stream and then take nothing, or next to nothing.

    Attributes:
        left: How many are still there.
    """

    def __init__(self, gateway: Gateway, live: list[str], ended: list[str]) -> None:
        self._gateway = gateway
        self._live = live
        self._ended = ended
        self._sockets: dict[int, socket.socket] = {}
        self._poll = select.poll()
        self.left = _STALLED + _TRICKLING

    async def start(self) -> None:
        parts = urlsplit(self._gateway.url)
        loop = asyncio.get_running_loop()
        started = time.monotonic()
        for number in range(self.left):
            await asyncio.sleep(started + number / _OPENED_PER_S - time.monotonic())
            of = self._live if number % 2 else self._ended
            response_id = of[number // 2 % len(of)]
            raw = socket.socket()
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            raw.setblocking(False)
            await loop.sock_connect(raw, (parts.hostname, parts.port))
            request = (
                f"GET {parts.path}/responses/{response_id}?stream=true HTTP/1.1\r\nHost: {parts.netloc}\r\n"
            )
            await loop.sock_sendall(raw, f"{request}Authorization: Bearer {KEY}\r\n\r\n".encode())
            self._sockets[raw.fileno()] = raw
            self._poll.register(raw, select.POLLRDHUP | select.POLLHUP | select.POLLERR)

    async def all_gone(self, seconds: float) -> float:
        """Wait until the gateway has cut them all off, at most so long. Returns when the last one was."""
        started, last_s = time.monotonic(), 0.0
        trickling = list(self._sockets.values())[:_TRICKLING]
        while self._sockets and (now_s := time.monotonic() - started) < seconds:
            for number, _ in self._poll.poll(0):
                self._poll.unregister(number)
                self._sockets.pop(number).close()
                last_s = now_s
            for raw in trickling:
                with suppress(OSError):
                    raw.recv(10)
            await asyncio.sleep(1)
        self.left = len(self._sockets)
        for raw in self._sockets.values():
            raw.close()
        return last_s


async def _long_ended(gateway: Gateway, count: int) -> list[str]:
    """Ids of responses that have ended, each with some hundred kilobytes of events."""

    async def one(number: int) -> str:
        body = create_body(f"long.{number}", stream=True, deltas=400, pace_ms=0, filler=_FILLER)
        answer = await gateway.call("POST", "/responses", body)
        first: str = orjson.loads(answer.body[answer.body.index(b"data: ") + 6 :].split(b"\n")[0])[
            "response"
        ]["id"]
        return first

    return list(await asyncio.gather(*(one(number) for number in range(count))))
