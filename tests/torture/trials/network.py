"""Between the gateway and the model server: every fault of a connection, at every moment of a call."""

from __future__ import annotations

import asyncio
import itertools
import random
import time
from collections.abc import Awaitable, Callable
from typing import Any

import aiohttp
import orjson

from tests.acceptance.harness import frames, payload, within
from tests.torture import oracle
from tests.torture.gateway import HEADERS, Gateway
from tests.torture.journal import TERMINAL, Story
from tests.torture.model import Model, create_body, expected_text
from tests.torture.oracle import Found, Verdict, text_of
from tests.torture.proxy import Proxy
from tests.torture.trial import Bench, trial

_BENIGN: tuple[dict[str, Any], ...] = (
    {"kind": "latency", "stream": "down", "ms": 120, "jitter_ms": 60},
    {"kind": "bandwidth", "stream": "down", "bytes_per_s": 3000},
    {"kind": "slicer", "stream": "down", "bytes": 29, "ms": 1},
)
_MALIGN: tuple[dict[str, Any], ...] = (
    {"kind": "limit_data", "stream": "down", "bytes": 300},
    {"kind": "reset_peer", "stream": "down", "after_ms": 0},
    {"kind": "timeout", "stream": "down", "after_ms": 0},
    {"kind": "half_open", "stream": "down"},
)
_STAGES = ("connect", "head", "mid", "end")
_CASES = list(itertools.product((*_BENIGN, *_MALIGN), _STAGES))
_STRIDE = 11
"""Has no divisor in common with the number of cases: few rounds see all toxics and all stages, too."""

_DEADLINE_S = 12.0
_GRACE_S = 5.0
_DELTAS = 12
_SCRIPT: dict[str, Any] = {"deltas": _DELTAS, "pace_ms": 60, "head_ms": 400}
_POLL_S = 0.02


@trial(
    "T37",
    "seven faults of the connection to the model server, each while it connects, before the head, in the "
    "middle and at the end, to background and plain requests alike",
    pass_mark="every background response ended 5 s after its deadline at the latest; 0 spliced; none failed "
    "by what is only slow; no plain answer that is cut looks whole",
    runs=4 * len(_CASES),
    short_runs=3,
    quick_runs=2,
    round_s=20,
)
async def break_the_connection(bench: Bench) -> None:
    model = await bench.model()
    proxy = await bench.proxy("127.0.0.1", model.port)
    gateway = await bench.gateway(
        f"http://127.0.0.1:{proxy.port}/v1",
        background__deadline_s=_DEADLINE_S,
        upstream__head_timeout_s=1.5,
        upstream__plain_head_timeout_s=3,
        upstream__idle_timeout_s=1,
        upstream__breaker_open_s=0.5,
    )
    for number in bench.rounds():
        toxic, stage = _CASES[number * _STRIDE % len(_CASES)]
        await _round(bench, gateway, model, proxy, toxic, stage, f"{number}")


async def _round(
    bench: Bench,
    gateway: Gateway,
    model: Model,
    proxy: Proxy,
    toxic: dict[str, Any],
    stage: str,
    tag: str,
) -> None:
    await model.forget()
    if stage == "connect":
        await proxy.infect(toxic)
    case = _Case(bench, gateway, f"{toxic['kind']} at {stage}", is_benign=toxic in _BENIGN)
    asks = [
        asyncio.create_task(within(ask, _DEADLINE_S + 2 * _GRACE_S))
        for ask in (
            case.background(f"polled.{tag}", is_streamed=False),
            case.background(f"streamed.{tag}", is_streamed=True),
            case.plain(f"plain.{tag}", is_streamed=False),
            case.plain(f"plain-streamed.{tag}", is_streamed=True),
        )
    ]
    if stage != "connect":
        await within(_until(_reached(model, stage)))
        await proxy.infect(toxic)
    if not case.is_benign:
        await asyncio.sleep(random.choice((0.1, 0.6, 2.5)))
        await proxy.infect()
    await asyncio.gather(*asks)
    await proxy.infect()
    await within(_until(_is_reachable(gateway)))


