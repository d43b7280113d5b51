"""The routes we own: create, retrieve, cancel, delete, input items."""

from __future__ import annotations

import asyncio
import hashlib
import re
import secrets
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import aclosing
from urllib.parse import parse_qs

from aiohttp import web

from gateway.api.foreground import ForegroundCreate
from gateway.api.http.bodies import read_body, scanned
from gateway.api.http.event_streams import Outlet, stream_events
from gateway.api.http.heads import head_of
from gateway.api.identity.callers import Caller, Callers, split_headers
from gateway.api.passthrough import Passthrough
from gateway.api.ports import Backend
from gateway.api.routing import Routing, no_such_model
from gateway.config import Settings
from gateway.core.job import Idempotency, Job, Status
from gateway.engine.engine import Engine
from gateway.engine.jobs import Repeat, Submission
from gateway.engine.refusals import previous_not_found
from gateway.observe import Observer
from gateway.wire import query_strings, requests, responses, webhooks
from gateway.wire.bodies.classify import Background, classify
from gateway.wire.errors import Fault, Refusal, invalid, not_found, too_large
from gateway.wire.failures.redaction import name_shown
from gateway.wire.http.headers import trace_context
from gateway.wire.response_ids import id_of, is_own
from gateway.wire.speech import NO_SUCH_ROUTE

Answer = web.StreamResponse
RouteHandler = Callable[[web.BaseRequest, str], Awaitable[Answer]]
JobRoute = Callable[[web.BaseRequest, Caller, Job, str], Awaitable[Answer]]
"""Answers a request about a job; the last is the id by which the client has asked for it."""

_QUERY_OF_CREATE = frozenset({"api-version", "beta"})
_PARAMETER = re.compile(r"[A-Za-z_]{1,32}(\[\])?")
"""What a parameter may look like to be named in an answer."""


