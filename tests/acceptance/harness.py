"""The gateway as its users meet it: a process, a socket, a file, and the official client.

Nothing is replaced inside the process. What it does is learned from its log lines and its answers, so a
test waits for a line or an event and never for a time.
"""

from __future__ import annotations

import asyncio
import io
import os
import signal
import sys
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import aiohttp
import orjson
from openai import AsyncOpenAI

from tests.support.nursery import Forked, fork

ROOT = Path(__file__).resolve().parents[2]
KEY = "sk-acceptance-canary-0123456789"
WAIT_S = 20.0
"""Bound of every wait; nothing here should take more than a second or two."""

T = TypeVar("T")


async def within(awaitable: Awaitable[T], seconds: float = WAIT_S) -> T:
    """The result, or TimeoutError: a test never hangs."""
    async with asyncio.timeout(seconds):
        return await awaitable


def frames(stream: bytes) -> list[bytes]:
    """The whole events of a stream, comments left out."""
    return [part + b"\n\n" for part in stream.split(b"\n\n")[:-1] if not part.startswith(b":")]


def payload(frame: bytes) -> dict[str, Any]:
    """The JSON of one event."""
    parsed: dict[str, Any] = orjson.loads(frame[frame.index(b"\ndata: ") + 7 :])
    return parsed


def numbers(events: list[bytes]) -> list[int]:
    return [payload(event)["sequence_number"] for event in events]


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer as it came over the wire; names of headers in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return orjson.loads(self.body)

    @property
    def error(self) -> dict[str, Any]:
        found: dict[str, Any] = self.json()["error"]
        return found


