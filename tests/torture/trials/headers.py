"""Headers that belong to one connection, one hop or one tenant, and their twins."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator
from urllib.parse import urlsplit

import orjson

from tests.api.probes import exchange
from tests.api.recorder import HEAD, Recorder, recording
from tests.torture.trial import Bench, trial

_CANARY = "hop-canary"
_HOP_BY_HOP = ("Keep-Alive", "TE", "Trailer", "Upgrade", "HTTP2-Settings", "Proxy-Connection", "Proxy-Any")
_TO_BACKEND = (
    *_HOP_BY_HOP,
    *(
        "Proxy-Authorization",
        "Proxy-Authenticate",
        "Cookie",
        "Forwarded",
        "X-Forwarded-For",
        "X-Forwarded-Host",
    ),
    *(
        "X-Forwarded-Proto",
        "X-Forwarded-Any",
        "X-Real-IP",
        "X-Request-Id",
        "Last-Event-ID",
        "Idempotency-Key",
    ),
)
_TO_CLIENT = (
    *_HOP_BY_HOP,
    *("Proxy-Authenticate", "Set-Cookie", "Server", "Alt-Svc", "X-Accel-Redirect", "X-Accel-Buffering"),
    *("X-Accel-Any", "X-Request-Id"),
)
_NOMINATED = ("X-Nominated", "X-Api-Version", "Accept-Language", "Trace-State")
_GOOD = ("X-Good", "OpenAI-Beta", "Last-Modified", "X-RateLimit-Remaining")
"""These must go across: a gateway that forwards nothing would pass otherwise."""

_LOOKS = 500

_PLAIN = orjson.dumps({"model": "m", "input": "text"})
_BACKGROUND = orjson.dumps({"model": "m", "input": "text", "background": True})
_WAYS = {
    "plain": (b"POST /v1/chat/completions", _PLAIN),
    "create": (b"POST /v1/responses", _PLAIN),
    "background": (b"POST /v1/responses", _BACKGROUND),
    "look-up": (b"GET /v1/responses/resp_unknown", b""),
    "socket": (b"GET /v1/realtime", b""),
}
_SOCKET = (
    ("Connection", "Upgrade"),
    ("Upgrade", "websocket"),
    ("Sec-WebSocket-Version", "13"),
    ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
)


@trial(
    "T30",
    "all headers that must not cross, and those that Connection names, in many spellings, each way that a "
    "request takes and back",
    pass_mark="0 forwarded; all good ones are",
    runs=200,
    short_runs=20,
    quick_runs=2,
    round_s=10,
)
async def forward_no_hop_by_hop(bench: Bench) -> None:
    dice = random.Random(30)
    async with recording() as recorder:
        gateway = await bench.gateway(recorder.url, upstream__health_interval_s=3600)
        port = urlsplit(gateway.url).port or 0
        for _ in bench.rounds():
            for way, (line, body) in _WAYS.items():
                await _there(bench, recorder, port, dice, way, line, body)
            await _back(bench, recorder, port, dice)


async def _there(
    bench: Bench, recorder: Recorder, port: int, dice: random.Random, way: str, line: bytes, body: bytes
) -> None:
    recorder.take()
    sent = [*_spelled(_TO_BACKEND, dice), *_nominated(dice), *((name, "good") for name in _GOOD)]
    dice.shuffle(sent)
    if way == "background":  # there it has a meaning, and only one may be given
        sent = [(name, value) for name, value in sent if name.lower() != "idempotency-key"]
        sent.append(("Idempotency-Key", f"{_CANARY}-{dice.random()}"))
    if way == "socket":
        sent = [*_SOCKET, *((name, value) for name, value in sent if name.lower() != "upgrade")]
    answer = await exchange(port, _request(line, sent, body), answers=None)
    seen = await _seen(recorder, line.split(b" ")[1])
    if not bench.require(seen, f"{way}: nothing reached the backend: {answer!r}"):
        return
    bench.add("sent to the backend", len(sent) - len(_GOOD))
    for name, value in seen:
        is_bad = _CANARY.encode() in value
        bench.add("forwarded to the backend", is_bad)
        bench.require(not is_bad, f"{way}: the backend saw {name!r}: {value!r}")
    for good in _GOOD:
        bench.require((good.lower().encode(), b"good") in seen, f"{way}: {good} got lost")


async def _back(bench: Bench, recorder: Recorder, port: int, dice: random.Random) -> None:
    answered = [*_spelled(_TO_CLIENT, dice), *_nominated(dice), *((name, "good") for name in _GOOD)]
    dice.shuffle(answered)
    lines = [f"{name}: {value}" for name, value in answered]
    recorder.head = HEAD + "".join(f"{line}\r\n" for line in lines).encode()
    try:
        raw = await exchange(port, _request(b"GET /v1/x", [], b""), answers=None)
    finally:
        recorder.head = HEAD
    head = raw.partition(b"\r\n\r\n")[0]
    bench.add("sent to the client", len(answered) - len(_GOOD))
    bad = [line for line in head.split(b"\r\n") if _CANARY.encode() in line]
    bench.add("forwarded to the client", len(bad))
    bench.require(not bad, f"the client saw {bad}")
    for good in _GOOD:
        bench.require(f"{good}: good".encode() in head, f"{good} got lost on its way to the client")


def _request(line: bytes, fields: list[tuple[str, str]], body: bytes) -> bytes:
    given = [("Host", "g"), ("Content-Type", "application/json"), *fields]
    if not any(value == "websocket" for _, value in fields):
        given += [("Connection", "close"), ("Content-Length", str(len(body)))]
    lines = [f"{name}: {value}" for name, value in given]
    return line + b" HTTP/1.1\r\n" + "\r\n".join([*lines, "", ""]).encode() + body


def _spelled(names: tuple[str, ...], dice: random.Random) -> Iterator[tuple[str, str]]:
    """Each as it is, and in another case or with `_` or `.` for `-`, which many servers take for the same."""
    for name in names:
        value = f"{_CANARY}-{name}"
        yield name, value
        twin = "".join(dice.choice("-_.") if letter == "-" else letter for letter in name)
        yield dice.choice((str.upper, str.lower, str.title))(twin), value


def _nominated(dice: random.Random) -> Iterator[tuple[str, str]]:
    """Some headers, and a Connection that names them."""
    listed = [dice.choice((str, str.upper, str.lower))(name) for name in _NOMINATED]
    for part in (listed[:2], listed[2:]):
        yield "Connection", dice.choice((", ", ",", " ,\t")).join(["keep-alive", *part])
    yield from _spelled(_NOMINATED, dice)


async def _seen(recorder: Recorder, path: bytes) -> list[tuple[bytes, bytes]]:
    """The fields of the request that came, once it has: a background call takes its time. Empty, if none."""
    for _ in range(_LOOKS):
        for seen in recorder.requests:
            if seen.target.startswith(path):
                return [(name.lower(), value) for name, value in seen.headers]
        await asyncio.sleep(0.02)
    return []
