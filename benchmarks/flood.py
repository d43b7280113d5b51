"""What the bytes of a backend cost the gateway that say little or nothing, as a ratio to those of events.

    python -m benchmarks.flood [--mib 2] [--rounds 3] [--only blank]

A model server in a process of its own answers a background request with so many bytes of one kind. A ratio is
the CPU time that the gateway takes for them, per byte on the wire, over that of ordinary events in the same
API. No kind may cost more than they do: else one backend, or one model that has gone mad, takes the core from
everybody with less than it would be allowed to say. Each is read from HTTP chunks of 64 KiB, the last ones
from chunks as small as they can be.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import sys
import tempfile
from contextlib import AsyncExitStack

import aiohttp

from benchmarks.machine import cpu_s
from benchmarks.processes import child

_DELTA = (
    b'event: response.output_text.delta\ndata: {"type":"response.output_text.delta","sequence_number":7,'
    b'"item_id":"msg_1","output_index":0,"content_index":0,"delta":" word","logprobs":[]}\n\n'
)
_CHUNK = (
    b'data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":1770000000,"model":"m","choices":'
    b'[{"index":0,"delta":{"content":" word"},"logprobs":null,"finish_reason":null}]}\n\n'
)
_LINES = {
    "blank LF": b"\n",
    "blank CR": b"\r",
    "blank CRLF": b"\r\n",
    "bare comments": b":\n",
    "comments": b": keep-alive\n\n",
    "unknown fields": b"foo: bar\n",
    "unknown names": b"x\n",
    "ids": b"id: 1\n\n",
    "retry": b"retry: 1\n\n",
    "empty data lines": b"data:\n",
    "empty data": b"data:\n\n",
    "data without colon": b"data\n\n",
    "event names": b"event: a\n\n",
    "bare event names": b"event\n\n",
    "data of blanks": b"data: \n\n",
    "empty objects": b"data:{}\n\n",
}
KINDS: dict[str, dict[str, bytes]] = {
    "responses": {
        "events": _DELTA,
        **_LINES,
        "pings": b'data:{"type":"ping"}\n\n',
        "empty deltas": b'data:{"type":"response.output_text.delta","delta":""}\n\n',
        "small deltas": b'data:{"type":"response.output_text.delta","delta":"a"}\n\n',
    },
    "chat": {
        "events": _CHUNK,
        **_LINES,
        "no choices": b'data:{"choices":[]}\n\n',
        "empty choices": b'data:{"choices":[{}]}\n\n',
        "empty deltas": b'data:{"choices":[{"delta":{}}]}\n\n',
        "empty text": b'data:{"choices":[{"delta":{"content":""}}]}\n\n',
        "small text": b'data:{"choices":[{"delta":{"content":"a"}}]}\n\n',
    },
}
"""The rest of an answer is made of these. The first of each is what the others are measured by."""
IN_SMALL_CHUNKS = ("events", "blank LF")
_CHUNK_BYTES = 2**16
_BEGINNING = {
    "responses": b'data: {"type":"response.created","response":{"status":"in_progress"}}\n\n',
    "chat": b'data: {"choices":[{"delta":{"content":"It begins."}}]}\n\n',
}
_END = {
    "responses": b'\n\ndata: {"type":"response.completed","response":{"status":"completed"}}\n\n',
    "chat": b'\n\ndata: {"choices":[{"delta":{},"finish_reason":"stop"}]}\n\ndata: [DONE]\n\n',
}


async def model_server(size: int) -> None:
    """Answers every POST with `size` bytes of the kind that its model is called by; prints its port."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0] or 0)
        api, kind, chunk_bytes = json.loads(await reader.readexactly(length))["model"].split("/")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n")
        writer.write(b"Connection: close\r\nTransfer-Encoding: chunked\r\n\r\n")
        writer.write(_chunk(_BEGINNING[api]))
        unit, sent = KINDS[api][kind], 0
        body = unit * max(1, _CHUNK_BYTES // len(unit))
        step = int(chunk_bytes)
        piece = b"".join(_chunk(body[start : start + step]) for start in range(0, len(body), step))
        try:
            while sent < size:
                writer.write(piece)
                await writer.drain()
                sent += len(piece)
            writer.write(_chunk(_END[api]) + b"0\r\n\r\n")
            writer.close()
        except ConnectionError:
            pass

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


def _chunk(body: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(body), body)


async def _cost(session: aiohttp.ClientSession, url: str, pid: int, model: str) -> float:
    """CPU seconds of the gateway for one answer."""
    before = cpu_s(pid)
    body = {"model": model, "input": "x", "background": True}
    async with session.post(f"{url}/responses", json=body) as answer:
        response_id = (await answer.json())["id"]
    while True:
        await asyncio.sleep(0.1)
        async with session.get(f"{url}/responses/{response_id}") as answer:
            found = await answer.json()
        if found["status"] not in ("queued", "in_progress"):
            assert found["status"] == "completed", (model, found["error"])
            return cpu_s(pid) - before


async def main(mib: float, rounds: int, only: str) -> None:
    size = int(mib * 2**20)
    own = ("-m", "benchmarks.flood", "--serve", "--mib", str(mib))
    async with AsyncExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        server = await stack.enter_async_context(child(*own))
        assert server.stdout is not None
        port = int(await server.stdout.readline())
        session = await stack.enter_async_context(aiohttp.ClientSession())
        print(f"{mib:g} MiB of each kind, {rounds} rounds; CPU of the gateway per byte")
        for api, kinds in KINDS.items():
            arguments = ["-m", "gateway", "serve", "--upstream", f"http://127.0.0.1:{port}/v1", "--port", "0"]
            arguments += ["--admin-port", "0", "--database", f"{folder}/{api}.db", "--api", api]
            gateway = await stack.enter_async_context(child(*arguments))
            assert gateway.stderr is not None
            while (said := json.loads(await gateway.stderr.readline()))["event"] != "listening":
                pass
            cases = [(kind, _CHUNK_BYTES) for kind in kinds if only in kind or kind == "events"]
            cases += [(kind, 1) for kind in IN_SMALL_CHUNKS if only in kind or not only]
            costs: dict[tuple[str, int], list[float]] = {case: [] for case in cases}
            for _ in range(rounds):
                for (kind, step), found in costs.items():
                    model = f"{api}/{kind}/{step}"
                    found.append(await _cost(session, said["url"], gateway.pid, model) / size * 1e9)
            base = statistics.median(costs["events", _CHUNK_BYTES])
            for (kind, step), found in costs.items():
                middle = statistics.median(found)
                name = f"{api}: {kind}{'' if step > 1 else ' in chunks of a byte'}"
                print(f"  {name:46} {middle:7.1f} ns  {middle / base:5.2f}", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--mib", type=float, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", default="", help="kinds with this in their names")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.serve:
        asyncio.run(model_server(int(given.mib * 2**20)))
    else:
        asyncio.run(main(given.mib, given.rounds, given.only))
        sys.exit(0)
