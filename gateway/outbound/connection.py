"""One connection to a server: a request at a time; its answer as aiohttp's parser reads it, told as it comes.

Of an answer whose head came before, byte for byte, nothing needs to be parsed: where such a head shows the
length of the body, the bytes are counted. All others go through the parser, chunks in any case.
"""

from __future__ import annotations

import asyncio
import socket
import sys
from collections import OrderedDict
from dataclasses import dataclass
from typing import Final, Protocol, cast

import aiohttp
from aiohttp.base_protocol import BaseProtocol
from aiohttp.http import HttpResponseParser, RawResponseMessage
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.streams import StreamReader

from gateway.core.quick import AnswerHead
from gateway.wire.http.messages import may_have_body

_HEAD_END: Final = b"\r\n\r\n"
_READ_BYTES: Final = 2**20
_HEAD_BYTES_MAX: Final = 8 * 2**10
_KNOWN_MAX: Final = 512

_TCP_INFO: Final = getattr(socket, "TCP_INFO", None)  # Linux
_ESTABLISHED: Final = 1
_ACKED_AT: Final = slice(120, 128)  # tcpi_bytes_acked, which counts the handshake as one


class Requester(Protocol):
    """Whoever has sent a request."""

    def answered(self, head: AnswerHead, body: bytes, is_end: bool) -> None:
        """The head has come, and some of the body."""

    def received(self, body: bytes, is_end: bool) -> None:
        """More of the body has come, or its end."""

    def broke(self, error: Exception, *, is_unsent: bool) -> None:
        """There will be no more.

        Args:
            is_unsent: No byte of the request has reached the server, as far as TCP can tell.
        """


@dataclass(frozen=True, slots=True)
class _KnownAnswer:
    head: AnswerHead
    length: int
    closes: bool


class KnownAnswers:
    """Heads of answers that came before, and show how long the body is."""

    def __init__(self) -> None:
        self._known: OrderedDict[bytes, _KnownAnswer] = OrderedDict()

    def get(self, raw: bytes) -> _KnownAnswer | None:
        return self._known.get(raw)

    def keep(self, raw: bytes, message: RawResponseMessage, head: AnswerHead) -> None:
        """A head was read from these bytes, which were all of it."""
        length, has_body = message.headers.get("Content-Length"), may_have_body("GET", head.status)
        # A parser of answers also takes a bare LF for the end of a line: such a head may have ended sooner.
        # It also passes over empty lines before a head: then these bytes are they, and not the head.
        is_odd = raw.count(b"\n") != raw.count(b"\r\n") or not raw.startswith(b"HTTP/") or message.chunked
        if is_odd or (has_body and length is None):
            return
        known = _KnownAnswer(head, int(length or 0) if has_body else 0, message.should_close)
        self._known[raw] = known
        if len(self._known) > _KNOWN_MAX:
            self._known.popitem(last=False)


