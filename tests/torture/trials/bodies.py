"""Bodies and heads made to hurt: large, endless, deep, in a million pieces."""

from __future__ import annotations

import asyncio
import gzip
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from urllib.parse import urlsplit

import aiohttp
import brotli

from tests.api.probes import status_of
from tests.api.recorder import recording
from tests.torture.gateway import Gateway
from tests.torture.trial import Bench, trial
from tests.torture.watch import MIB, Watch, look, loop_busy_s

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

_BODY_BYTES_MAX = 64 * MIB
_MORE_MIB_MAX = 64
_STALL_S = 0.1
_TRIES = 4
"""A stall of the gateway's comes each time, one of the machine's does not."""
_WAIT_S = 60
_PIECE = 2**16
_HEAD = b"POST /v1/responses HTTP/1.1\r\nHost: g\r\nContent-Type: application/json\r\n"
_CHUNKED = _HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
_BACKGROUND = b'{"model":"m","background":true,"input":'


@dataclass(frozen=True, slots=True)
class Abuse:
    """One request.

    Attributes:
        pieces: What is sent, a piece at a time.
        statuses: Of these is the answer.
        kept_bytes: Of its body the settings allow so much to be kept.
    """

    name: str
    pieces: Callable[[], list[bytes]]
    statuses: tuple[int, ...]
    kept_bytes: int = 0


def _with_length(body: bytes, *more: bytes) -> list[bytes]:
    return [b"".join((_HEAD, *more, b"Content-Length: %d\r\n\r\n" % len(body))), body]