class Responses:
    """Handlers; each answers one request or raises a `Refusal`.

    Attributes:
        plain: Answers creates that are not ours.
    """

    def __init__(
        self,
        engine: Engine,
        passthrough: Passthrough,
        callers: Callers,
        chooser: Routing,
        settings: Settings,
        observer: Observer,
    ) -> None:
        self._jobs = engine.jobs
        self._followers = engine.followers
        self._passthrough = passthrough
        self._callers = callers
        self._chooser = chooser
        self.plain = ForegroundCreate(engine, passthrough, callers, chooser, settings, observer)
        self._dialect = engine.dialect
        self._settings = settings
        self._observer = observer

    # -- POST /responses

    async def create(self, request: web.BaseRequest, request_id: str) -> Answer:
        """Ours if it says `"background": true`; a plain one goes on, with our earlier turns put in."""
        began_ns = time.time_ns()
        body = await read_body(request, self._settings.server.body_bytes_max)
        kind = await scanned(classify(body))
        await asyncio.sleep(0)  # a large one was parsed in one go, and the next steps take as long
        if not isinstance(kind, Background):
            return await self.plain.answer(request, body, kind, request_id)
        if len(body) > self._settings.background.body_bytes_max:
            raise too_large(self._settings.background.body_bytes_max)
        caller = self._callers.of(request, request_id)
        repeat = self._repeat(request, body)
        backend = self._chooser.find(kind.body.get("model"))
        # What its settings drop or set is not judged.
        asked = kind.body if backend is None else backend.speech.heard(kind.body)
        context = trace_context(request.headers)
        with self._observer.tracing.accepting(context, request_id, began_ns) as traced:
            accepted = await self._jobs.accept(
                caller.tenant,
                repeat,
                asked.get("previous_response_id"),
                lambda is_ours: self._vetted(
                    request, asked, caller, repeat, backend, traced.traceparent, is_previous_ours=is_ours
                ),
            )
            traced.accepted(accepted.response_id, name_shown(asked.get("model")))
        headers = accepted.tools.headers()
        if asked.get("stream") is True:
            self._observer.replays.labels("create").inc()
            return await self._stream(request, accepted.response_id, caller, after=-1, headers=headers)
        answer = self._json(accepted.response, accepted.status, http_status=self._dialect.accepted_status)
        answer.headers.update(headers)
        return answer

    def _repeat(self, request: web.BaseRequest, body: bytes) -> Repeat:
        """By what a create can be known again: its key; else, where that is wanted, by itself."""
        key = requests.idempotency_key(request.headers.getall("Idempotency-Key", []))
        if key is not None:  # by its hash: a client may make it of what is not for the disk
            digest = hashlib.sha256(key.encode()).hexdigest()
            return Repeat(Idempotency(digest, _fingerprint(request, body)))
        if not self._settings.background.adopt_unacked_retry:
            return Repeat()
        is_retry = requests.is_retry(request.headers.get("X-Stainless-Retry-Count"))
        return Repeat(fingerprint=_fingerprint(request, body), is_retry=is_retry)

    async def _vetted(
        self,
        request: web.BaseRequest,
        body: dict[str, object],
        caller: Caller,
        repeat: Repeat,
        backend: Backend | None,
        traceparent: str | None,
        *,
        is_previous_ours: bool,
    ) -> Submission:
        """A create that repeats no other, once it is valid, and its backend lets it in and has what it
        names."""
        for name in _query(request):
            if name not in _QUERY_OF_CREATE:  # it would lie on disk, and it might be a key
                shown = name if _PARAMETER.fullmatch(name) else "?"
                raise invalid(
                    f"Unknown query parameter '{shown}' for a background response.",
                    param=shown,
                    code="unknown_parameter",
                )
        accept_store_false = self._settings.background.store_false == "accept"
        requests.validate(body, accept_store_false=accept_store_false)
        webhook = webhooks.requested_url(body, self._settings.request_webhooks.metadata_key)
        if backend is None:
            raise no_such_model(str(body.get("model")))
        await self._callers.vet(request, caller, backend)
        previous_id = body.get("previous_response_id")
        if isinstance(previous_id, str) and not is_previous_ours:
            is_known = await self._callers.backend_knows(request, caller, previous_id, backend)
            if not is_known:
                raise previous_not_found(previous_id)
        if not backend.speech.is_certain and requests.has_built_in_tools(body):
            await backend.ask(head_of(request).credential)  # the answer says which of them are served
        if body.get("conversation") and not backend.speech.is_translated:
            await self._callers.check_conversation(request, caller, body["conversation"], backend)
        stored, held = split_headers(request, caller, backend)
        if traceparent is not None:  # the backend goes on from here, not from the caller
            stored = {name: value for name, value in stored.items() if name.lower() != "traceparent"}
            stored["traceparent"] = traceparent
        return Submission(
            response_id=id_of(secrets.token_bytes(24)),
            tenant=caller.tenant,
            backend=backend,
            body=body,
            target=request.raw_path,
            stored_headers=stored,
            held_headers=held,
            repeat=repeat,
            webhook=webhook,
            request_id=caller.request_id,
        )

    # -- /responses/{id}

    def of_one(self, answer: JobRoute, response_id: str) -> RouteHandler:
        """The handler of a route that is about one response."""

        async def handle(request: web.BaseRequest, request_id: str) -> Answer:
            caller = self._callers.of(request, request_id)
            job = await self._jobs.find(response_id, caller.tenant)
            if job is None:
                return await self._ask_backend(request, caller, response_id)
            try:
                return await answer(request, caller, job, response_id)
            except Refusal as refusal:
                # One that goes away just now is not found by the name that the client has for it.
                raise not_found(response_id) if refusal.fault is Fault.NOT_FOUND else refusal from None

        return handle

    async def retrieve(self, request: web.BaseRequest, caller: Caller, job: Job, _: str) -> Answer:
        """Poll, or stream from the start or from a cursor."""
        query = query_strings.parse_retrieve(_query(request))
        if not query.is_stream:
            return self._json(await self._jobs.show(job), job.status)
        if not job.is_background:
            raise invalid(
                "This response cannot be streamed because it was not created with background=true.",
                param="stream",
                code="invalid_request_error",
            )
        if not self._is_streamable(job):
            raise invalid(
                "This response cannot be streamed because it was not created with stream=true.",
                param="stream",
                code="invalid_request_error",
            )
        self._observer.replays.labels("start" if query.after < 0 else "cursor").inc()
        after = query.after
        if after < 0 and job.status.is_terminal and not self._dialect.replays_ended:
            after = job.next_seq - 2  # a reader with a cursor wants what it has missed
        return await self._stream(request, job.id, caller, after=after)

    def _is_streamable(self, job: Job) -> bool:
        """Not one that may still be run again because nobody was to see it: the settings may have been others
        when it was accepted."""
        if job.is_streamed:
            return True
        streams_any = self._settings.background.resume == "any" or self._dialect.streams_any
        return streams_any and (job.is_followable or job.status.is_terminal)

    async def cancel(self, _request: web.BaseRequest, _caller: Caller, job: Job, _: str) -> Answer:
        """200 for a live or cancelled one, 400 for one that ended otherwise; never 409, which SDKs retry."""
        if not job.is_background:
            raise invalid("Cannot cancel a synchronous response.", code="invalid_request_error")
        job = await self._jobs.cancel(job)
        match job.status:
            case Status.COMPLETED | Status.FAILED:
                raise invalid(f"Cannot cancel a {job.status.value} response.", code="invalid_request_error")
            case Status.INCOMPLETE:
                raise invalid("Cannot cancel a response in terminal state.", code="invalid_request_error")
        return self._json(await self._jobs.show(job), job.status)

    async def delete(self, request: web.BaseRequest, caller: Caller, job: Job, response_id: str) -> Answer:
        """Gone for every reader when this answers; a running one is stopped first."""
        await self._jobs.delete(job)
        backend = self._chooser.named(job.backend)
        if not job.is_background and backend is not None and not is_own(job.id):
            # It has made this response, and is to forget it too if it has kept it.
            answer = await self._answer_of(request, caller, [backend])
            if answer is not None:
                return answer
        return web.Response(body=responses.deleted(response_id), content_type="application/json")

    async def input_items(self, request: web.BaseRequest, _caller: Caller, job: Job, _: str) -> Answer:
        """What the response was asked with, earlier turns included, page by page."""
        query = query_strings.parse_list_items(_query(request))
        page = await self._jobs.turns.input_items(job, query)
        return web.Response(body=page, content_type="application/json")

    async def _ask_backend(self, request: web.BaseRequest, caller: Caller, response_id: str) -> Answer:
        """An id that is not here may be the backend's own, unless it was made here."""
        if is_own(response_id):
            raise not_found(response_id)
        answer = await self._answer_of(request, caller, self._chooser.that_see_callers)
        if answer is None:
            raise not_found(response_id)
        return answer

    async def _answer_of(
        self, request: web.BaseRequest, caller: Caller, backends: list[Backend]
    ) -> Answer | None:
        for backend in backends:
            answer = await self._passthrough.probe(
                request, backend, request_id=caller.request_id, missing=NO_SUCH_ROUTE
            )
            if answer is not None:
                return answer
        return None

    # -- answers

    def _json(self, body: bytes, status: Status, *, http_status: int = 200) -> web.Response:
        shown = self._dialect.shown(body)
        response = web.Response(status=http_status, body=shown, content_type="application/json")
        if not status.is_terminal:
            response.headers["openai-poll-after-ms"] = str(self._settings.background.poll_after_ms)
        return response

    async def _stream(
        self,
        request: web.BaseRequest,
        stored_id: str,
        caller: Caller,
        *,
        after: int,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        outlet = Outlet(self._dialect.shown_events)
        blocks = self._shown(
            self._followers.follow(stored_id, caller.tenant, after=after, sink=outlet, peer=request.remote)
        )
        stall_s = self._settings.server.write_stall_timeout_s
        return await stream_events(
            request,
            blocks,
            request_id=caller.request_id,
            stall_timeout_s=stall_s,
            headers=headers,
            outlet=outlet,
        )

    async def _shown(self, blocks: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes, None]:
        async with aclosing(blocks):
            async for block in blocks:
                yield self._dialect.shown_events(block)


def _fingerprint(request: web.BaseRequest, body: bytes) -> bytes:
    """Stands for what was asked: two requests that differ in a byte are two."""
    return hashlib.sha256(request.raw_path.encode() + b"\0" + body).digest()


def _query(request: web.BaseRequest) -> dict[str, list[str]]:
    query = request.raw_path.partition("?")[2]
    return parse_qs(query, keep_blank_values=True) if query else {}
