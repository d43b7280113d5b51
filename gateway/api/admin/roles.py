"""Who may do what on the admin port, and which pages of other sites may not ask on an operator's behalf."""

from __future__ import annotations

import hmac
import ipaddress
from collections.abc import Callable
from enum import IntEnum
from urllib.parse import urlsplit

from aiohttp import web

from gateway.wire.errors import Fault, Refusal

ACTION_HEADER = "X-Backburner-Action"
"""A page of another site cannot send it: a browser asks first, and is never allowed."""


class Role(IntEnum):
    """What a caller may do; each may do what those before it may."""

    NOBODY = 0
    READ = 1
    ADMIN = 2

    @property
    def word(self) -> str:
        return self.name.lower()


class Access:
    """The door of the admin API.

    Args:
        admin, read: The tokens; None: nobody has one.
        is_on_loopback: Whoever can connect is on this machine, and needs no token where there is none.
    """

    def __init__(
        self, admin: Callable[[], str | None], read: Callable[[], str | None], *, is_on_loopback: bool
    ) -> None:
        self._admin = admin
        self._read = read
        self._is_on_loopback = is_on_loopback

    @property
    def has_token(self) -> bool:
        """Whether there is any that would let somebody in."""
        return self._admin() is not None

    def role(self, request: web.BaseRequest) -> Role:
        """The caller's role."""
        admin, read = self._admin(), self._read()
        if admin is None:
            return Role.ADMIN if self._is_on_loopback else Role.NOBODY
        given = _bearer(request)
        if _is(given, admin):
            return Role.ADMIN
        return Role.READ if read is not None and _is(given, read) else Role.NOBODY

    def admit(self, request: web.BaseRequest) -> Role:
        """The caller's role, which is READ at least. Raises: Refusal."""
        role = self.role(request)
        if role is Role.NOBODY:
            if self._admin() is None:
                message = "This page wants an admin token: server.admin_token_file or server.admin_token_env."
                raise Refusal(Fault.FORBIDDEN, message, code="no_admin_token")
            raise Refusal(Fault.UNAUTHENTICATED, "This page wants a token.", code="invalid_admin_token")
        if self._admin() is None and not _names_an_address(request.host):
            # A page of another site whose name leads here (DNS rebinding) would be let in as this machine.
            message = "Without an admin token, this port answers to an address or to localhost only."
            raise Refusal(Fault.FORBIDDEN, message, code="host_refused")
        return role

    def admit_action(self, request: web.BaseRequest) -> Role:
        """The same for a change. Raises: Refusal."""
        role = self.admit(request)
        if role is not Role.ADMIN:
            raise Refusal(Fault.FORBIDDEN, "This token may look, and change nothing.", code="read_only")
        if request.headers.get(ACTION_HEADER) is None or not _is_of_this_site(request):
            message = f"A change must come from this site, with the header {ACTION_HEADER}."
            raise Refusal(Fault.FORBIDDEN, message, code="cross_site")
        return role


def _bearer(request: web.BaseRequest) -> str:
    scheme, _, given = request.headers.get("Authorization", "").partition(" ")
    return given.strip() if scheme.lower() == "bearer" else ""


def _is(given: str, token: str) -> bool:
    return hmac.compare_digest(given.encode(), token.encode())


def _names_an_address(host: str) -> bool:
    try:
        name = urlsplit(f"//{host}").hostname or ""
        ipaddress.ip_address(name)
    except ValueError:
        return name == "localhost"
    return True


def _is_of_this_site(request: web.BaseRequest) -> bool:
    if (site := request.headers.get("Sec-Fetch-Site")) is not None:
        return site in ("same-origin", "none")
    origin = request.headers.get("Origin")
    hosts = {request.host, request.headers.get("X-Forwarded-Host", request.host)}
    return origin is None or urlsplit(origin).netloc in hosts
