"""Timers that judge nothing before the sockets were read, and turns for all others; on both loops."""

from __future__ import annotations

import asyncio
import itertools
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import aclosing, asynccontextmanager, suppress
from typing import Any

import pytest
import uvloop

from gateway import loop

LONG_S = 60
SOON_S = 0.05
HALT_S = 0.4
"""Longer than such a timer, and than any work of the loop."""

Run = Callable[[Coroutine[Any, Any, None]], None]


@pytest.fixture(params=[uvloop.new_event_loop, asyncio.new_event_loop], ids=["uvloop", "asyncio"])
def run(request: pytest.FixtureRequest) -> Run:
    def run_bounded(play: Coroutine[Any, Any, None]) -> None:
        with asyncio.Runner(loop_factory=request.param) as runner:
            runner.run(asyncio.wait_for(play, LONG_S))

    return run_bounded


@asynccontextmanager
async def peer() -> AsyncIterator[tuple[asyncio.StreamReader, socket.socket]]:
    """A connection, and its other end."""
    ours, theirs = socket.socketpair()
    reader, writer = await asyncio.open_connection(sock=ours)
    try:
        yield reader, theirs
    finally:
        writer.close()
        theirs.close()


async def started(work: Awaitable[Any]) -> asyncio.Future[Any]:
    """A task that waits for what it waits for."""
    task = asyncio.ensure_future(work)
    for _ in range(3):
        await asyncio.sleep(0)
    return task


async def read_within(reader: asyncio.StreamReader, seconds: float) -> bytes:
    async with loop.timeout(seconds):
        return await reader.read(100)


# -- after a halt


@pytest.mark.parametrize("halt_s", [SOON_S - 0.002, SOON_S, HALT_S])
def test_what_has_come_in_a_halt_is_read_before_its_timeout_is_over(run: Run, halt_s: float) -> None:
    async def play() -> None:
        async with peer() as (reader, theirs):
            reading = await started(read_within(reader, SOON_S))
            theirs.send(b"in time")
            time.sleep(halt_s)
            assert await reading == b"in time"

    run(play())


def test_what_has_to_go_to_and_fro_has_time_for_it_after_a_halt(run: Run) -> None:
    async def play() -> None:
        async with peer() as (reader, theirs), peer() as (asked, answering):

            async def answer() -> None:
                theirs.send(await asked.read(100))

            async with loop.timeout(1):
                answered = await started(answer())
                answering.send(b"hello")
                time.sleep(1 + HALT_S)
                await loop.sleep(SOON_S)
                assert await reader.read(100) == b"hello"
            await answered

    run(play())


def test_who_is_silent_after_a_halt_as_well_is_judged(run: Run) -> None:
    async def play() -> None:
        async with peer() as (reader, _):
            reading = await started(read_within(reader, SOON_S))
            time.sleep(HALT_S)
            with pytest.raises(TimeoutError):
                await reading

    run(play())


def test_a_loop_that_is_always_late_judges_all_the_same(run: Run) -> None:
    async def be_busy() -> None:
        while True:
            time.sleep(0.15)
            await asyncio.sleep(0)

    async def play() -> None:
        busy = asyncio.ensure_future(be_busy())
        with pytest.raises(TimeoutError):
            async with loop.timeout(SOON_S):
                await asyncio.Event().wait()
        busy.cancel()

    run(play())


def test_after_a_sleep_in_a_halt_what_has_come_is_read(run: Run) -> None:
    async def play() -> None:
        async with peer() as (reader, theirs):
            reading = await started(reader.read(100))
            sleeping = await started(loop.sleep(SOON_S))
            theirs.send(b"in time")
            time.sleep(HALT_S)
            await sleeping
            assert reading.done()

    run(play())


def test_tasks_that_could_end_in_a_halt_are_done(run: Run) -> None:
    async def play() -> None:
        async with peer() as (reader, theirs):
            reading = asyncio.ensure_future(reader.read(100))
            waiting = await started(loop.are_done([reading], SOON_S))
            theirs.send(b"in time")
            time.sleep(HALT_S)
            assert await waiting

    run(play())


# -- as any timer


def test_an_alarm_rings_once_and_again_when_it_is_started_anew(run: Run) -> None:
    async def play() -> None:
        rung: list[str] = []
        alarm = loop.Alarm(SOON_S, lambda: rung.append("x"))
        await loop.sleep(3 * SOON_S)
        assert rung == ["x"]
        alarm.restart()
        await loop.sleep(3 * SOON_S)
        assert rung == ["x", "x"]

    run(play())


def test_an_alarm_that_is_started_anew_all_the_time_does_not_ring(run: Run) -> None:
    async def play() -> None:
        rung = asyncio.Event()
        alarm = loop.Alarm(SOON_S, rung.set)
        for _ in range(15):
            await asyncio.sleep(SOON_S / 5)
            alarm.restart()
        assert not rung.is_set()
        await rung.wait()

    run(play())


