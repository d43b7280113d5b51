"""Whoever reads the log stops reading it: nobody else notices, and what is missing is told."""

from __future__ import annotations

import asyncio
import signal
import time

import aiohttp

from tests.torture.gateway import HEADERS, Gateway
from tests.torture.model import create_body
from tests.torture.trial import Bench, trial

_CREATES = 500
"""Some 250 kB of lines: more than the pipe, its reader here and the gateway hold."""
_AT_ONCE = 16
_WAITING_BYTES = 2**12
_ANSWER_S = 2.0
_FLUSH_S = 1
_EXIT_S = 5.0
_DROPPED = "backburner_log_lines_dropped_total"


@trial(
    "T52",
    f"nobody reads the log for {_CREATES} creates; then it is read again, or there is a SIGTERM",
    pass_mark=f"every create, poll and look at the health is answered within {_ANSWER_S:g} s; what was "
    f"dropped is counted, and a line says so; exit 0 within {_EXIT_S:g} s",
    runs=20,
    short_runs=2,
    quick_runs=1,
)
async def hang_the_log(bench: Bench) -> None:
    model = await bench.model()
    for number in bench.rounds():
        gateway = await bench.gateway(
            model.url, log__waiting_bytes_max=_WAITING_BYTES, log__flush_timeout_s=_FLUSH_S
        )
        gateway.stop_reading()
        await _go_on(bench, gateway, f"hung.{number}")
        dropped = await gateway.metric(_DROPPED)
        bench.require(dropped > 0, "nothing was dropped: the log did not hang")
        await (_read_again(bench, gateway, dropped) if number % 2 == 0 else _leave(bench, gateway))
        await gateway.end()


async def _read_again(bench: Bench, gateway: Gateway, dropped: float) -> None:
    gateway.read_on()
    bench.add("lines dropped", dropped)
    try:
        async with asyncio.timeout(_ANSWER_S):
            while _told(gateway) < dropped:
                await gateway.more_lines()
    except TimeoutError:
        bench.require(False, f"{_told(gateway)} told of {dropped:g} dropped")
    accepted = sum(line["event"] == "job" and line.get("to") == "queued" for line in gateway.lines)
    bench.require(0 < accepted < _CREATES, f"{accepted} of {_CREATES} lines were kept: all, or none")


def _told(gateway: Gateway) -> int:
    return sum(line["dropped"] for line in gateway.lines if line["event"] == "log_lines_dropped")


async def _leave(bench: Bench, gateway: Gateway) -> None:
    started = time.monotonic()
    gateway.send(signal.SIGTERM)
    while gateway.is_running and time.monotonic() - started < 3 * _EXIT_S:
        await asyncio.sleep(0.05)
    took_s = time.monotonic() - started
    bench.most("slowest exit s", took_s)
    bench.require(took_s <= _EXIT_S, f"the exit took {took_s:.1f} s")
    gateway.read_on()
    bench.require(await gateway.exit_status() == 0, "the exit status was not 0")


async def _go_on(bench: Bench, gateway: Gateway, tag: str) -> None:
    numbers = iter(range(_CREATES))
    timeout = aiohttp.ClientTimeout(total=3 * _ANSWER_S)
    async with aiohttp.ClientSession(headers=HEADERS, timeout=timeout) as session:

        async def each() -> None:
            for number in numbers:
                body = create_body(f"{tag}.{number}", stream=False, deltas=1, pace_ms=0)
                created = await _timed(bench, session, "POST", f"{gateway.url}/responses", body)
                await _timed(bench, session, "GET", f"{gateway.url}/responses/{created['id']}")
                if number % 100 == 0:
                    await _timed(bench, session, "GET", f"{gateway.admin}/healthz")

        async with asyncio.TaskGroup() as group:
            for _ in range(_AT_ONCE):
                group.create_task(each())


async def _timed(
    bench: Bench, session: aiohttp.ClientSession, method: str, url: str, body: object = None
) -> dict[str, str]:
    started = time.monotonic()
    async with session.request(method, url, json=body) as answer:
        found = await answer.json(content_type=None) if answer.content_type == "application/json" else {}
        took_s = time.monotonic() - started
        bench.require(answer.status == 200, f"{method} {url}: {answer.status}")
        bench.require(took_s <= _ANSWER_S, f"{method} {url} took {took_s:.1f} s")
        bench.most("slowest answer s", took_s)
        bench.add("requests")
        return dict(found)
