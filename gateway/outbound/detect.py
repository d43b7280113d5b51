"""Which API a backend speaks: found out by asking it."""

from __future__ import annotations

import logging

import aiohttp
from yarl import URL

from gateway.config import UpstreamSettings
from gateway.observe import line
from gateway.outbound.checks import status_of
from gateway.outbound.pool import Replica
from gateway.wire.calls import NO_SUCH_ROUTE, Api

_CANNOT_TELL = frozenset({None, 401, 403, 429, 502, 503, 504})
"""No answer, or one of something in front of the route: a key is missing, or the model is still loading."""


async def find_api(
    session: aiohttp.ClientSession,
    replica: Replica,
    settings: UpstreamSettings,
    headers: dict[str, str],
    name: str,
) -> Api | None:
    """Ask with a request that nobody can run: an empty one. None if the answer does not tell.

    Asked only after a real request got such an answer, so that a server that speaks the Responses API never
    sees a request which no client has sent. A server without the one API is not taken to have the other.
    """
    base_path = URL(settings.url).raw_path.rstrip("/") or "/v1"
    routes = {Api.RESPONSES: f"{base_path}/responses", Api.CHAT: f"{base_path}/chat/completions"}
    for api, route in routes.items():
        status = await status_of(session, replica, route, settings, headers, is_post=True)
        if status in _CANNOT_TELL:
            return None
        if status not in NO_SUCH_ROUTE:
            line("backend_api", backend=name, api=api.value, status=status)
            return api
    reason = f"it has neither API below {base_path}: is the base URL right?"
    line("backend_api", level=logging.WARNING, backend=name, api="none", reason=reason)
    return None
