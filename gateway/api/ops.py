"""The admin port: is it alive, is it ready, what is going on."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping

import orjson
from aiohttp import web

from gateway.observe import Observer


class Ops:
    """The one handler of the admin port.

    Args:
        contract: The OpenAPI document of the public port.
        measure: Brings the gauges up to date before a scrape; raises if the store does not answer.
        backends: How they are, for `/readyz`. A backend that is down does not make the gateway unready: it
            still takes jobs, and answers for those it has.
    """

    def __init__(
        self,
        observer: Observer,
        contract: bytes,
        measure: Callable[[], Awaitable[None]],
        backends: Callable[[], Mapping[str, object]],
    ) -> None:
        self._observer = observer
        self._contract = contract
        self._backends = backends
        self._measure = measure
        self.is_draining = False

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """`/healthz`, `/readyz`, `/metrics`, `/openapi.json`."""
        path = request.raw_path.partition("?")[0]
        if request.method not in ("GET", "HEAD"):
            return _json(405, {"error": "only GET"})
        match path:
            case "/healthz":
                return _json(200, {"status": "alive"})
            case "/readyz":
                return await self._ready()
            case "/metrics":
                await self._try_measure()
                self._backends()
                text = "text/plain; version=0.0.4; charset=utf-8"
                return web.Response(body=self._observer.exposition(), headers={"Content-Type": text})
            case "/openapi.json":
                return web.Response(body=self._contract, content_type="application/json")
        return _json(404, {"error": "no such page; there are /healthz, /readyz, /metrics and /openapi.json"})

    async def _ready(self) -> web.Response:
        store = await self._try_measure()
        is_ready = store and not self.is_draining
        state = {
            "status": "ready" if is_ready else "not ready",
            "draining": self.is_draining,
            "store": "ok" if store else "unavailable",
            "backends": self._backends(),
        }
        return _json(200 if is_ready else 503, state)

    async def _try_measure(self) -> bool:
        try:
            await self._measure()
        except Exception:  # whatever it is, the store does not answer; the page must
            return False
        return True


def _json(status: int, body: Mapping[str, object]) -> web.Response:
    return web.Response(status=status, body=orjson.dumps(body), content_type="application/json")
