"""A model server that does what each request tells it to, and knows how often it was asked.

The script stands in the request, as JSON in `metadata.script`, so that any client can write it:

    tag       words of the answer begin with it; the client makes it up, and knows its own answer by it
    deltas    how many pieces of text [8]
    pace_ms   between two pieces [5]
    head_ms   before the head of the answer [0]
    first_ms  after the head of a stream, before its first event [0]
    fault     "" | "cut" (connection closed) | "reset" | "hang" | "flood" | "error" (an error event) |
              "incomplete" (the terminal event) | "status:503"
    after     the fault comes after so many pieces [0]; `status` comes in place of the head
    needs_key no Authorization header, and the answer is 401 [false]
    calls     the fault comes in so many first calls of a job [all]
    filler    bytes more in the event of each piece, which then has the time at which it was sent as well [0]
    retry_after   a header of an answer with a faulty status [none]
    flood     what a flood is made of, again and again until the caller hangs up, and `chunk`, the bytes of
              each HTTP chunk of it [65536]
    piece_chars   each piece is made so long [as long as it is]
    last_word     what it says in the end that all of the text was [what it was]

Every call of a job (the gateway names it in `Idempotency-Key`) has its number in every piece of its text, so
that pieces of two generations cannot be taken for one: `expected_text` is what a whole answer says.
"""

from __future__ import annotations

import argparse
import asyncio
import socket
import struct
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

import orjson
from aiohttp import web

from tests.torture.process import Helper

MODEL = "torture-model"
_BODY_BYTES_MAX = 64 * 2**20


def piece(tag: str, call: int, number: int) -> str:
    return f"{tag}/{call}/{number} "


def expected_text(tag: str, call: int, deltas: int) -> str:
    """The whole text of the `call`-th call (from 1)."""
    return "".join(piece(tag, call, number) for number in range(deltas))


def create_body(tag: str, *, stream: bool, background: bool = True, **script: Any) -> dict[str, Any]:
    """A create request with a script."""
    return {
        "model": MODEL,
        "input": f"Say {tag}.",
        "background": background,
        "stream": stream,
        "metadata": {"script": orjson.dumps({"tag": tag, **script}).decode()},
    }


@dataclass(slots=True)
class Call:
    """One call. Times are of the monotonic clock, which all processes of a machine share.

    Attributes:
        sent: Pieces of text that were written.
        gone_at: When the caller was seen to have hung up early; None if it stayed to the end.
    """

    job: str
    tag: str
    number: int
    started_at: float
    sent: int = 0
    ended_at: float | None = None
    gone_at: float | None = None


@dataclass(slots=True)
class Server:
    """What it was asked so far."""

    calls: list[Call] = field(default_factory=list)
    by_job: dict[str, int] = field(default_factory=dict)
    plain: int = 0

    def app(self) -> web.Application:
        app = web.Application(client_max_size=_BODY_BYTES_MAX)
        app.router.add_post("/v1/responses", self.respond)
        app.router.add_get("/v1/models", self.models)
        app.router.add_post("/v1/embeddings", self.embed)
        app.router.add_get("/calls", self.tell)
        app.router.add_post("/forget", self.forget)
        return app

    async def embed(self, request: web.Request) -> web.Response:
        """As a server that reads all of a body before it answers."""
        await request.read()
        return web.json_response({"object": "list", "data": []})

    async def models(self, _request: web.Request) -> web.Response:
        return web.json_response({"object": "list", "data": [{"id": MODEL, "object": "model"}]})

    async def tell(self, _request: web.Request) -> web.Response:
        return web.json_response([asdict(call) for call in self.calls])

    async def forget(self, _request: web.Request) -> web.Response:
        self.calls.clear()
        self.by_job.clear()
        return web.json_response({})

    async def respond(self, request: web.Request) -> web.StreamResponse:
        body = orjson.loads(await request.read())
        script = orjson.loads((body.get("metadata") or {}).get("script", "{}"))
        job = request.headers.get("Idempotency-Key", "")
        number = self.by_job[job] = self.by_job.get(job, 0) + 1
        if script.get("needs_key") and "Authorization" not in request.headers:
            return _error(401)
        call = Call(job, script.get("tag", ""), number, time.monotonic())
        self.calls.append(call)
        try:
            if body.get("stream"):
                return await self._stream(request, body, script, call)
            await asyncio.sleep(script.get("head_ms", 0) / 1000)
            text = expected_text(call.tag, number, script.get("deltas", 8))
            return web.json_response(_response(call, "completed", text))
        except asyncio.CancelledError:
            call.gone_at = time.monotonic()
            raise
        except ConnectionError:
            call.gone_at = time.monotonic()
            return web.Response()
        finally:
            call.ended_at = time.monotonic()

    async def _stream(
        self, request: web.Request, body: dict[str, Any], script: dict[str, Any], call: Call
    ) -> web.StreamResponse:
        fault = script.get("fault", "") if call.number <= script.get("calls", 2**31) else ""
        await asyncio.sleep(script.get("head_ms", 0) / 1000)
        if fault.startswith("status:"):
            return _error(int(fault.partition(":")[2]), script.get("retry_after"))
        answer = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await answer.prepare(request)
        if first_ms := script.get("first_ms", 0):
            await answer.write(b"")  # aiohttp would hold the head back
            await asyncio.sleep(first_ms / 1000)
        deltas = script.get("deltas", 8)
        for event in _events(call, deltas, script.get("piece_chars", 0), script.get("last_word")):
            is_piece = event["type"] == "response.output_text.delta"
            if is_piece and call.sent == script.get("after", 0) and fault == "flood":
                await _flood(request, answer, script["flood"].encode(), script.get("chunk", 2**16))
            if is_piece and call.sent == script.get("after", 0) and fault:
                await _fail(request, answer, fault, call)
                return answer
            kind = event["type"]
            if is_piece and (filler := script.get("filler", 0)):
                event |= {"sent_at": time.monotonic(), "filler": "." * filler}
            await answer.write(b"event: %b\ndata: %b\n\n" % (kind.encode(), orjson.dumps(event)))
            if is_piece:
                call.sent += 1
                await asyncio.sleep(script.get("pace_ms", 5) / 1000)
        await answer.write_eof()
        return answer


