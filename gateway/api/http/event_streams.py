"""A response's events on their way to one reader."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Mapping
from contextlib import aclosing, asynccontextmanager

from aiohttp import web
from aiohttp.http import StreamWriter

from gateway import loop
from gateway.api.http.slow_clients import drained, hold_as_usual, hold_little, reset
from gateway.wire.http.headers import set_own
from gateway.wire.sse import KEEP_ALIVE

_PIECE_BYTES = 16 * 2**10
"""Written at once. Each reader has its own copy of what it has not taken yet; the block is shared."""

_HEADERS = {
    "Content-Type": "text/event-stream; charset=utf-8",
    "Cache-Control": "no-cache",
    "Connection": "keep-alive",
    "X-Accel-Buffering": "no",  # nginx would hold events back
}


async def stream_events(
    request: web.BaseRequest,
    blocks: AsyncGenerator[bytes, None],
    *,
    request_id: str,
    stall_timeout_s: float,
    headers: Mapping[str, str] | None = None,
    heartbeat_s: float | None = None,
    outlet: Outlet | None = None,
) -> web.StreamResponse:
    """Write whole events until there are no more, the reader goes, or it stops reading.

    Args:
        blocks: The head goes out with the first of them, be it empty.
        stall_timeout_s: A reader that takes next to nothing for this long is cut off; it resumes at its
            cursor.
        headers: Of this answer, beside those of all streams.
        outlet: Is opened for events that are written between two blocks.
        heartbeat_s: After so long without an event a comment is written; None: the blocks have some.

    Raises:
        Refusal: By the first block; nothing was sent.
    """
    response = web.StreamResponse(headers={**_HEADERS, **(headers or {})})
    set_own(response.headers, request_id)
    if not request.keep_alive:
        response.headers["Connection"] = "close"
    async with aclosing(blocks):
        block = await anext(blocks, None)
        try:
            writer = await response.prepare(request)
            assert isinstance(writer, StreamWriter)
            hold_little(request)
            reader = _StreamReader(request, writer, stall_timeout_s)
            if outlet is not None:
                outlet.reader = reader
            async with reader.kept_awake(heartbeat_s):
                while block is not None:
                    await reader.tell(block)
                    block = await anext(blocks, None)
            async with loop.timeout(stall_timeout_s):
                await response.write_eof()
            hold_as_usual(request)
        except TimeoutError:
            reset(request)
        except ConnectionError:
            pass  # the reader has gone; the job goes on
    return response


class Outlet:
    """Writes events to a reader from wherever they come, without a wait."""

    def __init__(self, shown: Callable[[bytes], bytes]) -> None:
        self._shown = shown
        self.reader: _StreamReader | None = None

    def __call__(self, events: bytes) -> bool:
        """Write whole events. False: not now, and nothing was written."""
        return self.reader is not None and self.reader.tell_now(self._shown(events))


class _StreamReader:
    """Whoever reads a stream, and how long nothing was written to it."""

    def __init__(self, request: web.BaseRequest, writer: StreamWriter, stall_timeout_s: float) -> None:
        self._request = request
        self._protocol = request.protocol
        self._writer = writer
        self._transport: asyncio.Transport | None = None  # from the first write on, which brings the head
        self._stall_timeout_s = stall_timeout_s
        self._loop = asyncio.get_running_loop()
        self._told_at = self._loop.time()
        self._telling = asyncio.Lock()

    async def tell(self, block: bytes) -> None:
        """Raises: ConnectionError, TimeoutError; it is gone, or has stalled."""
        async with self._telling:
            for piece in _pieces(block):
                await self._writer.write(piece, drain=False)
                if self._protocol.writing_paused:
                    await drained(self._request, self._stall_timeout_s)
            self._transport = self._writer.transport
            self._told_at = self._loop.time()

    def tell_now(self, block: bytes) -> bool:
        """As `tell`, if that needs no wait; else False."""
        transport, size = self._transport, len(block)
        if (
            transport is None
            or transport.is_closing()
            or self._telling.locked()
            or self._protocol.writing_paused
            or not 0 < size <= _PIECE_BYTES  # an empty chunk would be the last one
        ):
            return False
        # By itself: the writer takes four times as long for the same bytes.
        transport.write(b"%x\r\n%b\r\n" % (size, block) if self._writer.chunked else block)
        self._told_at = self._loop.time()
        return True

    @asynccontextmanager
    async def kept_awake(self, every_s: float | None) -> AsyncIterator[None]:
        """A comment each time that nothing was written for so long; None: there are none."""
        if every_s is None:
            yield
            return
        beating = asyncio.create_task(self._beat(every_s))
        try:
            yield
        finally:
            beating.cancel()
            await asyncio.wait({beating})

    async def _beat(self, every_s: float) -> None:
        try:
            while True:
                if (left_s := self._told_at + every_s - self._loop.time()) > 0:
                    await asyncio.sleep(left_s)
                else:
                    await self.tell(KEEP_ALIVE)
        except TimeoutError:
            reset(self._request)  # which ends whoever waits for more to write
        except ConnectionError:
            pass


def _pieces(block: bytes) -> Iterable[bytes | memoryview]:
    if len(block) <= _PIECE_BYTES:
        return (block,)
    view = memoryview(block)
    return (view[start : start + _PIECE_BYTES] for start in range(0, len(block), _PIECE_BYTES))