class HttpConnection(asyncio.Protocol):
    """One connection.

    Attributes:
        is_used: It has answered before.
        idle_since_s: When its last answer ended.
    """

    __slots__ = (
        "_call",
        "_closes",
        "_is_unsent",
        "_known",
        "_left",
        "_parser",
        "_payload",
        "_sent_before",
        "_sent_bytes",
        "_shows_bodies",
        "_transport",
        "idle_since_s",
        "is_used",
    )

    def __init__(self, known: KnownAnswers) -> None:
        self._known = known
        self._transport: asyncio.Transport | None = None
        self._call: Requester | None = None
        self._parser: HttpResponseParser | None = None
        self._payload: StreamReader | None = None  # of the answer that the parser is in
        self._left = 0  # to come of a body that is counted
        self._closes = False  # this answer is the last one
        self._shows_bodies = True
        self._sent_bytes = self._sent_before = 0
        self._is_unsent = False
        self.is_used = False
        self.idle_since_s = 0.0

    # -- for whoever calls

    @property
    def is_open(self) -> bool:
        return self._transport is not None and not self._transport.is_closing()

    def is_established(self) -> bool:
        """Whether the server has not closed it, be it a moment ago and unread."""
        info = self._tcp_info()
        return self.is_open and (info is None or info[0] == _ESTABLISHED)

    def send(self, call: Requester, request: bytes, *, shows_bodies: bool) -> None:
        """
        Args:
            shows_bodies: Answers to this request have a body.
        """
        assert self._transport is not None
        self._call = call
        self._shows_bodies = shows_bodies
        self._sent_before = self._sent_bytes
        self._sent_bytes += len(request)
        self._transport.write(request)

    def pause(self) -> None:
        if self.is_open:
            assert self._transport is not None
            self._transport.pause_reading()

    def resume(self) -> None:
        if self.is_open:
            assert self._transport is not None
            self._transport.resume_reading()

    def close(self) -> None:
        """No more is heard of the call."""
        self._call = None
        if self._transport is not None:
            self._transport.close()

    # -- for the event loop

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        if (sock := self._transport.get_extra_info("socket")) is not None:
            # A model may think for hours, and a router forget the connection.
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)

    def data_received(self, data: bytes) -> None:
        if self._call is None:
            self.close()  # nothing was asked
        elif self._left:
            self._count(data)
        elif self._parser is None and self._shows_bodies:
            self._read_head(data)
        else:
            self._feed(data)

    def eof_received(self) -> None:
        """The connection closes by itself. Who asks later gets no more answers from the kernel."""
        self._is_unsent = self._sent_nothing()

    def connection_lost(self, exc: Exception | None) -> None:
        call, parser, payload = self._call, self._parser, self._payload
        self._transport = self._call = self._parser = self._payload = None
        if call is None:
            return
        if exc is None and payload is not None and parser is not None:
            try:
                parser.feed_eof()
            except (HttpProcessingError, aiohttp.ClientError):
                pass
            else:  # the end of the connection was that of the body
                call.received(payload.read_nowait(), True)
                return
        error = aiohttp.ServerDisconnectedError() if exc is None else aiohttp.ClientOSError(*exc.args)
        call.broke(error, is_unsent=self._is_unsent)

    # -- answers

    def _read_head(self, data: bytes) -> None:
        end = data.find(_HEAD_END) + len(_HEAD_END)
        known = self._known.get(data[:end]) if end >= len(_HEAD_END) else None
        if known is None or len(data) - end > known.length:
            self._feed(data, data[:end] if len(_HEAD_END) <= end <= _HEAD_BYTES_MAX else None)
            return
        call, body = self._call, data[end:]
        assert call is not None
        self._left, self._closes = known.length - len(body), known.closes
        is_end = not self._left
        if is_end:
            self._ended()
        call.answered(known.head, body, is_end)

    def _count(self, data: bytes) -> None:
        call = self._call
        assert call is not None
        self._left -= len(data)
        if self._left > 0:
            call.received(data, False)
            return
        if self._left < 0:  # more than was announced
            data, self._left, self._closes = data[: self._left], 0, True
        self._ended()
        call.received(data, True)

    def _feed(self, data: bytes, raw_head: bytes | None = None) -> None:
        """Have the parser read what came.

        Args:
            raw_head: The beginning of it, which is a head if it is the whole of one.
        """
        if self._parser is None:
            self._parser = _parser(shows_bodies=self._shows_bodies)
        try:
            messages, _, _ = self._parser.feed_data(data)
        except HttpProcessingError:
            self._fail()
            return
        head = None
        for message, found in messages:
            if self._payload is not None:
                self._closes = True  # an answer to nothing that was asked
            elif message.code == 101:
                # A switch of protocols that nobody asked for: what follows is not HTTP.
                self._fail()
                return
            elif message.code >= 200:
                self._payload, self._closes = found, message.should_close
                head = AnswerHead(message.code, message.reason, list(message.headers.items()))
                if raw_head is not None and len(messages) == 1:
                    self._known.keep(raw_head, message, head)
        call, payload = self._call, self._payload
        if payload is None:
            return  # the head has not come whole
        assert call is not None
        body, is_end = payload.read_nowait(), payload.is_eof()
        if is_end:
            self._ended()
        if head is not None:
            call.answered(head, body, is_end)
        elif body or is_end:
            call.received(body, is_end)

    def _fail(self) -> None:
        """This is not HTTP, or not what was asked for; an answer that was whole before it stays so."""
        call, payload = self._call, self._payload
        assert call is not None
        if payload is not None and payload.is_eof():
            self._closes = True
            self._ended()
            call.received(payload.read_nowait(), True)
            return
        self.close()
        if payload is not None and (body := payload.read_nowait()):
            call.received(body, False)
        call.broke(aiohttp.ClientError(), is_unsent=False)

    def _ended(self) -> None:
        """The answer has; the connection may serve again if all of the request was taken, and both agree."""
        assert self._transport is not None
        self._call = self._parser = self._payload = None
        self.is_used = True
        if self._closes or self._transport.get_write_buffer_size():
            self._transport.close()

    # -- TCP

    def _sent_nothing(self) -> bool:
        """Whether the server's end of the connection was closed before it had any byte of this request: its
        last segment says what had arrived by then. TLS hides how many bytes that should have been."""
        info = self._tcp_info()
        if info is None or len(info) < _ACKED_AT.stop or self._is_secured:
            return False
        return int.from_bytes(info[_ACKED_AT], sys.byteorder) - 1 <= self._sent_before

    @property
    def _is_secured(self) -> bool:
        return self._transport is not None and self._transport.get_extra_info("sslcontext") is not None

    def _tcp_info(self) -> bytes | None:
        if _TCP_INFO is None or not self.is_open:
            return None
        assert self._transport is not None
        try:
            found = self._transport.get_extra_info("socket").getsockopt(
                socket.IPPROTO_TCP, _TCP_INFO, _ACKED_AT.stop
            )
        except OSError:
            return None
        return bytes(found)


class _ParserSource(BaseProtocol):
    """What a parser thinks that it reads from. What it has parsed is taken at once: nothing is paused."""

    def pause_reading(self) -> None:
        pass

    def resume_reading(self, resume_parser: bool = True) -> None:
        pass


def _parser(*, shows_bodies: bool) -> HttpResponseParser:
    """One for the next answer, as aiohttp's client makes it."""
    loop = asyncio.get_running_loop()
    return HttpResponseParser(
        _ParserSource(loop),
        loop,
        _READ_BYTES,
        payload_exception=aiohttp.ClientPayloadError,
        response_with_body=shows_bodies,
        read_until_eof=True,
        auto_decompress=False,
    )
