"""The head of a request of aiohttp's, as the pure rules take it."""

from __future__ import annotations

from aiohttp import web

from gateway.core.call import Begun
from gateway.wire.http.head import Head, Headers

_HEAD = web.RequestKey("head", Head)

BEGUN = web.RequestKey("begun", Begun)
"""The call that the fast lane has made for a request, and that was not answered."""


def head_of(request: web.BaseRequest) -> Head:
    """Made once for each request."""
    if (head := request.get(_HEAD)) is None:
        head = request[_HEAD] = Head(
            request.method,
            request.raw_path,
            request.version,
            Headers(request.headers.items()),
            request.body_exists,
            request.remote,
        )
    return head
