"""A job's call over a real socket: what is read, what is pushed, and how it ends."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import aiohttp
import pytest
from yarl import URL

from gateway.outbound.client import explain
from gateway.outbound.connector import BackendConnector
from gateway.outbound.jobcall import JobCall
from gateway.wire.errors import Refusal

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
END = b"0\r\n\r\n"

Talk = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


@asynccontextmanager
async def server(talk: Talk) -> AsyncIterator[URL]:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            size = next(int(line.split(b":")[1]) for line in head.split(b"\r\n") if b"Content-Length" in line)
            await reader.readexactly(size)
            await talk(reader, writer)
        finally:
            writer.close()

    async with await asyncio.start_server(handle, "127.0.0.1") as listening:
        yield URL(f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}")


async def posted(url: URL, target: str = "/v1/responses") -> JobCall:
    return await JobCall.post(BackendConnector(5), url, target, {"X-One": "1"}, b"{}")


class Pushed:
    """Takes chunks, unless `is_full`; says after each of them what `answers` says."""

    def __init__(self, *, answers: bool = True) -> None:
        self.chunks: list[bytes] = []
        self.is_full = False
        self._answers = answers

    def push(self, data: bytes) -> bool:
        self.chunks.append(data)
        return self._answers

    def may_push(self) -> bool:
        return not self.is_full


async def test_a_body_is_read_to_its_end() -> None:
    async def talk(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(HEAD + chunk(b"one") + chunk(b"two") + END)
        await writer.drain()

    async with server(talk) as url:
        call = await posted(url)
        assert (call.status, call.headers["content-type"]) == (200, "text/event-stream")
        body = b""
        while got := await call.next():
            body += got
        assert body == b"onetwo"


async def test_what_comes_while_it_is_waited_for_is_pushed_and_nobody_is_woken() -> None:
    more = asyncio.Event()

    async def talk(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(HEAD)
        await more.wait()
        for number in range(3):
            writer.write(chunk(b"%d" % number))
            await writer.drain()
            await asyncio.sleep(0.01)
        writer.write(END)

    async with server(talk) as url:
        call, pushed = await posted(url), Pushed()
        call.push_to(pushed.push, pushed.may_push)
        reading = asyncio.create_task(call.next())
        await asyncio.sleep(0)
        more.set()
        assert await reading == b""
        assert b"".join(pushed.chunks) == b"012"


async def test_nothing_is_pushed_before_what_came_earlier() -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(HEAD + chunk(b"early"))
        await reader.read()

    async with server(talk) as url:
        call, pushed = await posted(url), Pushed()
        call.push_to(pushed.push, pushed.may_push)
        assert await call.next() == b"early"
        call.received(b"later, while nobody waits", False)
        assert await call.next() == b"later, while nobody waits"
        assert pushed.chunks == []
        call.close()


@pytest.mark.parametrize("size", [1025, 2**16])
async def test_a_large_chunk_is_read(size: int) -> None:
    call, pushed = JobCall(), Pushed()
    call.push_to(pushed.push, pushed.may_push)
    reading = asyncio.create_task(call.next())
    await asyncio.sleep(0)
    call.received(b"x" * size, False)
    assert await reading == b"x" * size
    assert pushed.chunks == []


async def test_without_room_it_is_read() -> None:
    call, pushed = JobCall(), Pushed()
    pushed.is_full = True
    call.push_to(pushed.push, pushed.may_push)
    reading = asyncio.create_task(call.next())
    await asyncio.sleep(0)
    call.received(b"one", False)
    assert await reading == b"one"


async def test_where_something_is_left_to_be_done_the_reader_is_woken_before_anything_else() -> None:
    call, pushed = JobCall(), Pushed(answers=False)
    call.push_to(pushed.push, pushed.may_push)
    reading = asyncio.create_task(call.next())
    await asyncio.sleep(0)
    call.received(b"one", False)
    call.received(b"two", True)
    assert await reading is None
    assert pushed.chunks == [b"one"]
    assert (await call.next(), await call.next()) == (b"two", b"")


async def test_what_a_push_raises_is_for_the_reader() -> None:
    def push(_: bytes) -> bool:
        raise LookupError("a defect")

    call = JobCall()
    call.push_to(push, lambda: True)
    reading = asyncio.create_task(call.next())
    await asyncio.sleep(0)
    call.received(b"one", False)
    with pytest.raises(LookupError):
        await reading


async def test_a_body_that_breaks_off_is_told_after_all_that_came_of_it() -> None:
    async def talk(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(HEAD + chunk(b"one"))
        await writer.drain()

    async with server(talk) as url:
        call = await posted(url)
        assert await call.next() == b"one"
        with pytest.raises(aiohttp.ClientError):
            await call.next()


async def test_closing_the_call_closes_its_connection() -> None:
    closed = asyncio.Event()

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(HEAD)
        await reader.read()
        closed.set()

    async with server(talk) as url:
        call = await posted(url)
        call.close()
        async with asyncio.timeout(5):
            await closed.wait()


async def test_unread_bytes_stay_in_the_socket() -> None:
    sent = 0

    async def talk(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        writer.write(HEAD)
        while sent < 2**26:
            writer.write(chunk(b"x" * 2**16))
            await writer.drain()
            sent += 2**16
        writer.write(END)

    async with server(talk) as url:
        call = await posted(url)
        before = -1
        while before != sent:  # until the server can send no more
            before = sent
            await asyncio.sleep(0.2)
        assert sent < 2**26
        size = 0
        while got := await call.next():
            size += len(got)
        assert size == 2**26


@pytest.mark.parametrize("target", ["@other/", "http://other/", "/a#b", "/a\r\nX-Two: 2"])
async def test_a_target_that_is_no_path_is_refused(target: str) -> None:
    with pytest.raises(Refusal):
        await posted(URL("http://127.0.0.1:9"), target)


async def test_no_answer_is_a_failure_in_words() -> None:
    async def talk(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    async with server(talk) as url:
        with pytest.raises(aiohttp.ClientError) as failed:
            await posted(url)
    assert explain(failed.value, 1)[1].code == "backend_disconnected"
