"""The body of a client's request, on its way to a backend."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Generator
from io import BytesIO
from typing import TypeVar

from aiohttp import hdrs, web
from aiohttp.streams import StreamReader

from gateway.api.http.heads import head_of
from gateway.core.call import Limit
from gateway.wire.bodies.codings import Decoding, codings_of
from gateway.wire.errors import too_large

T = TypeVar("T")

_SLICE_BYTES = 256 * 2**10
"""One write of a body already in memory: a socket's buffer would copy all that it cannot send."""


class Upload:
    """The request's body on its way to the backend, one read at a time.

    Each read moves the deadline of the answer's head: the backend's time runs from the end of the
    request, and an upload may take as long as it moves.

    Attributes:
        limit: The deadline to move; None once the head is there, as the upload may go on after it.
    """

    def __init__(self, request: web.BaseRequest, body: bytes | None) -> None:
        self.failure: Exception | None = None
        self._request = request
        self._body = body
        self.limit: Limit | None = None
        self._has_begun = False

    @property
    def is_whole(self) -> bool:
        """Whether all of it is still here, and could be sent to somebody else."""
        return self._body is not None or not self._has_begun

    async def __aiter__(self) -> AsyncIterator[bytes]:
        if self._body is not None:
            for start in range(0, len(self._body), _SLICE_BYTES):
                yield self._body[start : start + _SLICE_BYTES]
            return
        self._has_begun = True
        # Only now: a client that waits for it keeps its body while the backend is unreachable.
        continue_if_expected(self._request)
        if not self._request.content.total_bytes:
            # aiohttp holds the head back for the first piece, which may be long in coming; sent now,
            # the backend can refuse an upload before it has begun.
            yield b""
        while chunk := await self._read():
            if self.limit is not None:
                self.limit.restart()
            yield chunk

    async def _read(self) -> bytes:
        try:
            return await read_piece(self._request.content)
        except Exception as error:  # the client's fault, whatever aiohttp makes of it on its way up
            self.failure = error
            raise


def continue_if_expected(request: web.BaseRequest) -> None:
    """Ask for the body of a client that waits to be asked."""
    if head_of(request).has_expectation and request.transport is not None:
        request.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")


async def read_body(request: web.BaseRequest, bytes_max: int) -> bytes:
    """The body, whole and decoded: only so can its `background` be seen, or its model.

    Args:
        bytes_max: Of the body as it comes, and decoded.

    Raises:
        Refusal: It is larger, or has a coding that cannot be undone here.
    """
    codings = codings_of(request.headers.getall(hdrs.CONTENT_ENCODING, ()))
    if (request.content_length or 0) > bytes_max:
        raise too_large(bytes_max)
    continue_if_expected(request)
    body = BytesIO()  # grows in place, and is not copied at the end
    decoding, received = Decoding(codings, bytes_max), 0
    while not request.content.at_eof():
        piece = await read_piece(request.content)
        received += len(piece)
        if received > bytes_max:
            raise too_large(bytes_max)
        for decoded in decoding.feed(piece):
            body.write(decoded)
            if codings:  # a piece may stand for a thousand: others have their turn
                await asyncio.sleep(0)
    decoding.close()
    return body.getvalue()


async def read_piece(content: StreamReader) -> bytes:
    """The next piece of a body; empty at its end.

    Other tasks get their turn first: each read lets aiohttp parse more, so a body in a million chunks would
    always have a next one ready, and would never give up the event loop.
    """
    await asyncio.sleep(0)
    return await content.readany()


async def scanned(look: Generator[None, None, T]) -> T:
    """Run a scan of a body to its end; others are served at its pauses."""
    while True:
        try:
            next(look)
        except StopIteration as done:
            found: T = done.value
            return found
        await asyncio.sleep(0)
