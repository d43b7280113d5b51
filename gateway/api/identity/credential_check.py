"""Trying a credential on its backend before the first background response is accepted for it.

Otherwise anybody could fill the queue with jobs that the backend will refuse. Only a refusal counts: while a
backend is down, its jobs are accepted, and wait.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from aiohttp import web

from gateway.api.http.heads import head_of
from gateway.api.ports import Backend
from gateway.config import TenantSettings
from gateway.core.call import PlainCall
from gateway.wire.errors import Fault, Refusal

_REFUSALS = {
    401: Refusal(
        Fault.UNAUTHENTICATED, "The model server does not accept this API key.", code="invalid_api_key"
    ),
    403: Refusal(
        Fault.FORBIDDEN, "The model server does not allow this with this API key.", code="permission_denied"
    ),
}

_NOBODYS = "resp_" + "0" * 48

_Key = tuple[str, bytes]


@dataclass(frozen=True, slots=True)
class _Checked:
    status: int | None
    good_until: float


class CredentialCheck:
    """What backends say about credentials, remembered for a while.

    Args:
        base_path: Of the backends, e.g. `/v1`.
    """

    def __init__(self, settings: TenantSettings, *, base_path: str) -> None:
        self._settings = settings
        self._is_on = settings.mode == "passthrough"
        self._target = f"{base_path}/models"
        self._guarded = f"{base_path}/responses/{_NOBODYS}"
        self._verdicts: dict[_Key, _Checked] = {}
        self._asking: dict[_Key, asyncio.Task[_Checked]] = {}

    async def check(
        self, request: web.BaseRequest, tenant: bytes, backend: Backend, *, request_id: str
    ) -> None:
        """Let the backend judge a credential, unless it just did. Without an answer nobody is refused.

        Raises:
            Refusal: With the backend's own status.
        """
        if not (self._is_on and backend.sees_callers and backend.settings.check_credentials):
            return
        key = (backend.name, tenant)
        verdict = self._verdicts.get(key)
        if verdict is None or verdict.good_until < asyncio.get_running_loop().time():
            # One question for all who want to know; shielded, as the first of them may hang up.
            asking = self._asking.get(key) or self._start(key, request, backend, request_id)
            verdict = await asyncio.shield(asking)
        if verdict.status in _REFUSALS:
            raise _REFUSALS[verdict.status]

    def _start(
        self, key: _Key, request: web.BaseRequest, backend: Backend, request_id: str
    ) -> asyncio.Task[_Checked]:
        task = asyncio.create_task(self._ask(key, request, backend, request_id), name="vetting")
        self._asking[key] = task
        task.add_done_callback(lambda _: self._asking.pop(key))
        return task

    async def _ask(self, key: _Key, request: web.BaseRequest, backend: Backend, request_id: str) -> _Checked:
        status = await status_at(self._target, request, backend, request_id)
        is_ok = status is not None and status < 300
        if is_ok:
            # llama.cpp shows its models to anybody, and asks for the key on all other paths. Only a 401 says
            # something of the key here: it may be one that makes responses and reads none.
            guarded = await status_at(self._guarded, request, backend, request_id)
            status, is_ok = (401, False) if guarded == 401 else (status, True)
        seconds = self._settings.checked_ok_s if is_ok else self._settings.checked_refused_s
        verdict = _Checked(status, asyncio.get_running_loop().time() + seconds)
        self._verdicts.pop(key, None)
        self._verdicts[key] = verdict
        while len(self._verdicts) > self._settings.checked_max:
            del self._verdicts[next(iter(self._verdicts))]
        return verdict


async def status_at(target: str, request: web.BaseRequest, backend: Backend, request_id: str) -> int | None:
    """How the backend answers a GET, asked with the caller's headers; None if it does not."""
    limit_s = backend.settings.lookup_timeout_s
    answer = await backend.plain.look_up(
        PlainCall(request_id, "GET", target, head_of(request).headers, limit_s, "lookup")
    )
    return answer[0] if answer is not None else None