def _reached(model: Model, stage: str) -> Callable[[], Awaitable[bool]]:
    pieces = {"head": 0, "mid": _DELTAS // 2, "end": _DELTAS - 1}[stage]

    async def reached() -> bool:
        calls = [call for call in await model.calls() if "plain." not in call.tag]  # that one has no pieces
        return len(calls) == 3 and all(call.sent >= pieces for call in calls)

    return reached


def _is_reachable(gateway: Gateway) -> Callable[[], Awaitable[bool]]:
    """The last round's faults are forgotten: the breaker is closed."""

    async def reachable() -> bool:
        async with gateway.http.get(f"{gateway.url}/models", headers=HEADERS) as answer:
            if answer.status != 200:
                return False
        async with gateway.http.get(f"{gateway.admin}/readyz") as answer:
            state = orjson.loads(await answer.read())
        return bool(state["backends"]["default"]["replicas"][0]["breaker"] == "closed")

    return reachable


async def _until(condition: Callable[[], Awaitable[bool]]) -> None:
    while not await condition():
        await asyncio.sleep(_POLL_S)


class _Case:
    """One round's requests, and what must hold of them."""

    def __init__(self, bench: Bench, gateway: Gateway, name: str, *, is_benign: bool) -> None:
        self.is_benign = is_benign
        self._bench = bench
        self._gateway = gateway
        self._name = name

    def _require(self, condition: object, message: str) -> None:
        self._bench.require(condition, f"{self._name}: {message}")

    async def background(self, tag: str, *, is_streamed: bool) -> None:
        story = await self._watch(tag, is_streamed=is_streamed)
        found = await self._final(story)
        verdict = Verdict()
        oracle.judge(story, found, verdict)
        for problem in verdict.problems:
            self._require(False, problem)
        self._bench.add("spliced or changed", len(verdict.problems))
        assert found.final is not None
        final = orjson.loads(found.final)
        self._bench.add(f"background {final['status']}")
        took_s = time.monotonic() - story.accepted_at
        self._bench.most("slowest end s", took_s)
        self._require(took_s <= _DEADLINE_S + _GRACE_S, f"{tag} ended after {took_s:.1f} s")
        if self.is_benign:
            self._require(final["status"] == "completed", f"{tag} is {final['status']}: {final['error']}")
        if final["status"] == "failed":
            message = final["error"]["message"]
            self._require("backend" in message or "deadline" in message, f"{tag} failed by {message!r}")
            self._require("127.0.0.1" not in message, f"{tag}: an address stands in {message!r}")

    async def _watch(self, tag: str, *, is_streamed: bool) -> Story:
        """Create it, and read its stream to the end if it has one."""
        body = create_body(tag, stream=is_streamed, **_SCRIPT)
        started = time.monotonic()
        async with self._post(body) as answer:
            if not is_streamed:
                created = orjson.loads(await answer.read())
                return Story(created["id"], tag, False, _DELTAS, started)
            events = frames(await answer.read())
            story = Story(payload(events[0])["response"]["id"], tag, True, _DELTAS, started)
            for event in events:
                story.has_seen(event, time.monotonic())
            return story

    async def _final(self, story: Story) -> Found:
        path = f"/responses/{story.id}"
        while True:
            polled = await self._gateway.call("GET", path, more=HEADERS, key=None)
            status = polled.json()["status"]
            story.had_status(status, time.monotonic())
            if status in TERMINAL:
                break
            await asyncio.sleep(_POLL_S)
        log = None
        if story.is_streamed:
            log = (await self._gateway.call("GET", f"{path}?stream=true", more=HEADERS, key=None)).body
        return Found(200, polled.body, log)

    async def plain(self, tag: str, *, is_streamed: bool) -> None:
        """What its client takes for a whole answer is one."""
        body = create_body(tag, stream=is_streamed, background=False, **_SCRIPT)
        try:
            async with self._post(body) as answer:
                content = await answer.read()
                status = answer.status
        except aiohttp.ClientError as error:
            self._bench.add("plain broken off")
            self._require(not self.is_benign, f"{tag} was broken off: {error}")
            return
        if status != 200:
            self._bench.add("plain refused")
            self._require(status in (502, 503, 504), f"{tag} was answered {status}: {content[:200]!r}")
            self._require(not self.is_benign, f"{tag} was answered {status}")
            return
        final = payload(frames(content)[-1])["response"] if is_streamed else orjson.loads(content)
        text = text_of(final)
        whole = expected_text(tag, int(text.split("/")[1]), _DELTAS)
        self._bench.add("plain whole")
        self._require(text == whole, f"{tag} looks whole and says {text!r}")

    def _post(self, body: dict[str, Any]) -> Any:
        return self._gateway.http.post(f"{self._gateway.url}/responses", json=body, headers=HEADERS)
