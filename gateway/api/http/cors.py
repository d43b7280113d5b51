"""CORS (of the Fetch standard): which pages of other origins may read the answers of the public port.

One policy holds for all of them, be they ours or passed on: a browser that was told yes by a preflight throws
away each later answer that does not say so, too.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

from aiohttp import hdrs, web
from multidict import CIMultiDict

from gateway.api.http.errors import METHODS, error_response
from gateway.config import ServerSettings
from gateway.wire.errors import Fault, Refusal
from gateway.wire.http.head import Head

_PREFIX: Final = "access-control-"
_NAMES = re.compile(r"[\w!#$%&'*+.^`|~-]+(?:[ \t]*,[ \t]*[\w!#$%&'*+.^`|~-]+)*", re.ASCII)
_EXPOSED: Final = ("X-Request-Id", "openai-poll-after-ms", "Retry-After", "Retry-After-Ms")
"""Scripts are shown these, and whatever else an answer has."""
_SHOWN_ANYWAY: Final = frozenset(
    {"cache-control", "content-language", "content-length", "content-type", "expires", "last-modified"}
    | {"connection", "date", "server", "transfer-encoding", "vary", "x-content-type-options"}  # of no use
)
_PREFLIGHT_VARIES: Final = (
    hdrs.ORIGIN,
    hdrs.ACCESS_CONTROL_REQUEST_METHOD,
    hdrs.ACCESS_CONTROL_REQUEST_HEADERS,
)


class Cors:
    """The policy of the settings.

    Args:
        is_ours: Whether the gateway itself answers on the path of a request, whatever the method.
    """

    def __init__(self, settings: ServerSettings, is_ours: Callable[[Head], bool]) -> None:
        self._origins = frozenset(settings.cors_origins)
        self._max_age_s = settings.cors_max_age_s
        self._has_credentials = settings.cors_credentials
        self._is_ours = is_ours

    @property
    def is_on(self) -> bool:
        """Whether there is a policy."""
        return bool(self._origins)

    def concerns(self, head: Head) -> bool:
        """Whether `settle` may change the answer to a request."""
        return self.is_on or self._is_ours(head)

    def preflight(self, head: Head) -> web.StreamResponse | None:
        """The answer to a browser that asks whether it may send a request; None if it does not ask us.

        It shows no credential yet, so this comes before whoever asks for one.
        """
        if not self._origins or not is_preflight(head):
            return None
        if self._allowed(head) is None:
            message = "Pages of this origin may not call the gateway (server.cors_origins)."
            return error_response(Refusal(Fault.FORBIDDEN, message, code="origin_not_allowed"))
        return web.Response(status=204)

    def settle(self, head: Head, headers: CIMultiDict[str]) -> None:
        """Make the head of an answer say what the policy is, and nothing else.

        Without a policy a backend's own holds for what is passed on to it. But on a path of ours its
        preflights must not promise what our answers do not keep.
        """
        if self.concerns(head):
            for name in {name for name in headers if name.lower().startswith(_PREFIX)}:
                headers.popall(name)
        if not self._origins:
            return
        _vary(headers, *(_PREFLIGHT_VARIES if is_preflight(head) else (hdrs.ORIGIN,)))
        allowed = self._allowed(head)
        if allowed is None:
            return
        if is_preflight(head):
            self._promise(head, headers)
        else:
            names = {name.lower(): str(name) for name in (*_EXPOSED, *headers)}
            shown = [name for key, name in names.items() if key not in _SHOWN_ANYWAY]
            headers[hdrs.ACCESS_CONTROL_EXPOSE_HEADERS] = ", ".join(shown)
        headers[hdrs.ACCESS_CONTROL_ALLOW_ORIGIN] = allowed
        if self._has_credentials:
            headers[hdrs.ACCESS_CONTROL_ALLOW_CREDENTIALS] = "true"

    def _allowed(self, head: Head) -> str | None:
        """As whom the page that asks may read: its own origin, or anybody."""
        given = head.headers.all("origin")
        if len(given) != 1:
            return None
        if "*" in self._origins:
            return "*"
        return given[0] if given[0].lower() in self._origins else None

    def _promise(self, head: Head, headers: CIMultiDict[str]) -> None:
        headers[hdrs.ACCESS_CONTROL_ALLOW_METHODS] = METHODS
        names = head.headers.first("access-control-request-headers") or ""
        if _NAMES.fullmatch(names):  # those asked for: a `*` would not stand for Authorization
            headers[hdrs.ACCESS_CONTROL_ALLOW_HEADERS] = names
        headers[hdrs.ACCESS_CONTROL_MAX_AGE] = str(self._max_age_s)
        if head.headers.first("access-control-request-private-network") == "true":
            headers["Access-Control-Allow-Private-Network"] = "true"


def _vary(headers: CIMultiDict[str], *names: str) -> None:
    listed = [name.strip() for name in ",".join((*headers.popall(hdrs.VARY, ()), *names)).split(",")]
    headers[hdrs.VARY] = ", ".join({name.lower(): name for name in listed}.values())


def is_preflight(head: Head) -> bool:
    asks = "origin" in head.headers and "access-control-request-method" in head.headers
    return asks and head.method == "OPTIONS"
