"""Which request is ours: decided by method and raw path, before anything is parsed."""

from __future__ import annotations

import asyncio
import logging
from enum import Enum, auto
from urllib.parse import unquote

from aiohttp import web

from gateway.api.forwarding import Forwarding
from gateway.api.http.bodies import read_body, scanned
from gateway.api.http.cors import Cors
from gateway.api.http.errors import error_response
from gateway.api.http.heads import head_of
from gateway.api.http.ids import new_request_id
from gateway.api.identity.callers import Callers
from gateway.api.identity.refusal_log import RefusalLog
from gateway.api.identity.shared_key import COMPUTING, keep_sockets_apart
from gateway.api.lane.heads import Forwarder
from gateway.api.model_list import merged_models, one_model
from gateway.api.passthrough import Passthrough
from gateway.api.ports import Backends
from gateway.api.responses import JobRoute, Responses, RouteHandler
from gateway.api.routing import Routing
from gateway.api.websocket import tunnel
from gateway.config import ServerSettings
from gateway.observe import Observer, line
from gateway.wire.errors import Fault, Refusal, no_websocket
from gateway.wire.http.admission import is_websocket
from gateway.wire.http.head import Head
from gateway.wire.http.headers import set_own

CONTRACT_PATH = "/openapi.json"


class _Place(Enum):
    """Paths on which the gateway itself answers."""

    RESPONSES = auto()
    RESPONSE = auto()
    MODELS = auto()
    CONTRACT = auto()


