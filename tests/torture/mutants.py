"""Requests with something wrong in them, and what a second reader makes of them.

The second reader is h11, another parser than the gateway's: what reaches the backend must be a request to
both, with the same beginning and the same end.
"""

from __future__ import annotations

import random
import re
from dataclasses import dataclass, field

import h11

_CHUNKED = b"Host: g\r\nTransfer-Encoding: chunked\r\n"
_JSON = b"Host: g\r\nContent-Type: application/json\r\nContent-Length: 28\r\n\r\n"
_SEEDS = (
    b"GET /v1/x HTTP/1.1\r\nHost: g\r\nUser-Agent: a\r\n\r\n",
    b"POST /v1/x?a=b HTTP/1.1\r\nHost: g\r\nContent-Length: 5\r\n\r\nhello",
    b"POST /v1/x HTTP/1.1\r\n" + _CHUNKED + b"\r\n5\r\nhello\r\n3;a=b\r\nyou\r\n0\r\n\r\n",
    b"PUT /v1/x HTTP/1.1\r\n" + _CHUNKED + b"Trailer: A\r\n\r\n5\r\nhello\r\n0\r\nA: b\r\n\r\n",
    b"POST /v1/responses HTTP/1.1\r\n" + _JSON + b'{"model":"m","input":"text"}',
    b"GET /v1/models/a%2Fb HTTP/1.1\r\nHost: g:80\r\nConnection: keep-alive, X-A\r\nX-A: 1\r\n\r\n",
    b"DELETE /v1/x HTTP/1.0\r\nConnection: keep-alive\r\nX_A: 1\r\n\r\n",
)
_PIECES = (
    *(
        b"\r\n",
        b"\n",
        b"\r",
        b"\0",
        b" ",
        b"\t",
        b"\x0b",
        b"\x7f",
        b"\xff",
        b":",
        b";",
        b",",
        b"#",
        b"\\",
        b"//",
    ),
    *(
        b"\r\n\r\n",
        b"0\r\n\r\n",
        b"\r\n ",
        b"%2e%2e/",
        b"/../",
        b"%00",
        b"%2f",
        b"http://h",
        b"HTTP/1.1",
        b"HTTP/2.0",
    ),
    b"Content-Length: 0\r\n",
    b"Content-Length: 5\r\n",
    b"Content-Length: 44\r\n",
    b"Transfer-Encoding: chunked\r\n",
    b"Transfer-Encoding: identity\r\n",
    b"Transfer_Encoding: chunked\r\n",
    b"transfer-encoding:\tchunked\r\n",
    b"Host: evil.example\r\n",
    b"Expect: 100-continue\r\n",
    b"Connection: close\r\n",
    b"Connection: Transfer-Encoding\r\n",
    b"Connection: Upgrade\r\nUpgrade: websocket\r\n",
    b"GET /v1/smuggled HTTP/1.1\r\nHost: g\r\n\r\n",
)


@dataclass(frozen=True, slots=True)
class Read:
    """One request as a server read it; names of fields in lower case."""

    method: bytes
    target: bytes
    body: bytes
    fields: frozenset[tuple[bytes, bytes]] = field(default=frozenset(), compare=False, repr=False)


def mutant(dice: random.Random, canary: bytes) -> bytes:
    """A request, or two, with one to three things done to it."""
    raw = bytearray(dice.choice(_SEEDS))
    if dice.random() < 0.3:
        raw += dice.choice(_SEEDS)
    line_end = raw.index(b"\r\n") + 2
    raw[line_end:line_end] = b"Authorization: Bearer %b\r\n" % canary
    for _ in range(dice.choice((1, 1, 2, 3))):
        _damage(raw, dice)
    return bytes(raw)


def _damage(raw: bytearray, dice: random.Random) -> None:
    place = dice.randrange(len(raw))
    match dice.randrange(7):
        case 0:
            raw[place:place] = dice.choice(_PIECES)
        case 1:  # at the beginning of a line
            starts = [0, *(at + 2 for at in range(len(raw)) if raw[at : at + 2] == b"\r\n")]
            place = dice.choice(starts)
            raw[place:place] = dice.choice(_PIECES)
        case 2:
            del raw[place : place + dice.choice((1, 1, 2, 5))]
        case 3:
            raw[place] = dice.randrange(256)
        case 4:
            raw[place:place] = raw[place : place + dice.randrange(1, 30)]
        case 5:  # one number for another
            digits = [at for at in range(len(raw)) if raw[at : at + 1].isdigit()]
            if digits:
                raw[dice.choice(digits)] = ord(dice.choice("0123456789af+-_ "))
        case _:  # two lines for each other
            lines = bytes(raw).split(b"\r\n")
            one, other = dice.randrange(len(lines)), dice.randrange(len(lines))
            lines[one], lines[other] = lines[other], lines[one]
            raw[:] = b"\r\n".join(lines)


def second_reading(raw: bytes) -> tuple[list[Read], bytes]:
    """The requests that h11 finds in what a client has sent, and the rest, which is none, or not whole.

    Blank lines before a request are nothing (RFC 9112 §2.2), and several spaces in its first line are one
    (§3), which h11 does not know.
    """
    found: list[Read] = []
    while raw := raw.lstrip(b"\r\n"):
        server = h11.Connection(h11.SERVER)
        line, end, rest = raw.partition(b"\r\n")
        server.receive_data(re.sub(b" +", b" ", line) + end + rest)
        try:
            request = server.next_event()
            if not isinstance(request, h11.Request):
                break
            body = b""
            while isinstance(event := server.next_event(), h11.Data):
                body += bytes(event.data)
            if not isinstance(event, h11.EndOfMessage):
                break
            fields = frozenset((bytes(name), bytes(value)) for name, value in request.headers)
            found.append(Read(bytes(request.method), bytes(request.target), body, fields))
            server.send(h11.Response(status_code=200, headers=[("Content-Length", "0")]))
            server.send(h11.EndOfMessage())
        except h11.RemoteProtocolError:
            break
        if server.our_state is not h11.DONE:
            break
        raw = server.trailing_data[0]
    return found, raw
