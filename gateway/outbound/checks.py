"""Questions of the gateway's own: is a replica there, is the path of its base URL right, does it take the
gateway's key, which API does it speak?

Every replica is asked for its models, the only one of a backend as well: an operator wants to know before the
first client does.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from enum import StrEnum

import aiohttp
from yarl import URL

from gateway import loop
from gateway.config import UpstreamSettings
from gateway.observe import Observer, line
from gateway.outbound.client import FAILURES, make_session, url_at
from gateway.outbound.pool import Pool, Replica
from gateway.wire.speech import NO_SUCH_ROUTE, Api

USER_AGENT = "backburner-healthcheck"
_KEY_REFUSED = frozenset({401, 403})
_NO_SERVER = frozenset({502, 503, 504})
"""Answers of something in front of the server, or of one that is still loading its model."""
_CANNOT_TELL = frozenset({None, 401, 403, 429, 502, 503, 504})
"""No answer, or one of something in front of the route: a key is missing, or the model is still loading."""


class CheckResult(StrEnum):
    """What a check came to."""

    OK = "ok"
    UNREACHABLE = "unreachable"
    """No answer: refused, no such name, too slow."""
    UNAVAILABLE = "unavailable"
    """502, 503 or 504."""
    NO_API = "no_api"
    """Neither API is below the base URL: its path is wrong, most likely."""
    KEY_REFUSED = "key_refused"
    """401 or 403 to the gateway's own key."""
    UNKNOWN = "unknown"
    """Not checked yet."""

    @property
    def is_healthy(self) -> bool:
        """Whether calls go there. A refused key is told to whoever asks, and calls are no worse elsewhere."""
        return self not in (CheckResult.UNREACHABLE, CheckResult.UNAVAILABLE)


_MEANING = {
    CheckResult.NO_API: "no models and no API below the path of this base URL, which usually ends in /v1",
    CheckResult.KEY_REFUSED: "it refuses the gateway's key",
}
_LEVELS = {CheckResult.OK: logging.INFO, CheckResult.KEY_REFUSED: logging.ERROR}


async def status_of(
    session: aiohttp.ClientSession,
    replica: Replica,
    target: str,
    settings: UpstreamSettings,
    headers: Mapping[str, str],
    *,
    is_post: bool = False,
) -> int | None:
    """How a server answers a GET, or a POST of an empty object, which nobody can run; None if it does not."""
    try:
        async with (
            loop.timeout(settings.lookup_timeout_s),
            session.request(
                "POST" if is_post else "GET",
                url_at(replica.origin, target),
                json={} if is_post else None,
                headers=headers,
                allow_redirects=False,
            ) as answer,
        ):
            return answer.status
    except FAILURES:
        return None


class Checks:
    """The checks of one backend's replicas.

    Args:
        headers: The gateway's own key and headers, as calls carry them; a caller's key is not at hand.
        has_own_key: Whether a 401 speaks of the gateway's key. Else it is the answer to nobody's, and fine.
    """

    def __init__(
        self,
        name: str,
        settings: UpstreamSettings,
        pool: Pool,
        headers: Mapping[str, str],
        observer: Observer,
        *,
        has_own_key: bool,
    ) -> None:
        self._name = name
        self._settings = settings
        self._pool = pool
        self._headers = {**headers, "User-Agent": USER_AGENT}
        self._observer = observer
        self._has_own_key = has_own_key
        self._findings = dict.fromkeys(pool.replicas, CheckResult.UNKNOWN)

    def finding(self, replica: Replica) -> CheckResult:
        """Of the last check."""
        return self._findings[replica]

    async def run(self, replica: Replica) -> None:
        """Check one replica again and again, until cancelled."""
        async with make_session(self._settings, keeps_connections=False) as session:
            while True:
                finding = await self.check(session, replica)
                self._pool.checked(replica, is_healthy=finding.is_healthy)
                if finding is not self._findings[replica]:
                    self._tell(replica, finding, self._findings[replica])
                    self._findings[replica] = finding
                await asyncio.sleep(self._settings.health_interval_s)

    async def check(self, session: aiohttp.ClientSession, replica: Replica) -> CheckResult:
        """Ask it once."""
        base_path = URL(replica.url).raw_path.rstrip("/") or "/v1"
        status = await self._status(session, replica, f"{base_path}/models")
        if status is None:
            return CheckResult.UNREACHABLE
        if status in _NO_SERVER:
            return CheckResult.UNAVAILABLE
        if status in _KEY_REFUSED:
            return CheckResult.KEY_REFUSED if self._has_own_key else CheckResult.OK
        if status in NO_SUCH_ROUTE and self._findings[replica] is not CheckResult.OK:
            # Some servers list no models. They are asked what nobody can run, until one of them has answered.
            apis = [f"{base_path}/responses", f"{base_path}/chat/completions"]
            answers = [await self._status(session, replica, api, is_post=True) for api in apis]
            if all(answer in NO_SUCH_ROUTE for answer in answers):
                return CheckResult.NO_API
        return CheckResult.OK

    async def _status(
        self, session: aiohttp.ClientSession, replica: Replica, target: str, *, is_post: bool = False
    ) -> int | None:
        return await status_of(session, replica, target, self._settings, self._headers, is_post=is_post)

    def _tell(self, replica: Replica, now: CheckResult, before: CheckResult) -> None:
        number = self._pool.replicas.index(replica)
        self._observer.replica_checked(self._name, number, now.value, before.value)
        level = _LEVELS.get(now, logging.WARNING)
        line(
            "replica",
            level=level,
            backend=self._name,
            url=replica.url,
            healthy=now.is_healthy,
            check=now.value,
            reason=_MEANING.get(now),
        )


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
