"""Requests that two servers could read differently, or that one of them should not read at all.

`SMUGGLED` is sent right behind each of them: it is a request of its own only if the probe was one.
"""

from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass

from tests.api.recorder import Recorder

_WAIT_S = 10
SMUGGLED = b"GET /v1/smuggled HTTP/1.1\r\nHost: g\r\n\r\n"


@dataclass(frozen=True, slots=True)
class Probe:
    """One request, and what must come of it.

    Attributes:
        status: Of the answer. 200 means that it must reach the backend; all others that it must not.
        is_last: Nothing behind it is read, though it is good.
        is_alone: It ends its connection by itself, and would be refused for what follows.
    """

    name: str
    raw: bytes
    status: int
    is_last: bool = False
    is_alone: bool = False


def _head(*lines: bytes, start: bytes = b"POST /v1/x HTTP/1.1", host: bytes | None = b"Host: g") -> bytes:
    return b"\r\n".join([start, *([host] if host is not None else []), *lines, b"", b""])


def _chunked(body: bytes) -> bytes:
    return _head(b"Transfer-Encoding: chunked") + body


_CL, _TE = b"Content-Length: 5", b"Transfer-Encoding: chunked"
_END = b"5\r\nhello\r\n0\r\n\r\n"

_FRAMING = [
    Probe("length and chunks", _head(_CL, _TE) + _END, 400),
    Probe("chunks and length", _head(_TE, _CL) + _END, 400),
    Probe("two equal lengths", _head(_CL, _CL) + b"hello", 400),
    Probe("two lengths", _head(_CL, b"Content-Length: 6") + b"hello", 400),
    Probe("list of lengths", _head(b"Content-Length: 5, 5") + b"hello", 400),
    Probe("plus length", _head(b"Content-Length: +5") + b"hello", 400),
    Probe("minus length", _head(b"Content-Length: -5") + b"hello", 400),
    Probe("length with underscore", _head(b"Content-Length: 0_5") + b"hello", 400),
    Probe("hexadecimal length", _head(b"Content-Length: 0x5") + b"hello", 400),
    Probe("length of two numbers", _head(b"Content-Length: 5 5") + b"hello", 400),
    Probe("empty length", _head(b"Content-Length:") + b"hello", 400),
    Probe("length of 2**64", _head(b"Content-Length: 18446744073709551616") + b"hello", 400),
    Probe("xchunked", _head(b"Transfer-Encoding: xchunked") + _END, 400),
    Probe("chunked, identity", _head(b"Transfer-Encoding: chunked, identity") + _END, 400),
    Probe("chunked, chunked", _head(b"Transfer-Encoding: chunked, chunked") + _END, 400),
    Probe("chunked twice", _head(_TE, _TE) + _END, 400),
    Probe("gzip, chunked", _head(b"Transfer-Encoding: gzip, chunked") + _END, 501),
    Probe("gzip", _head(b"Transfer-Encoding: gzip") + _END, 400),
    Probe("identity", _head(b"Transfer-Encoding: identity") + _END, 400),
    Probe("no coding", _head(b"Transfer-Encoding:") + _END, 400),
    Probe("quoted chunked", _head(b'Transfer-Encoding: "chunked"') + _END, 400),
    Probe("chunked; q=1", _head(b"Transfer-Encoding: chunked; q=1") + _END, 400),
    Probe("vertical tab before chunked", _head(b"Transfer-Encoding: \x0bchunked") + _END, 400),
    Probe("space before the colon of the coding", _head(b"Transfer-Encoding : chunked") + _END, 400),
    Probe("folded coding", _head(b"Transfer-Encoding:\r\n chunked") + _END, 400),
    Probe("chunks in HTTP/1.0", _head(_TE, start=b"POST /v1/x HTTP/1.0") + _END, 400),
    Probe("0x in a chunk's size", _chunked(b"0x5\r\nhello\r\n0\r\n\r\n"), 400),
    Probe("plus in a chunk's size", _chunked(b"+5\r\nhello\r\n0\r\n\r\n"), 400),
    Probe("minus in a chunk's size", _chunked(b"-5\r\nhello\r\n0\r\n\r\n"), 400),
    Probe("underscore in a chunk's size", _chunked(b"0_5\r\nhello\r\n0\r\n\r\n"), 400),
    Probe("space after a chunk's size", _chunked(b"5 \r\nhello\r\n0\r\n\r\n"), 400),
    Probe("chunk's size of 17 digits", _chunked(b"10000000000000005\r\nhello\r\n0\r\n\r\n"), 400),
    Probe("chunk without a size", _chunked(b"\r\nhello\r\n0\r\n\r\n"), 400),
    Probe("chunk longer than its size", _chunked(b"4\r\nhello\r\n0\r\n\r\n"), 400),
    Probe("chunk's size ended by LF", _chunked(b"5\nhello\r\n0\r\n\r\n"), 400),
    Probe("chunk ended by LF", _chunked(b"5\r\nhello\n0\r\n\r\n"), 400),
    Probe("LF in a chunk extension", _chunked(b"5;a\nb\r\nhello\r\n0\r\n\r\n"), 400),
    Probe("CR in a chunk extension", _chunked(b"5;a\rb\r\nhello\r\n0\r\n\r\n"), 400),
    Probe("NUL in a trailer", _chunked(b"5\r\nhello\r\n0\r\nA: \x00\r\n\r\n"), 400),
]
_LINES = [
    Probe("lines ended by LF", b"GET /v1/x HTTP/1.1\nHost: g\n\n", 400),
    Probe("one line ended by LF", _head(b"A: b\nContent-Length: 5") + b"hello", 400),
    Probe("CR in a value", _head(b"A: b\rContent-Length: 5", start=b"GET /v1/x HTTP/1.1"), 400),
    Probe("NUL in a value", _head(b"A: b\x00c"), 400),
    Probe("NUL in a name", _head(b"A\x00b: c"), 400),
    Probe("control character in a value", _head(b"A: b\x01c"), 400),
    Probe("space in a name", _head(b"A b: c"), 400),
    Probe("space before a colon", _head(b"A : b"), 400),
    Probe("tab before a colon", _head(b"A\t: b"), 400),
    Probe("folded value", _head(b"A: b\r\n c"), 400),
    Probe("space before the first name", _head(b" A: b", host=None), 400),
    Probe("line without a colon", _head(b"A"), 400),
    Probe("empty name", _head(b": b"), 400),
    Probe("name in brackets", _head(b"[A]: b"), 400),
    Probe("name that is not ASCII", _head("Ä: b".encode()), 400),
    Probe("line of 9000 bytes", _head(b"A: " + b"b" * 9000), 431),
    Probe("name of 9000 bytes", _head(b"a" * 9000 + b": b"), 431),
    Probe("target of 9000 bytes", _head(start=b"GET /v1/" + b"a" * 9000 + b" HTTP/1.1"), 431),
    Probe("129 lines", _head(*[b"A: b"] * 129), 431),
    Probe("tabs in the request line", _head(start=b"GET\t/v1/x\tHTTP/1.1"), 400),
    Probe("method that is no token", _head(start=b"G(T /v1/x HTTP/1.1"), 400),
    Probe("method of 33 bytes", _head(start=b"M" * 33 + b" /v1/x HTTP/1.1"), 501),
    Probe("trace in lower case", _head(start=b"trace /v1/x HTTP/1.1"), 405),
    Probe("connect in lower case", _head(start=b"connect /v1/x HTTP/1.1"), 405),
    Probe("unknown method with length and chunks", _head(_CL, _TE, start=b"FOO /v1/x HTTP/1.1") + _END, 400),
    Probe("TRACE", _head(start=b"TRACE /v1/x HTTP/1.1"), 405),
    Probe("version 1.2", _head(start=b"GET /v1/x HTTP/1.2"), 505),
    Probe("version 1.10", _head(start=b"GET /v1/x HTTP/1.10"), 400),
    Probe("version 0.9", _head(start=b"GET /v1/x HTTP/0.9"), 505, is_alone=True),
    Probe("version 2.0", _head(start=b"GET /v1/x HTTP/2.0"), 505, is_alone=True),
    Probe("version 3.0", _head(start=b"GET /v1/x HTTP/3.0"), 505, is_alone=True),
    Probe("version in lower case", _head(start=b"GET /v1/x http/1.1"), 400),
    Probe("no version", b"GET /v1/x\r\n\r\n", 400),
    Probe("preface of HTTP/2", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
    Probe("a TLS handshake", bytes.fromhex("16030100050100000100") + b"\r\n\r\n", 400),
]
_HOSTS = [
    Probe("no Host", _head(host=None), 400),
    Probe("two Hosts", _head(b"Host: h"), 400),
    Probe("two equal Hosts", _head(b"Host: g"), 400),
    *(
        Probe(f"Host: {host.decode('latin-1')}", _head(host=b"Host: " + host), 400)
        for host in (
            b"a/health?x=",
            b"",
            b"a b",
            b"user@a",
            b"a:b",
            b"a:80:80",
            b"a#",
            b"a\\b",
            b"[::1",
            b"a,b",
        )
    ),
]
_TARGETS = [
    Probe(f"target {target.decode('latin-1')}", _head(start=b"GET " + target + b" HTTP/1.1"), 400)
    for target in (
        b"http://evil.example/v1/x",
        b"http://g/v1/x",
        b"https://127.0.0.1:1/v1/x",
        b"evil.example:80",
        b"*",
        b"v1/x",
        b"?x",
        b"/v1/x#y",
        b"//evil.example/v1/x",
        b"/v1//x",
        b"/v1/x//",
        b"/v1/../metrics",
        b"/v1/..",
        b"/v1/./x",
        b"/../metrics",
        b"/v1/..;/metrics",
        b"/v1/%2e%2e/metrics",
        b"/v1/.%2E/metrics",
        b"/v1/%2E/x",
        b"/v1%2fx",
        b"/v1/responses%2Fresp_1",
        b"/v1/..%2fmetrics",
        b"/v1/models/..%2f..%2fmetrics",
        b"/v1/models/a%2f%2fb",
        b"/v1/%5cx",
        b"/v1\\x",
        b"/v1/x%00",
        b"/v1/x%0d%0aA:b",
        b"/v1/x%7f",
        b"/v1/%72esponses/resp_1",
        b"/v1/responses/resp%5F1",
        b"/v1/%c0%ae%c0%ae/x",
        b"/v1/%zz",
        b"/v1/x%",
        b"/v1/\xc3\xa4",
        b"/v1/\xff",
        b"/v1/x?\xff",
    )
] + [
    Probe("OPTIONS *", _head(start=b"OPTIONS * HTTP/1.1"), 400),
    Probe("CONNECT", _head(start=b"CONNECT evil.example:80 HTTP/1.1"), 405),
]
_UPGRADE = (
    b"Connection: Upgrade",
    b"Upgrade: websocket",
    b"Sec-WebSocket-Version: 13",
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
)
_FIELDS = [
    Probe("two Authorizations", _head(b"Authorization: Bearer a", b"Authorization: Bearer b"), 400),
    Probe("two equal Authorizations", _head(b"Authorization: Bearer a", b"Authorization: Bearer a"), 400),
    Probe("Authorization and api-key", _head(b"Authorization: Bearer a", b"api-key: a"), 400),
    Probe("api-key and x-api-key", _head(b"api-key: a", b"X-Api-Key: a"), 400),
    Probe("credential that is no text", _head(b"Authorization: Bearer \xff"), 401),
    Probe("another expectation", _head(b"Expect: 200-ok"), 417),
    Probe("two expectations", _head(b"Expect: 100-continue", b"Expect: x"), 417),
    Probe("upgrade with a length", _head(*_UPGRADE, _CL, start=b"GET /v1/x HTTP/1.1") + b"hello", 501),
    Probe("upgrade with chunks", _head(*_UPGRADE, _TE, start=b"GET /v1/x HTTP/1.1") + _END, 501),
    Probe("upgrade of an old WebSocket", _head(b"Sec-WebSocket-Key1: a", start=b"GET /v1/x HTTP/1.1"), 400),
]
_ACCEPTED = [
    Probe("plain", _head(start=b"GET /v1/x HTTP/1.1"), 200),
    Probe("blank lines before the request", b"\r\n\r\n" + _head(start=b"GET /v1/x HTTP/1.1"), 200),
    Probe("length", _head(_CL) + b"hello", 200),
    Probe("method in lower case", _head(_CL, start=b"get /v1/x HTTP/1.1") + b"hello", 200),
    Probe("unknown method", _head(start=b"TRACK /v1/x HTTP/1.1"), 200),
    Probe("unknown method behind blank lines", b"\r\n\r\n" + _head(start=b"FOO /v1/x HTTP/1.1"), 200),
    Probe("unknown method with a length", _head(_CL, start=b"FOO /v1/x HTTP/1.1") + b"FOO /", 200),
    Probe("unknown method with chunks", _head(_TE, start=b"FOO /v1/x HTTP/1.1") + _END, 200, is_last=True),
    Probe("method of another protocol", _head(start=b"DESCRIBE /v1/x HTTP/1.1"), 200),
    Probe("method with a digit", _head(start=b"M0 /v1/x HTTP/1.1"), 200),
    Probe("method of signs", _head(start=b"!#$%&'*+-.^_`|~ /v1/x HTTP/1.1"), 200),
    Probe("chunks", _chunked(_END), 200, is_last=True),
    Probe("chunks in capitals", _head(b"Transfer-Encoding: CHUNKED") + _END, 200, is_last=True),
    Probe("chunk extension", _chunked(b"5;a=b\r\nhello\r\n0\r\n\r\n"), 200, is_last=True),
    Probe("trailer", _chunked(b"5\r\nhello\r\n0\r\nX-Secret-Trailer: a\r\n\r\n"), 200, is_last=True),
    Probe("model with a slash", _head(start=b"GET /v1/models/org%2Fname HTTP/1.1"), 200),
    Probe("version 1.0", _head(start=b"GET /v1/x HTTP/1.0", host=None), 200, is_alone=True),
    Probe("dots that are no segments", _head(start=b"GET /v1/a..b/..c/d.. HTTP/1.1"), 200),
    Probe("anything in a query", _head(start=b"GET /v1/x?a=/../%2f//%00%zz HTTP/1.1"), 200),
    Probe("address for a host", _head(host=b"Host: [::1]:9000", start=b"GET /v1/x HTTP/1.1"), 200),
    Probe("name with underscore for a host", _head(host=b"Host: my_gateway:9000"), 200),
]

PROBES = _FRAMING + _LINES + _HOSTS + _TARGETS + _FIELDS + _ACCEPTED


async def play(port: int, recorder: Recorder, probe: Probe) -> list[str]:
    """Send a probe to a gateway in front of a recorder that has nothing else to do. Returns what is wrong."""
    recorder.take()
    passes = probe.status == 200
    has_next = passes and not probe.is_last and not probe.is_alone
    follows = b"" if probe.is_alone else SMUGGLED
    answer = await exchange(port, probe.raw + follows, answers=2 if has_next else 1)
    seen = recorder.take()
    expected = [SMUGGLED.split(b"\r\n")[0]] if has_next else []
    if passes:
        expected.insert(0, probe.raw.lstrip().split(b"\r\n")[0].replace(b"HTTP/1.0", b"HTTP/1.1"))
    problems = []
    if status_of(answer) != probe.status:
        problems.append(f"{probe.name}: {status_of(answer)}, not {probe.status}: {answer[:200]!r}")
    if [each.line for each in seen] != expected:
        problems.append(f"{probe.name}: the backend saw {[each.line for each in seen]}")
    if len(statuses(answer)) != (len(expected) or 1):
        problems.append(f"{probe.name}: the answers were {answer!r}")
    if recorder.broken:
        problems.append(f"{probe.name}: the backend saw no request in {recorder.broken}")
    return problems


def status_of(answer: bytes) -> int:
    return int(answer[9:12]) if answer.startswith(b"HTTP/1.") else 0


def statuses(received: bytes) -> list[int]:
    """Of all answers in what was received; interim ones too."""
    return [int(status) for status in re.findall(rb"(?:^|\r\n\r\n|\})HTTP/1\.[01] (\d{3}) ", received)]


async def exchange(port: int, raw: bytes, *, answers: int | None) -> bytes:
    """What comes back, up to so many answers with status 200, or to the connection's end.

    Raises:
        TimeoutError: Neither came.
    """
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    received = b""
    try:
        async with asyncio.timeout(_WAIT_S):
            writer.write(raw)
            while answers is None or statuses(received).count(200) < answers:
                if not (piece := await reader.read(2**16)):
                    break
                received += piece
    except ConnectionError:
        pass
    finally:
        writer.close()
    return received
