"""Readers of event streams: cut anywhere they come back to the same bytes, and every stream ends."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import aiohttp

from tests.acceptance.harness import frames, numbers, payload, within
from tests.torture.gateway import HEADERS, Gateway
from tests.torture.model import create_body
from tests.torture.trial import Bench, trial

_EVENTS = 300
_LIFECYCLE_AND_FRAME = 9
"""Events of an answer of the scripted model server that are no pieces of text, the gateway's own included."""
_AT_ONCE = 8
_ENDED_S = 2.0
_BAD_CURSORS = ("-1", "1.5", "1e3", "x", "", "+1", "0x1", "%20", "1%0a", "\u0663", "9" * 40, "null", "true")


@trial(
    "T15",
    f"streams of {_EVENTS} events, live and ended, cut after every event, resumed from every cursor",
    pass_mark="byte-identical tails, contiguous numbers; past the end empty; 400 for bad cursors; no hang",
    runs=10,
    short_runs=2,
    quick_runs=1,
)
async def resume_anywhere(bench: Bench) -> None:
    model = await bench.model()
    gateway = await bench.gateway(model.url)
    async with _readers() as session:
        for number in bench.rounds():
            await _resume(bench, gateway, session, number)


async def _resume(bench: Bench, gateway: Gateway, session: aiohttp.ClientSession, number: int) -> None:
    deltas = _EVENTS - _LIFECYCLE_AND_FRAME
    body = create_body(f"resume.{number}", stream=True, deltas=deltas, pace_ms=3)
    live = await _read_in_single_events(gateway, session, body)
    response_id = payload(live[0])["response"]["id"]
    path = f"{gateway.url}/responses/{response_id}?stream=true"
    whole = await _whole(session, path)
    events = frames(whole)
    bench.add("events", len(events))
    bench.require(len(events) == _EVENTS, f"{response_id} has {len(events)} events")
    bench.require(numbers(events) == list(range(len(events))), f"{response_id} is not numbered from 0 on")
    bench.require(
        live == events, f"{response_id}: what was read live, an event a connection, is not its replay"
    )
    cursors = iter([*range(len(events)), len(events), 10**6, 10**18 - 1])

    async def each() -> None:
        for cursor in cursors:
            tail = b"".join(events[cursor + 1 :])
            found = await _whole(session, f"{path}&starting_after={cursor}")
            bench.add("cursors")
            bench.require(found == tail, f"{response_id} from {cursor}: {len(found)} bytes, not {len(tail)}")
            if cursor < len(events):
                cut = await _first(session, path, cursor + 1)
                bench.require(cut == events[: cursor + 1], f"{response_id}, cut after {cursor}: other bytes")

    async with asyncio.TaskGroup() as group:
        for _ in range(_AT_ONCE):
            group.create_task(each())
    for bad in _BAD_CURSORS:
        async with session.get(f"{path}&starting_after={bad}") as answer:
            error = (await answer.json()).get("error", {})
            is_named = (answer.status, error.get("param")) == (400, "starting_after")
            bench.require(is_named, f"starting_after={bad!r}: {answer.status}, {error}")


async def _read_in_single_events(
    gateway: Gateway, session: aiohttp.ClientSession, body: dict[str, Any]
) -> list[bytes]:
    """A stream while it runs, by a reader that is cut off after each event and comes back with its cursor."""
    async with session.post(f"{gateway.url}/responses", json=body) as answer:
        seen = [await within(anext(_frames_of(answer)))]
    response_id = payload(seen[0])["response"]["id"]
    path = f"{gateway.url}/responses/{response_id}?stream=true"
    while True:
        cursor = payload(seen[-1])["sequence_number"]
        async with session.get(f"{path}&starting_after={cursor}") as answer:
            event = await within(anext(_frames_of(answer), None))
        if event is None:
            return seen
        seen.append(event)


# -- every stream ends


@dataclass(frozen=True, slots=True)
class _Ending:
    """A way for a response to end. `end`: what brings it about, given the URL of the response."""

    name: str
    script: dict[str, Any]
    terminal: str | None
    end: Callable[[aiohttp.ClientSession, str], Awaitable[object]] | None = None


