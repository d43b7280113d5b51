"""A model server that answers in every shape that HTTP has, and requests in as many: by a number each.

The same number is the same request and the same answer, byte for byte, so that what comes through a gateway
can be held against what comes without one.
"""

from __future__ import annotations

import asyncio
import gzip
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import orjson
from aiohttp import web

from demo.model_server import listening
from tests.acceptance.replay import TRANSCRIPTS, recording

NUMBER = "X-Shape"
_OF_ONE_CONNECTION = frozenset({"host", "connection", "via", "x-request-id"})
_RECORDED = sorted(
    f"{path.parent.name}/{path.stem}"
    for path in TRANSCRIPTS.glob("*/*.txt")
    if recording(f"{path.parent.name}/{path.stem}").is_whole
)

_STATUSES = (
    *(200, 200, 201, 202, 204, 206, 301, 304, 307, 400, 401, 403, 404, 405, 409, 413, 418, 422, 429),
    *(500, 502, 503, 529),
)
_STREAMED = [name for name in _RECORDED if recording(name).is_stream]


@dataclass(frozen=True, slots=True)
class Ask:
    """A request that is not the gateway's own."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes | None
    is_chunked: bool


@dataclass(frozen=True, slots=True)
class Say:
    """An answer. `pieces`: written one at a time; `length`: told beforehand, or chunked."""

    status: int
    reason: str | None
    headers: list[tuple[str, str]]
    pieces: list[bytes]
    has_length: bool


def ask(number: int) -> Ask:
    """The request of this number."""
    dice = random.Random(f"ask {number}")
    method, target = dice.choice(
        [
            *(
                ("POST", path)
                for path in ("/v1/responses", "/v1/chat/completions", "/v1/embeddings", "/v1/files")
            ),
            *(
                ("POST", path)
                for path in ("/v1/responses/input_tokens", "/v1/responses/compact", "/tokenize")
            ),
            *(
                ("GET", path)
                for path in ("/v1/models", "/v1/models/tiny", "/v1/files/file-1/content", "/", "/v1")
            ),
            *(
                ("GET", path)
                for path in ("/v1/conversations/c/items", "/docs", "/v1/models/a%2Fb", "/v1/%E2%82%AC")
            ),
            *(
                ("PUT", "/v1/x"),
                ("PATCH", "/v1/x"),
                ("DELETE", "/v1/files/f"),
                ("HEAD", "/v1/models"),
                ("OPTIONS", "/v1"),
            ),
        ]
    )
    target += dice.choice(["", "", "?", "?a=1&b=%20&a=2", "?q=%E2%82%AC+x", "?a[]=1&&b"])
    headers = {NUMBER: str(number), "Authorization": "Bearer sk-shapes", "Accept": "*/*"}
    headers |= dice.choice([{}, {"Accept-Encoding": "gzip, br"}, {"OpenAI-Organization": "org"}])
    headers |= dice.choice([{}, {"X-Vendor": 'a, b;c="d"'}, {"Range": "bytes=0-9"}, {"If-None-Match": '"x"'}])
    if method not in ("POST", "PUT", "PATCH"):
        return Ask(method, target, headers, None, False)
    kinds = [
        (
            "application/json",
            orjson.dumps({"model": "tiny", "input": "Count.", "stream": dice.random() < 0.5}),
        ),
        ("application/json", b'{ "model":"tiny","input" :"\\u0043 1.0e+00","background": false }\n'),
        ("application/json", b"{broken"),
        ("application/octet-stream", dice.randbytes(dice.choice([0, 1, 70_000]))),
        (
            "multipart/form-data; boundary=x",
            b"--x\r\nContent-Disposition: form-data; name=a\r\n\r\n1\r\n--x--\r\n",
        ),
    ]
    kind, body = dice.choice(kinds)
    return Ask(method, target, {**headers, "Content-Type": kind}, body, dice.random() < 0.3)


def say(number: int) -> Say:
    """The answer of this number: half of them were recorded from real servers."""
    dice = random.Random(f"say {number}")
    if dice.random() < 0.5:
        found = recording(dice.choice(_STREAMED if dice.random() < 0.5 else _RECORDED))
        return Say(
            found.status, None, list(found.headers.items()), _cut(found.body, dice), dice.random() < 0.3
        )
    status = dice.choice(_STATUSES)
    reason = dice.choice([None, "Said Otherwise"])
    body = dice.choice(
        [b"", b"\x00" * 10, dice.randbytes(100_000), b"<html></html>", b'{"a": 1.0}', "\u20ac\r\n".encode()]
    )
    headers = [("X-Shape-Header", "x"), ("X-Twice", "1"), ("x-twice", "2"), ("ETag", '"e"')]
    headers.append(
        ("Content-Type", dice.choice(["application/json", "text/html; charset=utf-8", "audio/mpeg"]))
    )
    headers += dice.choice(
        [[], [("Retry-After", "7")], [("Location", "http://other/v1?x=y")], [("X-Ratelimit-Remaining", "3")]]
    )
    headers += dice.choice(
        [[], [("Cache-Control", "max-age=3")], [("Vary", "Accept")], [("Content-Language", "de")]]
    )
    if dice.random() < 0.2:
        body, headers = gzip.compress(body, mtime=0), [*headers, ("Content-Encoding", "gzip")]
    if status in (204, 304):
        return Say(status, reason, headers, [], has_length=False)
    return Say(status, reason, headers, _cut(body, dice), dice.random() < 0.5)


def _cut(body: bytes, dice: random.Random) -> list[bytes]:
    cuts = sorted(dice.randrange(len(body)) for _ in range(dice.randrange(6))) if body else []
    return [body[start:end] for start, end in zip([0, *cuts], [*cuts, len(body)], strict=True)]


@dataclass(slots=True)
class Server:
    """Says what the number of a request asks for, and remembers what came with it.

    Attributes:
        heard: By number: method, target, headers but for those of one connection, body; in their order.
    """

    url: str = ""
    heard: dict[int, list[tuple[object, ...]]] = field(default_factory=dict)

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[Server]:
        app = web.Application(client_max_size=2**26)
        app.router.add_route("*", "/{path:.*}", self._answer)
        async with listening(app, "127.0.0.1", 0) as root:
            self.url = root
            yield self

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        if NUMBER not in request.headers:  # is it up?
            return web.json_response({"object": "list", "data": []})
        number = int(request.headers[NUMBER])
        left_out = _OF_ONE_CONNECTION
        if request.method == "POST" and request.path == "/v1/responses":
            left_out |= {"content-length", "transfer-encoding"}  # read whole, and sent with its length
        headers = sorted(
            (name.decode().lower(), value.decode())
            for name, value in request.raw_headers
            if name.decode().lower() not in left_out
        )
        self.heard.setdefault(number, []).append((request.method, request.raw_path, tuple(headers), body))
        said = say(number)
        answer = web.StreamResponse(status=said.status, reason=said.reason)
        for name, value in said.headers:
            answer.headers.add(name, value)
        if said.has_length:
            answer.content_length = sum(map(len, said.pieces))
        elif said.pieces and request.method != "HEAD":
            answer.enable_chunked_encoding()
        await answer.prepare(request)
        if request.method != "HEAD":
            for piece in said.pieces:
                await answer.write(piece)
                await asyncio.sleep(0)
        await answer.write_eof()
        return answer
