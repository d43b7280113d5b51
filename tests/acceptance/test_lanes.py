"""The two lanes do the same: each request goes to a gateway with the fast lane and to one without, and what
the client gets, what the backend gets, and what becomes of the connections is compared."""

from __future__ import annotations

import asyncio
import random
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from urllib.parse import urlsplit

import pytest

from tests.acceptance.conftest import StartGateway
from tests.acceptance.harness import Gateway, within
from tests.api.probes import PROBES
from tests.api.recorder import Recorder, Seen, recording
from tests.torture.mutants import mutant

SETTINGS = {
    "BACKBURNER_UPSTREAM__API": "responses",
    "BACKBURNER_UPSTREAM__HEALTH_INTERVAL_S": "3600",
    "BACKBURNER_SERVER__HEAD_TIMEOUT_S": "0.5",
    "BACKBURNER_SERVER__BODY_IDLE_TIMEOUT_S": "0.5",
    "BACKBURNER_SERVER__BODY_TIMEOUT_S": "1",
}
LAST = b"GET /v1/last HTTP/1.1\r\nHost: g\r\nConnection: close\r\n\r\n"
_VARYING = re.compile(rb"(?i)(\r\n(?:x-request-id|date): )[^\r\n]*")
_SALT = re.compile(rb"[0-9a-f]{64}")
_ID = re.compile(rb"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")


def _post(path: bytes, *lines: bytes, body: bytes = b"{}", method: bytes = b"POST") -> bytes:
    size = b"Content-Length: %d" % len(body)
    return b"\r\n".join([method + b" " + path + b" HTTP/1.1", b"Host: g", *lines, size, b"", body])


def _get(path: bytes, *lines: bytes, method: bytes = b"GET", end: bytes = b"HTTP/1.1") -> bytes:
    return b"\r\n".join([method + b" " + path + b" " + end, b"Host: g", *lines, b"", b""])


