"""The routes we own: create, retrieve, cancel, delete, input items."""

from __future__ import annotations

import secrets
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from urllib.parse import parse_qs

from aiohttp import web

from gateway.api.passthrough import Passthrough, continue_if_expected
from gateway.api.streaming import stream_events
from gateway.api.tenants import tenant_of
from gateway.config import Settings
from gateway.core.call import Credential
from gateway.core.job import Status
from gateway.engine.credentials import CallerHeaders
from gateway.engine.followers import Followers
from gateway.engine.jobs import Jobs, Submission, previous_not_found
from gateway.observe import Observer
from gateway.outbound.headers import background_headers, credential
from gateway.wire import requests, responses
from gateway.wire.errors import Fault, Refusal, invalid, not_found

_MISSING = frozenset({404, 405, 501})
"""A backend that answers so has no such response, or no store at all."""

_STORABLE_HEADERS = frozenset(
    {"accept-language", "openai-beta", "openai-organization", "openai-project", "user-agent"}
)
"""Headers known to hold no secret: they may lie on disk beside a job. All others stay in memory."""

_QUERY_OF_CREATE = frozenset({"api-version", "beta"})


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks, and under which id the request is logged."""

    tenant: bytes
    credential: Credential | None
    request_id: str


class Responses:
    """Handlers; each answers one request or raises a `Refusal`."""

    def __init__(
        self,
        jobs: Jobs,
        followers: Followers,
        passthrough: Passthrough,
        settings: Settings,
        observer: Observer,
        *,
        base_path: str,
        pepper: bytes,
    ) -> None:
        self._jobs = jobs
        self._followers = followers
        self._passthrough = passthrough
        self._settings = settings
        self._observer = observer
        self._base_path = base_path
        self._pepper = pepper
        self._sends_own_key = settings.upstream.api_key is not None

    def caller(self, request: web.BaseRequest, request_id: str) -> Caller:
        """Who is asking. Raises: Refusal, if it brings more than one credential."""
        found = credential(request.headers)
        own = Credential(*found) if found else None
        return Caller(tenant_of(own, self._pepper), own, request_id)

    # -- POST /responses

    async def create(self, request: web.BaseRequest, request_id: str) -> web.StreamResponse:
        """Ours if it says `"background": true`; a plain one goes on, with our earlier turns put in."""
        if request.headers.get("Content-Encoding", "identity") != "identity":
            return await self._passthrough.forward(request, request_id=request_id)  # not readable here
        body = await _read(request, self._settings.server.body_bytes_max)
        match requests.classify(body):
            case requests.Background(parsed):
                if len(body) > self._settings.background.body_bytes_max:
                    raise _too_large(self._settings.background.body_bytes_max)
                return await self._create_background(request, parsed, self.caller(request, request_id))
            case requests.Chained(parsed, previous_id):
                caller = self.caller(request, request_id)
                if await self._jobs.find(previous_id, caller.tenant) is not None:
                    items = await self._jobs.expand(previous_id, caller.tenant, parsed.get("input"))
                    body = requests.chained_body(parsed, input=items)
                elif responses.OUR_ID.match(previous_id) and not await self._backend_knows(
                    request, caller, previous_id
                ):
                    raise previous_not_found(previous_id)
        return await self._passthrough.forward(request, request_id=request_id, body=body)

    async def _create_background(
        self, request: web.BaseRequest, body: dict[str, object], caller: Caller
    ) -> web.StreamResponse:
        for name in _query(request):
            if name not in _QUERY_OF_CREATE:  # it would lie on disk, and it might be a key
                raise invalid(
                    f"Unknown query parameter '{name}' for a background response.",
                    param=name,
                    code="unknown_parameter",
                )
        accept_store_false = self._settings.background.store_false == "accept"
        requests.validate(body, accept_store_false=accept_store_false)
        previous_id = body.get("previous_response_id")
        is_ours = False
        if isinstance(previous_id, str):
            is_ours = await self._jobs.find(previous_id, caller.tenant) is not None
            if not is_ours and not await self._backend_knows(request, caller, previous_id):
                raise previous_not_found(previous_id)
        headers = background_headers(request.headers)
        stored = {name: value for name, value in headers.items() if name.lower() in _STORABLE_HEADERS}
        others = {name: value for name, value in headers.items() if name not in stored}
        response_id = f"resp_{secrets.token_hex(24)}"
        submission = Submission(
            response_id=response_id,
            tenant=caller.tenant,
            body=body,
            target=request.raw_path,
            stored_headers=stored,
            held_headers=CallerHeaders(caller.credential, others),
            is_previous_ours=is_ours,
        )
        queued = await self._jobs.submit(submission)
        if body.get("stream") is True:
            self._observer.replays.labels("create").inc()
            blocks = self._followers.follow(response_id, caller.tenant, after=-1)
            return await self._stream(request, blocks, caller.request_id)
        return self._json(queued, Status.QUEUED)

    async def _backend_knows(self, request: web.BaseRequest, caller: Caller, response_id: str) -> bool:
        """Whether a response that is not here is in the backend's own store, for this caller.

        With a key of our own in the call, the backend could not tell one caller from another.
        """
        if self._sends_own_key or "/" in response_id or "?" in response_id or "#" in response_id:
            return False
        target = f"{self._base_path}/responses/{response_id}"
        return await self._passthrough.knows(request, request_id=caller.request_id, target=target)

    # -- /responses/{id}

    async def retrieve(
        self, request: web.BaseRequest, response_id: str, request_id: str
    ) -> web.StreamResponse:
        """Poll, or stream from the start or from a cursor."""
        caller = self.caller(request, request_id)
        job = await self._jobs.find(response_id, caller.tenant)
        if job is None:
            return await self._ask_backend(request, caller, response_id)
        query = requests.parse_retrieve(_query(request))
        if not query.is_stream:
            return self._json(await self._jobs.show(job), job.status)
        if not job.is_streamed and self._settings.background.resume != "any":
            raise invalid(
                "This response cannot be streamed because it was not created with stream=true.",
                param="stream",
                code="invalid_request_error",
            )
        self._observer.replays.labels("start" if query.after < 0 else "cursor").inc()
        blocks = self._followers.follow(job.id, job.tenant, after=query.after)
        return await self._stream(request, blocks, request_id)

    async def cancel(self, request: web.BaseRequest, response_id: str, request_id: str) -> web.StreamResponse:
        """200 for a live or cancelled one, 400 for one that ended otherwise; never 409, which SDKs retry."""
        caller = self.caller(request, request_id)
        job = await self._jobs.find(response_id, caller.tenant)
        if job is None:
            return await self._ask_backend(request, caller, response_id)
        job = await self._jobs.cancel(job)
        match job.status:
            case Status.COMPLETED | Status.FAILED:
                raise invalid(f"Cannot cancel a {job.status.value} response.", code="invalid_request_error")
            case Status.INCOMPLETE:
                raise invalid("Cannot cancel a response in terminal state.", code="invalid_request_error")
        return self._json(await self._jobs.show(job), job.status)

    async def delete(self, request: web.BaseRequest, response_id: str, request_id: str) -> web.StreamResponse:
        """Gone for every reader when this answers; a running one is stopped first."""
        caller = self.caller(request, request_id)
        job = await self._jobs.find(response_id, caller.tenant)
        if job is None:
            return await self._ask_backend(request, caller, response_id)
        await self._jobs.delete(job)
        return web.Response(body=responses.deleted(job.id), content_type="application/json")

    async def input_items(
        self, request: web.BaseRequest, response_id: str, request_id: str
    ) -> web.StreamResponse:
        """What the response was asked with, earlier turns included, page by page."""
        caller = self.caller(request, request_id)
        job = await self._jobs.find(response_id, caller.tenant)
        if job is None:
            return await self._ask_backend(request, caller, response_id)
        query = requests.parse_list_items(_query(request))
        return web.Response(body=await self._jobs.input_items(job, query), content_type="application/json")

    async def _ask_backend(
        self, request: web.BaseRequest, caller: Caller, response_id: str
    ) -> web.StreamResponse:
        """An id that is not here may be the backend's own; if it is not, the answer is ours."""
        if not self._sends_own_key:
            answer = await self._passthrough.probe(request, request_id=caller.request_id, missing=_MISSING)
            if answer is not None:
                return answer
        raise not_found(response_id)

    # -- answers

    def _json(self, body: bytes, status: Status) -> web.Response:
        response = web.Response(body=body, content_type="application/json")
        if not status.is_terminal:
            response.headers["openai-poll-after-ms"] = str(self._settings.background.poll_after_ms)
        return response

    async def _stream(
        self, request: web.BaseRequest, blocks: AsyncGenerator[bytes, None], request_id: str
    ) -> web.StreamResponse:
        stall_timeout_s = self._settings.server.write_stall_timeout_s
        return await stream_events(request, blocks, request_id=request_id, stall_timeout_s=stall_timeout_s)


def _query(request: web.BaseRequest) -> dict[str, list[str]]:
    return parse_qs(request.raw_path.partition("?")[2], keep_blank_values=True)


async def _read(request: web.BaseRequest, bytes_max: int) -> bytes:
    """The body, whole: only so can its `background` be seen."""
    if (request.content_length or 0) > bytes_max:
        raise _too_large(bytes_max)
    continue_if_expected(request)
    chunks: list[bytes] = []
    size = 0
    async for chunk in request.content.iter_any():
        chunks.append(chunk)
        size += len(chunk)
        if size > bytes_max:
            raise _too_large(bytes_max)
    return b"".join(chunks)


def _too_large(bytes_max: int) -> Refusal:
    return Refusal(
        Fault.TOO_LARGE, f"The request body is larger than {bytes_max} bytes.", code="request_too_large"
    )
