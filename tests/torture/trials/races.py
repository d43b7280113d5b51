"""Cancels and deletes that meet an end: one of them wins, and everybody hears of the same one."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter, defaultdict
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Literal

import orjson

from tests.acceptance.harness import Reply, frames, payload
from tests.acceptance.receivers import Receiver
from tests.torture.gateway import Gateway
from tests.torture.journal import TERMINAL
from tests.torture.model import Model, create_body, expected_text
from tests.torture.oracle import text_of
from tests.torture.told import SECRETS, all_told, endpoint
from tests.torture.trial import Bench, trial

_AT_ONCE = 20
_DELTAS, _PACE_MS = 12, 10
_WINDOW_S = 0.02
"""The cancels come within this much of the end, before or after it."""

_TOLD_S = 30
"""For the last lines of the log."""
_OUT = ("completed", "incomplete", "failed", "cancelled")


@dataclass(slots=True)
class _Race:
    """One response, and what came of it.

    Attributes:
        events: What its reader got.
        is_deleted_at_once: Its delete is part of the race, and does not wait until it is decided.
        before: A poll and a replay between the race and the delete that waited.
        deletes: Its delete, and a poll and a replay after it.
    """

    id: str
    tag: str
    is_deleted_at_once: bool
    events: list[bytes] = field(default_factory=list)
    cancels: list[Reply] = field(default_factory=list)
    before: list[Reply] = field(default_factory=list)
    deletes: list[Reply] = field(default_factory=list)


@trial(
    "T9",
    "2 cancels and 1 delete of every response, within 20 ms of its end",
    pass_mark="1 terminal transition, 1 terminal event and 1 webhook each; all answers agree; 0 HTTP 5xx",
    runs=1000,
    short_runs=200,
    quick_runs=20,
    round_s=2,
)
async def race_to_the_end(bench: Bench) -> None:
    model = await bench.model()
    async with Receiver() as receiver:
        gateway = await bench.prepared(model.url)
        gateway.set(**endpoint("races", receiver, SECRETS))
        await gateway.start()
        turns = iter(bench.rounds())
        races: list[_Race] = []
        aim = _Aim()

        async def runner() -> None:
            for number in turns:
                races.append(await _race(gateway, number, aim))
                _judge(bench, races[-1])

        async with asyncio.TaskGroup() as group:
            for _ in range(_AT_ONCE):
                group.create_task(runner())
        await _all_told(gateway, races)
        _judge_log(bench, gateway, races)
        await all_told(bench, gateway, "races")
        _judge_webhooks(bench, gateway, races, receiver)


class _Aim:
    """When to strike, from the first event on: a little later after each cancel that won, a little earlier
    after each that came too late. So half of them win, on a fast machine and on a busy one."""

    _STEP_S = 0.002

    def __init__(self) -> None:
        self._at_s = _DELTAS * _PACE_MS / 1000

    def was(self, too: Literal["early", "late"]) -> None:
        self._at_s += self._STEP_S if too == "early" else -self._STEP_S

    async def take(self) -> None:
        """Wait until then, more or less."""
        await asyncio.sleep(max(0.0, self._at_s + random.uniform(-_WINDOW_S, _WINDOW_S)))


async def _race(gateway: Gateway, number: int, aim: _Aim) -> _Race:
    tag = f"race.{number}"
    body = create_body(tag, stream=True, deltas=_DELTAS, pace_ms=_PACE_MS)
    async with gateway.events("/responses", body) as stream, asyncio.TaskGroup() as group:
        events = [await anext(stream)]
        race = _Race(payload(events[0])["response"]["id"], tag, random.random() < 0.5, events)
        group.create_task(_act(gateway, race, aim))
        events += [event async for event in stream]
    if _kind(events[-1]) in TERMINAL:  # not one that was deleted before its end
        aim.was("late" if _kind(events[-1]) == "completed" else "early")
    return race


async def _act(gateway: Gateway, race: _Race, aim: _Aim) -> None:
    """The two cancels; and the delete, beside them or after a look at what came of them."""
    path = f"/responses/{race.id}"

    async def cancel() -> None:
        await aim.take()
        race.cancels.append(await gateway.call("POST", f"{path}/cancel"))

    async def delete() -> None:
        await aim.take()
        race.deletes.append(await gateway.call("DELETE", path))
        race.deletes.append(await gateway.call("GET", path))
        race.deletes.append(await gateway.call("GET", f"{path}?stream=true"))

    if race.is_deleted_at_once:
        await asyncio.gather(cancel(), cancel(), delete())
        return
    await asyncio.gather(cancel(), cancel())
    race.before += [await gateway.call("GET", path), await gateway.call("GET", f"{path}?stream=true")]
    await delete()


def _judge(bench: Bench, race: _Race) -> None:
    deleted, gone, gone_stream = race.deletes
    for reply in (*race.cancels, *race.before, *race.deletes):
        bench.add("answers 5xx", reply.status >= 500)
        bench.require(reply.status < 500, f"{race.id}: answered {reply.status}: {reply.body[:200]!r}")
    bench.require(deleted.status == 200, f"{race.id}: its delete was answered {deleted.status}")
    bench.require((gone.status, gone_stream.status) == (404, 404), f"{race.id} is there after its delete")
    ends = [event for event in race.events if _kind(event) in TERMINAL]
    bench.require(not ends or ends == race.events[-1:], f"{race.id}: its reader saw {len(ends)} ends")
    allowed = {200, 400, 404} if race.is_deleted_at_once else {200, 400}
    codes = [reply.status for reply in race.cancels]
    bench.require(set(codes) <= allowed, f"{race.id}: its cancels were answered {codes}")
    won = [reply.body for reply in race.cancels if reply.status == 200]
    bench.require(len(set(won)) <= 1, f"{race.id}: two cancels, two objects")
    if won:
        bench.require(400 not in codes, f"{race.id} is cancelled and cannot be cancelled")
        bench.add("cancelled")
    if race.before:
        _judge_end(bench, race, won[0] if won else None)


def _judge_end(bench: Bench, race: _Race, cancelled: bytes | None) -> None:
    """One that was looked at between its end and its delete."""
    polled, replayed = race.before
    final = polled.json()
    bench.require(cancelled in (None, polled.body), f"{race.id}: cancelled, and now {final['status']}")
    expected = "completed" if cancelled is None else "cancelled"
    bench.require(final["status"] == expected, f"{race.id} is {final['status']}, not {expected}")
    whole = expected_text(race.tag, 1, _DELTAS)
    text = text_of(final)
    bench.require(text == whole if cancelled is None else whole.startswith(text), f"{race.id}: {text!r}")
    log = frames(replayed.body)
    ends = [event for event in log if _kind(event) in TERMINAL]
    bench.require(ends == log[-1:], f"{race.id}: {len(ends)} terminal events in its log")
    bench.require(log == race.events, f"{race.id}: its reader saw another log")
    bench.add("looked at")


async def _all_told(gateway: Gateway, races: list[_Race]) -> None:
    """Lines leave by a thread of their own: the last ones come after the last answer."""
    missing = {race.id for race in races}
    with suppress(TimeoutError):  # then the judge says which
        async with asyncio.timeout(_TOLD_S):
            while missing:
                missing -= {str(line.get("id")) for line in gateway.lines if line.get("to") == "deleted"}
                if missing:
                    await gateway.more_lines()


def _judge_log(bench: Bench, gateway: Gateway, races: list[_Race]) -> None:
    """What the gateway says that it did: every response ended once, be it by its delete."""
    moves: dict[str, Counter[str]] = {race.id: Counter() for race in races}
    for line in gateway.lines:
        if line["event"] == "job" and line.get("id") in moves:
            moves[line["id"]][line["to"]] += 1
    for race in races:
        ends = sum(moves[race.id][status] for status in _OUT)
        deleted = moves[race.id]["deleted"]
        bench.require(deleted == 1, f"{race.id}: {deleted} deletes in the log")
        bench.require(ends == 1, f"{race.id}: {ends} ends in the log")
        bench.add("terminal transitions", ends)


def _judge_webhooks(bench: Bench, gateway: Gateway, races: list[_Race], receiver: Receiver) -> None:
    """One for each response, of the end that it had; one that was deleted before it had one was cancelled."""
    told: dict[str, set[tuple[str, bytes]]] = defaultdict(set)
    for got in receiver.received:
        told[got.response_id].add((got.webhook_id, got.body))
    ends = {line["id"]: line["to"] for line in gateway.lines if line["event"] == "job" and line["to"] in _OUT}
    for race in races:
        events = told.pop(race.id, set())
        bench.require(len(events) == 1, f"{race.id}: {len(events)} webhooks")
        expected = f"response.{ends.get(race.id, 'cancelled')}"
        for _, body in events:
            found = orjson.loads(body)["type"]
            bench.require(found == expected, f"{race.id}: told as {found}, not {expected}")
        bench.add("webhooks", len(events))
    bench.require(not told, f"{len(told)} webhooks about other responses")


def _kind(event: bytes) -> str:
    return str(payload(event)["type"]).removeprefix("response.")


_LATENCY_P99_S = 1.0
_CANCELLED_AT_ONCE = 10


@trial(
    "T10",
    "cancel of a running response: how soon the model server is left, and that nothing comes after it",
    pass_mark=f"the model server is left within {_LATENCY_P99_S:g} s (p99); 0 events after the cancel",
    runs=50,
    short_runs=4,
    quick_runs=1,
    round_s=10,
)
async def cancel_quickly(bench: Bench) -> None:
    model = await bench.model()
    gateway = await bench.gateway(model.url)
    asked: dict[str, float] = {}
    for number in bench.rounds():
        async with asyncio.TaskGroup() as group:
            for each in range(_CANCELLED_AT_ONCE):
                group.create_task(_cancel_one(bench, gateway, f"late.{number}.{each}", asked))
    await _left(bench, model, asked)


async def _cancel_one(bench: Bench, gateway: Gateway, tag: str, asked: dict[str, float]) -> None:
    body = create_body(tag, stream=True, deltas=5000, pace_ms=2)
    async with gateway.events("/responses", body) as stream:
        first = await anext(stream)
        response_id = payload(first)["response"]["id"]
        seen = [first, *[await anext(stream) for _ in range(random.randint(4, 60))]]
        asked[response_id] = time.monotonic()
        cancelling = asyncio.create_task(gateway.call("POST", f"/responses/{response_id}/cancel"))
        seen += [event async for event in stream]
        answer = await cancelling
    bench.require(answer.status == 200, f"{response_id}: its cancel was answered {answer.status}")
    log = await gateway.replay(response_id)
    await asyncio.sleep(0.2)
    again = await gateway.replay(response_id)
    bench.add("events after the cancel", len(frames(again)) - len(frames(log)))
    bench.require(log == again, f"{response_id}: its log changed after the cancel")
    bench.require(frames(log) == seen, f"{response_id}: its reader saw another log")
    final = orjson.loads(answer.body)
    bench.require(payload(seen[-1])["response"] == final, f"{response_id}: its last event shows another end")


async def _left(bench: Bench, model: Model, asked: dict[str, float]) -> None:
    await asyncio.sleep(1.5 * _LATENCY_P99_S)
    gone_at = {call.job: call.gone_at for call in await model.calls()}
    latencies = []
    for response_id, asked_at in asked.items():
        left_at = gone_at.get(response_id)
        if bench.require(left_at is not None, f"{response_id}: the model server works on") and left_at:
            latencies.append(left_at - asked_at)
    latencies.sort()
    bench.figure("cancels", len(latencies))
    bench.figure("p50 s", round(latencies[len(latencies) // 2], 3))
    p99_s = latencies[int(len(latencies) * 0.99)]
    bench.figure("p99 s", round(p99_s, 3))
    bench.require(p99_s <= _LATENCY_P99_S, f"p99 {p99_s:.2f} s")
