"""A model server that says "later", or nothing at all: it is neither pestered nor forgotten."""

from __future__ import annotations

import asyncio
import itertools
import time
from email.utils import formatdate
from typing import Any

import orjson

from tests.acceptance.harness import within
from tests.torture.gateway import Gateway
from tests.torture.model import Call, Model, create_body
from tests.torture.proxy import Proxy
from tests.torture.trial import Bench, trial

_LONGEST_S = 4.0
_DEFAULT_S = 0.5
_SLACK_S = 0.25
"""Until a job whose time has come is claimed, and called."""

_ASKED: dict[str, tuple[str | None, float | None]] = {
    "seconds": ("3", 3.0),
    "date": (None, None),  # made when it is sent
    "0": ("0", 0.1),
    "huge": ("86400", _LONGEST_S),
    "garbage": ("when I am ready", _DEFAULT_S),
    "negative": ("-5", _DEFAULT_S),
    "none": (None, _DEFAULT_S),
}
"""What the header says, and the seconds that are to be waited."""

_PER_S = 60
_WINDOW_S = 10
_OUTAGE_S = 9.0
"""Within one window: of a longer time two beginnings of a window may be a part."""
_NEVER = 10_000_000


@trial(
    "T39",
    "429 and 503 with every kind of Retry-After; then outages: one that the breaker sees, and one without it",
    pass_mark="waits within 10 % of what was asked; extra load on the model server 10 % at most; "
    "with the breaker, plain requests are told 503 and when to come back",
    runs=10,
    round_s=90,
)
async def say_later(bench: Bench) -> None:
    model = await bench.model()
    patient = await bench.gateway(
        model.url,
        upstream__retry_after_max_s=_LONGEST_S,
        upstream__retry_after_default_s=_DEFAULT_S,
    )
    for number in bench.rounds():
        await model.forget()
        # A 429 is for its caller alone, so all kinds can be tried at once; a 503 is for everybody.
        kinds = enumerate(_ASKED)
        await asyncio.gather(*(_wait(bench, patient, model, 429, kind, f"{number}.{n}") for n, kind in kinds))
        await _wait(bench, patient, model, 503, "seconds", f"{number}.all")
        await _breaker(bench, number)
        await _budget(bench)


async def _wait(bench: Bench, gateway: Gateway, model: Model, status: int, kind: str, tag: str) -> None:
    header, asked_s = _ASKED[kind]
    until = time.time() + 4 if kind == "date" else 0.0
    script: dict[str, Any] = {"deltas": 2, "fault": f"status:{status}", "calls": 1}
    if kind != "none":
        script["retry_after"] = formatdate(until, usegmt=True) if until else header
    body = create_body(f"later.{tag}", stream=False, **script)
    answer = await gateway.call("POST", "/responses", body, key=f"sk-{tag}")
    response_id = answer.json()["id"]
    first, second = await within(_two_calls(model, response_id), 60)
    assert first.ended_at is not None
    gap_s = second.started_at - first.ended_at
    if asked_s is None:
        answered_at = time.time() - (time.monotonic() - first.ended_at)
        asked_s = int(until) - answered_at  # a date has whole seconds
    least_s, most_s = 0.9 * asked_s, min(_LONGEST_S, 1.1 * asked_s)
    said = f"{status}, Retry-After {kind}: waited {gap_s:.2f} s where {asked_s:.2f} s were asked"
    bench.require(least_s - 0.01 <= gap_s <= most_s + _SLACK_S, said)
    bench.add("waits")
    if asked_s >= 2:
        bench.most("worst % off", round(100 * abs(gap_s / asked_s - 1), 1))


async def _two_calls(model: Model, response_id: str) -> tuple[Call, Call]:
    while True:
        calls = [call for call in await model.calls() if call.job == response_id]
        if len(calls) == 2:
            return calls[0], calls[1]
        await asyncio.sleep(0.02)


async def _breaker(bench: Bench, number: int) -> None:
    """All that is sent to the model server is cut off: after a few calls it is left alone."""
    proxy = await _dead_end(bench)
    gateway = await bench.gateway(f"http://127.0.0.1:{proxy.port}/v1", upstream__breaker_open_s=2)
    told, jobs = await _load(gateway, 3.0, with_jobs=True)
    calls = (await proxy.tell())["accepted"]
    bench.require(set(told) <= {502, 503}, f"plain requests were answered {told}")
    bench.require(told.get(503, 0) > told.get(502, 0), f"plain requests were answered {told}")
    bench.require(calls <= 0.3 * (sum(told.values()) + len(jobs)), f"{calls} calls of a server that is gone")
    bench.most("calls per request in an outage", calls / (sum(told.values()) + len(jobs)))
    live = 0
    for job in jobs:
        shown = await gateway.call("GET", f"/responses/{job}")
        live += shown.json()["status"] in ("queued", "in_progress")
    bench.require(live >= len(jobs) // 2, f"{live} of {len(jobs)} jobs wait for its end")
    refused = await gateway.call("POST", "/responses", create_body("x", stream=False, background=False))
    bench.require(refused.status in (502, 503), f"answered {refused.status}")
    if refused.status == 503:
        bench.require("retry-after" in refused.headers, "a 503 does not say when to come back")
    await gateway.end()


async def _budget(bench: Bench) -> None:
    """The same with another replica to go to, and no breaker: nothing but the budget limits the retries."""
    one, two = await _dead_end(bench), await _dead_end(bench)
    gateway = await bench.gateway(
        f"http://127.0.0.1:{one.port}/v1",
        upstream__replicas=f"http://127.0.0.1:{two.port}/v1",
        upstream__health_interval_s=3600,
        upstream__breaker_failures=_NEVER,
        upstream__breaker_calls_min=_NEVER,
        upstream__retry_window_s=_WINDOW_S,
    )
    await asyncio.sleep(1)  # for the first and only checks of their health
    before = await _taken(one, two)
    told, _ = await _load(gateway, _OUTAGE_S)
    requests = sum(told.values())
    bench.require(set(told) == {502}, f"plain requests were answered {told}")
    calls = await _taken(one, two) - before
    bench.most("extra % in an outage without breaker", round(100 * (calls / requests - 1), 1))
    bench.require(calls <= 1.1 * requests, f"{calls} calls for {requests} requests")
    bench.require(calls > 1.02 * requests, f"{calls} calls for {requests} requests: nothing was retried")
    await gateway.end()


async def _taken(*proxies: Proxy) -> int:
    return sum([(await proxy.tell())["accepted"] for proxy in proxies])


async def _dead_end(bench: Bench) -> Proxy:
    """Takes connections and resets them."""
    return await bench.proxy("127.0.0.1", 1)


async def _load(
    gateway: Gateway, seconds: float, *, with_jobs: bool = False
) -> tuple[dict[int, int], list[str]]:
    """Plain requests at a steady pace, and some jobs: how often each status was answered, and the ids."""
    told: dict[int, int] = {}
    jobs: list[str] = []

    async def ask(number: int, *, is_job: bool) -> None:
        body = create_body(f"out.{number}", stream=False, background=is_job)
        answer = await gateway.call("POST", "/responses", orjson.dumps(body))
        if is_job:
            jobs.append(answer.json()["id"])
        else:
            told[answer.status] = told.get(answer.status, 0) + 1

    started = time.monotonic()
    async with asyncio.TaskGroup() as group:
        for number in itertools.count():
            group.create_task(ask(number, is_job=with_jobs and number % 10 == 0))
            await asyncio.sleep(started + number / _PER_S - time.monotonic())
            if time.monotonic() - started >= seconds:
                break
    return told, jobs
