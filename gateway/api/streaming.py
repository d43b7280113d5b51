"""A response's events on their way to one reader."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing

from aiohttp import web

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
) -> web.StreamResponse:
    """Write whole events until there are no more, the reader goes, or it stops reading.

    Args:
        stall_timeout_s: A reader that takes no byte for this long is cut off; it resumes at its cursor.

    Raises:
        Refusal: By the first block; nothing was sent.
    """
    response = web.StreamResponse(headers={**_HEADERS, "X-Request-Id": request_id})
    async with aclosing(blocks):
        block = await anext(blocks, None)
        await response.prepare(request)
        try:
            while block is not None:
                async with asyncio.timeout(stall_timeout_s):
                    await response.write(block)
                block = await anext(blocks, None)
            await response.write_eof()
        except TimeoutError:
            if request.transport is not None:
                request.transport.abort()
        except ConnectionError:
            pass  # the reader has gone; the job goes on
    return response
