"""Connections between gateways: who gets through, and what can be seen of them on the way."""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, suppress

import pytest

from gateway.store.postgres.peers import link as links
from gateway.store.postgres.peers.link import Link, Self

SECRET = b"s" * 32
HERE, THERE = "h" * 16, "t" * 16
HELLO_BYTES = 13 + 32 + 16
TEXT = b"what a model has said to somebody"


class End:
    """Notes what happens to the links of one gateway.

    Args:
        secret: Which it has.
    """

    def __init__(self, own_id: str = THERE, secret: bytes = SECRET, unsent_bytes_max: int = 2**20) -> None:
        self.me = Self(own_id, secret, unsent_bytes_max)
        self.links: list[Link] = []
        self.records: list[bytes] = []
        self.reasons: asyncio.Queue[str] = asyncio.Queue()
        self.is_opened = asyncio.Event()
        self.has_heard = asyncio.Event()

    def made(self, peer_id: str | None = None) -> Link:
        self.links.append(Link(self.me, peer_id, self))
        return self.links[-1]

    def close(self) -> None:
        for link in self.links:
            link.close()

    def opened(self, link: Link) -> None:
        self.is_opened.set()

    def heard(self, link: Link, record: memoryview) -> None:
        self.records.append(bytes(record))
        self.has_heard.set()

    def lost(self, link: Link, reason: str) -> None:
        self.reasons.put_nowait(reason)


class Wire:
    """A way between two ends that keeps all that goes over it, and can change it.

    Attributes:
        there, back: What has gone from who dials to who was dialled, and back.
        bends: Changes what goes back.
    """

    def __init__(self, port: int) -> None:
        self._port = port
        self.there, self.back = bytearray(), bytearray()
        self.bends: Callable[[bytes], bytes] = bytes

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        onward, back = await asyncio.open_connection("127.0.0.1", self._port)

        async def pump(
            source: asyncio.StreamReader, sink: asyncio.StreamWriter, kept: bytearray, *, is_back: bool
        ) -> None:
            with suppress(ConnectionError):
                while chunk := await source.read(65536):
                    kept += chunk
                    sink.write(self.bends(chunk) if is_back else chunk)
            sink.close()
            with suppress(ConnectionError):
                await sink.wait_closed()

        await asyncio.gather(
            pump(reader, back, self.there, is_back=False), pump(onward, writer, self.back, is_back=True)
        )


Listen = Callable[[End], Awaitable[int]]


@pytest.fixture
async def listen() -> AsyncIterator[Listen]:
    """Lets an end be dialled; its port."""
    loop = asyncio.get_running_loop()
    async with AsyncExitStack() as stack:

        async def listening(end: End) -> int:
            server = await loop.create_server(end.made, "127.0.0.1", 0)
            stack.push_async_callback(server.wait_closed)
            stack.callback(server.close)
            stack.callback(end.close)
            return int(server.sockets[0].getsockname()[1])

        yield listening


async def dialled(end: End, port: int, peer_id: str = THERE) -> Link:
    made = end.made(peer_id)
    await asyncio.get_running_loop().create_connection(lambda: made, "127.0.0.1", port)
    return made


async def happens(event: asyncio.Event) -> None:
    async with asyncio.timeout(5):
        await event.wait()


async def reason(end: End) -> str:
    async with asyncio.timeout(5):
        return await end.reasons.get()


async def test_two_that_know_the_secret_hear_each_other(listen: Listen) -> None:
    there, here = End(), End(HERE)
    link = await dialled(here, await listen(there))
    await happens(here.is_opened)
    await happens(there.is_opened)
    assert there.links[0].peer_id == HERE
    link.send(b"a")
    link.send(b"b")
    there.links[0].send(TEXT)
    await happens(here.has_heard)
    await happens(there.has_heard)
    assert (there.records, here.records) == ([b"ab"], [TEXT]), "one record for all of a turn"
    link.close()
    assert (await reason(here), await reason(there)) == ("closed", "closed")


@pytest.mark.parametrize(("here_knows", "there_knows"), [(b"x" * 32, SECRET), (SECRET, b"x" * 32)])
async def test_with_another_secret_neither_end_lets_the_other_in(
    listen: Listen, here_knows: bytes, there_knows: bytes
) -> None:
    there, here = End(secret=there_knows), End(HERE, here_knows)
    link = await dialled(here, await listen(there))
    assert (await reason(here), await reason(there)) == ("unproved", "unproved")
    link.send(TEXT)
    assert (here.is_opened.is_set(), there.is_opened.is_set()) == (False, False)
    assert (here.records, there.records) == ([], [])


async def test_another_gateway_at_the_address_than_the_one_that_was_dialled_is_refused(
    listen: Listen,
) -> None:
    there, here = End("o" * 16), End(HERE)
    await dialled(here, await listen(there), peer_id=THERE)
    assert (await reason(here), await reason(there)) == ("unproved", "unproved")
    assert not here.is_opened.is_set()


