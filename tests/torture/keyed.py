"""The model server that knows its callers, as a process; and what lies in wait where it redirects to."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

from aiohttp import web

from tests.acceptance.keyed import KeyedServer
from tests.torture.process import Helper


class Keyed(Helper):
    """The server, seen from a trial."""

    module = "tests.torture.keyed"

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    async def told(self) -> dict[str, Any]:
        """`cookies`: requests with one; `trapped`: headers of those that followed a redirect; `asked`: how
        many, by path; `seen`: method, path and headers of the last ones."""
        found: dict[str, Any] = await self.ask("GET", "/told")
        return found

    async def take(self, *keys: str) -> None:
        """Only these keys are good from now on; without any, all are."""
        await self.ask("POST", "/take", list(keys))


async def _serve() -> None:
    server = KeyedServer()
    trapped: list[dict[str, str]] = []

    async def trap(request: web.Request) -> web.Response:
        trapped.append(dict(request.headers))
        return web.Response(text="trapped")

    async def told(_request: web.Request) -> web.Response:
        asked = Counter({path: n for path, n in server.asked.items() if not path.startswith("/v1/echo")})
        found = {"cookies": server.cookies, "trapped": trapped, "asked": asked, "seen": list(server.seen)}
        return web.json_response(found)

    async def take(request: web.Request) -> web.Response:
        server.keys = set(await request.json()) or None
        return web.json_response({})

    waiting, control = web.Application(), web.Application()
    waiting.router.add_route("*", "/{path:.*}", trap)
    control.router.add_get("/told", told)
    control.router.add_post("/take", take)
    ports = []
    for app in (waiting, control):
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        ports.append(runner.addresses[0][1])
    server.elsewhere = f"http://127.0.0.1:{ports[0]}/v1/trap"
    async with server.running():
        print(server.url.removesuffix("/v1").rpartition(":")[2], ports[1], flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(_serve())
