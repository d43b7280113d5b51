"""A job that kills whatever processes it."""

from __future__ import annotations

import asyncio
from typing import Any

from tests.acceptance.harness import within
from tests.torture.gateway import HEADERS, Gateway
from tests.torture.model import Model, create_body, expected_text
from tests.torture.oracle import text_of
from tests.torture.trial import Bench, trial

_OTHERS = 5
_HEAD_MS = 2000
"""So long the poison takes to work; the others, 0.9 s or 3 s, are under way at one death, but not at both."""

_SHORT = {"deltas": 18, "pace_ms": 50}
_LONG = {"deltas": 60, "pace_ms": 50}


@trial(
    "T7",
    "a job whose first output kills the process, among jobs that do not",
    pass_mark="it is failed after 2 calls and deaths at most; "
    "the others, under way at one death or none, complete",
    runs=20,
    short_runs=1,
    round_s=60,
)
async def poison_a_process(bench: Bench) -> None:
    model = await bench.model()
    for number in bench.rounds():
        await _round(bench, model, number, is_streamed=bool(number % 2))


async def _round(bench: Bench, model: Model, number: int, *, is_streamed: bool) -> None:
    gateway = await bench.prepared(model.url)
    await _start(gateway)
    others = await _create(gateway, f"before.{number}", _SHORT)
    for _, response_id in others:
        await _ended(gateway, response_id)
    body = create_body(f"poison.{number}", stream=is_streamed, deltas=4, head_ms=_HEAD_MS)
    async with gateway.http.post(f"{gateway.url}/responses", json=body, headers=HEADERS) as answer:
        poison = _id_in(await answer.content.readany())
        await asyncio.sleep(0.7 * _HEAD_MS / 1000)
        others += await _create(gateway, f"first.{number}", _SHORT)
        await within(gateway.exit_status(), 10)
    await _start(gateway)
    others += await _create(gateway, f"second.{number}", _LONG)
    deaths = 1
    try:
        await within(gateway.exit_status(), 5)
        deaths = 2
        await _start(gateway)
    except TimeoutError:
        pass  # some of it was shown before it killed: it may not run again
    bench.add("deaths", deaths)
    bench.require(deaths == 2 or is_streamed, "it was not run again, though it was silent")
    await _check(bench, gateway, poison, others)
    calls = [call for call in await model.calls() if call.job == poison]
    bench.most("calls of it", len(calls))
    bench.require(len(calls) == deaths, f"it cost {len(calls)} calls and {deaths} deaths")
    await gateway.kill9()


async def _check(bench: Bench, gateway: Gateway, poison: str, others: list[tuple[str, str]]) -> None:
    ended = await _ended(gateway, poison)
    bench.require(ended["status"] == "failed", f"the poison is {ended['status']}")
    bench.require("restart" in str(ended["error"]), f"it says {ended['error']}")
    for tag, response_id in others:
        ended = await _ended(gateway, response_id)
        deltas = (_LONG if tag.startswith("second") else _SHORT)["deltas"]
        wholes = [expected_text(tag, call, deltas) for call in (1, 2)]
        is_whole = ended["status"] == "completed" and text_of(ended) in wholes
        bench.require(is_whole, f"{tag} is {ended['status']}: {ended['error']}")
        bench.add("others complete", is_whole)


async def _start(gateway: Gateway) -> None:
    gateway.next_start("--poison", "poison")
    await gateway.start()


async def _create(gateway: Gateway, tag: str, script: dict[str, Any]) -> list[tuple[str, str]]:
    made = []
    for each in range(_OTHERS):
        body = create_body(f"{tag}.{each}", stream=False, **script)
        answer = await gateway.call("POST", "/responses", body)
        made.append((f"{tag}.{each}", answer.json()["id"]))
    return made


async def _ended(gateway: Gateway, response_id: str) -> dict[str, Any]:
    async with asyncio.timeout(30):
        while True:
            answer = await gateway.call("GET", f"/responses/{response_id}")
            found: dict[str, Any] = answer.json()
            if found["status"] not in ("queued", "in_progress"):
                return found
            await asyncio.sleep(0.1)


def _id_in(answer: bytes) -> str:
    """The id of a response, from the beginning of either kind of answer."""
    start = answer.index(b'"resp_') + 1
    return answer[start : answer.index(b'"', start)].decode()