async def _cancel(session: aiohttp.ClientSession, url: str) -> None:
    async with session.post(f"{url}/cancel") as answer:
        assert answer.status == 200


async def _delete(session: aiohttp.ClientSession, url: str) -> None:
    async with session.delete(url) as answer:
        assert answer.status == 200


_ENDINGS = [
    _Ending("completed", {}, "response.completed"),
    _Ending("cut by the backend", {"fault": "cut", "after": 3}, "response.failed"),
    _Ending("reset by the backend", {"fault": "reset", "after": 3}, "response.failed"),
    _Ending("an error event", {"fault": "error", "after": 3}, "response.failed"),
    _Ending("an error status", {"fault": "status:400"}, "response.failed"),
    _Ending("incomplete", {"fault": "incomplete", "after": 3}, "response.incomplete"),
    _Ending("past its deadline", {"fault": "hang", "after": 3}, "response.failed"),
    _Ending("cancelled", {"fault": "hang", "after": 3}, "response.failed", _cancel),
    _Ending("cancelled while queued", {"head_ms": 60_000}, "response.failed", _cancel),
    _Ending("deleted", {"fault": "hang", "after": 3}, None, _delete),
]
_DEADLINE_S, _RETENTION_S = 3, 2


@trial(
    "T16",
    f"readers of responses that end in {len(_ENDINGS)} ways: before the end, at it, after it, too late",
    pass_mark=f"every stream ends within {_ENDED_S:g} s of the end, with its terminal event; expired is 404",
    runs=20,
    short_runs=1,
)
async def read_to_the_end(bench: Bench) -> None:
    model = await bench.model()
    gateway = await bench.gateway(
        model.url,
        background__deadline_s=_DEADLINE_S,
        background__retention_s=_RETENTION_S,
        background__recovery="never",
    )
    async with _readers() as session:
        for number in bench.rounds():
            async with asyncio.TaskGroup() as group:
                for ending in _ENDINGS:
                    group.create_task(_read_out(bench, gateway, session, ending, number))


async def _read_out(
    bench: Bench, gateway: Gateway, session: aiohttp.ClientSession, ending: _Ending, number: int
) -> None:
    body = create_body(f"end.{number}.{ending.name}", stream=True, deltas=6, pace_ms=10, **ending.script)
    created = asyncio.create_task(
        _timed(session.post(f"{gateway.url}/responses", json=body), first := _First())
    )
    url = f"{gateway.url}/responses/{await within(first.id)}"
    early = [asyncio.create_task(_timed(session.get(f"{url}?stream=true"))) for _ in range(2)]
    if ending.end is not None:
        await asyncio.sleep(0.3)
        await ending.end(session, url)
        ended_at = time.monotonic()
    else:
        ended_at = await _terminal_at(session, url)
    at_the_end = asyncio.create_task(_timed(session.get(f"{url}?stream=true")))
    async with asyncio.timeout(30):
        reads = [await task for task in (created, *early, at_the_end)]
    for status, log, over_at in reads:
        if ending.terminal is None and status == 404:
            continue
        bench.add("streams")
        late_s = over_at - ended_at
        bench.most("slowest end s", late_s)
        bench.require(late_s <= _ENDED_S, f"{ending.name}: a stream ended {late_s:.1f} s after the response")
        if ending.terminal is not None:
            kinds = [payload(event)["type"] for event in frames(log)]
            is_ended = kinds.count(ending.terminal) == 1 and kinds[-1] == ending.terminal
            bench.require(is_ended, f"{ending.name}: a stream ended with {kinds[-1:]}")
    await asyncio.sleep(_RETENTION_S)
    for path in (url, f"{url}?stream=true", f"{url}?stream=true&starting_after=2"):
        status, _, _ = await _timed(session.get(path))
        bench.add("asked too late")
        bench.require(status == 404, f"{ending.name}: {status} after it has expired")


class _First:
    """The id in the first event of a stream that goes on."""

    def __init__(self) -> None:
        self.id: asyncio.Future[str] = asyncio.get_running_loop().create_future()


