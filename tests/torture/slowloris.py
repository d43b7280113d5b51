"""Connections that take their time, from a process of their own: `python -m tests.torture.slowloris`.

They are opened at even intervals, one kind after the other; those that send do so a byte at a time. Each
notes when it was closed. Says what came of them as JSON.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any
from urllib.parse import urlsplit

import orjson
import uvloop

from gateway.process import raise_file_limit
from tests.acceptance.harness import ROOT, within

_EVERY_S = 1.0
"""Between two bytes."""

_TURNS = 100
"""So many times in between, a part of the connections sends its bytes."""

_LATE_S = 10
_POST = (
    "POST {path}/responses HTTP/1.1\r\nHost: g\r\nContent-Type: application/json\r\nContent-Length: 99999\r\n"
)


@dataclass(frozen=True, slots=True)
class Kind:
    """How a connection is slow.

    Attributes:
        opening: What it sends at once.
        drips: It goes on with a byte now and then.
        status: Of the answer that it gets; 0 for none.
        is_after_answer: It is slow once it has had an answer.
    """

    opening: str
    drips: bool
    status: int
    is_after_answer: bool = False


KINDS = {
    "head": Kind("POST {path}/responses HTTP/1.1\r\nHost: g\r\nX-Slow: ", True, 408),
    "body": Kind(_POST + "\r\n", True, 408),
    "upload": Kind(_POST.replace("responses", "embeddings") + "\r\n", True, 408),  # passed on as it comes
    "body that stops": Kind(_POST + "\r\n{{", False, 408),
    "idle": Kind("", False, 0),
    "idle after an answer": Kind(
        "GET {path}/models HTTP/1.1\r\nHost: g\r\n\r\n", False, 200, is_after_answer=True
    ),
}


@dataclass(frozen=True, slots=True)
class End:
    """What one connection came to.

    Attributes:
        closed_s: How long it was slow until it was closed; None if it is still open.
        status: Of the answer, or 0.
    """

    kind: str
    closed_s: float | None
    status: int


class _Slow(asyncio.Protocol):
    def __init__(self, kind: str, path: str) -> None:
        self.name, self.kind = kind, KINDS[kind]
        self.opening = self.kind.opening.format(path=path).encode()
        self.status = 0
        self.since_s = 0.0
        self.closed_s: float | None = None
        self.transport: Any = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        self.since_s = time.monotonic()
        self.transport.write(self.opening)

    def drip(self) -> None:
        if self.closed_s is None and self.kind.drips:
            self.transport.write(b"a")

    def data_received(self, data: bytes) -> None:
        self.status = self.status or int(data[9:12])
        if self.kind.is_after_answer:
            self.since_s = time.monotonic()

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed_s = time.monotonic() - self.since_s


def _itself(slow: _Slow) -> _Slow:
    return slow


async def be_slow(url: str, count: int, open_s: float, limit_s: float) -> list[End]:
    """So many connections, opened within so many seconds; to the end of all, or somewhat beyond the limit.

    Args:
        limit_s: The longest that any of them may last.
    """
    raise_file_limit()
    parts = urlsplit(url)
    loop = asyncio.get_running_loop()
    assert parts.hostname is not None
    assert parts.port is not None
    names = list(KINDS)
    slow = [_Slow(names[number % len(names)], parts.path) for number in range(count)]
    dripping = asyncio.create_task(_drip(slow))
    started = time.monotonic()
    for number, each in enumerate(slow):
        await asyncio.sleep(started + number * open_s / count - time.monotonic())
        await loop.create_connection(partial(_itself, each), parts.hostname, parts.port)
    deadline = time.monotonic() + limit_s + _LATE_S
    while any(each.closed_s is None for each in slow) and time.monotonic() < deadline:
        await asyncio.sleep(0.1)
    dripping.cancel()
    return [End(each.name, each.closed_s, each.status) for each in slow]


async def _drip(slow: list[_Slow]) -> None:
    turn = 0
    while True:
        for each in slow[turn % _TURNS :: _TURNS]:
            if each.transport is not None:
                each.drip()
        turn += 1
        await asyncio.sleep(_EVERY_S / _TURNS)


async def slowloris(url: str, *, count: int, open_s: float, limit_s: float) -> list[End]:
    """The same, in a process of its own."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.torture.slowloris", url, str(count), str(open_s), str(limit_s)),
        cwd=ROOT,
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        said, _ = await within(process.communicate(), 2 * (open_s + limit_s + _LATE_S) + 30)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    return [End(**end) for end in orjson.loads(said)]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url")
    parser.add_argument("count", type=int)
    parser.add_argument("open_s", type=float)
    parser.add_argument("limit_s", type=float)
    ends = uvloop.run(be_slow(**vars(parser.parse_args())))
    sys.stdout.buffer.write(orjson.dumps([asdict(end) for end in ends]))
