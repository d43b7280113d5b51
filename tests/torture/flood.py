"""More creates than a gateway can take, from a process of its own: `python -m tests.torture.flood`.

Requests are due at even intervals, and are sent over whatever connection is free; how long an answer took is
counted from when its request was due, so that a gateway that answers late is not asked less for it. Says what
came of it as JSON.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
import time
from collections import deque
from dataclasses import asdict, dataclass, field
from typing import Any
from urllib.parse import urlsplit

import orjson
import uvloop

from tests.acceptance.harness import ROOT, within
from tests.torture.model import create_body

_TICK_S = 0.001
_ANSWERED_S = 120


@dataclass(slots=True)
class Answers:
    """What came of a flood.

    Attributes:
        accepted: Ids and tags.
        refused_s: How long refusals took; `accepted_s`: acceptances.
        retry_after_s: What the refused were told; None where nothing was.
        others: Answers that are neither 200 nor 429, by status; 0 is a connection that was closed.
    """

    accepted: list[tuple[str, str]] = field(default_factory=list)
    refused_s: list[float] = field(default_factory=list)
    accepted_s: list[float] = field(default_factory=list)
    retry_after_s: list[int | None] = field(default_factory=list)
    others: dict[str, int] = field(default_factory=dict)
    seconds: float = 0.0

    @property
    def count(self) -> int:
        return len(self.accepted) + len(self.refused_s) + sum(self.others.values())

    def add(self, later: Answers) -> None:
        """Another flood, of which only what was answered matters, and not when."""
        self.accepted += later.accepted
        self.retry_after_s += later.retry_after_s
        for status, count in later.others.items():
            self.others[status] = self.others.get(status, 0) + count


def percentile(values: list[float], share: float) -> float:
    """0 of no values."""
    if len(values) < 2:
        return max(values, default=0.0)
    return statistics.quantiles(values, n=1000, method="inclusive")[round(share * 1000) - 1]


class _Connection(asyncio.Protocol):
    """Sends one request at a time, and notes its answer."""

    def __init__(self, answers: Answers, idle: deque[_Connection]) -> None:
        self._answers = answers
        self._idle = idle
        self._buffer = b""
        self._due = 0.0
        self._tag = ""
        self._transport: Any = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self._idle.append(self)

    def send(self, request: bytes, tag: str, due: float) -> None:
        self._tag, self._due = tag, due
        self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        head, separator, body = self._buffer.partition(b"\r\n\r\n")
        if not separator or len(body) < int(_header(head, b"content-length") or 0):
            return
        self._buffer = b""
        self._note(int(head.split(b" ", 2)[1]), head, body)
        self._idle.append(self)

    def _note(self, status: int, head: bytes, body: bytes) -> None:
        took_s = time.monotonic() - self._due
        if status == 200:
            self._answers.accepted.append((orjson.loads(body)["id"], self._tag))
            self._answers.accepted_s.append(took_s)
        elif status == 429:
            after = _header(head, b"retry-after")
            self._answers.refused_s.append(took_s)
            self._answers.retry_after_s.append(int(after) if after else None)
        else:
            self._answers.others[str(status)] = self._answers.others.get(str(status), 0) + 1

    def connection_lost(self, exc: Exception | None) -> None:
        if self._tag and self not in self._idle:
            self._answers.others["0"] = self._answers.others.get("0", 0) + 1


def _header(head: bytes, name: bytes) -> bytes | None:
    for line in head.split(b"\r\n")[1:]:
        key, _, value = line.partition(b":")
        if key.lower() == name:
            return value.strip()
    return None


async def pour(
    url: str,
    keys: list[str],
    posts: int,
    seconds: float,
    connections: int,
    tags: str,
    script: dict[str, Any],
) -> Answers:
    """So many creates in so many seconds, of these callers in turn, tagged `tags.0`, `tags.1` and so on."""
    parts = urlsplit(url)
    assert parts.hostname is not None
    answers, idle = Answers(), deque[_Connection]()
    loop = asyncio.get_running_loop()
    for _ in range(connections):
        await loop.create_connection(lambda: _Connection(answers, idle), parts.hostname, parts.port or 80)
    requests = []
    for number in range(posts):
        tag = f"{tags}.{number}"
        body = orjson.dumps(create_body(tag, stream=False, **script))
        head = (
            f"POST {parts.path}/responses HTTP/1.1\r\nHost: {parts.netloc}\r\n"
            f"Authorization: Bearer {keys[number % len(keys)]}\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(body)}\r\n\r\n"
        )
        requests.append((head.encode() + body, tag))
    started = time.monotonic()
    sent = 0
    while sent < posts:
        due = min(posts, int((time.monotonic() - started) / seconds * posts) + 1)
        while sent < due and idle:
            idle.popleft().send(*requests[sent], started + sent / posts * seconds)
            sent += 1
        await asyncio.sleep(_TICK_S)
    deadline = time.monotonic() + _ANSWERED_S
    while answers.count < posts and time.monotonic() < deadline:
        await asyncio.sleep(_TICK_S)
    answers.seconds = time.monotonic() - started
    return answers


async def flood(
    url: str,
    keys: list[str],
    *,
    posts: int,
    seconds: float,
    connections: int = 256,
    tags: str = "flood",
    script: dict[str, Any],
) -> Answers:
    """The same, in a process of its own."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.torture.flood", url, ",".join(keys)),
        *map(str, (posts, seconds, connections, tags)),
        orjson.dumps(script).decode(),
        cwd=ROOT,
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        said, _ = await within(process.communicate(), seconds + 2 * _ANSWERED_S)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    return Answers(**orjson.loads(said))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url")
    parser.add_argument("keys", type=lambda text: text.split(","))
    parser.add_argument("posts", type=int)
    parser.add_argument("seconds", type=float)
    parser.add_argument("connections", type=int)
    parser.add_argument("tags")
    parser.add_argument("script", type=orjson.loads)
    sys.stdout.buffer.write(orjson.dumps(asdict(uvloop.run(pour(**vars(parser.parse_args()))))))
