"""Which API a backend speaks: found out by asking it."""

from __future__ import annotations

import asyncio

import aiohttp
from yarl import URL

from gateway.config import UpstreamSettings
from gateway.observe import line
from gateway.outbound.client import FAILURES, url_at
from gateway.outbound.pool import Replica
from gateway.wire.calls import NO_SUCH_ROUTE, Api

_CANNOT_TELL = frozenset({401, 403, 429, 502, 503, 504})
"""Answers of something in front of the route: a key is missing, or the model is still loading."""


async def find_api(
    session: aiohttp.ClientSession,
    replica: Replica,
    settings: UpstreamSettings,
    headers: dict[str, str],
    name: str,
) -> Api | None:
    """Ask with a request that nobody can run: an empty one. None if the answer does not tell.

    Asked only after a real request got such an answer, so that a server that speaks the Responses API never
    sees a request which no client has sent.
    """
    base_path = URL(settings.url).raw_path.rstrip("/") or "/v1"
    try:
        async with (
            asyncio.timeout(settings.lookup_timeout_s),
            session.post(
                url_at(replica.origin, f"{base_path}/responses"),
                json={},
                headers=headers,
                allow_redirects=False,
            ) as answer,
        ):
            status = answer.status
    except FAILURES:
        return None
    if status in _CANNOT_TELL:
        return None
    api = Api.CHAT if status in NO_SUCH_ROUTE else Api.RESPONSES
    line("backend_api", backend=name, api=api.value, status=status)
    return api
