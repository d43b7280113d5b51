"""Readers that do not take their stream: cut off, bounded, and nobody else's trouble."""

from __future__ import annotations

import asyncio
import socket
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.acceptance.conftest import StartGateway
from tests.acceptance.fleet import until
from tests.acceptance.harness import KEY, Gateway, frames, numbers, payload, within
from tests.acceptance.replay import Answer, ReplayServer

STALL_S = 1.0
DELTAS = 1500
TEXT = "word " * 160


def long_answer() -> Answer:
    """Some 1.5 MB of events, and as much again in each of the four last ones."""
    place = '"item_id":"msg_1","output_index":0,"content_index":0'
    item = '"item":{"id":"msg_1","type":"message","role":"assistant","status":"in_progress","content":[]}'
    usage = '"usage":{"input_tokens":1,"output_tokens":1,"total_tokens":2}'
    kinds = [("response.output_item.added", f'"output_index":0,{item}')]
    kinds += [("response.output_text.delta", f'{place},"delta":"{TEXT}","logprobs":[]')] * DELTAS
    kinds += [("response.completed", f'"response":{{"status":"completed",{usage}}}')]
    events = [f'event: {kind}\ndata: {{"type":"{kind}",{more}}}\n\n'.encode() for kind, more in kinds]
    return Answer([b"".join(events[at : at + 100]) for at in range(0, len(events), 100)])


async def ended_stream(gateway: Gateway, replay_server: ReplayServer) -> tuple[str, int]:
    """A response with a long stream that is over, and the number of its last event."""
    replay_server.script(long_answer())
    ask = {"model": "tiny", "input": "Count.", "background": True, "stream": True}
    created = await gateway.call("POST", "/responses", ask)
    events = frames(created.body)
    assert numbers(events) == list(range(len(events)))
    assert len(events) > DELTAS
    return payload(events[0])["response"]["id"], len(events) - 1


@contextmanager
def reader(gateway: Gateway, response_id: str, *, held_bytes: int = 4096) -> Iterator[socket.socket]:
    """A connection that has asked for the stream; its system takes no more for it than this."""
    host, port = gateway.url.removeprefix("http://").removesuffix("/v1").split(":")
    with socket.socket() as raw:
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, held_bytes)
        raw.connect((host, int(port)))
        raw.sendall(
            f"GET /v1/responses/{response_id}?stream=true HTTP/1.1\r\nHost: {host}\r\n"
            f"Authorization: Bearer {KEY}\r\n\r\n".encode()
        )
        raw.setblocking(False)
        yield raw


async def read_to_the_end(raw: socket.socket) -> None:
    while await within(asyncio.get_running_loop().sock_recv(raw, 2**16)):
        pass


async def readers_open(gateway: Gateway) -> float:
    return await gateway.metric("backburner_followers")


@pytest.mark.parametrize("bytes_a_moment", [0, 10], ids=["nothing", "a trickle"])
async def test_a_reader_that_takes_next_to_nothing_is_cut_off_and_can_resume(
    start_gateway: StartGateway, replay_server: ReplayServer, bytes_a_moment: int
) -> None:
    gateway = await start_gateway(BACKBURNER_SERVER__WRITE_STALL_TIMEOUT_S=STALL_S)
    response_id, last = await ended_stream(gateway, replay_server)
    loop = asyncio.get_running_loop()
    with reader(gateway, response_id) as raw:

        async def is_open() -> bool:
            return await readers_open(gateway) == 1

        await until(is_open)
        started = time.monotonic()
        while await readers_open(gateway):
            if bytes_a_moment:
                await within(loop.sock_recv(raw, bytes_a_moment))
            await asyncio.sleep(0.05)
            assert time.monotonic() - started < 4 * STALL_S, "still there"
        assert time.monotonic() - started > STALL_S / 2
        with pytest.raises(ConnectionResetError):  # not an end that could be taken for the stream's own
            await read_to_the_end(raw)
    resumed = frames(await gateway.replay(response_id, after=3))
    assert numbers(resumed) == list(range(4, last + 1))


async def test_a_slow_reader_that_takes_something_all_the_time_is_borne_with(
    start_gateway: StartGateway, replay_server: ReplayServer
) -> None:
    """One page takes it several times the limit, but no limit passes without some of it."""
    gateway = await start_gateway(
        BACKBURNER_SERVER__WRITE_STALL_TIMEOUT_S=STALL_S, BACKBURNER_STREAM__PAGE_BYTES_MAX=2**20
    )
    response_id, _ = await ended_stream(gateway, replay_server)
    loop = asyncio.get_running_loop()
    with reader(gateway, response_id, held_bytes=2**16) as raw:
        started = time.monotonic()
        while time.monotonic() - started < 3 * STALL_S:
            piece = await within(loop.sock_recv(raw, 2**15))
            assert piece, "cut off"
            await asyncio.sleep(len(piece) / 300_000)


async def test_readers_that_leave_before_anything_was_sent_are_no_defect(
    start_gateway: StartGateway, replay_server: ReplayServer
) -> None:
    gateway = await start_gateway()  # it looks for defects when it ends
    response_id, _ = await ended_stream(gateway, replay_server)
    for number in range(200):
        with reader(gateway, response_id) as raw:
            await asyncio.sleep(number % 10 / 1000)
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", number % 2, 0))

    async def all_have_left() -> bool:
        return await readers_open(gateway) == 0

    await until(all_have_left)


async def test_a_caller_has_so_many_readers_and_is_told_when_to_come_again(
    start_gateway: StartGateway, replay_server: ReplayServer
) -> None:
    gateway = await start_gateway(
        BACKBURNER_STREAM__READERS_PER_TENANT_MAX=2, BACKBURNER_STREAM__READERS_PER_RESPONSE_MAX=2
    )
    ids = [(await ended_stream(gateway, replay_server))[0] for _ in range(2)]
    with reader(gateway, ids[0]), reader(gateway, ids[1]):

        async def both_are_open() -> bool:
            return await readers_open(gateway) == 2

        await until(both_are_open)
        refused = await gateway.call("GET", f"/responses/{ids[1]}?stream=true")
        assert (refused.status, refused.error["code"]) == (429, "too_many_streams")
        assert 1 <= int(refused.headers["retry-after"]) <= 120
        polled = await gateway.call("GET", f"/responses/{ids[1]}")
        assert polled.json()["status"] == "completed"
