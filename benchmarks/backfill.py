"""What background jobs cost callers who wait: latency of requests without them, and with backfill off and on.

Starts a simulated model server with so many slots, and two gateways in front of it, one with backfill and one
without. More callers than there are slots ask all the time, so that the server is saturated and has a queue
of its own. The three cases take turns in one run: whatever else the machine does falls on all of them.

    none   requests only
    off    requests beside background jobs, backfill off
    on     requests beside background jobs, backfill on

After the requests of a round its jobs must all finish. A ratio is a case's latency over that of `none`.

    python benchmarks/backfill.py --rounds 4 --seconds 6
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import orjson

ROOT = Path(__file__).resolve().parents[1]
CASES = ("none", "off", "on")
MODEL = "demo-model"


@asynccontextmanager
async def process(*command: str, says: bytes, stream: str = "stdout") -> AsyncIterator[bytes]:
    """A process, from the line in which it says that it listens."""
    pipes: dict[str, Any] = {"stdout": asyncio.subprocess.DEVNULL, "stderr": asyncio.subprocess.DEVNULL}
    pipes[stream] = asyncio.subprocess.PIPE
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    started = await asyncio.create_subprocess_exec(sys.executable, *command, env=environ, **pipes)
    source = getattr(started, stream)
    try:
        async with asyncio.timeout(30):
            while says not in (line := await source.readline()):
                if not line:
                    raise RuntimeError(f"{command} ended")
        draining = asyncio.create_task(_drain(source))
        yield line
        draining.cancel()
    finally:
        started.terminate()
        await started.wait()


async def _drain(source: asyncio.StreamReader) -> None:
    while await source.readline():
        pass


@asynccontextmanager
async def gateway(root: str, directory: Path, backfill: str, capacity: int) -> AsyncIterator[str]:
    """The base URL of a gateway."""
    config = directory / f"{backfill}.yaml"
    config.write_text(
        f"upstream: {{url: {root}/v1, backfill: {backfill}, concurrency_max: {capacity}, "
        f"backfill_poll_ms: 100, foreground_reserved: 0}}\n"
    )
    flags = ["--config", str(config), "--port", "0", "--admin-port", "0"]
    flags += ["--database", str(directory / f"{backfill}.db")]
    async with process("-m", "gateway", "serve", *flags, says=b'"listening"', stream="stderr") as line:
        yield orjson.loads(line)["url"]


async def one_case(
    session: aiohttp.ClientSession, url: str, job_count: int, seed: int, args: argparse.Namespace
) -> tuple[list[float], int, float]:
    """Latencies in seconds, how many jobs completed, and how long after the last request the last one did."""
    dice = random.Random(seed)  # the same for each case of a round
    over_at = time.perf_counter() + args.seconds
    latencies: list[float] = []

    async def caller() -> None:
        while time.perf_counter() < over_at:
            words = dice.randint(args.words // 2, args.words * 3 // 2)
            started = time.perf_counter()
            async with session.post(f"{url}/responses", json=_body(words)) as answer:
                await answer.read()
                assert answer.status == 200, answer.status
            latencies.append(time.perf_counter() - started)

    async def submit() -> str:
        async with session.post(f"{url}/responses", json={**_body(args.words), "background": True}) as answer:
            return str((await answer.json())["id"])

    async def ends_well(response_id: str) -> bool:
        while True:
            async with session.get(f"{url}/responses/{response_id}") as answer:
                status = (await answer.json())["status"]
            if status not in ("queued", "in_progress"):
                return bool(status == "completed")
            await asyncio.sleep(0.2)

    async with asyncio.TaskGroup() as group:
        callers = [group.create_task(caller()) for _ in range(args.callers)]
        await asyncio.sleep(0.5)  # the server is saturated before the first job comes
        jobs = [await submit() for _ in range(job_count)]
        await asyncio.gather(*callers)
        ended = time.perf_counter()
        # Only now: polling would cost the callers something, too.
        ends = [await ends_well(response_id) for response_id in jobs]
    return latencies, sum(ends), time.perf_counter() - ended


def _body(words: int) -> dict[str, object]:
    return {"model": MODEL, "input": f"Count to {words}"}


async def main(args: argparse.Namespace) -> int:
    latencies: dict[str, list[float]] = {case: [] for case in CASES}
    completed = dict.fromkeys(CASES, 0)
    after = dict.fromkeys(CASES, 0.0)
    async with AsyncExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        server = ["-m", "demo.model_server", "--port", "0", "--slots", str(args.slots)]
        server += ["--words-per-second", str(args.words_per_second)]
        said = await stack.enter_async_context(process(*server, says=b"listens at"))
        root = said.decode().split()[-1].removesuffix("/v1")
        urls = {
            name: await stack.enter_async_context(gateway(root, directory, name, args.concurrency_max))
            for name in ("off", "vllm")
        }
        session = await stack.enter_async_context(
            aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0))
        )
        for number in range(args.rounds):
            for case in CASES[number % 3 :] + CASES[: number % 3]:
                url, jobs = urls["vllm" if case == "on" else "off"], 0 if case == "none" else args.jobs
                found, done, late_s = await one_case(session, url, jobs, number, args)
                latencies[case] += found
                completed[case] += done
                after[case] = max(after[case], late_s)
    asked = args.jobs * args.rounds
    print(f"{args.callers} callers, {args.slots} slots, {args.jobs} jobs a round, {args.rounds} rounds")
    print(
        f"{'case':6}{'requests':>9}{'p50 ms':>9}{'p99 ms':>9}"
        f"{'p50 ratio':>11}{'p99 ratio':>11}{'jobs done':>12}"
    )
    base = [statistics.quantiles(latencies["none"], n=100)[rank] for rank in (49, 98)]
    for case in CASES:
        p50, p99 = (statistics.quantiles(latencies[case], n=100)[rank] for rank in (49, 98))
        finished = "-" if case == "none" else f"{completed[case]}/{asked}"
        print(
            f"{case:6}{len(latencies[case]):>9}{p50 * 1000:>9.0f}{p99 * 1000:>9.0f}"
            f"{p50 / base[0]:>11.2f}{p99 / base[1]:>11.2f}{finished:>12}"
        )
    print(f"last job after the last request: off {after['off']:.1f} s, on {after['on']:.1f} s")
    return 0 if completed["off"] == completed["on"] == asked else 1


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Latency of requests beside background jobs.")
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=6, help="of requests, in each case of a round")
    parser.add_argument("--slots", type=int, default=8, help="of the model server")
    parser.add_argument("--callers", type=int, default=12, help="that ask again as soon as they are answered")
    parser.add_argument("--jobs", type=int, default=40, help="background jobs in a round")
    parser.add_argument("--words", type=int, default=20, help="of an answer")
    parser.add_argument("--words-per-second", type=float, default=50)
    parser.add_argument("--concurrency-max", type=int, default=256, help="of the gateways")
    sys.exit(asyncio.run(main(parser.parse_args())))
