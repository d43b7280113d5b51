"""Who asks: the tenant, the credential, and what of the request goes with a call."""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from dataclasses import dataclass

from aiohttp import web

from gateway.api.asking import Asker
from gateway.core.call import Credential
from gateway.engine.credentials import CallerHeaders
from gateway.outbound.backend import HttpBackend
from gateway.outbound.backends import HttpBackends
from gateway.outbound.headers import background_headers, credential
from gateway.wire.errors import Refusal

_STORABLE_HEADERS = frozenset(
    {"accept-language", "openai-beta", "openai-organization", "openai-project", "user-agent"}
)
"""Headers known to hold no secret: they may lie on disk beside a job. All others stay in memory."""

_LOOKS_LIKE_ID = re.compile(r"[A-Za-z0-9_-]{1,256}")
"""What may stand in the path of a question to a backend: it comes from a body, where anything may stand."""


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks, and under which id the request is logged."""

    tenant: bytes
    credential: Credential | None
    request_id: str


class Callers:
    """Tells callers apart."""

    def __init__(self, asker: Asker, backends: HttpBackends, *, base_path: str, pepper: bytes) -> None:
        self._asker = asker
        self._backends = backends
        self._base_path = base_path
        self._pepper = pepper

    @property
    def seen_by(self) -> list[HttpBackend]:
        """The backends that get the caller's own credential, and so can tell callers apart themselves; with
        a key of the gateway's in its place they cannot."""
        return [backend for backend in self._backends.all if backend.api_key is None]

    def of(self, request: web.BaseRequest, request_id: str) -> Caller:
        """Who is asking. Raises: Refusal, if it brings more than one credential."""
        found = credential(request.headers)
        own = Credential(*found) if found else None
        return Caller(tenant_of(own, self._pepper), own, request_id)

    async def backend_knows(self, request: web.BaseRequest, caller: Caller, response_id: str) -> bool:
        """Whether a response that is not here is in a backend's own store, for this caller."""
        if not _LOOKS_LIKE_ID.fullmatch(response_id):
            return False
        target = f"{self._base_path}/responses/{response_id}"
        for backend in self.seen_by:
            if await self._asker.knows(request, backend, request_id=caller.request_id, target=target):
                return True
        return False


def credential_for_asking(request: web.BaseRequest) -> Credential | None:
    """The credential to ask the backend a question with; none if it is not clear which."""
    try:
        found = credential(request.headers)
    except Refusal:
        return None
    return Credential(*found) if found else None


def tenant_of(credential: Credential | None, pepper: bytes) -> bytes:
    """32 bytes that stand for a caller. Callers without a credential are one tenant.

    A keyed hash: from the database alone nobody can test guesses of a key.
    """
    message = b"anonymous" if credential is None else f"{credential.name}\0{credential.value}".encode()
    return hmac.new(pepper, message, hashlib.sha256).digest()


def split_headers(request: web.BaseRequest, caller: Caller) -> tuple[dict[str, str], CallerHeaders]:
    """The headers that go with a background call: those that may be stored, and those that may not."""
    headers = background_headers(request.headers)
    stored = {name: value for name, value in headers.items() if name.lower() in _STORABLE_HEADERS}
    others = {name: value for name, value in headers.items() if name not in stored}
    return stored, CallerHeaders(caller.credential, others)


def new_response_id() -> str:
    """192 random bits, with nothing encoded in them."""
    return f"resp_{secrets.token_hex(24)}"
