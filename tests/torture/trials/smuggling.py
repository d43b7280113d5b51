"""Requests that could be two requests, or none."""

from __future__ import annotations

import os
import random
from contextlib import AsyncExitStack
from dataclasses import replace
from urllib.parse import urlsplit

from tests.api.probes import PROBES, exchange, play, statuses
from tests.api.recorder import Recorder, Seen, recording
from tests.torture.fronts import FRONTS, Front, installed
from tests.torture.mutants import Read, mutant, second_reading
from tests.torture.trial import Bench, trial

_CANARY = b"sk-canary-"
_LAST = b"GET /v1/smuggled HTTP/1.1\r\nHost: g\r\nConnection: close\r\n\r\n"
"""Right behind each mutant: a request of its own, or a part of what the mutant has become."""
_OURS = frozenset({b"host", b"x-request-id", b"via", b"content-length", b"transfer-encoding"})
"""Header fields that the gateway sets."""
_MEANT = frozenset({501, 505})
"""Statuses from 500 up with which a request is refused."""


@trial(
    "T29",
    f"{len(PROBES)} probes, then one mutated request a run, each with another behind it; to the gateway, and "
    "through nginx and HAProxy where the machine has them",
    pass_mark="the backend sees exactly the requests that were accepted, as a second parser reads them; each "
    "probe gets its status; no 5xx but 501 and 505; no credential comes back or is logged; no answer goes "
    "to somebody else",
    runs=2000,
    short_runs=200,
    quick_runs=40,
    round_s=5,
)
async def smuggle(bench: Bench) -> None:
    seed = int(os.environ.get("SEED") or random.randrange(2**32))
    bench.figure("seed", str(seed))
    dice = random.Random(seed)
    async with recording() as recorder, AsyncExitStack() as stack:
        gateway = await bench.gateway(
            recorder.url,
            flags=("--log-level", "debug"),
            server__head_timeout_s=0.5,
            server__body_idle_timeout_s=0.5,
            server__body_timeout_s=1,
            upstream__health_interval_s=3600,
        )
        port = urlsplit(gateway.url).port or 0
        found = [name for name in FRONTS if name in installed()]
        fronts = [await stack.enter_async_context(Front(name, bench.directory, port)) for name in found]
        bench.figure("through", ", ".join(found) or "neither is installed")
        for probe in PROBES:
            for problem in await play(port, recorder, probe):
                bench.require(False, problem)
        for number in bench.rounds():
            raw = mutant(dice, _CANARY + str(number).encode()) + _LAST
            await _send(bench, recorder, port, raw)
            for front in fronts:
                await _send_through(bench, recorder, front, raw, number)
        await gateway.leave()
        log = (gateway.database.parent / "gateway.log").read_bytes()
        bench.require(_CANARY not in log, "a credential is in the log")


async def _send(bench: Bench, recorder: Recorder, port: int, raw: bytes) -> None:
    """What reached the backend are the first requests of those that the second reader finds."""
    recorder.take()
    answer = await exchange(port, raw, answers=None)
    seen, expected = _reads(recorder.take()), _as_sent_on(second_reading(raw)[0])
    answered = statuses(answer)
    bench.add("accepted", len(seen))
    bench.add("refused", len(answered) - len(seen))
    bench.require(seen == expected[: len(seen)], f"{raw!r}: the backend saw {seen}, not {expected}")
    for one, other in zip(seen, expected, strict=False):
        bench.require(
            one.fields <= other.fields, f"{raw!r}: the backend saw {one.fields - other.fields}, too"
        )
    bench.require(answered.count(200) == len(seen), f"{raw!r}: {answered} for {len(seen)} requests")
    wrong = [status for status in answered if status >= 500 and status not in _MEANT]
    bench.require(not wrong, f"{raw!r}: answered {wrong}")
    bench.require(_CANARY not in answer, f"{raw!r}: the credential came back in {answer!r}")


async def _send_through(bench: Bench, recorder: Recorder, front: Front, raw: bytes, number: int) -> None:
    """What reached the backend is what the front has sent, and the next client gets its own answer."""
    recorder.take()
    await exchange(front.port, raw, answers=None)
    victim = b"/v1/victim-%d" % number
    asks = b"GET %b HTTP/1.1\r\nHost: g\r\nConnection: close\r\n\r\n" % victim
    answer = await exchange(front.port, asks, answers=None)
    bench.require(answer.endswith(b'{"target":"%b"}' % victim), f"after {raw!r}: the next one got {answer!r}")
    sent: list[Read] = []
    for connection in front.sent:
        reads, connection[:] = second_reading(bytes(connection))
        sent += _as_sent_on(reads)
    for seen in _reads(recorder.take()):
        if bench.require(
            seen in sent, f"{raw!r} through {front.name}: the backend saw {seen}, not of {sent}"
        ):
            sent.remove(seen)
            bench.add(f"accepted through {front.name}")


def _reads(seen: list[Seen]) -> list[Read]:
    return [
        Read(
            each.method,
            each.target,
            each.body,
            frozenset((name.lower(), value) for name, value in each.headers if name.lower() not in _OURS),
        )
        for each in seen
    ]


def _as_sent_on(reads: list[Read]) -> list[Read]:
    """An empty query gets lost on the way."""
    return [replace(read, target=read.target.removesuffix(b"?")) for read in reads]
