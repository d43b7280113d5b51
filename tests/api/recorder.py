"""A backend that answers every request it can read, and notes each as it came: what was let through."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import orjson

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"


@dataclass(frozen=True, slots=True)
class Seen:
    """One request as it arrived."""

    line: bytes
    headers: tuple[tuple[bytes, bytes], ...]
    body: bytes

    @property
    def method(self) -> bytes:
        return self.line.split(b" ")[0]

    @property
    def target(self) -> bytes:
        return self.line.split(b" ")[1]

    @property
    def names(self) -> set[bytes]:
        return {name.lower() for name, _ in self.headers}

    def values(self, name: bytes) -> list[bytes]:
        return [value for key, value in self.headers if key.lower() == name]


@dataclass
class Recorder:
    """What came, in order; `broken` has what was no request at all.

    The answer to each is the target that it named. `head` is the beginning of all answers.
    """

    port: int = 0
    head: bytes = HEAD
    requests: list[Seen] = field(default_factory=list)
    broken: list[bytes] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    def take(self) -> list[Seen]:
        """What came since the last time."""
        taken, self.requests = self.requests, []
        return taken

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                seen = await _read(reader)
                if seen.values(b"user-agent") != [b"backburner-healthcheck"]:
                    self.requests.append(seen)
                body = orjson.dumps({"target": seen.target.decode("latin-1")})
                writer.write(self.head + b"Content-Length: %d\r\n\r\n" % len(body))
                if seen.method != b"HEAD":
                    writer.write(body)
        except asyncio.IncompleteReadError as error:
            if error.partial:
                self.broken.append(error.partial)
        except (ConnectionError, asyncio.CancelledError):
            pass
        except Exception as error:
            self.broken.append(repr(error).encode())
        finally:
            writer.close()


async def _read(reader: asyncio.StreamReader) -> Seen:
    """One request. Deliberately simple: whatever it takes for a request was one, to somebody."""
    head = await reader.readuntil(b"\r\n\r\n")
    line, *lines = head[:-4].split(b"\r\n")
    headers = tuple((name, value.strip()) for name, _, value in (each.partition(b":") for each in lines))
    named = {name.lower(): value for name, value in headers}
    if b"transfer-encoding" in named:
        body = b""
        while size := int((await reader.readuntil(b"\r\n")).strip(), 16):
            body += await reader.readexactly(size)
            assert await reader.readexactly(2) == b"\r\n"
        assert await reader.readexactly(2) == b"\r\n"
    else:
        body = await reader.readexactly(int(named.get(b"content-length", b"0")))
    return Seen(line, headers, body)


@asynccontextmanager
async def recording() -> AsyncIterator[Recorder]:
    """A recorder on a free port."""
    recorder = Recorder()
    server = await asyncio.start_server(recorder.serve, "127.0.0.1", 0, limit=2**24)
    recorder.port = server.sockets[0].getsockname()[1]
    try:
        yield recorder
    finally:
        server.close()
