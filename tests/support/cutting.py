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
    """

    def __init__(self, to_port: int) -> None:
        self._to_port = to_port
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.StreamWriter] = set()
        self.port = 0
        self.loses_answers = False
        self.is_closed = False
        self.cuts = 0

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.is_closed:
            writer.transport.abort()
            return
        there, back = await asyncio.open_connection("127.0.0.1", self._to_port)
        self._open |= {writer, back}
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._pump(reader, back, is_answer=False))
                group.create_task(self._pump(there, writer, is_answer=True))
        except* (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            self._open -= {writer, back}

    async def _pump(
        self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, *, is_answer: bool
    ) -> None:
        while chunk := await source.read(65536):
            if is_answer and self.loses_answers:
                self.cuts += 1
                break
            sink.write(chunk)
            await sink.drain()
        for each in list(self._open):
            if each is sink or self.loses_answers:
                each.transport.abort()

    def cut(self) -> None:
        """All that is open, at once."""
        for each in list(self._open):
            each.transport.abort()

    async def __aenter__(self) -> Way:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        self.cut()


@asynccontextmanager
async def way_to(port: int) -> AsyncIterator[Way]:
    async with Way(port) as way:
        yield way
