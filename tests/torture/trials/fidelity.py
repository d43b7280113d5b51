"""What is not the gateway's own, through it and without it: no byte differs that need not."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import aiohttp
from yarl import URL

from tests.torture import shapes
from tests.torture.trial import Bench, trial

_AT_ONCE = 8
_OURS = {
    "server": "backburner",
    "x-content-type-options": "nosniff",
    "cache-control": "no-store",
    "x-accel-buffering": "no",
}
"""What the gateway adds or replaces, and with what; `x-request-id` besides."""
_REMOVED = frozenset(
    {
        "connection",
        "keep-alive",
        "transfer-encoding",
        "date",
        "set-cookie",
        "alt-svc",
        "server",
        "x-request-id",
    }
)


@dataclass(frozen=True, slots=True)
class _Heard:
    status: int
    reason: str | None
    headers: list[tuple[str, str]]
    body: bytes


@trial(
    "T44",
    "requests of every shape, and answers of every shape and of real servers, with and without the gateway",
    pass_mark="status, reason and bytes equal, of streams too; headers but for the documented; both ways",
    runs=500,
    short_runs=200,
    quick_runs=40,
    round_s=10,
)
async def compare(bench: Bench) -> None:
    async with shapes.Server().serving() as server, _client() as session:
        gateway = await bench.gateway(f"{server.url}/v1", server__openapi="backend")
        through = gateway.url.removesuffix("/v1")
        numbers = bench.rounds()

        async def lane() -> None:
            for number in numbers:
                await _compare(bench, session, server, through, number)

        async with asyncio.TaskGroup() as group:
            for _ in range(_AT_ONCE):
                group.create_task(lane())


async def _compare(
    bench: Bench, session: aiohttp.ClientSession, server: shapes.Server, through: str, number: int
) -> None:
    asked = shapes.ask(number)
    what = f"{number}: {asked.method} {asked.target}"
    direct = await _ask(session, server.url, asked)
    passed = await _ask(session, through, asked)
    bench.add("requests")
    bench.add("bytes", len(direct.body))
    is_stream = any(value.startswith("text/event-stream") for _, value in direct.headers)
    bench.add("event streams", is_stream)
    is_same = (direct.status, direct.reason, direct.body) == (passed.status, passed.reason, passed.body)
    bench.require(
        is_same,
        f"{what}: {direct.status} {direct.reason}, {len(direct.body)} bytes; "
        f"through the gateway {passed.status} {passed.reason}, {len(passed.body)} bytes",
    )
    missing = [one for one in direct.headers if one not in passed.headers and one[0] not in _REMOVED]
    missing = [one for one in missing if one[0] not in _OURS or one[0] == "cache-control"]
    added = [one for one in passed.headers if one not in direct.headers and one[0] not in _REMOVED]
    added = [(name, value) for name, value in added if _OURS.get(name) != value]
    bench.require(not missing and not added, f"{what}: headers lost {missing}, won {added}")
    heard = server.heard.pop(number)
    bench.require(len(heard) == 2, f"{what}: the backend was asked {len(heard)} times")
    bench.require(heard[0] == heard[-1], f"{what}: the backend heard {heard[-1]}, not {heard[0]}")


async def _ask(session: aiohttp.ClientSession, root: str, asked: shapes.Ask) -> _Heard:
    body: Any = asked.body
    if asked.is_chunked and asked.body is not None:
        body = _pieces(asked.body)
    url = URL(f"{root}{asked.target}", encoded=True)
    async with session.request(
        asked.method, url, headers=asked.headers, data=body, allow_redirects=False
    ) as answer:
        headers = [(name.lower(), value) for name, value in answer.headers.items()]
        return _Heard(answer.status, answer.reason, headers, await answer.read())


async def _pieces(body: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(body), 10_000):
        yield body[start : start + 10_000]


def _client() -> aiohttp.ClientSession:
    return aiohttp.ClientSession(
        auto_decompress=False,
        skip_auto_headers=("User-Agent", "Accept", "Accept-Encoding", "Content-Type"),
        timeout=aiohttp.ClientTimeout(total=30),
    )
