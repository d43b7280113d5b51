"""CPU of the gateway per background event, without and with readers.

    python -m benchmarks.events [--jobs 40] [--events 500] [--rate 50] [--readers 0,1,4]

A model server in a process of its own sends `--events` deltas of about 230 bytes for each job, at `--rate` a
second; the gateway is a process of its own, and its CPU time is read from the kernel. Each row is one round
of all jobs, all under way at once; rounds are interleaved, so that a slow minute hits all rows alike.
The fewer events a second each job has, the less comes with one read and goes with one commit: 1,000 jobs at
one a second cost more for each event than 100 at ten.
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
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp

ITEM = '"item":{"id":"msg_1","type":"message","role":"assistant","status":"in_progress","content":[]}'


async def model_server(events: int, rate: float) -> None:
    """Answers every POST with a stream of deltas; prints its port."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0] or 0)
        await reader.readexactly(length)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n")
        writer.write(_event("response.output_item.added", f'"output_index":0,{ITEM}'))
        started = time.monotonic()
        for number in range(events):
            place = f'"item_id":"msg_1","output_index":0,"content_index":0,"sequence_number":{number}'
            writer.write(
                _event("response.output_text.delta", f'{place},"delta":" word{"." * 60}","logprobs":[]')
            )
            await writer.drain()
            if (ahead := started + number / rate - time.monotonic()) > 0:
                await asyncio.sleep(ahead)
        usage = '"usage":{"input_tokens":1,"output_tokens":1,"total_tokens":2}'
        writer.write(_event("response.completed", f'"response":{{"status":"completed",{usage}}}'))
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, backlog=1024)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


def _event(kind: str, fields: str) -> bytes:
    return f'event: {kind}\ndata: {{"type":"{kind}",{fields}}}\n\n'.encode()


@asynccontextmanager
async def child(*arguments: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """A process of ours, until the end of the block."""
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(sys.executable, *arguments, stdout=pipe, stderr=pipe)
    try:
        yield process
    finally:
        process.terminate()
        await process.wait()


def cpu_s(pid: int) -> float:
    """User and system time of a process so far, all threads."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def one_job(session: aiohttp.ClientSession, url: str, readers: int, takes_s: float) -> int:
    """Create a job and read it to its end, `readers` times, or poll when it should be over. Returns bytes
    read."""
    body = {"model": "m", "input": "x", "background": True, "stream": True}
    if readers == 0:
        body["stream"] = False
    async with session.post(f"{url}/responses", json=body) as answer:
        if readers:
            first = await answer.content.readuntil(b"\n\n")
            response_id = json.loads(first.partition(b"data: ")[2])["response"]["id"]
            others = [read(session, f"{url}/responses/{response_id}?stream=true") for _ in range(readers - 1)]
            sizes = await asyncio.gather(_drain(answer), *others)
            return sum(sizes)
        response_id = (await answer.json())["id"]
    await asyncio.sleep(takes_s)
    while True:
        await asyncio.sleep(0.5)
        async with session.get(f"{url}/responses/{response_id}") as answer:
            if (await answer.json())["status"] not in ("queued", "in_progress"):
                return 0


async def read(session: aiohttp.ClientSession, url: str) -> int:
    async with session.get(url) as answer:
        return await _drain(answer)


async def _drain(answer: aiohttp.ClientResponse) -> int:
    size = 0
    async for chunk in answer.content.iter_any():
        size += len(chunk)
    return size


async def main(jobs: int, events: int, rate: float, rounds: int, readers_of: list[int]) -> None:
    own = ("-m", "benchmarks.events", "--serve", "--events", str(events), "--rate", str(rate))
    with tempfile.TemporaryDirectory() as folder:
        async with child(*own) as server:
            assert server.stdout is not None
            port = int(await server.stdout.readline())
            arguments = ["-m", "gateway", "serve", "--upstream", f"http://127.0.0.1:{port}/v1", "--port", "0"]
            arguments += ["--admin-port", "0", "--database", f"{folder}/b.db", "--api", "responses"]
            os.environ |= {
                "BACKBURNER_UPSTREAM__CONCURRENCY_MAX": str(max(256, jobs)),
                "BACKBURNER_BACKGROUND__QUEUE_PER_TENANT_MAX": "10000",
                "BACKBURNER_STREAM__READERS_PER_TENANT_MAX": "20000",
            }
            async with child(*arguments) as gateway:
                assert gateway.stderr is not None
                while (said := json.loads(await gateway.stderr.readline()))["event"] != "listening":
                    pass
                url = said["url"]
                sink = asyncio.create_task(_sink(gateway.stderr))
                costs: dict[int, list[float]] = {readers: [] for readers in readers_of}
                connector = aiohttp.TCPConnector(limit=0)
                async with aiohttp.ClientSession(connector=connector) as session:
                    for _ in range(rounds):
                        for readers, found in costs.items():
                            before = cpu_s(gateway.pid)
                            all_of_them = (one_job(session, url, readers, events / rate) for _ in range(jobs))
                            await asyncio.gather(*all_of_them)
                            found.append((cpu_s(gateway.pid) - before) / (jobs * events) * 1e6)
                sink.cancel()
    base = statistics.median(costs[readers_of[0]])
    print(f"{jobs} jobs x {events} events at {rate:g}/s, {rounds} rounds; CPU of the gateway per event")
    for readers, found in costs.items():
        middle = statistics.median(found)
        print(f"  {readers} readers a job: {middle:6.1f} us  ({middle / base:4.2f} of the first)")


async def _sink(stream: asyncio.StreamReader) -> None:
    while await stream.read(65536):
        pass


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--jobs", type=int, default=40)
    parser.add_argument("--events", type=int, default=500)
    parser.add_argument("--rate", type=float, default=50)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--readers", default="0,1,4", help="of each job, one row for each number")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.serve:
        asyncio.run(model_server(given.events, given.rate))
    else:
        readers = [int(number) for number in given.readers.split(",")]
        asyncio.run(main(given.jobs, given.events, given.rate, given.rounds, readers))
