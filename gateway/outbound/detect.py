"""Which API a backend speaks: found out by asking it."""

from __future__ import annotations

import asyncio

import aiohttp
from yarl import URL

from gateway.config import UpstreamSettings
from gateway.observe import line
from gateway.outbound.client import FAILURES, backend_url
from gateway.wire.calls import Api

_NO_SUCH_ROUTE = frozenset({404, 405, 501})
_CANNOT_TELL = frozenset({401, 403, 429, 502, 503, 504})
"""Answers of something in front of the route: a key is missing, or the model is still loading."""


async def find_api(
    session: aiohttp.ClientSession, settings: UpstreamSettings, headers: dict[str, str]
) -> Api | None:
    """Ask with a request that nobody can run: an empty one. None if the answer does not tell.

    Any complaint about it comes from the route; that there is none is said with 404, 405 or 501.
    """
    base_path = URL(settings.url).raw_path.rstrip("/") or "/v1"
    url = backend_url(settings, f"{base_path}/responses")
    try:
        async with (
            asyncio.timeout(settings.lookup_timeout_s),
            session.post(url, json={}, headers=headers, allow_redirects=False) as answer,
        ):
            status = answer.status
    except FAILURES:
        return None
    if status in _CANNOT_TELL:
        return None
    api = Api.CHAT if status in _NO_SUCH_ROUTE else Api.RESPONSES
    line("backend_api", api=api.value, status=status)
    return api