JSON = b"Content-Type: application/json"
REQUESTS = [
    _get(b"/v1/models"),
    _get(b"/v1/models", b"Connection: keep-alive"),
    _get(b"/v1/models", b"connection: Close"),
    _get(b"/v1/models", b"Connection: x-private, keep-alive", b"X-Private: 1"),
    _get(b"/v1/models?a=b&c=%20"),
    _get(b"/v1/models?"),
    _get(b"/v1/models", method=b"HEAD"),
    _get(b"/v1/models", method=b"OPTIONS"),
    _get(b"/v1/files/1", method=b"DELETE"),
    _get(b"/v1/files/1", method=b"BREW"),
    _get(b"/v1/models", end=b"HTTP/1.0"),
    _get(b"/openapi.json"),
    _get(b"/v1/responses/resp_1/nonsense"),
    _get(b"/v1/responses/resp_1"),
    _get(b"/v1/models", b"Cookie: a=b", b"X-Forwarded-For: 1.2.3.4", b"Forwarded: for=x", b"Via: 1.0 other"),
    _get(b"/v1/models", b"X_Under: a", b"X.Dot: b", b"x-same: 1", b"X-Same: 2", b"X-Request-Id: mine"),
    _get(b"/v1/models", "X-Text: grüße".encode(), b"X-Bytes: \xff\xfe", b"X-Empty:", b"X-Tab: a\tb"),
    _get(b"/v1/models", b"Authorization: Bearer sk-1", b"api-key: sk-2"),
    _get(b"/v1/models", b"Authorization: Bearer sk-1", b"Origin: https://page.example"),
    _get(
        b"/v1/models", b"Origin: https://a.example", b"Access-Control-Request-Method: GET", method=b"OPTIONS"
    ),
    _get(b"/v1/models", b"Expect: 100-continue"),
    _get(b"/v1/models", b"TE: trailers", b"Trailer: X-Sum"),
    _get(b"/v1/models", b"Content-Length: 0"),
    _get(b"/v1/models", b"Upgrade: h2c", b"Connection: upgrade", b"HTTP2-Settings: AAA"),
    _post(b"/v1/chat/completions", JSON),
    _post(b"/v1/chat/completions", JSON, body=b'{"model":"tiny","messages":[]}'),
    _post(b"/v1/chat/completions", JSON, b"Content-Encoding: gzip", body=b"\x1f\x8b not gzip"),
    _post(b"/v1/chat/completions", JSON, body=b"x" * 70_000),
    _post(b"/v1/embeddings", b"Accept-Encoding: gzip, br", b"User-Agent: a client/1"),
    _post(b"/v1/x", method=b"PUT"),
    _post(b"/v1/x", method=b"GET", body=b"of a GET"),
    _post(b"/v1/x", body=b""),
    b"POST /v1/x HTTP/1.1\r\nHost: g\r\n\r\n",
    b"PATCH /v1/x HTTP/1.1\r\nHost: g\r\n\r\n",
    b"POST /v1/x HTTP/1.1\r\nHost: g\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
    _post(b"/v1/responses/input_tokens", JSON, body=b'{"model":"tiny","input":"x"}'),
    _post(b"/v1/responses", JSON, body=b'{"model":"tiny","input":"Count."}'),
    _post(b"/v1/responses", body=b'{ "model":"tiny", "background": false, "input":"Count." }'),
    _post(b"/v1/responses", JSON, body=b'{"model":"tiny","b\\u0061ckground":1,"input":"Count."}'),
    _post(b"/v1/responses", JSON, body=b'{"model":"tiny","previous_response_id":"resp_1","input":"Count."}'),
    _post(b"/v1/responses", JSON, body=b'{"model":"tiny","input":[{"type":"item_reference","id":"msg_1"}]}'),
    _post(b"/v1/responses", JSON, body=b'{"model":"tiny","input":"x","cache_salt":"mine"}'),
    _post(b"/v1/responses", JSON, body=b"{broken"),
    _post(b"/v1/responses", JSON, body=b""),
    _post(b"/v1/responses?a=b", JSON, body='{"model":"tiny","input":"Count."}'.encode("utf-16")),
    b"\r\n\r\n" + _get(b"/v1/models"),
    _get(b"/v1/models", b"X-Long: " + b"a" * 8000),
    _get(b"/v1/models", b"X-Long: " + b"a" * 8200),
    _get(b"/v1/models", *(b"X-%d: a" % number for number in range(130))),
    _get(b"/v1/" + b"a" * 8300),
    _get(b"/v1/models") + _post(b"/v1/x", JSON) + _get(b"/v1/files", method=b"HEAD"),
]