def test_an_alarm_can_be_brought_forward_put_off_and_stopped(run: Run) -> None:
    async def play() -> None:
        brought, put_off, stopped = asyncio.Event(), asyncio.Event(), asyncio.Event()
        alarm = loop.Alarm(LONG_S, brought.set)
        alarm.start(SOON_S)
        later = loop.Alarm(SOON_S, put_off.set)
        later.start(LONG_S)
        loop.Alarm(SOON_S, stopped.set).stop()
        await brought.wait()
        await loop.sleep(2 * SOON_S)
        assert not put_off.is_set()
        assert not stopped.is_set()
        later.stop()

    run(play())


def test_a_timeout_that_is_suspended_does_not_end_and_goes_on_when_it_is_started(run: Run) -> None:
    async def play() -> None:
        suspended_s = 6 * SOON_S
        started_s = time.monotonic()
        with pytest.raises(TimeoutError):  # noqa: PT012  what is tested is a block
            async with loop.timeout(SOON_S) as limit:
                limit.start(None)
                await asyncio.sleep(suspended_s / 2)
                limit.restart()  # of nothing
                await asyncio.sleep(suspended_s / 2)
                limit.start(SOON_S)
                await asyncio.Event().wait()
        assert time.monotonic() - started_s >= suspended_s
        async with loop.timeout(None):
            await asyncio.sleep(0)

    run(play())


def test_a_timeout_is_over_when_it_is_left(run: Run) -> None:
    async def play() -> None:
        async with loop.timeout(SOON_S):
            pass
        await asyncio.sleep(3 * SOON_S)

    run(play())


def test_a_cancel_within_a_timeout_stays_one(run: Run) -> None:
    async def play() -> None:
        async with peer() as (reader, _):
            reading = await started(read_within(reader, LONG_S))
            reading.cancel()
            with pytest.raises(asyncio.CancelledError):
                await reading

    run(play())


def test_tasks_that_take_longer_are_not_done_and_go_on(run: Run) -> None:
    async def play() -> None:
        for_ever = asyncio.ensure_future(asyncio.Event().wait())
        assert not await loop.are_done([for_ever], SOON_S)
        assert not for_ever.done()
        for_ever.cancel()
        assert await loop.are_done([for_ever], None)

    run(play())


# -- turns


async def work_off(chunk: bytes, name: str, log: list[str], seconds: float = 0.003) -> bytes:
    """Take the pieces of a chunk, each of which costs more than a turn may."""
    found = []
    async with aclosing(loop.pieces(chunk)) as pieces:
        async for piece in pieces:
            time.sleep(seconds)
            log.append(name)
            found.append(piece)
    return b"".join(found)


async def tick(log: list[str]) -> None:
    while True:
        log.append("tick")
        await asyncio.sleep(0)


@pytest.mark.parametrize("size", [0, 1, 1024, 1025, 5000])
def test_pieces_are_the_chunk(run: Run, size: int) -> None:
    async def play() -> None:
        chunk = bytes(number % 251 for number in range(size))
        assert await work_off(chunk, "piece", []) == chunk

    run(play())


def test_others_have_their_turn_after_each_piece_that_takes_time_however_many_have_some(run: Run) -> None:
    async def play() -> None:
        log: list[str] = []
        ticking = asyncio.ensure_future(tick(log))
        await asyncio.gather(*(work_off(bytes(6 * 1024), "piece", log) for _ in range(10)))
        ticking.cancel()
        runs = [len(list(run)) for name, run in itertools.groupby(log) if name == "piece"]
        assert sum(runs) == 60
        assert max(runs[1:]) <= 2, "but for the first piece of each, which came at once"

    run(play())


def test_who_goes_away_while_in_line_does_not_hold_it_up(run: Run) -> None:
    async def play() -> None:
        log: list[str] = []
        tasks = [asyncio.ensure_future(work_off(bytes(6 * 1024), str(at), log)) for at in range(4)]
        await asyncio.sleep(0)
        for task in tasks[:2]:
            task.cancel()
        for task in tasks[:2]:
            with suppress(asyncio.CancelledError):
                await task
        assert [len(await task) for task in tasks[2:]] == [6 * 1024] * 2
        assert {log.count(name) for name in "01"} == {1}

    run(play())


async def test_a_ticker_rings_while_there_is_something_and_begins_again() -> None:
    rung = asyncio.Event()
    left = 3

    def look() -> bool:
        nonlocal left
        left -= 1
        if not left:
            rung.set()
        return left > 0

    ticker = loop.Ticker(0.01, look)
    for _ in range(2):
        left = 3
        ticker.wake()
        ticker.wake()
        await asyncio.wait_for(rung.wait(), 5)
        rung.clear()
    assert (left, ticker.ticks(0.05), ticker.ticks(0.001)) == (0, 6, 2)
    ticker.wake()
    ticker.stop()
    await loop.sleep(0.05)
    assert left == 0