class Router:
    """The one handler of the public port.

    Attributes:
        cors: Which pages may read its answers.
        forwarding: Where what is not ours goes on to.

    Args:
        base_path: The backend's, e.g. `/v1`: the gateway serves the same paths.
        contract: Our OpenAPI document.
    """

    def __init__(
        self,
        callers: Callers,
        responses: Responses,
        passthrough: Passthrough,
        backends: Backends,
        chooser: Routing,
        settings: ServerSettings,
        observer: Observer,
        *,
        base_path: str,
        contract: bytes,
    ) -> None:
        self._callers = callers
        self._responses = responses
        self._passthrough = passthrough
        self._backends = backends
        self._chooser = chooser
        self._settings = settings
        self._observer = observer
        self._collection = f"{base_path}/responses"
        self.forwarding = Forwarding(chooser, collection=self._collection)
        self._contract = contract
        self._models_path = f"{base_path}/models"
        self.cors = Cors(settings, self._is_ours)
        self._refusals = RefusalLog(observer)
        self._under_way = 0
        self._idle = asyncio.Event()

    async def idle(self) -> None:
        """Wait until no request is being answered."""
        while self._under_way:
            self._idle.clear()
            await self._idle.wait()

    def begin(self) -> None:
        """A request is being answered, until its `end`."""
        self._under_way += 1

    def end(self) -> None:
        self._under_way -= 1
        self._idle.set()

    @property
    def is_gate(self) -> bool:
        """Whether callers have to be let in."""
        return self._callers.is_gate

    def tenant(self, head: Head) -> bytes:
        """Whose request it is. Raises: Refusal, if that cannot be told, or the caller may not come in."""
        return self._callers.tenant(head)

    def way(self, head: Head) -> Forwarder | None:
        """Who says how a request goes on, if its answer may come from a backend just as it is."""
        if self.cors.preflight(head) is not None:
            return None
        handler = self._handler(head)
        if handler == self._forward:
            return self.forwarding
        return self._responses.plain if handler == self._responses.create else None

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer a request; whatever goes wrong, with an error that says so."""
        request_id = new_request_id()
        self.begin()
        try:
            response = await self._answer(request, request_id)
        finally:
            self.end()
        if not response.prepared:
            set_own(response.headers, request_id)
        return response

    async def _answer(self, request: web.BaseRequest, request_id: str) -> web.StreamResponse:
        if (preflight := self.cors.preflight(head_of(request))) is not None:
            return preflight
        try:
            self._callers.admit(request)
            return await self._handler(head_of(request))(request, request_id)
        except Refusal as refusal:
            response = error_response(refusal)
            if refusal.fault is Fault.OVERLOADED:
                self._refusals.note(self._callers.of(request, request_id), refusal)
        except Exception:  # a defect costs its own request only
            line("defect", level=logging.ERROR, request=request_id, exc_info=True)
            if request.writer.output_size > 0 and request.transport is not None:
                request.transport.abort()  # a part must not be taken for the whole
            response = error_response(Refusal(Fault.INTERNAL, "The gateway failed.", code="internal_error"))
        self._observer.request_refused(response.status)
        return response

    def _handler(self, head: Head) -> RouteHandler:
        if is_websocket(head):
            return self._tunnel
        match self._place(head.path), head.method:
            case _Place.MODELS, "GET":
                return self._models if head.path == self._models_path else self._model
            case _Place.CONTRACT, "GET":
                return self._show_contract
            case _Place.RESPONSES, "POST":
                return self._responses.create
            case _Place.RESPONSE, method:
                return self._for_one(method, head.path[len(self._collection) + 1 :].split("/"))
        return self._forward

    def _place(self, path: str) -> _Place | None:
        """What of ours is at a path, for some method; None if all of them go to a backend."""
        if path == self._collection:
            return _Place.RESPONSES
        if path.startswith(f"{self._collection}/"):
            first = path[len(self._collection) + 1 :].partition("/")[0]
            return None if first in COMPUTING else _Place.RESPONSE
        if path == self._models_path or path.startswith(f"{self._models_path}/"):
            return _Place.MODELS if self._merges_models else None
        if path == CONTRACT_PATH and self._settings.openapi == "gateway":
            return _Place.CONTRACT
        return None

    @property
    def _merges_models(self) -> bool:
        return len(self._backends.all) > 1 or self._backends.renames

    def _is_ours(self, head: Head) -> bool:
        """Whether some method on the path of a request is answered here."""
        return self._place(head.path) is not None

    def _for_one(self, method: str, segments: list[str]) -> RouteHandler:
        raw_id = segments[0]
        found: JobRoute | None = {
            ("GET",): self._responses.retrieve,
            ("DELETE",): self._responses.delete,
            ("POST", "cancel"): self._responses.cancel,
            ("GET", "input_items"): self._responses.input_items,
        }.get((method, *segments[1:]))
        if found is None or not raw_id:
            return self._forward
        return self._responses.of_one(found, unquote(raw_id))

    async def _show_contract(self, _request: web.BaseRequest, _request_id: str) -> web.StreamResponse:
        return web.Response(body=self._contract, content_type="application/json")

    async def _models(self, request: web.BaseRequest, request_id: str) -> web.StreamResponse:
        return await merged_models(request, self._backends, self._passthrough, request_id=request_id)

    async def _model(self, request: web.BaseRequest, request_id: str) -> web.StreamResponse:
        name = unquote(request.raw_path.partition("?")[0].removeprefix(f"{self._models_path}/"))
        target = self._models_path
        return await one_model(
            request, self._backends, self._passthrough, name, target=target, request_id=request_id
        )

    async def _forward(self, request: web.BaseRequest, request_id: str) -> web.StreamResponse:
        head = head_of(request)
        if (backend := self.forwarding.backend_of(head)) is not None:
            return await self._passthrough.forward(request, backend, request_id=request_id)
        body = await read_body(request, self._settings.body_bytes_max)
        look = self.forwarding.look(head, body, lambda: self._callers.of(request, request_id).tenant)
        found, body = await scanned(look)
        return await self._passthrough.forward(request, found, request_id=request_id, body=body)

    async def _tunnel(self, request: web.BaseRequest, request_id: str) -> web.StreamResponse:
        backend = self._chooser.without_model()
        may_post = request.raw_path.partition("?")[0] == self._collection
        if may_post and (not backend.sees_callers or backend.speech.is_translated):
            raise no_websocket()
        keep_sockets_apart(head_of(request), backend)
        return await tunnel(
            request,
            backend=backend,
            settings=self._settings,
            request_id=request_id,
            observer=self._observer,
            may_post=may_post,
        )