def _error(status: int, retry_after: str | None = None) -> web.Response:
    error = {"message": "As scripted.", "type": "server_error", "code": None, "param": None}
    headers = {} if retry_after is None else {"Retry-After": retry_after}
    return web.json_response({"error": error}, status=status, headers=headers)


async def _flood(request: web.Request, answer: web.StreamResponse, unit: bytes, chunk_bytes: int) -> None:
    await answer.write(b"")
    body = unit * (2**16 // len(unit))
    chunks = (body[start : start + chunk_bytes] for start in range(0, len(body), chunk_bytes))
    framed = b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks)
    assert request.transport is not None
    while True:
        request.transport.write(framed)  # past aiohttp, which would make one call of each chunk
        await request.protocol._drain_helper()


async def _fail(request: web.Request, answer: web.StreamResponse, fault: str, call: Call) -> None:
    match fault:
        case "hang":
            await asyncio.sleep(3600)
        case "error":
            event = {"type": "error", "code": "server_error", "message": "As scripted.", "param": None}
            await answer.write(b"event: error\ndata: %b\n\n" % orjson.dumps(event))
            await answer.write_eof()
        case "incomplete":
            text = expected_text(call.tag, call.number, call.sent)
            ended = _response(call, "incomplete", text)
            ended["incomplete_details"] = {"reason": "max_output_tokens"}
            last = {"type": "response.incomplete", "response": ended}
            await answer.write(b"event: response.incomplete\ndata: %b\n\n" % orjson.dumps(last))
            await answer.write_eof()
        case "cut" | "reset":
            assert request.transport is not None
            if fault == "reset":
                connection = request.transport.get_extra_info("socket")
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            request.transport.abort() if fault == "reset" else request.transport.close()
        case _:
            raise ValueError(f"unknown fault {fault!r} in the script of {call.tag}")


def _events(call: Call, deltas: int, piece_chars: int, last_word: str | None) -> Iterator[dict[str, Any]]:
    for number, event in enumerate(_unnumbered(call, deltas, piece_chars, last_word)):
        yield {**event, "sequence_number": number}


def _unnumbered(call: Call, deltas: int, piece_chars: int, last_word: str | None) -> Iterator[dict[str, Any]]:
    item_id = f"msg_{call.number}"
    text = expected_text(call.tag, call.number, deltas) if last_word is None else last_word
    part = {"type": "output_text", "text": "", "annotations": []}
    place = {"item_id": item_id, "output_index": 0, "content_index": 0}
    item: dict[str, Any] = {"id": item_id, "type": "message", "role": "assistant"}
    item |= {"status": "in_progress", "content": []}
    started = _response(call, "in_progress", None)
    yield {"type": "response.created", "response": started}
    yield {"type": "response.in_progress", "response": started}
    yield {"type": "response.output_item.added", "output_index": 0, "item": item}
    yield {"type": "response.content_part.added", **place, "part": part}
    for number in range(deltas):
        delta = piece(call.tag, call.number, number).ljust(piece_chars, ".")
        yield {"type": "response.output_text.delta", **place, "delta": delta, "logprobs": []}
    ended = _response(call, "completed", text)
    yield {"type": "response.output_text.done", **place, "text": text, "logprobs": []}
    yield {"type": "response.content_part.done", **place, "part": {**part, "text": text}}
    yield {"type": "response.output_item.done", "output_index": 0, "item": ended["output"][0]}
    yield {"type": "response.completed", "response": ended}


def _response(call: Call, status: str, text: str | None) -> dict[str, Any]:
    content: list[dict[str, Any]] = [{"type": "output_text", "text": text, "annotations": []}]
    message = {"id": f"msg_{call.number}", "type": "message", "role": "assistant", "status": status}
    usage = {
        "input_tokens": 1,
        "input_tokens_details": {"cached_tokens": 0},
        "output_tokens": 1,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": 2,
    }
    return {
        "id": f"resp_upstream_{call.job[-8:]}_{call.number}",
        "object": "response",
        "created_at": int(time.time()),
        "status": status,
        "model": MODEL,
        "output": [] if text is None else [{**message, "content": content}],
        "error": None,
        "incomplete_details": None,
        "instructions": None,
        "metadata": {},
        "parallel_tool_calls": True,
        "temperature": 1.0,
        "tool_choice": "auto",
        "tools": [],
        "top_p": 1.0,
        "usage": usage if text is not None else None,
    }


class Model(Helper):
    """The server as a process, seen from a trial."""

    module = "tests.torture.model"

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    async def calls(self) -> list[Call]:
        """Every call so far, in the order in which they came."""
        return [Call(**fields) for fields in await self.ask("GET", "/calls")]

    async def forget(self) -> None:
        """Count from 0 again."""
        await self.ask("POST", "/forget")


async def _serve(port: int, keepalive_s: float) -> None:
    runner = web.AppRunner(
        Server().app(), handler_cancellation=True, access_log=None, keepalive_timeout=keepalive_s
    )
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port, backlog=1024).start()
    print(runner.addresses[0][1], flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--keepalive-s", type=float, default=3600, help="an idle connection is closed then")
    args = parser.parse_args()
    asyncio.run(_serve(args.port, args.keepalive_s))
