"""The admin port: is it alive, is it ready, what is going on."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import orjson
from aiohttp import web

from gateway.api.admin import page, v1
from gateway.api.admin.page import UiFiles
from gateway.api.admin.roles import Access, Role
from gateway.api.admin.v1 import AdminApi
from gateway.api.admin.webhooks import ReceiverRoutes
from gateway.core.job import StoreUnavailable
from gateway.observe import Observer

_REFUSED = "this page wants the admin token: server.admin_token_file or server.admin_token_env"


class Ops:
    """The one handler of the admin port.

    Args:
        contract: The OpenAPI document of the public port.
        measure: Brings the gauges up to date before a scrape; raises if the store does not answer.
        answers: Raises if the store does not answer.
        backends: How they are, for `/readyz`. A backend that is down does not make the gateway unready: it
            still takes jobs, and answers for those it has.
        access: Who may change anything, or see an address.
        api: Everything under `/api/v1/`.
        page: The page `/ui`; None: it is turned off.
        store: How the store is. In trouble it takes no new jobs, but all else goes on: were the gateway
            unready, it would lose its plain requests and its pollers as well.
    """

    def __init__(
        self,
        observer: Observer,
        contract: bytes,
        measure: Callable[[], Awaitable[None]],
        answers: Callable[[], Awaitable[None]],
        backends: Callable[[], Mapping[str, object]],
        store: Callable[[], str],
        receivers: ReceiverRoutes,
        access: Access,
        api: AdminApi,
        page: UiFiles | None,
    ) -> None:
        self._observer = observer
        self._contract = contract
        self._backends = backends
        self._receivers = receivers
        self._measure = measure
        self._answers = answers
        self._store = store
        self._access = access
        self._api = api
        self._page = page
        self.is_draining = False

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """`/healthz`, `/readyz`, `/metrics`, `/webhooks`, `/openapi.json`, `/ui`, `/api/v1/…`."""
        path = request.raw_path.partition("?")[0]
        if path.startswith(v1.PREFIX):
            return await self._api.handle(request)
        if path == "/webhooks":
            return await self._webhooks(request)
        if request.method not in ("GET", "HEAD"):
            return _json(405, {"error": "only GET"})
        match path:
            case "/healthz":
                return _json(200, {"status": "alive"})
            case "/readyz":
                return await self._ready(shows_addresses=self._is_trusted(request))
            case "/metrics":
                await _succeeds(self._measure)
                self._backends()
                text = "text/plain; version=0.0.4; charset=utf-8"
                return web.Response(body=self._observer.exposition(), headers={"Content-Type": text})
            case "/openapi.json":
                return web.Response(body=self._contract, content_type="application/json")
        if self._page is not None and (path == page.PREFIX or path.startswith(f"{page.PREFIX}/")):
            return self._page.handle(request)
        pages = "/healthz, /readyz, /metrics, /webhooks, /openapi.json, /ui and /api/v1/"
        return _json(404, {"error": f"no such page; there are {pages}"})

    def _is_trusted(self, request: web.BaseRequest) -> bool:
        return self._access.role(request) is Role.ADMIN

    async def _webhooks(self, request: web.BaseRequest) -> web.Response:
        if not self._is_trusted(request):
            return _json(401 if self._access.has_token else 403, {"error": _REFUSED})
        try:
            match request.method:
                case "GET" | "HEAD":
                    return _json(200, await self._receivers.show())
                case "POST":
                    return _json(*await self._receivers.change(request))
        except StoreUnavailable:
            return _json(503, {"error": "the store does not answer"})
        return _json(405, {"error": "only GET and POST"})

    async def _ready(self, *, shows_addresses: bool) -> web.Response:
        store = self._store() if await _succeeds(self._answers) else "unavailable"
        is_ready = store != "unavailable" and not self.is_draining
        state = {
            "status": "not ready" if not is_ready else "ready" if store == "ok" else "degraded",
            "draining": self.is_draining,
            "store": store,
            "backends": self._backends() if shows_addresses else _without_addresses(self._backends()),
        }
        return _json(200 if is_ready else 503, state)


async def _succeeds(ask_store: Callable[[], Awaitable[None]]) -> bool:
    try:
        await ask_store()
    except Exception:  # whatever it is, the store does not answer; the page must
        return False
    return True


def _json(status: int, body: Mapping[str, object]) -> web.Response:
    return web.Response(status=status, body=orjson.dumps(body), content_type="application/json")


def _without_addresses(value: Any) -> Any:
    """The same for whoever may not know where the model servers are."""
    if isinstance(value, Mapping):
        return {name: _without_addresses(each) for name, each in value.items() if name != "url"}
    return [_without_addresses(each) for each in value] if isinstance(value, list) else value