@pytest.mark.parametrize("proof", ["none", "any", "reflected", "of another secret"])
async def test_whoever_dials_without_the_secret_is_refused_whatever_it_says(
    listen: Listen, proof: str
) -> None:
    there = End()
    reader, writer = await asyncio.open_connection("127.0.0.1", await listen(there))
    hello = b"backburner 1\n" + b"r" * 32 + HERE.encode()
    writer.write(hello)
    answer = await reader.readexactly(64)
    said = hello + answer[:32] + THERE.encode()
    given = {
        "none": b"",
        "any": b"p" * 32,
        "reflected": answer[32:],
        "of another secret": hmac.digest(b"x" * 32, b"proof of who dials\n" + said, "sha256"),
    }
    writer.write(given[proof] + b"\0\0\0\x10" + b"x" * 64)
    if proof == "none":
        writer.write_eof()
    assert await reader.read() == b""
    assert await reason(there) == "unproved"
    assert (there.is_opened.is_set(), there.records) == (False, [])
    writer.transport.abort()


async def test_who_says_nothing_or_something_else_is_not_waited_for(
    listen: Listen, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(links, "_PROVED_S", 0.05)
    there = End()
    port = await listen(there)
    for said in (b"", b"GET / HTTP/1.1\r\nHost: " + b"x" * HELLO_BYTES):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(said)
        with suppress(ConnectionError):
            assert await reader.read() == b""
        assert await reason(there) == "unproved"
        writer.transport.abort()


async def test_neither_the_secret_nor_what_is_said_can_be_seen_on_the_way(listen: Listen) -> None:
    there, here = End(), End(HERE)
    wire = Wire(await listen(there))
    async with await asyncio.start_server(wire.serve, "127.0.0.1", 0) as server:
        link = await dialled(here, server.sockets[0].getsockname()[1])
        await happens(there.is_opened)
        link.send(TEXT)
        there.links[0].send(TEXT)
        await happens(here.has_heard)
        await happens(there.has_heard)
        link.close()
        await reason(there)
    seen = bytes(wire.there + wire.back)
    assert len(seen) > 2 * len(TEXT)
    assert SECRET not in seen
    assert SECRET[:8] not in seen
    assert TEXT[:8] not in seen


async def test_what_was_heard_on_the_way_opens_no_second_connection(listen: Listen) -> None:
    there, here = End(), End(HERE)
    port = await listen(there)
    wire = Wire(port)
    async with await asyncio.start_server(wire.serve, "127.0.0.1", 0) as server:
        link = await dialled(here, server.sockets[0].getsockname()[1])
        await happens(there.is_opened)
        link.send(TEXT)
        await happens(there.has_heard)
        link.close()
        await reason(there)
    there.is_opened.clear()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(wire.there)
    with suppress(ConnectionError):
        await reader.read()
    assert await reason(there) == "unproved"
    assert (there.is_opened.is_set(), len(there.records)) == (False, 1)
    writer.transport.abort()


@pytest.mark.parametrize("at", [3, 4, -1])
async def test_a_byte_that_is_changed_on_the_way_ends_the_connection(listen: Listen, at: int) -> None:
    there, here = End(), End(HERE)
    wire = Wire(await listen(there))
    async with await asyncio.start_server(wire.serve, "127.0.0.1", 0) as server:
        await dialled(here, server.sockets[0].getsockname()[1])
        await happens(there.is_opened)

        def bent(chunk: bytes) -> bytes:
            changed = bytearray(chunk)
            changed[at] ^= 1
            return bytes(changed) + b"\0" * 4

        wire.bends = bent
        there.links[0].send(TEXT)
        assert await reason(here) == "damaged"
    assert here.records == []


async def test_a_record_that_would_be_too_large_is_not_waited_for(
    listen: Listen, monkeypatch: pytest.MonkeyPatch
) -> None:
    there, here = End(), End(HERE)
    link = await dialled(here, await listen(there))
    await happens(there.is_opened)
    monkeypatch.setattr(links, "RECORD_BYTES_MAX", 16)
    link.send(TEXT)
    assert await reason(there) == "damaged"


async def test_whoever_takes_nothing_is_cut_off(listen: Listen) -> None:
    there, here = End(unsent_bytes_max=2**16), End(HERE)
    link = await dialled(here, await listen(there))
    await happens(there.is_opened)
    assert link._transport is not None
    link._transport.pause_reading()
    for _ in range(200):
        there.links[0].send(b"x" * 2**18)
        await asyncio.sleep(0)
        if not there.links[0].is_open:
            break
    assert await reason(there) == "slow"
    link.close()
    await reason(here)


async def test_whoever_says_nothing_any_more_is_given_up(
    listen: Listen, monkeypatch: pytest.MonkeyPatch
) -> None:
    there, here = End(), End(HERE)
    link = await dialled(here, await listen(there))
    await happens(here.is_opened)
    link.doubt()
    assert link.is_open
    monkeypatch.setattr(links, "_SILENT_S", -1.0)
    link.doubt()
    assert await reason(here) == "silent"
