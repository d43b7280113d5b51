"""What sees plain answers on their way: with all that comes at once worked off in pieces."""

from __future__ import annotations

import asyncio
from typing import Any

import aiohttp
import orjson
import pytest
from aiohttp import web

from gateway.api.passthrough import Passthrough
from gateway.api.taps import EchoTap, ResponseTap, Tap, TapFactory
from tests.api.test_passthrough import BACKEND, CHUNKED, GET, ask, backend, gateway, replying

BYTES_MAX = 2**17
RESPONSE: dict[str, Any] = {"id": "resp_1", "status": "completed", "previous_response_id": None, "output": []}
BEFORE = "resp_before"


def event(name: str, **more: Any) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (name.encode(), orjson.dumps({"type": name, **more}))


END = event("response.completed", response=RESPONSE)
DELTAS = b"".join(event("response.output_text.delta", delta=f" word {number}") for number in range(1000))
SILENCE = {
    "blank lines": b"\n" * 2**16,
    "comments": b": still here\n\n" * 5000,
    "unknown fields": b"progress: 10 %\n" * 4000,
    "empty objects": b"data: {}\n\n" * 6000,
}


def answered(stream: bytes) -> bytes:
    return CHUNKED + b"%x\r\n%b\r\n0\r\n\r\n" % (len(stream), stream)


async def passed_on(stream: bytes, tap_of: TapFactory) -> bytes:
    """What a client gets of a stream that the backend sends at once."""

    async def handler(through: Passthrough, request: web.BaseRequest) -> web.StreamResponse:
        return await through.forward(request, BACKEND.get(), request_id="req_ours", tap_of=tap_of)

    async with backend(replying(answered(stream))) as up, gateway(up, handler=handler) as gw:
        body = (await ask(gw.port, GET)).partition(b"\r\n\r\n")[2]
    found = b""
    while body:
        size, _, rest = body.partition(b"\r\n")
        found, body = found + rest[: int(size, 16)], rest[int(size, 16) + 2 :]
    return found


@pytest.mark.parametrize("before", [b"", DELTAS, *SILENCE.values()], ids=["", "deltas", *SILENCE])
@pytest.mark.parametrize("after", [b"", DELTAS], ids=["", "deltas"])
async def test_the_end_is_kept_wherever_it_stands_in_what_comes_at_once(before: bytes, after: bytes) -> None:
    kept: list[dict[str, Any]] = []

    async def keep(response: dict[str, Any]) -> None:
        kept.append(response)

    stream = before + END + after
    found = await passed_on(stream, lambda answer: ResponseTap(answer, keep, bytes_max=BYTES_MAX))
    assert found == stream
    assert kept == [RESPONSE]


@pytest.mark.parametrize("before", [b"", DELTAS, *SILENCE.values()], ids=["", "deltas", *SILENCE])
async def test_the_response_before_is_named_wherever_the_end_stands(before: bytes) -> None:
    found = await passed_on(
        before + END + DELTAS, lambda answer: EchoTap(answer, BEFORE, bytes_max=BYTES_MAX)
    )
    assert found.startswith(before)
    assert found.endswith(DELTAS)
    end = found[len(before) : -len(DELTAS)]
    assert orjson.loads(end.partition(b"data: ")[2])["response"] == {
        **RESPONSE,
        "previous_response_id": BEFORE,
    }


async def test_an_event_that_is_too_large_is_passed_on_and_nothing_is_kept() -> None:
    async def keep(_: dict[str, Any]) -> None:
        raise AssertionError("nothing can be read after it")

    stream = event("response.output_text.delta", delta="x" * BYTES_MAX) + END
    assert await passed_on(stream, lambda answer: ResponseTap(answer, keep, bytes_max=BYTES_MAX)) == stream


async def keep_nothing(_: dict[str, Any]) -> None: ...


TAPS: dict[str, TapFactory] = {
    "kept": lambda answer: ResponseTap(answer, keep_nothing, bytes_max=BYTES_MAX),
    "named": lambda answer: EchoTap(answer, BEFORE, bytes_max=BYTES_MAX),
}


@pytest.mark.parametrize("tap_of", TAPS.values(), ids=TAPS)
async def test_others_have_turns_while_a_flood_is_looked_through(tap_of: TapFactory) -> None:
    taps: list[Tap] = []
    turns = 0

    def noted(answer: aiohttp.ClientResponse) -> Tap:
        taps.append(tap_of(answer))
        return taps[-1]

    async def count() -> None:
        nonlocal turns
        while True:
            await asyncio.sleep(0)
            turns += 1

    await passed_on(DELTAS, noted)
    flood = b'data: "response" "response.completed"\n\n' * 2**15  # each may be what is looked for
    counting = asyncio.create_task(count())
    assert await taps[0].saw(flood) == flood
    counting.cancel()
    assert turns > 1