ANSWERS = [
    b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
    b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nConnection: close\r\n\r\nok",
    b"HTTP/1.1 200 Fine\r\nContent-Length: 0\r\n\r\n",
    b"HTTP/1.1 200\r\nContent-Length: 2\r\n\r\nok",
    b"HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\n",
    b"HTTP/1.1 204 No Content\r\n\r\n",
    b"HTTP/1.1 304 Not Modified\r\nETag: x\r\n\r\n",
    b"HTTP/1.1 404 Not Found\r\nContent-Length: 2\r\nContent-Type: application/json\r\n\r\n{}",
    b"HTTP/1.1 599 \xc3\xa9\r\nContent-Length: 2\r\n\r\nok",
    b"HTTP/1.1 302 Found\r\nLocation: http://elsewhere/\r\nContent-Length: 0\r\n\r\n",
    b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n"
    b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\nabc",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2;ext=1\r\nok\r\n0\r\nX-Trailer: 1\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; x=1\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"9\r\ndata: 1\n\n\r\n9\r\ndata: 2\n\n\r\n0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nCache-Control: no-cache\r\n\r\ndata: 1\n\n|CLOSE",
    b"HTTP/1.0 200 OK\r\n\r\nuntil the end|CLOSE",
    b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok|CLOSE",
    b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nshort|CLOSE",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n|CLOSE",
    b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\nok",
    b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: -2\r\n\r\nok",
    b"HTTP/1.1 2000 OK\r\nContent-Length: 2\r\n\r\nok",
    b"HTTP/2.0 200 OK\r\nContent-Length: 2\r\n\r\nok",
    b"no HTTP at all\r\n\r\n",
    b"HTTP/1.1 200 OK\nContent-Length: 6\n\n\r\n\r\nok",
    b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok junk behind it",
    b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\ntwo",
    b"HTTP/1.1 200 OK\r\nDate: Sat, 01 Jan 2000 00:00:00 GMT\r\nServer: x\r\nSet-Cookie: a=b\r\nX-A: 1\r\n"
    b"X-A: 2\r\nX-Accel-Redirect: /x\r\nContent-Length: 2\r\n\r\nok",
    b"HTTP/1.1 200 OK\r\nX-Request-Id: theirs\r\nX-Bytes: \xff\r\nConnection: X-Gone\r\nX-Gone: 1\r\n"
    b"Content-Length: 2\r\n\r\nok",
    b"HTTP/1.1 200 OK\r\nAccess-Control-Allow-Origin: *\r\nVary: Origin\r\nContent-Length: 2\r\n\r\nok",
    b"HTTP/1.1 200 OK\r\nX-Folded: a\r\n b\r\nContent-Length: 2\r\n\r\nok",
    b"HTTP/1.1 200 OK\r\nX-Long: " + b"a" * 9000 + b"\r\nContent-Length: 2\r\n\r\nok",
    b"HTTP/1.1 200 OK\r\nContent-Length: 300000\r\n\r\n" + b"b" * 300_000,
    b"|CLOSE",
    b"HTTP/1.1 200 OK\r\nContent-Le|CLOSE",
    b"\r\n\r\nHTTP/1.1 200 OK\r\nX-Who: alice\r\nContent-Length: 500\r\n\r\n" + b"a" * 500,
    b"\r\n\r\nHTTP/1.1 200 OK\r\nX-Who: bob\r\nContent-Length: 2\r\n\r\nok",
    b"HTTP/1.1 200 OK\r\nSet-Cookie : a=b\r\nServer : x\r\nContent-Length: 2\r\n\r\nok",
    b"HTTP/1.1 200 OK\r\nContent-Length : 1\r\n\r\nok|CLOSE",
    b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n"
    b"Connection: upgrade\r\n\r\nabc",
]


@dataclass(frozen=True, slots=True)
class Fate:
    """What came of one request.

    Attributes:
        answer: What the client got, but for ids and dates, its headers sorted.
        seen: What the backend got, the same.
    """

    answer: bytes
    seen: tuple[tuple[bytes, ...], ...]


async def _exchanged(gateway: Gateway, raw: bytes, then: bytes = b"") -> bytes:
    """All that comes back.

    Args:
        then: Sent when something has come.
    """
    reader, writer = await asyncio.open_connection("127.0.0.1", urlsplit(gateway.url).port)
    received, is_more = b"", bool(then)
    try:
        writer.write(raw)
        while piece := await within(reader.read(2**16), 4):
            received += piece
            writer.write(then)
            then = b""
    except ConnectionError:
        received += b" (reset)" if not is_more else b""  # it was sent into a connection that had ended
    except TimeoutError:
        received += b" (hangs)"
    finally:
        writer.close()
    return received


def _settled(received: bytes) -> bytes:
    """An answer as it is compared: what varies from one to the next is a word, and headers are in order."""
    parts = _VARYING.sub(rb"\1(varies)", received).split(b"\r\n\r\n")
    return b"\r\n\r\n".join(
        b"\r\n".join([line, *sorted(headers)]) if b"HTTP/1." in line else part
        for part in parts
        for line, *headers in [part.split(b"\r\n")]
    )


def _as_seen(seen: list[Seen]) -> tuple[tuple[bytes, ...], ...]:
    return tuple(
        (
            each.line,
            *(name + b": " + _ID.sub(b"(id)", value) for name, value in each.headers),
            _SALT.sub(b"(salt)", each.body),
        )
        for each in seen
    )


