"""A TCP proxy that does to a connection what networks do: the faults ("toxics") of Shopify's Toxiproxy.

It is controlled over a port of its own. Toxics hold for new and for open connections from the moment they are
set; each works on one direction, `down` (towards the client) or `up`:

    latency     ms, jitter_ms          every piece comes so much later, and so does the end
    bandwidth   bytes_per_s            no more than this
    slicer      bytes, ms              in small pieces, with pauses
    limit_data  bytes, reset           the connection ends after so many, with a RST if `reset`
    reset_peer  after_ms               both ends get a RST
    timeout     after_ms               nothing goes through any more; the end comes after so long (0: never)
    half_open                          nothing goes through, and the other end never learns of a close

With `times`, `limit_data` and `timeout` meet only the next so many connections.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import socket
import struct
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Literal

import orjson
from aiohttp import web

from tests.torture.process import Helper

Direction = Literal["up", "down"]
_READ_BYTES = 64 * 2**10


@dataclass(slots=True)
class Server:
    """The proxy."""

    host: str
    port: int
    toxics: list[dict[str, Any]] = field(default_factory=list)
    open: set[asyncio.StreamWriter] = field(default_factory=set)
    accepted: int = 0

    async def serve(self, client_in: asyncio.StreamReader, client_out: asyncio.StreamWriter) -> None:
        """One connection, to its end in both directions."""
        self.accepted += 1
        self.open.add(client_out)
        try:
            server_in, server_out = await asyncio.open_connection(self.host, self.port)
        except OSError:
            _reset(client_out)
            self.open.discard(client_out)
            return
        self.open.add(server_out)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._reset_in_time(client_out, server_out), name="reset")
                pumps = [
                    group.create_task(self._pump(client_in, server_out, "up")),
                    group.create_task(self._pump(server_in, client_out, "down")),
                ]
                await asyncio.wait(pumps)
                raise _Over
        except* (_Over, OSError):
            pass
        finally:
            for writer in (client_out, server_out):
                self.open.discard(writer)
                writer.close()

    def _toxic(self, kind: str, direction: Direction) -> dict[str, Any] | None:
        return next(
            (one for one in self.toxics if one["kind"] == kind and one.get("stream", direction) == direction),
            None,
        )

    async def _pump(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, direction: Direction
    ) -> None:
        passed = 0
        while True:
            try:
                data = await reader.read(_READ_BYTES)
            except ConnectionError:
                _reset(writer)
                return
            if self._toxic("half_open", direction):
                await asyncio.Event().wait()
            if hole := self._toxic("timeout", direction):
                self._count_down(hole)
                await (asyncio.sleep(hole["after_ms"] / 1000) if hole["after_ms"] else asyncio.Event().wait())
                writer.close()
                return
            if not data:
                await self._delay(direction)
                with suppress(OSError):
                    writer.write_eof()
                return
            if limit := self._toxic("limit_data", direction):
                data = data[: max(0, limit["bytes"] - passed)]
            passed += len(data)
            await self._write(writer, data, direction)
            if limit and passed >= limit["bytes"]:
                self._count_down(limit)
                if limit.get("reset"):
                    _reset(writer)
                    raise _Over
                writer.close()
                return

    def _count_down(self, toxic: dict[str, Any]) -> None:
        if "times" in toxic:
            toxic["times"] -= 1
            if toxic["times"] <= 0 and toxic in self.toxics:
                self.toxics.remove(toxic)

    async def _delay(self, direction: Direction) -> None:
        if latency := self._toxic("latency", direction):
            jitter_ms = latency.get("jitter_ms", 0)
            await asyncio.sleep(max(0, latency["ms"] + random.uniform(-jitter_ms, jitter_ms)) / 1000)

    async def _write(self, writer: asyncio.StreamWriter, data: bytes, direction: Direction) -> None:
        await self._delay(direction)
        slicer = self._toxic("slicer", direction)
        bandwidth = self._toxic("bandwidth", direction)
        size = slicer["bytes"] if slicer else bandwidth["bytes_per_s"] // 20 + 1 if bandwidth else len(data)
        for start in range(0, len(data), size or 1):
            part = data[start : start + size]
            writer.write(part)
            await writer.drain()
            if slicer:
                await asyncio.sleep(slicer.get("ms", 0) / 1000)
            if bandwidth:
                await asyncio.sleep(len(part) / bandwidth["bytes_per_s"])

    async def _reset_in_time(self, *writers: asyncio.StreamWriter) -> None:
        while True:
            if reset := self._toxic("reset_peer", "down"):
                await asyncio.sleep(reset["after_ms"] / 1000)
                for writer in writers:
                    _reset(writer)
                raise _Over
            await asyncio.sleep(0.01)

    # -- its control

    def control(self) -> web.Application:
        app = web.Application()
        app.router.add_put("/toxics", self._set)
        app.router.add_put("/target", self._aim)
        app.router.add_post("/cut", self._cut)
        app.router.add_get("/", self._tell)
        return app

    async def _set(self, request: web.Request) -> web.Response:
        self.toxics = orjson.loads(await request.read())
        return web.json_response({})

    async def _aim(self, request: web.Request) -> web.Response:
        self.host, self.port = orjson.loads(await request.read())
        return web.json_response({})

    async def _cut(self, _request: web.Request) -> web.Response:
        for writer in list(self.open):
            _reset(writer)
        return web.json_response({})

    async def _tell(self, _request: web.Request) -> web.Response:
        return web.json_response({"accepted": self.accepted, "open": len(self.open)})


class _Over(Exception):
    """The connection has ended."""


def _reset(writer: asyncio.StreamWriter) -> None:
    connection = writer.get_extra_info("socket")
    with suppress(OSError):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


class Proxy(Helper):
    """The proxy as a process, seen from a trial."""

    module = "tests.torture.proxy"

    def __init__(self, host: str, port: int) -> None:
        super().__init__("--to", f"{host}:{port}")

    async def infect(self, *toxics: dict[str, Any]) -> None:
        """Have these toxics from now on, and no others: `{"kind": "latency", "stream": "down", "ms": 50}`."""
        await self.ask("PUT", "/toxics", list(toxics))

    async def aim(self, host: str, port: int) -> None:
        """Connect new connections with another server."""
        await self.ask("PUT", "/target", [host, port])

    async def cut(self) -> None:
        """Reset every open connection."""
        await self.ask("POST", "/cut")

    async def tell(self) -> dict[str, int]:
        """`accepted`: connections ever; `open`: ends that are open now."""
        told: dict[str, int] = await self.ask("GET", "/")
        return told


async def _serve(host: str, port: int) -> None:
    proxy = Server(host, port)
    server = await asyncio.start_server(proxy.serve, "127.0.0.1", 0, backlog=1024)
    runner = web.AppRunner(proxy.control(), access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    print(server.sockets[0].getsockname()[1], runner.addresses[0][1], flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--to", required=True, metavar="HOST:PORT")
    target = parser.parse_args().to.rpartition(":")
    asyncio.run(_serve(target[0], int(target[2])))
