"""Plain create requests: passed on, or answered by us where the backend speaks chat completions only."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Generator
from typing import Any, Final

import aiohttp
import orjson
from aiohttp import web

from gateway.api.chained_call import ChainedCall
from gateway.api.forwarding import adapted
from gateway.api.http.bodies import scanned
from gateway.api.http.errors import backend_error_response
from gateway.api.http.event_streams import stream_events
from gateway.api.http.heads import head_of
from gateway.api.identity.callers import Caller, Callers, split_headers
from gateway.api.identity.shared_key import kept_apart
from gateway.api.passthrough import Passthrough
from gateway.api.ports import Backend
from gateway.api.routing import Routing
from gateway.api.taps import Both, EchoTap, ResponseTap, Tap, TapFactory
from gateway.config import Settings
from gateway.core.job import Job, Outcome, Status
from gateway.core.unkept import unkept
from gateway.engine.credentials import CallerHeaders
from gateway.engine.engine import Engine
from gateway.engine.foreground import BackendRefused, PlainCreate
from gateway.engine.refusals import previous_not_found
from gateway.engine.turns import CHAINABLE
from gateway.observe import Observer
from gateway.wire import requests, responses
from gateway.wire.bodies import classify
from gateway.wire.bodies.json_scan import check_values
from gateway.wire.conversation.items import Turn, context
from gateway.wire.errors import Refusal, invalid
from gateway.wire.http.head import Head
from gateway.wire.item_ids import FIRST_OUTPUT, to_be_looked_up
from gateway.wire.response_ids import id_of, is_own
from gateway.wire.speech import NO_SUCH_ROUTE, Api

_BACKGROUND: Final = b'"background"'


class ForegroundCreate:
    """Answers `POST /responses` without `"background": true`."""

    def __init__(
        self,
        engine: Engine,
        passthrough: Passthrough,
        callers: Callers,
        chooser: Routing,
        settings: Settings,
        observer: Observer,
    ) -> None:
        self._observer = observer
        self._jobs = engine.jobs
        self._foreground = engine.foreground
        self._passthrough = passthrough
        self._callers = callers
        self._chooser = chooser
        self._stall_timeout_s = settings.server.write_stall_timeout_s
        self._heartbeat_s = settings.stream.heartbeat_s
        self._records = settings.conversations.record_foreground
        self._bytes_max = settings.background.events_bytes_max

    async def answer(
        self,
        request: web.BaseRequest,
        body: bytes,
        kind: classify.Standalone | classify.Chained,
        request_id: str,
    ) -> web.StreamResponse:
        """The backend's answer, byte for byte; for a chat backend, the Response made of its answer."""

        def tenant() -> bytes:
            return self._callers.of(request, request_id).tenant

        async def adapt(sent: bytes) -> bytes:
            return await scanned(_adapted(backend, sent, tenant))

        backend, sent = await scanned(self._passed_on(body, kind, tenant))
        if backend.speech.is_translated:
            return await self._translated(request, backend, body, request_id)
        said, previous, chained = None, None, None
        if isinstance(kind, classify.Chained):
            caller = self._callers.of(request, request_id)
            said = await self._told(kind.body, caller, backend)
            previous, turns = await self._our_turns(request, kind.previous_id, caller, backend)
            if turns or said is not kind.body:
                chained = ChainedCall(backend, said, turns, adapt)
                sent = await chained.body()
            else:
                # Through a key of the gateway's nothing is passed on that a backend might read otherwise than
                # it was read here.
                sent = await adapt(body if backend.sees_callers else requests.written(said))
        tap_of = await self._recorder(body, said, previous, backend, tenant)
        if isinstance(kind, classify.Chained) and kind.previous_id is not None and previous is not None:
            tap_of = self._echoing(kind.previous_id, tap_of)
        if not backend.speech.is_certain:
            # This request is the question which API it speaks: no other is sent unless it must be.
            answer = await self._passthrough.probe(
                request,
                backend,
                request_id=request_id,
                missing=NO_SUCH_ROUTE,
                body=sent,
                limit_s=backend.settings.plain_head_timeout_s,
                tap_of=tap_of,
            )
            if answer is not None:
                if answer.status < 400:
                    backend.learn(Api.RESPONSES)
                return answer
            speech = await backend.ask(head_of(request).credential)
            if speech.is_translated:
                return await self._translated(request, backend, body, request_id)
        return await self._passthrough.forward(
            request, backend, request_id=request_id, body=sent, tap_of=tap_of, chained=chained
        )

    def backend_of(self, _: Head) -> Backend | None:
        """None: somebody has to look at the body."""

    def look(
        self, _: Head, body: bytes, tenant: Callable[[], bytes]
    ) -> Generator[None, None, tuple[Backend, bytes] | None]:
        """Where a create goes, and with which body, if there is nothing else to be done for it.

        Raises:
            Refusal: It goes nowhere.
        """
        if _BACKGROUND in body or self._records is True:
            return None  # most likely ours: it is looked at once; or its answer is kept
        kind = yield from classify.classify(body)
        if not isinstance(kind, classify.Standalone):
            return None
        backend, sent = yield from self._passed_on(body, kind, tenant)
        return None if sent is None or not backend.speech.is_certain else (backend, sent)

    def _passed_on(
        self, body: bytes, kind: classify.Standalone | classify.Chained, tenant: Callable[[], bytes]
    ) -> Generator[None, None, tuple[Backend, bytes | None]]:
        """Where a create goes, and with which body; None: that takes more than a look. Raises: Refusal."""
        backend = yield from self._chooser.of_body(body)
        if backend.speech.is_translated or isinstance(kind, classify.Chained):
            return backend, None
        if not backend.sees_callers:
            yield from kept_apart(body)
        return backend, (yield from _adapted(backend, body, tenant))

    async def _our_turns(
        self, request: web.BaseRequest, previous_id: str | None, caller: Caller, backend: Backend
    ) -> tuple[Job | None, list[Turn]]:
        """What the request goes on from, and the turns up to it; nothing, if that is a response of the
        backend's own, or none."""
        if previous_id is None:
            return None, []
        if (previous := await self._jobs.find(previous_id, caller.tenant)) is not None:
            return previous, await self._jobs.turns.up_to(previous, previous_id)
        # Through a key of the gateway's, a backend would go on from any caller's response.
        is_in_doubt = is_own(previous_id) or not backend.sees_callers
        if is_in_doubt and not await self._callers.backend_knows(request, caller, previous_id, backend):
            raise previous_not_found(previous_id)  # some backends would answer without the context
        return None, []

    async def _told(self, body: dict[str, Any], caller: Caller, backend: Backend) -> dict[str, Any]:
        """The request with what its input names of ours put in; if that is nothing, itself."""
        given = body.get("input")
        told = await self._jobs.turns.told(given, caller.tenant, backend)
        return body if told is given else {**body, "input": told}

    async def _translated(
        self, request: web.BaseRequest, backend: Backend, body: bytes, request_id: str
    ) -> web.StreamResponse:
        caller = self._callers.of(request, request_id)
        parsed = await _object(body)
        parsed = backend.speech.heard(parsed)  # what its settings drop or set is not judged
        requests.validate(parsed, accept_store_false=True)
        requests.validate_depth(parsed)
        parsed = await self._told(parsed, caller, backend)
        told, previous = parsed.get("input"), None
        previous_id = parsed.get("previous_response_id")
        if previous_id is not None:
            if (previous := await self._jobs.find(previous_id, caller.tenant)) is None:
                raise previous_not_found(previous_id)
            turns = await self._jobs.turns.up_to(previous, previous_id)
            told = context(turns, told, backend.speech.replay_target)
        stored, held = split_headers(request, caller, backend)
        headers = CallerHeaders(held.credential, {**stored, **held.others})
        response_id = id_of(secrets.token_bytes(24))

        async def keep(outcome: Outcome) -> Outcome:
            is_kept = outcome.status in CHAINABLE and await self._jobs.turns.record(
                parsed,
                outcome.final,
                response_id=response_id,
                status=outcome.status,
                item_ids=outcome.item_ids,
                tenant=caller.tenant,
                previous=previous,
                backend=backend.name,
            )
            return outcome if is_kept else unkept(outcome)

        is_kept = self._records is not False and requests.is_turn(parsed)
        plain = PlainCreate(
            response_id,
            caller.tenant,
            {**parsed, "store": is_kept},
            told,
            request.raw_path,
            headers,
            keep if is_kept else None,
        )
        tools = backend.speech.offered(parsed, told)
        self._observer.tools_omitted(backend.name, [tool.family for tool in tools.omitted])
        try:
            if parsed.get("stream") is True:
                blocks = self._foreground.stream(plain, backend)
                return await stream_events(
                    request,
                    blocks,
                    request_id=caller.request_id,
                    stall_timeout_s=self._stall_timeout_s,
                    headers=tools.headers(),
                    heartbeat_s=self._heartbeat_s,
                )
            answer = await self._foreground.finish(plain, backend)
        except BackendRefused as refused:
            return backend_error_response(
                refused.status, refused.reason, refused.failure, refused.retry_after_s
            )
        return web.Response(body=answer, content_type="application/json", headers=tools.headers())

    async def _recorder(
        self,
        body: bytes,
        said: dict[str, Any] | None,
        previous: Job | None,
        backend: Backend,
        tenant: Callable[[], bytes],
    ) -> TapFactory | None:
        """What keeps the answer as a turn, if it is to be kept.

        Args:
            said: The request, where it was read already.
        """
        if self._records is not True:
            return None
        try:
            parsed = said or await _object(body)
            whose = tenant()
        except Refusal:
            return None  # the backend's to refuse, or to accept: as if nothing were kept here
        if not requests.is_turn(parsed):
            return None

        async def keep(response: dict[str, Any]) -> None:
            if responses.is_turn(response):
                await self._jobs.turns.record(
                    parsed,
                    orjson.dumps(response),
                    response_id=response["id"],
                    status=Status(response["status"]),
                    item_ids=to_be_looked_up(response["id"], response["output"], FIRST_OUTPUT),
                    tenant=whose,
                    previous=previous,
                    backend=backend.name,
                )

        return lambda answer: ResponseTap(answer, keep, bytes_max=self._bytes_max)

    def _echoing(self, previous_id: str, then: TapFactory | None) -> TapFactory:
        """The answer says from which of our responses it goes on, to its client and to the record."""

        def tap_of(answer: aiohttp.ClientResponse) -> Tap:
            echo = EchoTap(answer, previous_id, bytes_max=self._bytes_max)
            return Both(echo, then(answer)) if then is not None else echo

        return tap_of


def _adapted(backend: Backend, body: bytes, tenant: Callable[[], bytes]) -> Generator[None, None, bytes]:
    is_salted = backend.settings.cache_salt
    return (yield from adapted(backend, body, tenant, is_renamed=True, is_salted=is_salted))


async def _object(body: bytes) -> dict[str, Any]:
    await scanned(check_values(body))
    try:
        parsed = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise invalid(
            f"We could not parse the JSON body of your request: {error}", code="invalid_json"
        ) from None
    if not isinstance(parsed, dict):
        raise invalid("The body of your request must be a JSON object.", code="invalid_json")
    return parsed
