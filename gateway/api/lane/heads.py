"""Heads of requests as the fast lane reads them: by aiohttp's parser, and each only once.

The same bytes at the beginning of a message are the same head; so what was made of them is kept, for as many
as clients that ask again and again are likely to have. Whatever is unusual is not for this lane.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from typing import Final, Protocol

from aiohttp.base_protocol import BaseProtocol
from aiohttp.http import HttpRequestParser, RawRequestMessage
from aiohttp.http_exceptions import HttpProcessingError

from gateway.api.ports import Backend
from gateway.core.quick import Prepared
from gateway.wire.errors import Refusal
from gateway.wire.http.admission import admit
from gateway.wire.http.head import Head, Headers

_HEAD_END: Final = b"\r\n\r\n"

BODY_BYTES_MAX: Final = 64 * 2**10
"""Larger ones are sent on before they have come whole, in the other lane."""

_HEAD_BYTES_MAX: Final = 8 * 2**10
_KNOWN_MAX: Final = 1024

_UNUSUAL: Final = ("transfer-encoding", "upgrade", "expect", "trailer")
_CONNECTION: Final[tuple[list[str], ...]] = ([], ["keep-alive"], ["close"])


class Forwarder(Protocol):
    """Decides where a request is forwarded."""

    def backend_of(self, head: Head) -> Backend | None:
        """The backend, if the head alone decides it; else None. Raises: Refusal, if there is none."""

    def look(
        self, head: Head, body: bytes, tenant: Callable[[], bytes]
    ) -> Generator[None, None, tuple[Backend, bytes] | None]:
        """The backend, and the body that it gets; None if the other lane has more to do. Raises: Refusal."""


@dataclass(slots=True)
class KnownHead:
    """A head that was admitted, and that the fast lane can handle.

    Attributes:
        length: Of the body.
        closes: It is the last request on its connection.
        is_settled: The policy for pages may concern its answer.
        way: Says how it goes on.
        backend: Where to; None if that depends on its body.
        prepared: What was made of it for each backend it went to.
    """

    head: Head
    length: int
    closes: bool
    is_settled: bool
    way: Forwarder
    backend: Backend | None
    prepared: dict[str, Prepared] = field(default_factory=dict)


class Heads:
    """Reads heads, and remembers the latest of them.

    Args:
        way: Finds the way of a request; None if it is not for a backend to answer.
        settles: Whether the policy for pages may concern the answer.
        body_bytes_max: Of a body that has to be looked at.
    """

    def __init__(
        self, way: Callable[[Head], Forwarder | None], settles: Callable[[Head], bool], *, body_bytes_max: int
    ) -> None:
        self._settles = settles
        self._way = way
        self._body_bytes_max = body_bytes_max
        self._known: OrderedDict[bytes, KnownHead | None] = OrderedDict()

    def read(self, data: bytes) -> tuple[KnownHead | None, int]:
        """The head with which bytes begin, and its size; None if it is not there, or not for this lane."""
        end = data.find(_HEAD_END) + len(_HEAD_END)
        return (self._read(data[:end]) if len(_HEAD_END) <= end <= _HEAD_BYTES_MAX else None), end

    def _read(self, raw: bytes) -> KnownHead | None:
        try:
            known = self._known[raw]
        except KeyError:
            known = self._known[raw] = self._read_anew(raw)
            if len(self._known) > _KNOWN_MAX:
                self._known.popitem(last=False)
        else:
            self._known.move_to_end(raw)
        return known

    def _read_anew(self, raw: bytes) -> KnownHead | None:
        if (message := _parsed(raw)) is None:
            return None
        headers = Headers(message.headers.items())
        length = int(headers.first("content-length") or 0)
        head = Head(message.method, message.path, message.version, headers, length > 0)
        if not _is_usual(head, length):
            return None
        try:
            admit(head)
            if (way := self._way(head)) is None:
                return None
            backend = way.backend_of(head)
        except Refusal:
            return None  # in the other lane's words
        if backend is None and ("content-encoding" in head.headers or length > self._body_bytes_max):
            return None  # it has to be decoded, or refused, before anybody can look at it
        return KnownHead(head, length, message.should_close, self._settles(head), way, backend)


def _parsed(raw: bytes) -> RawRequestMessage | None:
    """The one message that begins with these bytes; None if they are no head, or not one."""
    loop = asyncio.get_running_loop()
    # With the limits of the other lane, which are aiohttp's own.
    parser = HttpRequestParser(BaseProtocol(loop), loop, BODY_BYTES_MAX, auto_decompress=False)
    try:
        messages, is_upgraded, _ = parser.feed_data(raw)
    except HttpProcessingError:
        return None  # the other lane says what is wrong with it
    if len(messages) != 1 or is_upgraded:
        return None
    message = messages[0][0]
    return None if message.upgrade or message.chunked else message


def _is_usual(head: Head, length: int) -> bool:
    return (
        head.version == (1, 1)
        and length <= BODY_BYTES_MAX
        and not any(name in head.headers for name in _UNUSUAL)
        and [one.lower() for one in head.headers.all("connection")] in _CONNECTION
        and head.target.isascii()
        and not head.target.endswith("?")  # the other lane's client drops an empty query
    )
