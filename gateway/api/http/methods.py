"""Methods that aiohttp's parser does not know, though anybody may invent one (RFC 9110 §16.1).

The parser reads a stand-in, which frames a request the same way, and the request gets its own method back.
Where that is not certainly the beginning of a request, as behind another in one piece, nothing is replaced.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable
from typing import Final

from aiohttp import hdrs
from aiohttp.http import RawRequestMessage

from gateway.api.http.errors import METHODS

_STAND_IN: Final = "UNLINK"
_METHOD = re.compile(rb"([\w!#$%&'*+.^`|~-]{1,32})( |\Z)")
"""What a request begins with: a token and a space, or as much as has come. The parser refuses longer ones."""
_PARSED: Final = frozenset(METHODS.encode().split(b", ")) - {_STAND_IN.encode()} | {
    b"CONNECT",
    b"TRACE",
    b"PRI",
}
_HEAD_END: Final = b"\r\n\r\n"


class Methods:
    """Stands before the parser of one connection, which gets every other byte as it came."""

    __slots__ = ("_body_bytes", "_held", "_is_certain", "_names", "_parse", "_tail")

    def __init__(self, parse: Callable[[bytes], RawRequestMessage | None]) -> None:
        """
        Args:
            parse: Has bytes parsed. Returns the request whose head they have ended, if there is just one.
        """
        self._parse = parse
        self._names: deque[str] = deque()  # of the requests that the parser gets with the stand-in, in order
        self._held = b""  # of a method that has not come whole
        self._tail = b""  # of the head that is being read; empty between requests
        self._body_bytes = 0  # still to come
        self._is_certain = True

    def receive(self, data: bytes) -> None:
        """Have the parser read what came."""
        if not self._is_certain or not data:
            self._parse(data)
        elif self._body_bytes:
            self._body_bytes -= len(data)
            self._is_certain = self._body_bytes >= 0
            self._parse(data)
        elif data := data if self._tail else self._named(data):
            self._read_head(data)

    @property
    def is_between(self) -> bool:
        """Whether what comes next is the beginning of a request."""
        return self._is_certain and not (self._body_bytes or self._tail or self._held or self._names)

    def own(self, head: RawRequestMessage) -> RawRequestMessage:
        """The next head that the parser has read, with the method that was sent."""
        if head.method == _STAND_IN and self._names:
            return head._replace(method=self._names.popleft())
        return head

    def _named(self, data: bytes) -> bytes:
        """A request's beginning as the parser gets it; empty until it has come."""
        data = (self._held + data).lstrip(b"\r\n")  # blank lines before a request (RFC 9112 §2.2)
        self._held = b""
        found = _METHOD.match(data)
        if found is None:
            self._is_certain = not data
        elif not found[2]:
            self._held, data = data, b""
        elif found[1] not in _PARSED:
            self._names.append(found[1].decode())
            data = _STAND_IN.encode() + data[found.end(1) :]
        return data

    def _read_head(self, data: bytes) -> None:
        seen = self._tail + data
        end = seen.find(_HEAD_END)
        self._tail = seen[1 - len(_HEAD_END) :] if end < 0 else b""
        head = self._parse(data)
        if end < 0:
            return
        # What comes after chunks or an upgrade is no request (see `server._request`).
        if head is None or head.chunked or head.upgrade or head.should_close:
            self._is_certain = False
        else:
            body_bytes = int(head.headers.get(hdrs.CONTENT_LENGTH, 0))
            self._body_bytes = body_bytes - (len(seen) - end - len(_HEAD_END))
            self._is_certain = self._is_certain and self._body_bytes >= 0
