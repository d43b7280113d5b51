"""Three gateways on one database that look like one: each request goes to one of them, chosen by chance.

With `REPLICAS=all`, tests that start a gateway get this in its place.
"""

from __future__ import annotations

import asyncio
import base64
import os
import random
import re
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.harness import Gateway
from tests.support.member import Member

IS_SPREAD = os.environ.get("REPLICAS") == "all"
COUNT = 3
_KEYS = f"test:{base64.b64encode(b's' * 32).decode()}\n"
_OF_THE_FILE = tuple(f"BACKBURNER_STORE__{name}" for name in ("DATABASE", "BALLAST", "WAL", "CHECK", "ON_"))
_KEPT = re.compile(rb"\r\nconnection: *(?!upgrade)[^\r]*", re.IGNORECASE)


class Front:
    """A load balancer. A connection is good for one request, so that the next one may go elsewhere.

    Attributes:
        addresses: Where it may lead.
    """

    def __init__(self) -> None:
        self.addresses: list[str] = []
        self.url = ""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()
            return
        if b"upgrade:" not in head.lower():
            head = _KEPT.sub(b"", head[:-2]) + b"Connection: close\r\n\r\n"
        port = int(random.choice(self.addresses).split(":")[2].partition("/")[0])
        try:
            there, back = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            writer.transport.abort()
            return
        back.write(head)
        sides = [asyncio.create_task(_pump(reader, back)), asyncio.create_task(_pump(there, writer))]
        await asyncio.wait(sides, return_when=asyncio.FIRST_COMPLETED)
        if not sides[1].done():
            back.transport.abort()  # the client has hung up
        await asyncio.wait(sides)


async def _pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    with suppress(ConnectionError):
        while chunk := await source.read(65536):
            sink.write(chunk)
            await sink.drain()
    sink.close()


@asynccontextmanager
async def front() -> AsyncIterator[Front]:
    made, serving = Front(), set[asyncio.Task[None]]()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(made.serve(reader, writer))
        serving.add(task)
        task.add_done_callback(serving.discard)

    server = await asyncio.start_server(accept, "127.0.0.1", 0, limit=2**20)
    made.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
    try:
        yield made
    finally:
        server.close()
        for task in list(serving):
            task.cancel()
        if serving:
            await asyncio.wait(serving)


class Spread(Gateway):
    """All of them. What is done to the process is done to each; what they log is one log."""

    def __init__(
        self, front: Front, url: str, upstream: str, directory: Path, *flags: str, **environ: object
    ) -> None:
        if own := [name for name in environ if name.startswith(_OF_THE_FILE)]:
            pytest.skip(f"it is about the file: {', '.join(own)}")
        super().__init__(upstream, directory / "none", *flags, **environ)
        keys = directory / "sealing-keys"
        keys.write_text(_KEYS)
        keys.chmod(0o600)
        shared = {"BACKBURNER_STORE__URL": url, "BACKBURNER_CREDENTIALS__SEALING_KEYS_FILE": str(keys)}
        self._front = front
        places = [directory / f"replica-{number}" for number in range(COUNT)]
        for place in places:
            place.mkdir()
        self.members = [
            Member(self, upstream, place / "none", *flags, **{**shared, **environ}) for place in places
        ]

    @property
    def database(self) -> Path:
        pytest.skip("it looks into the file")

    @database.setter
    def database(self, path: Path) -> None:
        """There is none."""

    def heard(self, line: bytes, fields: dict[str, Any]) -> None:
        super().heard(line, fields)
        self.lines.append(fields)
        self._news.set()

    async def spawn(self) -> None:
        self.lines = []
        await asyncio.gather(*(member.spawn() for member in self.members))

    async def listening(self) -> None:
        await asyncio.gather(*(member.listening() for member in self.members))
        self._front.addresses = [member.url for member in self.members]
        self.url, self.admin = self._front.url, self.members[0].admin

    def send(self, number: signal.Signals) -> None:
        for member in self.members:
            member.send(number)

    async def exit_status(self) -> int:
        return max(await asyncio.gather(*(member.exit_status() for member in self.members)), key=abs)

    @property
    def is_running(self) -> bool:
        return any(member.is_running for member in self.members)

    async def restart(self, **environ: str) -> None:
        for member in self.members:
            member._environ |= environ
        await self.start()

    async def metric(self, sample: str) -> float:
        """The sum: no test that runs here asks for what all have in common."""
        return sum([await member.metric(sample) for member in self.members])

    async def close(self) -> None:
        await self.leave()
        await asyncio.gather(*(member.close() for member in self.members))
