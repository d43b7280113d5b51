"""Answers that come at once in a hundred thousand parts are whole, and hold nobody up."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
import pytest

from gateway.config import UpstreamSettings
from gateway.outbound.arrivals import Arrivals
from gateway.outbound.client import make_session

BODY = bytes(97 + number % 26 for number in range(100_000))
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
CHUNKS = b"".join(b"1\r\n%c\r\n" % byte for byte in BODY)
ANSWERS = {
    "chunks of a byte": CHUNKED + CHUNKS + b"0\r\n\r\n",
    "with a length": HEAD + b"Content-Length: %d\r\n\r\n" % len(BODY) + BODY,
    "to the end of the connection": HEAD + b"Connection: close\r\n\r\n" + BODY,
}


@asynccontextmanager
async def server(answer: bytes, *, closes: bool) -> AsyncIterator[tuple[str, list[int]]]:
    """Sends it at once for each request; the numbers of requests by connection."""
    requests: list[int] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        at = len(requests)
        requests.append(0)
        try:
            while await reader.readuntil(b"\r\n\r\n"):
                requests[at] += 1
                writer.write(answer)
                if closes:
                    return
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass
        finally:
            writer.close()

    listener = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}/v1", requests
    finally:
        listener.close()


@asynccontextmanager
async def client(url: str) -> AsyncIterator[aiohttp.ClientSession]:
    async with make_session(UpstreamSettings.model_validate({"url": url})) as session:
        yield session


@pytest.mark.parametrize("closes", [True, False], ids=["closed at once", "kept"])
@pytest.mark.parametrize("answer", ANSWERS.values(), ids=ANSWERS)
async def test_an_answer_that_comes_at_once_is_whole(answer: bytes, closes: bool) -> None:
    closes = closes or b"close" in answer
    async with server(answer, closes=closes) as (url, requests), client(url) as session:
        for _ in range(3):
            async with session.get(url) as found:
                assert await found.read() == BODY
    assert requests == ([1, 1, 1] if closes else [3])


async def test_an_answer_that_is_cut_is_not_whole() -> None:
    async with server(CHUNKED + CHUNKS, closes=True) as (url, _), client(url) as session:
        with pytest.raises(aiohttp.ClientPayloadError):
            async with session.get(url) as found:
                await found.read()


async def test_what_comes_behind_an_answer_is_not_the_next_one() -> None:
    answer = ANSWERS["chunks of a byte"] + b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nwrong" * 5000
    async with server(answer, closes=False) as (url, requests), client(url) as session:
        for _ in range(3):
            async with session.get(url) as found:
                assert await found.read() == BODY
    assert requests == [1, 1, 1]


async def test_others_have_turns_while_an_answer_is_taken_in() -> None:
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            await asyncio.sleep(0)
            turns += 1

    ours, theirs = socket.socketpair()
    loop = asyncio.get_running_loop()
    transport, handler = await loop.create_connection(lambda: Arrivals(loop), sock=ours)
    handler.set_response_params()
    counting = asyncio.create_task(count())
    handler.data_received(ANSWERS["chunks of a byte"])
    assert handler.should_close, "it is not taken in yet"
    _, body = await handler.read()
    assert await body.read() == BODY
    assert turns > 3
    assert not handler.should_close
    counting.cancel()
    transport.close()
    theirs.close()