class Gateway:
    """One `backburner serve`, which can be ended in every way and started again on its file.

    Attributes:
        lines: The log of the running process, parsed.
        stderr: Everything all processes of this gateway wrote there.
        may_be_forked: It may come from `nursery`, in a third of the time of a start.
    """

    may_be_forked = True

    def __init__(self, upstream: str, database: Path, *flags: str, **environ: object) -> None:
        self.database = database
        self._directory = database.parent
        self.upstream = upstream
        self.flags = flags
        self.url = self.admin = ""
        self.lines: list[dict[str, Any]] = []
        self.stderr = bytearray()
        self._environ = {name: str(value) for name, value in environ.items()}
        self._process: asyncio.subprocess.Process | Forked | None = None
        self._reading: asyncio.Task[None] | None = None
        self._news = asyncio.Event()
        self._clients: list[AsyncOpenAI] = []
        self._session: aiohttp.ClientSession | None = None

    # -- the process

    async def start(self) -> Gateway:
        """Start, and return when it listens."""
        await self.spawn()
        await self.listening()
        return self

    async def listening(self) -> None:
        """Wait until it answers."""
        said = await self.line(event="listening")
        self.url, self.admin = said["url"], said["admin"]

    async def spawn(self) -> None:
        """Start, and return at once."""
        self.lines = []
        clean = {name: value for name, value in os.environ.items() if not name.startswith("BACKBURNER_")}
        environ = {**clean, "PYTHONPATH": str(ROOT), **self._environ}
        flags = (
            *("serve", "--port", "0"),
            *(("--upstream", self.upstream) if self.upstream else ()),  # or a file names the backends
            *("--admin-port", "0", *self.kept_in(), *self.flags),
        )
        command = self.command()
        is_plain = command == ["gateway"] and all(name.startswith("BACKBURNER_") for name in self._environ)
        if is_plain and self.may_be_forked:
            self._process = await fork(flags, cwd=self._directory, env=environ)
        else:  # what matters to the interpreter itself has to be there when it starts
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", *command, *flags),
                cwd=self._directory,
                env=environ,
                stderr=asyncio.subprocess.PIPE,
            )
        self._reading = asyncio.create_task(self._read())

    def kept_in(self) -> list[str]:
        """Flags that name its database."""
        return ["--database", str(self.database)]

    def command(self) -> list[str]:
        """The module that is started, and what it is told before the command."""
        return ["gateway"]

    def heard(self, line: bytes, fields: dict[str, Any]) -> None:
        """Every line that any of the processes writes, as it comes."""
        self.stderr += line

    def stop_reading(self) -> None:
        """Leave its log alone, as a log shipper does that hangs."""
        assert self._reading is not None
        self._reading.cancel()

    def read_on(self) -> None:
        """Where the reading was stopped."""
        self._reading = asyncio.create_task(self._read())

    async def _read(self) -> None:
        assert self._process is not None
        assert self._process.stderr is not None
        async for line in self._process.stderr:
            fields = orjson.loads(line) if line.startswith(b"{") else {"event": line.decode()}
            self.heard(line, fields)
            self.lines.append(fields)
            self._news.set()
        self.lines.append({"event": "process ended"})
        self._news.set()

    async def line(self, **fields: object) -> dict[str, Any]:
        """The first log line with these fields, said already or still to come."""
        async with asyncio.timeout(WAIT_S):
            while True:
                for line in self.lines:
                    if fields.items() <= line.items():
                        return line
                await self.more_lines()

    async def more_lines(self) -> None:
        """Wait for the next line; there is nothing to wait for after a crash or a defect."""
        is_broken = any(line["event"] in ("process ended", "defect", "task_died") for line in self.lines)
        assert not is_broken, self.stderr.decode()
        self._news.clear()
        await self._news.wait()

    def send(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    async def exit_status(self) -> int:
        """Wait for the end of the process, and of what it had to say."""
        assert self._process is not None
        assert self._reading is not None
        status = await within(self._process.wait(), 60)
        await within(self._reading)
        return status

    @property
    def pid(self) -> int:
        """Of the last process that was started."""
        assert self._process is not None
        return self._process.pid

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.returncode is None

    async def stop(self) -> int:
        """SIGTERM, and the exit status."""
        self.send(signal.SIGTERM)
        return await self.exit_status()

    async def kill9(self) -> None:
        """As good as a power cut for the process: it gets to do nothing more."""
        self.send(signal.SIGKILL)
        await self.exit_status()

    async def restart(self, **environ: str) -> None:
        """A new process on the same file, with the same settings but for these; it has new ports."""
        self._environ = {**self._environ, **environ}
        await self.start()

    async def close(self) -> None:
        """End whatever is left. A process that still runs must leave in good order."""
        await self.leave()
        if self.is_running:
            assert await self.stop() == 0, self.stderr.decode()
        complaints = [line for line in self.lines if line.get("level") in ("error", "critical")]
        assert complaints == [], complaints
        assert b"Traceback" not in self.stderr, self.stderr.decode()

    # -- its clients

    async def leave(self) -> None:
        """Hang up."""
        for client in self._clients:
            await client.close()
        if self._session is not None:
            await self._session.close()

    def client(self, api_key: str = KEY) -> AsyncOpenAI:
        """The unmodified official client; retries off, so that each call is one call."""
        client = AsyncOpenAI(base_url=self.url, api_key=api_key, max_retries=0, timeout=WAIT_S)
        self._clients.append(client)
        return client

    @property
    def http(self) -> aiohttp.ClientSession:
        """For what the official client hides: bytes."""
        if self._session is None:
            self._session = aiohttp.ClientSession(
                auto_decompress=False, timeout=aiohttp.ClientTimeout(total=WAIT_S)
            )
        return self._session

    async def call(
        self,
        method: str,
        path: str,
        body: bytes | dict[str, Any] | None = None,
        *,
        key: str | None = KEY,
        more: dict[str, str] | None = None,
    ) -> Reply:
        """One request, its whole answer; `more` headers go with it."""
        headers = {"Content-Type": "application/json"} if body is not None else {}
        headers |= more or {}
        if key is not None:
            headers["Authorization"] = f"Bearer {key}"
        raw = orjson.dumps(body) if isinstance(body, dict) else body
        data = io.BytesIO(raw) if raw is not None else None  # aiohttp warns of large bodies that are bytes
        async with self.http.request(method, self.url + path, data=data, headers=headers) as answer:
            named = {name.lower(): value for name, value in answer.headers.items()}
            return Reply(answer.status, named, await answer.read())

    @asynccontextmanager
    async def events(
        self, path: str, body: dict[str, Any] | None = None, *, key: str = KEY
    ) -> AsyncIterator[AsyncIterator[bytes]]:
        """A stream, event by event as bytes; leaving the block hangs up."""
        method, data = ("GET", None) if body is None else ("POST", orjson.dumps(body))
        headers = {"Authorization": f"Bearer {key}"} | (
            {} if data is None else {"Content-Type": "application/json"}
        )
        async with self.http.request(method, self.url + path, data=data, headers=headers) as answer:
            assert answer.status == 200, await answer.read()
            assert answer.headers["Content-Type"] == "text/event-stream; charset=utf-8"
            yield _frames_of(answer)
            answer.close()

    async def replay(self, response_id: str, *, after: int | None = None, key: str = KEY) -> bytes:
        """A whole stream, to its end."""
        cursor = "" if after is None else f"&starting_after={after}"
        answer = await self.call("GET", f"/responses/{response_id}?stream=true{cursor}", key=key)
        assert answer.status == 200, answer.body
        return answer.body

    async def ended(self, response_id: str) -> dict[str, Any]:
        """The final object of a response, as soon as there is one."""
        await self.log_of_end(response_id)
        answer = await self.call("GET", f"/responses/{response_id}")
        assert answer.status == 200, answer.body
        found: dict[str, Any] = answer.json()
        return found

    async def log_of_end(self, response_id: str) -> dict[str, Any]:
        """The log line by which a response ended."""
        async with asyncio.timeout(WAIT_S):
            while True:
                for line in self.lines:
                    if line.get("id") == response_id and line.get("to") in _ENDS:
                        return line
                await self.more_lines()

    async def metric(self, sample: str) -> float:
        """One sample of /metrics, e.g. `backburner_jobs{status="queued"}`; 0 if it never moved."""
        async with self.http.get(f"{self.admin}/metrics") as answer:
            for line in (await answer.text()).splitlines():
                name, _, value = line.rpartition(" ")
                if name == sample:
                    return float(value)
        return 0.0


_ENDS = frozenset({"completed", "incomplete", "failed", "cancelled"})


async def _frames_of(answer: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
    buffer = b""
    async for chunk in answer.content.iter_any():
        *whole, buffer = (buffer + chunk).split(b"\n\n")
        for part in whole:
            if not part.startswith(b":"):
                yield part + b"\n\n"