async def _timed(asked: Any, first: _First | None = None) -> tuple[int, bytes, float]:
    """Status and whole body of an answer, and when it was over."""
    async with asked as answer:
        log = b""
        async for chunk in answer.content.iter_any():
            log += chunk
            if first is not None and not first.id.done() and b"\n\n" in log:
                first.id.set_result(payload(frames(log)[0])["response"]["id"])
        return answer.status, log, time.monotonic()


async def _terminal_at(session: aiohttp.ClientSession, url: str) -> float:
    async with asyncio.timeout(30):
        while True:
            async with session.get(url) as answer:
                if (await answer.json())["status"] not in ("queued", "in_progress"):
                    return time.monotonic()
            await asyncio.sleep(0.02)


# -- and has a beginning


_HEAD_S = 2.0


@trial(
    "T51",
    "streams with nothing to say: of running and queued responses from every cursor, and passed through",
    pass_mark=f"the head of each comes within {_HEAD_S:g} s, whatever the heartbeat",
    runs=20,
    short_runs=2,
    quick_runs=1,
)
async def begin_at_once(bench: Bench) -> None:
    model = await bench.model()
    gateway = await bench.gateway(model.url, stream__heartbeat_s=3600, upstream__concurrency_max=1)
    async with _readers() as session:
        for number in bench.rounds():
            silent = {"fault": "hang", "after": 2, "deltas": 3}
            running, seen = await _until_silent(gateway, session, f"run.{number}", 7, silent)
            waiting, _ = await _until_silent(gateway, session, f"wait.{number}", 2, silent)
            for response_id, newest in ((running, seen), (waiting, 2)):
                for cursor in (*range(newest), 10**6):
                    path = f"/responses/{response_id}?stream=true&starting_after={cursor}"
                    await _head(bench, session.get(f"{gateway.url}{path}"), path)
            plain = create_body(f"plain.{number}", stream=True, background=False, first_ms=60_000)
            await _head(bench, session.post(f"{gateway.url}/responses", json=plain), "passed through")
            for response_id in (waiting, running):
                await _delete(session, f"{gateway.url}/responses/{response_id}")


async def _until_silent(
    gateway: Gateway, session: aiohttp.ClientSession, tag: str, count: int, script: dict[str, Any]
) -> tuple[str, int]:
    """A streamed response, left once its reader has had so many events."""
    body = create_body(tag, stream=True, **script)
    async with session.post(f"{gateway.url}/responses", json=body) as answer:
        events = _frames_of(answer)
        seen = [await within(anext(events)) for _ in range(count)]
    return payload(seen[0])["response"]["id"], len(seen)


async def _head(bench: Bench, asked: Any, what: str) -> None:
    started = time.monotonic()
    try:
        async with asyncio.timeout(3 * _HEAD_S), asked as answer:
            took_s = time.monotonic() - started
            bench.require(answer.status == 200, f"{what}: {answer.status}")
            bench.require(took_s <= _HEAD_S, f"{what}: its head took {took_s:.1f} s")
            bench.most("slowest head s", took_s)
    except TimeoutError:
        bench.require(False, f"{what}: no head")
    bench.add("streams")


# -- shared


@asynccontextmanager
async def _readers() -> AsyncIterator[aiohttp.ClientSession]:
    timeout = aiohttp.ClientTimeout(total=60)
    connector = aiohttp.TCPConnector(force_close=True, limit=0)
    async with aiohttp.ClientSession(headers=HEADERS, connector=connector, timeout=timeout) as session:
        yield session


async def _whole(session: aiohttp.ClientSession, url: str) -> bytes:
    async with session.get(url) as answer:
        assert answer.status == 200, await answer.read()
        return await within(answer.read())


async def _first(session: aiohttp.ClientSession, url: str, count: int) -> list[bytes]:
    """So many events of a stream that is then cut."""
    async with session.get(url) as answer:
        events = _frames_of(answer)
        return [await within(anext(events)) for _ in range(count)]


async def _frames_of(answer: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
    buffer = b""
    async for chunk in answer.content.iter_any():
        *whole, buffer = (buffer + chunk).split(b"\n\n")
        for part in whole:
            if not part.startswith(b":"):
                yield part + b"\n\n"
