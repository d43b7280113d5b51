"""Clients that hang up right before or right after they are answered."""

from __future__ import annotations

import asyncio
import random
import socket
import struct
from collections.abc import Callable, Iterable
from typing import Any

import orjson

from tests.acceptance.harness import KEY
from tests.torture.gateway import Gateway
from tests.torture.model import create_body, expected_text
from tests.torture.oracle import text_of
from tests.torture.trial import Bench, trial

_LANES = 10
_DELTAS = 12
_QUIET_S = 60.0
_MOMENTS: dict[str, Callable[[asyncio.StreamReader], Any]] = {
    "at once": lambda reader: asyncio.sleep(0),
    "before the 200": lambda reader: asyncio.sleep(random.uniform(0, 0.006)),
    "about the 200": lambda reader: asyncio.sleep(random.uniform(0.002, 0.03)),
    "at its first byte": lambda reader: reader.read(1),
    "after its head": lambda reader: reader.readuntil(b"\r\n\r\n"),
    "after its first piece": lambda reader: reader.read(65536),
}


@trial(
    "T14",
    "clients hang up, with a FIN or a RST, right before and right after the 200, streamed or not",
    pass_mark="every accepted job completes with its full output, by one call of the model server",
    runs=500,
    short_runs=100,
    round_s=10,
)
async def hang_up(bench: Bench) -> None:
    model = await bench.model()
    gateway = await bench.gateway(model.url)
    rounds = bench.rounds()
    told: set[str] = set()
    async with asyncio.TaskGroup() as group:
        for _ in range(_LANES):
            group.create_task(_lane(gateway, rounds, told))
    await _quiet(gateway)
    accepted = {call.tag for call in await model.calls()}
    bench.require(told <= accepted, f"{len(told - accepted)} clients were answered, and nothing ran")
    bench.figure("hung up", bench.runs)
    bench.figure("accepted", len(accepted))
    completed = 0
    for number in range(bench.runs):
        tag = f"gone.{number}"
        if tag not in accepted:
            continue
        body = _body(tag, number)
        answer = await gateway.call("POST", "/responses", body, more={"Idempotency-Key": tag})
        response_id = answer.body[answer.body.index(b'"resp_') + 1 :].partition(b'"')[0].decode()
        found = (await gateway.call("GET", f"/responses/{response_id}")).json()
        is_whole = found["status"] == "completed" and text_of(found) == expected_text(tag, 1, _DELTAS)
        completed += is_whole
        bench.require(is_whole, f"{tag} is {found['status']}: {found['error']}, {text_of(found)!r}")
    bench.figure("completed with full output", completed)
    calls = await model.calls()
    bench.require(len(calls) == len(accepted), f"{len(calls)} calls for {len(accepted)} jobs")
    bench.require(accepted, "no job was accepted: the clients were too quick to be of use")


def _body(tag: str, number: int) -> bytes:
    return orjson.dumps(create_body(tag, stream=number % 2 == 0, deltas=_DELTAS, pace_ms=2))


async def _lane(gateway: Gateway, rounds: Iterable[int], told: set[str]) -> None:
    for number in rounds:
        moment = list(_MOMENTS.values())[number // 2 % len(_MOMENTS)]
        tag = f"gone.{number}"
        if await _leave(gateway, tag, _body(tag, number), moment):
            told.add(tag)


async def _leave(
    gateway: Gateway, tag: str, body: bytes, moment: Callable[[asyncio.StreamReader], Any]
) -> bool:
    """Ask, and go at some moment. Returns whether something of an answer was read before."""
    host, port = gateway.url.split("/")[2].split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    head = (
        f"POST /v1/responses HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {KEY}\r\n"
        f"Idempotency-Key: {tag}\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    writer.write(head.encode() + body)
    await writer.drain()
    has_read = bool(await moment(reader))
    if random.random() < 0.5:
        connection = writer.get_extra_info("socket")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.transport.abort()
    else:
        writer.close()
    return has_read


async def _quiet(gateway: Gateway) -> None:
    """Wait until every job has ended."""
    async with asyncio.timeout(_QUIET_S):
        while await gateway.metric('backburner_jobs{status="queued"}') or await gateway.metric(
            'backburner_jobs{status="in_progress"}'
        ):
            await asyncio.sleep(0.1)
