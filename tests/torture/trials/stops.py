"""SIGTERM: what was accepted is handed over, what was refused never runs, and the process goes in time."""

from __future__ import annotations

import asyncio
import random
import signal
import time

import orjson

from tests.acceptance.harness import within
from tests.torture import journal
from tests.torture.clients import Crowd, Mix
from tests.torture.gateway import Gateway
from tests.torture.journal import Journal
from tests.torture.model import create_body
from tests.torture.trial import Bench, trial
from tests.torture.trials.kills import judge, require_whole

_CLIENTS = 24
_EXIT_S = 30.0
_SECOND_EXIT_S = 1.0
_GRACE_S = 5.0
"""Beyond the drain: the default of 25 s and this are Kubernetes' 30 s."""

_LONG_AND_SHORT = Mix(streamed=0.5, acts=("wait", "wait", "hang up", "cancel"), paces_ms=(0, 5, 30, 80))


@trial(
    "T4",
    "SIGTERM under load, with more and less time to drain",
    pass_mark=f"exit 0 within {_EXIT_S:g} s; 0 refused and run; 0 accepted and lost; silent ones complete",
    runs=50,
    short_runs=1,
    round_s=40,
)
async def stop_under_load(bench: Bench) -> None:
    model = await bench.model()
    gateway = await bench.gateway(model.url, server__drain_timeout_s=1)
    async with (
        Journal(bench.directory / "journal") as notes,
        Crowd(gateway, notes, _CLIENTS, _LONG_AND_SHORT),
    ):
        for number in bench.rounds():
            await asyncio.sleep(random.uniform(0.3, 2.0))
            asked_at = time.monotonic()
            status = await gateway.stop()
            took_s = time.monotonic() - asked_at
            bench.most("slowest exit s", took_s)
            bench.require(status == 0 and took_s <= _EXIT_S, f"exit status {status} after {took_s:.1f} s")
            require_whole(bench, gateway, f"stop {number}")
            await gateway.restart()
    stories = await judge(bench, gateway, model, notes, calls_max=2 + bench.runs)
    told = journal.read(notes.path)
    run = {call.tag for call in await model.calls()}
    bench.figure("refused", len(told.refused))
    bench.figure("refused and run", len(run & set(told.refused)))
    bench.require(not run & set(told.refused), "creates were refused, and run all the same")
    bench.figure("unanswered and run", len(run & told.unanswered))
    bench.require(not run & told.unanswered, "creates were not answered, and run all the same")
    for story in stories:
        if not story.is_streamed and story.final is not None and story.cancelled is None:
            ended = orjson.loads(story.final)
            bench.require(
                ended["status"] == "completed",
                f"{story.id} was silent, and is {ended['status']}: {ended['error']}",
            )


@trial(
    "T5",
    "a second SIGTERM; SIGTERM while the model server hangs, before its head, in its text, as a black hole",
    pass_mark=f"exit within {_SECOND_EXIT_S:g} s; within the drain and {_GRACE_S:g} s; "
    "silent ones complete later",
    runs=6,
    short_runs=1,
    round_s=90,
)
async def stop_impatiently(bench: Bench) -> None:
    for number in bench.rounds():
        # The default once, where there is time for it: what Kubernetes gives.
        await _stop_with_hanging_model(bench, drain_s=25 if bench.runs > 5 and number == 0 else 1)
        await _stop_twice(bench)


async def _stop_with_hanging_model(bench: Bench, *, drain_s: int) -> None:
    model = await bench.model()
    proxy = await bench.proxy("127.0.0.1", model.port)
    gateway = await bench.gateway(f"http://127.0.0.1:{proxy.port}/v1", server__drain_timeout_s=drain_s)
    bodies = [
        create_body("head", stream=False, head_ms=3_600_000),
        create_body("text", stream=False, fault="hang", after=3),
        create_body("shown", stream=True, fault="hang", after=3),
        create_body("hole", stream=False, deltas=400, pace_ms=10),
    ]
    ids = [await _created(gateway, body) for body in bodies]
    await asyncio.sleep(0.3)
    await proxy.infect({"kind": "timeout", "after_ms": 0})
    asked_at = time.monotonic()
    status = await gateway.stop()
    took_s = time.monotonic() - asked_at
    bench.most("slowest exit beyond the drain s", took_s - drain_s)
    bench.require(
        status == 0 and took_s <= drain_s + _GRACE_S,
        f"exit status {status} after {took_s:.1f} s of {drain_s}",
    )
    await proxy.infect()
    await proxy.cut()
    await gateway.restart()
    await within(gateway.log_of_end(ids[3]), 30)
    for name, response_id in zip(("head", "text", "shown", "hole"), ids, strict=True):
        found = (await gateway.call("GET", f"/responses/{response_id}")).json()["status"]
        expected = {"shown": "failed", "hole": "completed"}.get(name, "in_progress")
        bench.require(found == expected, f"after the stop, {name} is {found} in place of {expected}")
    await gateway.kill9()


async def _stop_twice(bench: Bench) -> None:
    model = await bench.model()
    gateway = await bench.gateway(model.url)
    response_id = await _created(gateway, create_body("twice", stream=False, fault="hang", after=3, calls=1))
    await asyncio.sleep(0.2)
    gateway.send(signal.SIGTERM)
    for each in gateway.processes:
        await each.line(event="draining")
    asked_at = time.monotonic()
    gateway.send(signal.SIGTERM)
    status = await gateway.exit_status()
    took_s = time.monotonic() - asked_at
    bench.most("slowest second exit s", took_s)
    bench.require(
        status == 128 + signal.SIGTERM and took_s <= _SECOND_EXIT_S,
        f"exit status {status} {took_s:.1f} s after the second SIGTERM",
    )
    require_whole(bench, gateway, "the second SIGTERM")
    await gateway.restart()
    ended = await gateway.ended(response_id)
    bench.require(ended["status"] == "completed", f"a silent one is {ended['status']} after it")


async def _created(gateway: Gateway, body: dict[str, object]) -> str:
    """The id of a response, streamed or not; of a stream no more than a few events are read."""
    if not body["stream"]:
        return str((await gateway.call("POST", "/responses", body)).json()["id"])
    async with gateway.events("/responses", body) as events:
        first = await anext(events)
        for _ in range(5):
            await anext(events)
    return str(orjson.loads(first[first.index(b"data: ") + 6 :])["response"]["id"])