def _many(piece: bytes, size: int) -> list[bytes]:
    per_piece = max(1, _PIECE // len(piece))
    return [piece * per_piece] * (size // (len(piece) * per_piece) + 1)


def _bomb(coding: str, pack: Callable[[bytes], bytes]) -> Abuse:
    """A gigabyte in a megabyte, or less."""
    header = b"Content-Encoding: %b\r\n" % coding.encode()
    return Abuse(
        f"{coding} bomb",
        lambda: _with_length(pack(bytes(64 * MIB)), header),
        (413,),
        kept_bytes=_BODY_BYTES_MAX,
    )


_ABUSES = (
    Abuse(
        "64 MiB + 1, told", lambda: [_HEAD + b"Content-Length: %d\r\n\r\n" % (_BODY_BYTES_MAX + 1)], (413,)
    ),
    Abuse(
        "64 MiB + 1, in chunks",
        lambda: [_CHUNKED, *_many(b"%x\r\n%b\r\n" % (_PIECE, b" " * _PIECE), _BODY_BYTES_MAX + _PIECE)],
        (413,),
        kept_bytes=_BODY_BYTES_MAX,
    ),
    Abuse(
        "a million chunks of a byte",
        lambda: [_CHUNKED, *_many(b"1\r\n{\r\n", 6_000_000), b"0\r\n\r\n"],
        (200,),
    ),
    Abuse(
        "chunks without an end",
        lambda: [_CHUNKED + b"fffffffffffffff\r\n", *_many(b" " * 99, MIB), b""],
        (408,),
    ),
    _bomb("gzip", lambda zeros: gzip.compress(zeros) * 16),
    _bomb("zstd", lambda zeros: zstd.compress(zeros) * 16),
    _bomb("br", lambda zeros: brotli.compress(zeros * 16, quality=1)),
    _bomb("gzip, gzip", lambda zeros: gzip.compress(gzip.compress(zeros) * 16)),
    Abuse(
        "100,000 levels", lambda: _with_length(_BACKGROUND + b"[" * 100_000 + b"]" * 100_000 + b"}"), (400,)
    ),
    Abuse("a key twice", lambda: _with_length(_BACKGROUND + b'"a","input":"b"}'), (400,)),
    Abuse(
        "a key 100,000 times",
        lambda: _with_length(_BACKGROUND + b'"a"' + b',"input":"b"' * 100_000 + b"}"),
        (400,),
    ),
    Abuse("NaN", lambda: _with_length(_BACKGROUND + b"NaN}"), (400,)),
    Abuse(
        "30 MiB of empty lists",
        lambda: _with_length(_BACKGROUND + b"[" + b"[]," * (10 * MIB) + b"0]}"),
        (400,),
        kept_bytes=30 * MIB,
    ),
    Abuse(
        "a million keys",
        lambda: _with_length(b'{"background":true,' + b",".join(b'"%d":1' % n for n in range(10**6)) + b"}"),
        (400,),
        kept_bytes=10 * MIB,
    ),
    Abuse(
        "100,000 wrong items",
        lambda: _with_length(_BACKGROUND + b"[" + b"1," * 99_000 + b'1],"model":"m"}'),
        (400,),
    ),
    Abuse(
        "100,000 keys",
        lambda: _with_length(
            _BACKGROUND
            + b'[{"role":"user","content":"x","a":{'
            + b",".join(b'"%d":1' % n for n in range(99_000))
            + b"}}]}"
        ),
        (200,),
    ),
    Abuse(
        "60 MiB of text, plain",
        lambda: _with_length(b'{"input":"' + b"text " * (12 * MIB) + b'"}'),
        (200,),
        kept_bytes=60 * MIB,
    ),
    Abuse("10,000 headers", lambda: [_HEAD, *_many(b"A: b\r\n", 60_000), b"\r\n"], (431,)),
    Abuse("a header of 10 MiB", lambda: [_HEAD + b"A: ", *_many(b"b" * 99, 10 * MIB), b"\r\n\r\n"], (431,)),
    Abuse(
        "a target of 10 MiB", lambda: [b"GET /", *_many(b"b" * 99, 10 * MIB), b" HTTP/1.1\r\n\r\n"], (431,)
    ),
)


@trial(
    "T32",
    "; ".join(abuse.name for abuse in _ABUSES),
    pass_mark=f"the status that each must have; RSS at most {_MORE_MIB_MAX} MiB more than what the settings "
    f"let it keep; no stall of the event loop over {_STALL_S * 1000:g} ms",
    runs=20,
    short_runs=1,
    quick_runs=1,
    round_s=60,
)
async def abuse_bodies(bench: Bench) -> None:
    async with recording() as recorder:
        for number in bench.rounds():
            gateway: Gateway | None = None
            for abuse in _ABUSES:
                if gateway is not None and bench.runs > 1:  # memory once taken may be used again by the next
                    await gateway.kill9()
                    gateway = None
                if gateway is None:
                    gateway = await bench.gateway(recorder.url, server__body_idle_timeout_s=0.5)
                await _abuse(bench, gateway, abuse, f"{abuse.name}, round {number}")
            if gateway is not None:
                await gateway.kill9()


async def _abuse(bench: Bench, gateway: Gateway, abuse: Abuse, what: str) -> None:
    pieces, stall_s = abuse.pieces(), 0.0
    before = look(gateway).rss_bytes
    async with Watch(gateway, every_s=0.02) as watch:
        for _ in range(_TRIES):
            answers: list[bytes] = []
            stall_s = await _longest_stall_s(gateway, _send(gateway, pieces, answers))
            status = status_of(answers[0])
            bench.require(status in abuse.statuses, f"{what}: {answers[0][:200]!r}")
            if stall_s <= _STALL_S:
                break
        watch.samples.append(look(gateway))
    more = watch.rss_max() - before - abuse.kept_bytes
    bench.most("RSS MiB more", more / MIB)
    bench.most("longest stall s", stall_s)
    bench.require(more <= _MORE_MIB_MAX * MIB, f"{what}: {more / MIB:.0f} MiB more")
    bench.require(stall_s <= _STALL_S, f"{what}: nobody else was answered for {stall_s * 1000:.0f} ms")


async def _send(gateway: Gateway, pieces: list[bytes], answers: list[bytes]) -> None:
    parts = urlsplit(gateway.url)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port)

    async def write() -> None:
        with suppress(ConnectionError):
            for piece in pieces:
                writer.write(piece)
                await writer.drain()

    writing = asyncio.create_task(write())
    try:
        async with asyncio.timeout(_WAIT_S):
            try:
                answers.append(await reader.readuntil(b"\r\n\r\n"))
            except (ConnectionError, asyncio.IncompleteReadError) as error:
                answers.append(repr(error).encode())
    finally:
        writing.cancel()
        writer.close()
        await asyncio.wait([writing])


async def _longest_stall_s(gateway: Gateway, other: Awaitable[None]) -> float:
    """The longest that somebody else has waited for an answer meanwhile, while the gateway was busy: what it
    has waited for a turn on the machine is not its own."""
    longest_s = 0.0
    async with aiohttp.ClientSession() as session:
        task = asyncio.ensure_future(other)
        while not task.done():
            started, busy_s = time.monotonic(), loop_busy_s(gateway)
            async with session.get(f"{gateway.admin}/healthz") as answer:
                await answer.read()
            longest_s = max(longest_s, min(time.monotonic() - started, loop_busy_s(gateway) - busy_s))
            await asyncio.sleep(0.002)
        await task
    return longest_s
