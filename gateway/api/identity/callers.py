"""Who asks: the tenant, the credential, and what of the request goes with a call."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from aiohttp import web

from gateway.api.http.heads import head_of
from gateway.api.identity.authenticators import Authenticator, Identity
from gateway.api.identity.credential_check import CredentialCheck, status_at
from gateway.api.ports import Backend
from gateway.engine.credentials import CallerHeaders
from gateway.wire.errors import Fault, Refusal, invalid
from gateway.wire.http.head import Credential, Head
from gateway.wire.http.headers import background_headers, storable
from gateway.wire.response_ids import is_own

_LOOKS_LIKE_ID = re.compile(r"[A-Za-z0-9_-]{1,256}")
"""What may stand in the path of a question to a backend: it comes from a body, where anything may stand."""


_TENANT = web.RequestKey("tenant", Identity)


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks, by which name, if the gateway knows one, and under which id the request is logged."""

    tenant: bytes
    credential: Credential | None
    request_id: str
    name: str | None = None


class Callers:
    """Lets callers in, and tells them apart."""

    def __init__(self, tenants: Authenticator, vetting: CredentialCheck, *, base_path: str) -> None:
        self._tenants = tenants
        self._vetting = vetting
        self._base_path = base_path

    @property
    def is_gate(self) -> bool:
        """Whether it is for the gateway to say who may come in, on every path."""
        return self._tenants.is_gate

    def tenant(self, head: Head) -> bytes:
        """Whose request it is. Raises: Refusal, if that cannot be told, or the caller may not come in."""
        return self._tenants.of(head).tenant

    def admit(self, request: web.BaseRequest) -> None:
        """The door of every path. Raises: Refusal, if the caller may not come in."""
        if self.is_gate:
            request[_TENANT] = self._tenants.of(head_of(request))

    def of(self, request: web.BaseRequest, request_id: str) -> Caller:
        """Who is asking. Raises: Refusal, if that cannot be told."""
        tenant = request.get(_TENANT) or self._tenants.of(head_of(request))
        return Caller(tenant.tenant, tenant.credential, request_id, tenant.name)

    async def vet(self, request: web.BaseRequest, caller: Caller, backend: Backend) -> None:
        """Let a backend refuse a caller before anything is stored for it. Raises: Refusal."""
        await self._vetting.check(request, caller.tenant, backend, request_id=caller.request_id)

    async def backend_knows(
        self, request: web.BaseRequest, caller: Caller, response_id: str, backend: Backend
    ) -> bool:
        """Whether a response that is not here is in a backend's own store, for this caller: one that does not
        see who asks could only say whether it is there for anybody. None has what was
        made here."""
        if is_own(response_id) or not backend.sees_callers or not _LOOKS_LIKE_ID.fullmatch(response_id):
            return False
        target = f"{self._base_path}/responses/{response_id}"
        return await status_at(target, request, backend, caller.request_id) == 200

    async def check_conversation(
        self, request: web.BaseRequest, caller: Caller, conversation: object, backend: Backend
    ) -> None:
        """Let a request through that names a conversation which the backend has for this caller. Most servers
        do not know the field, and would answer without what was said before.

        Raises:
            Refusal: It is not, or there is no telling.
        """
        named = conversation.get("id") if isinstance(conversation, dict) else conversation
        if not backend.sees_callers:
            message = (
                "'conversation' is not supported: the backend sees one key for all callers, and cannot tell "
                "whose conversation it is. Use 'previous_response_id' to go on from a response."
            )
            raise invalid(message, param="conversation", code="unsupported_parameter")
        status: int | None = 404
        if isinstance(named, str) and _LOOKS_LIKE_ID.fullmatch(named):
            target = f"{self._base_path}/conversations/{named}"
            status = await status_at(target, request, backend, caller.request_id)
        if status is None:
            message = "The backend cannot be asked for the conversation at the moment."
            raise Refusal(
                Fault.UNAVAILABLE,
                message,
                param="conversation",
                code="backend_unavailable",
                retry_after_s=math.ceil(backend.settings.breaker_open_s),
            )
        if status != 200:
            raise Refusal(
                Fault.NOT_FOUND,
                f"Conversation with id '{named}' not found.",
                param="conversation",
                code="conversation_not_found",
            )


def split_headers(
    request: web.BaseRequest, caller: Caller, backend: Backend
) -> tuple[dict[str, str], CallerHeaders]:
    """The headers that go with a background call: those that may be stored, and those that may not."""
    headers = background_headers(head_of(request).headers, withheld=backend.withheld)
    stored, others = storable(headers)
    return stored, CallerHeaders(caller.credential if backend.sees_callers else None, others)
