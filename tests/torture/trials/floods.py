"""Model servers that go on for ever and say nothing, in every way that is legal: nobody else waits for it."""

from __future__ import annotations

import asyncio
import random
import time
from typing import Any

from tests.torture.flood import percentile
from tests.torture.gateway import Gateway
from tests.torture.model import create_body, expected_text
from tests.torture.trial import Bench, trial

_DELTA = (
    'event: response.output_text.delta\ndata: {"type":"response.output_text.delta","item_id":"msg_1",'
    '"output_index":0,"content_index":0,"delta":"","logprobs":[]}\n\n'
)
_KINDS: dict[str, dict[str, Any]] = {
    "blank lines": {"flood": "\n"},
    "blank lines of two bytes": {"flood": "\r\n"},
    "comments": {"flood": ": keep-alive\n\n"},
    "unknown fields": {"flood": "progress: 10\n"},
    "event names": {"flood": "event: ping\n\n"},
    "empty data": {"flood": "data:\n\n"},
    "empty objects": {"flood": "data: {}\n\n"},
    "pings": {"flood": 'event: ping\ndata: {"type":"ping"}\n\n'},
    "empty deltas": {"flood": _DELTA},
}
_BESIDE_S = {1: 0.05, 4: 0.1}
"""Floods at once, and how long a poll beside them may take (p50)."""
_P99_S = 0.5
_WATCHED_S = 2.0
_GAP_S = 0.02
_DELTAS = 8
_KEY = "sk-flood"
_ENDS = ("cancelled", "failed", "incomplete")
"""Of a flood: it is stopped by its caller, or is found to be too large."""


@trial(
    "T50",
    f"model servers send nothing but {', '.join(_KINDS)}, without a pause and without an end, for "
    f"{' and '.join(map(str, _BESIDE_S))} responses of one caller; another one polls and has a job run",
    pass_mark="the other's polls (p50) take at most "
    + ", ".join(f"{limit_s * 1000:g} ms beside {count}" for count, limit_s in _BESIDE_S.items())
    + f", p99 at most {_P99_S * 1000:g} ms; its jobs are complete; the floods end when they are cancelled",
    runs=4 * len(_KINDS),
    short_runs=len(_KINDS),
    quick_runs=1,
)
async def flood_with_nothing(bench: Bench) -> None:
    model = await bench.model()
    offset = random.randrange(len(_KINDS))  # a quick run plays one of them, and judges no time by it
    waits_s: dict[int, list[float]] = {count: [] for count in _BESIDE_S}
    for number in bench.rounds():
        kind = list(_KINDS)[(number + offset) % len(_KINDS)]
        gateway = await bench.gateway(model.url)
        for count in _BESIDE_S:
            waits_s[count] += await _beside(bench, gateway, f"{kind}.{number}", _KINDS[kind], count)
        await gateway.kill9()
    for count, limit_s in _BESIDE_S.items():
        p50, p99 = percentile(waits_s[count], 0.5), percentile(waits_s[count], 0.99)
        bench.figure(f"p50 s beside {count}", round(p50, 4))
        bench.figure(f"p99 s beside {count}", round(p99, 4))
        if bench.runs >= len(_KINDS):
            bench.require(p50 <= limit_s, f"polls beside {count} floods took {p50:.3f} s (p50)")
            bench.require(p99 <= _P99_S, f"polls beside {count} floods took {p99:.3f} s (p99)")


async def _beside(
    bench: Bench, gateway: Gateway, tag: str, script: dict[str, Any], count: int
) -> list[float]:
    """How long the polls of one caller take while so many answers of another's are floods."""
    enough = asyncio.Event()
    keeping = [
        asyncio.create_task(_keep_flooding(gateway, f"{tag}.{at}", script, enough)) for at in range(count)
    ]
    while await gateway.metric('backburner_jobs{status="in_progress"}') < count:
        await asyncio.sleep(_GAP_S)
    expected = expected_text(f"{tag}.job", 1, _DELTAS)
    body = create_body(f"{tag}.job", stream=False, deltas=_DELTAS, pace_ms=50)
    response = (await gateway.call("POST", "/responses", body)).json()
    waits_s: list[float] = []
    until_s = time.monotonic() + _WATCHED_S
    while response["status"] in ("queued", "in_progress") or time.monotonic() < until_s:
        since_s = time.monotonic()
        response = (await gateway.call("GET", f"/responses/{response['id']}")).json()
        waits_s.append(time.monotonic() - since_s)
        await asyncio.sleep(_GAP_S)
    text = "".join(part["text"] for item in response["output"] for part in item["content"])
    bench.require(
        (response["status"], text) == ("completed", expected),
        f"{tag}: beside {count}, a job was {response['status']} with {text!r}",
    )
    enough.set()
    for flood in await asyncio.gather(*keeping):
        bench.add("floods")
        await gateway.call("POST", f"/responses/{flood}/cancel", key=_KEY)
        ended = (await gateway.call("GET", f"/responses/{flood}", key=_KEY)).json()
        bench.require(ended["status"] in _ENDS, f"{tag}: a flood was {ended['status']}")
    return waits_s


async def _keep_flooding(gateway: Gateway, tag: str, script: dict[str, Any], enough: asyncio.Event) -> str:
    """One response after the other, each of which is a flood; the id of the last."""
    while True:
        body = create_body(tag, stream=False, fault="flood", **script)
        found = (await gateway.call("POST", "/responses", body, key=_KEY)).json()
        while found["status"] in ("queued", "in_progress"):
            if enough.is_set():
                return str(found["id"])
            await asyncio.sleep(_GAP_S * 10)
            found = (await gateway.call("GET", f"/responses/{found['id']}", key=_KEY)).json()