class Lanes:
    """Two gateways in front of one backend."""

    def __init__(self, fast: Gateway, slow: Gateway, recorder: Recorder) -> None:
        self.fast, self.slow = fast, slow
        self._recorder = recorder

    async def differ(self, raw: bytes) -> str | None:
        """What is different, with another request behind the answer or in one piece; None if nothing is."""
        for first, then in ((raw, LAST), (raw + LAST, b"")):
            fates = []
            for gateway in (self.fast, self.slow):
                self._recorder.take()
                received = await _exchanged(gateway, first, then)
                fates.append(Fate(_settled(received), _as_seen(self._recorder.take())))
            if fates[0] != fates[1]:
                return f"{first[:300]!r}:\nfast {fates[0]}\nslow {fates[1]}"
        return None


@asynccontextmanager
async def _lanes(start_gateway: StartGateway, **environ: object) -> AsyncIterator[Lanes]:
    async with recording() as recorder:
        fast = await start_gateway(upstream=recorder.url, **SETTINGS, **environ)
        slow = await start_gateway(
            upstream=recorder.url, BACKBURNER_SERVER__FAST_LANE="false", **SETTINGS, **environ
        )
        yield Lanes(fast, slow, recorder)


@pytest.mark.parametrize(
    "environ",
    [
        {},
        {"BACKBURNER_SERVER__CORS_ORIGINS": "https://page.example"},
        {"BACKBURNER_UPSTREAM__API_KEY": "sk-gateway", "BACKBURNER_UPSTREAM__CACHE_SALT": "true"},
    ],
    ids=["as it comes", "with pages", "with a key"],
)
async def test_requests_have_the_same_fate_in_both_lanes(
    start_gateway: StartGateway, environ: dict[str, str]
) -> None:
    async with _lanes(start_gateway, **environ) as lanes:
        found = [await lanes.differ(raw) for raw in REQUESTS]
        found += [await lanes.differ(raw[:-1]) for raw in REQUESTS[:3]]
    assert not any(found), "\n\n".join(filter(None, found))


async def test_what_could_be_read_in_two_ways_is_read_in_the_same_way_in_both_lanes(
    start_gateway: StartGateway,
) -> None:
    dice = random.Random(12)
    async with _lanes(start_gateway) as lanes:
        found = [await lanes.differ(probe.raw) for probe in PROBES]
        found += [await lanes.differ(mutant(dice, b"sk-canary")) for _ in range(150)]
    assert not any(found), "\n\n".join(filter(None, found))


async def test_answers_have_the_same_fate_in_both_lanes(start_gateway: StartGateway) -> None:
    script = b""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while (head := await reader.readuntil(b"\r\n\r\n")) and not head.startswith(b"GET /v1/models"):
                answer, ends, _ = script.partition(b"|CLOSE")
                bare = head.startswith(b"HEAD /v1/bare")
                writer.write(
                    answer[: answer.find(b"\r\n\r\n", answer.rfind(b"HTTP/1.")) + 4] if bare else answer
                )
                if ends:
                    break
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
    quick = {**SETTINGS, "BACKBURNER_UPSTREAM__BREAKER_FAILURES": "1000"}
    quick |= {"BACKBURNER_UPSTREAM__BREAKER_CALLS_MIN": "1000", "BACKBURNER_UPSTREAM__IDLE_TIMEOUT_S": "1"}
    fast = await start_gateway(upstream=url, **quick)
    slow = await start_gateway(upstream=url, BACKBURNER_SERVER__FAST_LANE="false", **quick)
    found = []
    for script in ANSWERS:
        for method, path in ((b"GET", b"x"), (b"HEAD", b"x"), (b"HEAD", b"bare"), (b"POST", b"responses")):
            raw = _get(b"/v1/" + path, b"Connection: close", method=method)
            # twice, as the second answer begins like one that has come before
            got = [[_settled(await _exchanged(one, raw)) for one in (fast, slow)] for _ in range(2)]
            found += [f"{method!r} {script[:200]!r}:\nfast {a!r}\nslow {b!r}" for a, b in got if a != b]
    server.close()
    assert not found, "\n\n".join(found)
