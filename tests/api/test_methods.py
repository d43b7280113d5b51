"""`Methods` before aiohttp's own parser: what comes out of it, wherever what a client sends is cut."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable

from aiohttp.base_protocol import BaseProtocol
from aiohttp.http import HttpRequestParser, RawRequestMessage
from aiohttp.http_exceptions import BadStatusLine
from aiohttp.streams import StreamReader
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.api.http.methods import Methods

_TOKENS = st.one_of(
    st.sampled_from(("GET", "POST", "UNLINK", "get", "FOO", "M0", "PLAY", "post", "GETS", "P")),
    st.text("ABYZabyz09!#$%&'*+-.^_`|~", min_size=1, max_size=32),
)
_BODIES = st.one_of(
    st.sampled_from(
        (b"", b"FOO /v1/x HTTP/1.1\r\n\r\n", b"\r\n\r\n", b"BAR /x HTTP/1.1\r\nHost: h\r\n\r\nFOO / ")
    ),
    st.binary(max_size=30),
)
_VALUES = st.sampled_from(("a", "FOO /v1/x HTTP/1.1", "UNLINK / HTTP/1.1"))
_Request = tuple[str, str, bytes]


def _bytes(request: _Request) -> bytes:
    method, value, body = request
    fields = f"Host: g\r\nX-Value: {value}\r\nContent-Length: {len(body)}"
    return f"{method} /v1 HTTP/1.1\r\n{fields}\r\n\r\n".encode() + body


@settings(deadline=None)
@given(st.lists(st.tuples(_TOKENS, _VALUES, _BODIES), min_size=1, max_size=4), st.data())
def test_every_request_comes_out_as_it_was_sent_in_whatever_pieces(
    requests: list[_Request], data: st.DataObject
) -> None:
    pieces: list[bytes] = []
    for raw in map(_bytes, requests):
        cuts = sorted(data.draw(st.sets(st.integers(0, len(raw)), max_size=8)))
        pieces += [raw[start:end] for start, end in zip([0, *cuts], [*cuts, len(raw)], strict=True)]
    assert asyncio.run(_play(pieces)) == requests


@settings(deadline=None)
@given(st.lists(st.tuples(_TOKENS, _VALUES, _BODIES), min_size=1, max_size=4), st.data())
def test_of_requests_in_one_piece_none_is_changed(requests: list[_Request], data: st.DataObject) -> None:
    raw = b"".join(map(_bytes, requests))
    cuts = sorted(data.draw(st.sets(st.integers(0, len(raw)), max_size=4)))
    found = asyncio.run(
        _play([raw[start:end] for start, end in zip([0, *cuts], [*cuts, len(raw)], strict=True)])
    )
    assert found == requests[: len(found)]


async def test_every_request_comes_out_as_it_was_sent_byte_by_byte() -> None:
    requests = [
        ("FOO", "a", b"GET / HTTP/1.1\r\n\r\n"),
        ("UNLINK", "FOO / HTTP/1.1", b""),
        ("get", "a", b"FOO / "),
    ]
    assert await _play(bytes([byte]) for byte in b"".join(map(_bytes, requests))) == requests


async def test_behind_chunks_nothing_is_replaced() -> None:
    head = b"FOO /v1 HTTP/1.1\r\nHost: g\r\nX-Value: a\r\nTransfer-Encoding: chunked\r\n\r\n"
    pieces = (head, b"6\r\n", b"BAR / ", b"\r\n0\r\n\r\n", _bytes(("UNLINK", "b", b"")))
    assert await _play(pieces) == [("FOO", "a", b"BAR / "), ("UNLINK", "b", b"")]


async def _play(pieces: Iterable[bytes]) -> list[_Request]:
    """Up to the first that the parser refuses."""
    loop = asyncio.get_running_loop()
    parser = HttpRequestParser(BaseProtocol(loop), loop, 2**16)
    found: list[tuple[RawRequestMessage, StreamReader]] = []

    def parse(data: bytes) -> RawRequestMessage | None:
        messages = parser.feed_data(data)[0]
        found.extend(messages)
        return messages[0][0] if len(messages) == 1 else None

    methods = Methods(parse)
    with contextlib.suppress(BadStatusLine):
        for piece in pieces:
            methods.receive(piece)
    return [(methods.own(head).method, head.headers["X-Value"], await body.read()) for head, body in found]
