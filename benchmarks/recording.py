"""What it costs a plain request that its response is recorded.

    python -m benchmarks.recording [--requests 400] [--rounds 6] [--input 2000] [--parallel 8]

A model server in a process of its own answers at once, in either API. Four gateways stand before it: one for
each API that records, and one that does not. Rounds of all four are interleaved, so that a slow minute hits
all alike; each figure is the median of the rounds. CPU time is read from the kernel.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import sys
import tempfile
import time
from contextlib import AsyncExitStack

import aiohttp

from benchmarks.machine import cpu_s
from benchmarks.processes import child

_WORDS = "The quick brown fox jumps over the lazy dog. " * 20


async def model_server() -> None:
    """Answers every POST with some hundred words; prints its port."""
    whole = {
        "choices": [
            {"index": 0, "message": {"role": "assistant", "content": _WORDS}, "finish_reason": "stop"}
        ],
        "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2},
    }
    part = {"type": "output_text", "text": _WORDS, "annotations": [], "logprobs": []}
    message = {"type": "message", "role": "assistant", "status": "completed", "content": [part]}
    number = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal number
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0] or 0)
                await reader.readexactly(length)
                number += 1
                item = {**message, "id": f"msg_{number}"}
                ended = {
                    "id": f"resp_{number}",
                    "object": "response",
                    "status": "completed",
                    "output": [item],
                }
                answer = json.dumps(whole if b"/chat/" in head.partition(b"\r\n")[0] else ended).encode()
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n")
                writer.write(b"Content-Length: %d\r\n\r\n" % len(answer) + answer)
        except asyncio.IncompleteReadError:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, backlog=1024)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


async def _round(
    session: aiohttp.ClientSession, url: str, body: bytes, requests: int, parallel: int
) -> list[float]:
    """Some requests, so many at once. Returns how long each took, in milliseconds."""
    took: list[float] = []
    left = iter(range(requests))

    async def ask() -> None:
        for _ in left:
            started = time.perf_counter()
            async with session.post(f"{url}/responses", data=body) as answer:
                await answer.read()
                assert answer.status == 200
            took.append((time.perf_counter() - started) * 1000)

    await asyncio.gather(*(ask() for _ in range(parallel)))
    return took


async def main(requests: int, rounds: int, input_chars: int, parallel: int) -> None:
    body = json.dumps({"model": "m", "input": ("word " * input_chars)[:input_chars]}).encode()
    async with AsyncExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        server = await stack.enter_async_context(child("-m", "benchmarks.recording", "--serve"))
        assert server.stdout is not None
        port = int(await server.stdout.readline())
        gateways: dict[tuple[str, str], tuple[int, str]] = {}
        for api in ("responses", "chat"):
            for records in ("false", "true"):
                os.environ["BACKBURNER_CONVERSATIONS__RECORD_FOREGROUND"] = records
                arguments = ["-m", "gateway", "serve", "--upstream", f"http://127.0.0.1:{port}/v1"]
                arguments += ["--port", "0", "--admin-port", "0", "--api", api]
                arguments += ["--database", f"{folder}/{api}-{records}.db"]
                gateway = await stack.enter_async_context(child(*arguments))
                assert gateway.stderr is not None
                while (said := json.loads(await gateway.stderr.readline()))["event"] != "listening":
                    pass
                gateways[api, records] = gateway.pid, said["url"]
        headers = {"Content-Type": "application/json"}
        session = await stack.enter_async_context(aiohttp.ClientSession(headers=headers))
        cpu: dict[tuple[str, str], list[float]] = {name: [] for name in gateways}
        wait: dict[tuple[str, str], list[float]] = {name: [] for name in gateways}
        for number in range(rounds + 1):
            for name, (pid, url) in gateways.items():
                before = cpu_s(pid)
                took = await _round(session, url, body, requests, parallel)
                if number:  # the first one warms up
                    cpu[name].append((cpu_s(pid) - before) / requests * 1e6)
                    wait[name].append(statistics.median(took))
    print(f"{requests} requests x {rounds} rounds, {parallel} at once, inputs of {input_chars} characters")
    for api in ("responses", "chat"):
        for what, unit, found in (("CPU", "us", cpu), ("median wait", "ms", wait)):
            ratios = [b / a for a, b in zip(found[api, "false"], found[api, "true"], strict=True)]
            off, on = (statistics.median(found[api, records]) for records in ("false", "true"))
            print(f"  {api}: {what} {off:.2f} -> {on:.2f} {unit}, ratio {statistics.median(ratios):.2f}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--serve", action="store_true")
    parser.add_argument("--requests", type=int, default=400)
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--input", type=int, default=2000)
    parser.add_argument("--parallel", type=int, default=8)
    options = parser.parse_args()
    if options.serve:
        asyncio.run(model_server())
    else:
        asyncio.run(main(options.requests, options.rounds, options.input, options.parallel))
        sys.exit(0)
