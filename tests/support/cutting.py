"""A way to a server that can be cut at the worst moment: what is asked arrives, and the answer does not."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class Way:
    """A proxy for bytes on a free port.

    Attributes:
        port: Where it listens.
        loses_answers: From now on, the next answer is thrown away, and all connections are cut.
        is_closed: Connections are cut at once.
        flows: While it is not set, nothing comes through, and nobody is told: not even of an end.
    """

    def __init__(self, to_port: int) -> None:
        self._to_port = to_port
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.StreamWriter] = set()
        self._serving: set[asyncio.Task[None]] = set()
        self.port = 0
        self.loses_answers = False
        self.is_closed = False
        self.flows = asyncio.Event()
        self.flows.set()
        self.cuts = 0

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._serve(reader, writer))
        self._serving.add(task)
        task.add_done_callback(self._serving.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open.add(writer)
        back = writer
        try:
            if self.is_closed:
                return
            await self.flows.wait()
            there, back = await asyncio.open_connection("127.0.0.1", self._to_port)
            self._open.add(back)
            async with asyncio.TaskGroup() as group:
                group.create_task(self._pump(reader, back, is_answer=False))
                group.create_task(self._pump(there, writer, is_answer=True))
        except* (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            for each in {writer, back}:
                each.transport.abort()
            self._open -= {writer, back}

    async def _pump(
        self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, *, is_answer: bool
    ) -> None:
        while chunk := await source.read(65536):
            if is_answer and self.loses_answers:
                self.cuts += 1
                break
            await self.flows.wait()
            sink.write(chunk)
            await sink.drain()
        await self.flows.wait()
        for each in list(self._open):
            if each is sink or self.loses_answers:
                each.transport.abort()

    def cut(self) -> None:
        """All that is open, at once."""
        for each in list(self._open):
            each.transport.abort()

    async def __aenter__(self) -> Way:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        for task in self._serving:
            task.cancel()
        if self._serving:
            await asyncio.wait(self._serving)


@asynccontextmanager
async def way_to(port: int) -> AsyncIterator[Way]:
    async with Way(port) as way:
        yield way
