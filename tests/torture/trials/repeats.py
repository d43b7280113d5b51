"""Creates that are sent again because their answer was lost: by key, by the SDKs' own retries, by nothing."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import aiohttp
import orjson
from openai import APIConnectionError, APIStatusError, AsyncOpenAI

from tests.acceptance.harness import KEY, payload
from tests.torture.gateway import HEADERS, Gateway
from tests.torture.model import Model, create_body
from tests.torture.proxy import Proxy
from tests.torture.trial import Bench, trial

_LANES = 8
"""Rounds at once, each with a proxy of its own."""
_AT_ONCE = 10
_ANSWER_BYTES = 1400
"""A little more than a 200 and its head have: some cuts come after the last byte."""
_TRIES = 20
_QUIET_S = 60.0


@trial(
    "T13",
    f"{_AT_ONCE} creates at once with one key, answers cut by the proxy; the SDK's retries without, adopted",
    pass_mark="1 job per key; another body 422; with adopt_unacked_retry 0 second jobs",
    runs=200,
    short_runs=12,
    quick_runs=2,
)
async def repeat_creates(bench: Bench) -> None:
    model = await bench.model()
    gateway = await bench.gateway(model.url, background__adopt_unacked_retry=True)
    await _in_lanes(bench, gateway, lambda lane, number: _repeat(bench, gateway, lane, number))
    jobs = await _jobs_by_tag(gateway, model)
    for number in range(bench.runs):
        keyed, adopted = jobs[f"key.{number}"], jobs[f"sdk.{number}"]
        bench.most("most jobs of a key", keyed)
        bench.require(keyed == 1, f"key {number} made {keyed} jobs")
        bench.add("second jobs with adopt on", max(0, adopted - 1))
        bench.require(adopted == 1, f"the SDK's create {number} became {adopted} jobs")
    bench.figure("adopted", int(await gateway.metric("backburner_jobs_adopted_total")))


async def _repeat(bench: Bench, gateway: Gateway, lane: Proxy, number: int) -> None:
    is_streamed = random.random() < 0.5
    body = orjson.dumps(create_body(f"key.{number}", stream=is_streamed, deltas=4))
    key = {"Idempotency-Key": f"key-{number}"}
    cuts = {"bytes": random.randrange(_ANSWER_BYTES), "times": _AT_ONCE, "reset": random.random() < 0.5}
    await lane.infect({"kind": "limit_data", "stream": "down", **cuts})
    found = await asyncio.gather(*(_stubborn(lane, body, key) for _ in range(_AT_ONCE)))
    bench.add("creates", _AT_ONCE)
    bench.require(len(set(found)) == 1, f"key {number} was answered with {len(set(found))} responses")
    other = create_body(f"key.{number}", stream=is_streamed, deltas=5)
    answer = await gateway.call("POST", "/responses", other, more=key)
    bench.require(answer.status == 422, f"key {number} with another body: {answer.status}")
    is_streamed = random.random() < 0.3
    most = _ANSWER_BYTES if not is_streamed else 200  # a stream that has begun is not the SDK's to repeat
    cuts |= {"bytes": random.randrange(most), "times": random.choice((1, 2))}
    await lane.infect({"kind": "limit_data", "stream": "down", **cuts})
    async with _sdk(lane) as client:
        await _create(client, f"sdk.{number}", is_streamed=is_streamed)


async def _stubborn(lane: Proxy, body: bytes, key: dict[str, str]) -> str | None:
    """A create on a connection of its own, again until it is answered whole. Returns the id."""
    url = f"http://127.0.0.1:{lane.port}/v1/responses"
    connector = aiohttp.TCPConnector(force_close=True)
    async with aiohttp.ClientSession(connector=connector, headers={**HEADERS, **key}) as session:
        for _ in range(_TRIES):
            try:
                async with session.post(url, data=body) as answer:
                    first = (
                        await answer.content.readuntil(b"\n\n") if _is_stream(answer) else await answer.read()
                    )
                    found = payload(first)["response"] if _is_stream(answer) else orjson.loads(first)
                    return str(found["id"])
            except (aiohttp.ClientError, OSError, asyncio.IncompleteReadError, ValueError):
                await asyncio.sleep(0.02)
    return None


def _is_stream(answer: aiohttp.ClientResponse) -> bool:
    return answer.content_type == "text/event-stream"


# -- the SDK on paths that break


@dataclass(frozen=True, slots=True)
class _Flaw:
    """What is wrong with a path, and how long the SDK waits for its answers."""

    name: str
    toxic: dict[str, Any]
    timeout_s: float = 20.0


_FLAWS = [
    _Flaw("refused", {"kind": "limit_data", "stream": "up", "bytes": 0, "times": 1, "reset": True}),
    _Flaw("request cut", {"kind": "limit_data", "stream": "up", "bytes": 300, "times": 1}),
    _Flaw("answer cut before its head", {"kind": "limit_data", "stream": "down", "bytes": 0, "times": 1}),
    _Flaw("answer cut in its head", {"kind": "limit_data", "stream": "down", "bytes": 100, "times": 2}),
    _Flaw("answer cut in its body", {"kind": "limit_data", "stream": "down", "bytes": 600, "times": 1}),
    _Flaw(
        "answer reset in its body",
        {"kind": "limit_data", "stream": "down", "bytes": 700, "times": 1, "reset": True},
    ),
    _Flaw(
        "answer swallowed", {"kind": "timeout", "stream": "down", "after_ms": 1500, "times": 1}, timeout_s=1.0
    ),
]
_WAYS = ("nothing", "key", "adopt")


@trial(
    "T13b",
    f"the SDK's own retries over paths with {len(_FLAWS)} flaws: with a key, with adopt, with neither",
    pass_mark="every create one job with a key, and with adopt",
    runs=40,
)
async def retry_by_sdk(bench: Bench) -> None:
    model = await bench.model()
    gateways = {
        way: await bench.gateway(model.url, background__adopt_unacked_retry=way == "adopt") for way in _WAYS
    }
    proxies = {
        (way, flaw.name): await bench.proxy("127.0.0.1", int(gateway.url.split(":")[2].split("/")[0]))
        for way, gateway in gateways.items()
        for flaw in _FLAWS
    }
    outcomes: Counter[str] = Counter()
    for number in bench.rounds():
        await asyncio.gather(
            *(
                _retried(proxies[way, flaw.name], way, flaw, number, outcomes)
                for way in _WAYS
                for flaw in _FLAWS
            )
        )
    jobs: Counter[str] = Counter()
    for gateway in gateways.values():
        jobs = await _jobs_by_tag(gateway, model)
    for way in _WAYS:
        for flaw in _FLAWS:
            seconds = sum(max(0, jobs[f"{way}.{flaw.name}.{n}"] - 1) for n in range(bench.runs))
            bench.add(f"second jobs, {way}", seconds)
            bench.require(way == "nothing" or not seconds, f"{seconds} second jobs, {way}: {flaw.name}")
    bench.figure("creates", bench.runs * len(_FLAWS) * len(_WAYS))
    bench.figure("given up", outcomes["given up"])
    bench.require(not outcomes["given up"], f"{outcomes['given up']} creates were given up")


async def _retried(lane: Proxy, way: str, flaw: _Flaw, number: int, outcomes: Counter[str]) -> None:
    tag = f"{way}.{flaw.name}.{number}"
    await lane.infect(flaw.toxic)
    headers = {"Idempotency-Key": tag} if way == "key" else {}
    async with _sdk(lane, timeout_s=flaw.timeout_s) as client:
        is_answered = await _create(client, tag, is_streamed=False, headers=headers)
    outcomes["given up"] += not is_answered


# -- shared


@asynccontextmanager
async def _sdk(lane: Proxy, *, timeout_s: float = 20.0) -> AsyncIterator[AsyncOpenAI]:
    url = f"http://127.0.0.1:{lane.port}/v1"
    async with AsyncOpenAI(base_url=url, api_key=KEY, max_retries=2, timeout=timeout_s) as client:
        yield client


async def _create(
    client: AsyncOpenAI, tag: str, *, is_streamed: bool, headers: dict[str, str] | None = None
) -> bool:
    """Whether it was answered in the end."""
    body = create_body(tag, stream=is_streamed, deltas=4)
    try:
        made = await client.responses.create(**body, extra_headers=headers)
        if is_streamed:
            async for _ in made:
                pass
    except (APIConnectionError, APIStatusError):
        return False
    return True


async def _in_lanes(bench: Bench, gateway: Gateway, play: Callable[[Proxy, int], Awaitable[None]]) -> None:
    port = int(gateway.url.split(":")[2].split("/")[0])
    rounds = bench.rounds()

    async def lane(proxy: Proxy) -> None:
        for number in rounds:
            await play(proxy, number)

    proxies = [await bench.proxy("127.0.0.1", port) for _ in range(min(_LANES, bench.runs))]
    async with asyncio.TaskGroup() as group:
        for proxy in proxies:
            group.create_task(lane(proxy))


async def _jobs_by_tag(gateway: Gateway, model: Model) -> Counter[str]:
    """How many jobs each tag became, when all of them have ended."""
    async with asyncio.timeout(_QUIET_S):
        while True:
            waiting = await gateway.metric('backburner_jobs{status="queued"}')
            if not waiting + await gateway.metric('backburner_jobs{status="in_progress"}'):
                break
            await asyncio.sleep(0.1)
    seen = {(call.tag, call.job) for call in await model.calls()}
    return Counter(tag for tag, _ in seen)
