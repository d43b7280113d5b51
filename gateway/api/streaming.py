"""A response's events on their way to one reader."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterable, Mapping
from contextlib import aclosing

from aiohttp import web
from aiohttp.http import StreamWriter

from gateway.api.draining import drained, hold_as_usual, hold_little, reset

_PIECE_BYTES = 16 * 2**10
"""Written at once. Each reader has its own copy of what it has not taken yet; the block is shared."""

_HEADERS = {
    "Content-Type": "text/event-stream; charset=utf-8",
    "Cache-Control": "no-cache",
    "Connection": "keep-alive",
    "X-Accel-Buffering": "no",  # nginx would hold events back
    "Server": "backburner",
    "X-Content-Type-Options": "nosniff",
}


async def stream_events(
    request: web.BaseRequest,
    blocks: AsyncGenerator[bytes, None],
    *,
    request_id: str,
    stall_timeout_s: float,
    headers: Mapping[str, str] | None = None,
) -> web.StreamResponse:
    """Write whole events until there are no more, the reader goes, or it stops reading.

    Args:
        stall_timeout_s: A reader that takes next to nothing for this long is cut off; it resumes at its
            cursor.
        headers: Of this answer, beside those of all streams.

    Raises:
        Refusal: By the first block; nothing was sent.
    """
    response = web.StreamResponse(headers={**_HEADERS, "X-Request-Id": request_id, **(headers or {})})
    async with aclosing(blocks):
        block = await anext(blocks, None)
        try:
            writer = await response.prepare(request)
            assert isinstance(writer, StreamWriter)
            hold_little(request)
            while block is not None:
                for piece in _pieces(block):
                    await writer.write(piece, drain=False)
                    if request.protocol.writing_paused:
                        await drained(request, stall_timeout_s)
                block = await anext(blocks, None)
            async with asyncio.timeout(stall_timeout_s):
                await response.write_eof()
            hold_as_usual(request)
        except TimeoutError:
            reset(request)
        except ConnectionError:
            pass  # the reader has gone; the job goes on
    return response


def _pieces(block: bytes) -> Iterable[bytes | memoryview]:
    if len(block) <= _PIECE_BYTES:
        return (block,)
    view = memoryview(block)
    return (view[start : start + _PIECE_BYTES] for start in range(0, len(block), _PIECE_BYTES))
