"""aiohttp's low-level server, strict about heads, with limits on how slow and how many its clients may be.

Nothing in its error answers and its log is what a client has sent: aiohttp would quote malformed requests,
and in `Authorization : Bearer …` the stray blank is the error, and the key is what gets quoted.
"""

from __future__ import annotations

import asyncio
import logging
import re
import uuid
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, cast

from aiohttp import web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.http import HttpVersion11, RawRequestMessage
from aiohttp.http_exceptions import BadStatusLine, HttpProcessingError, LineTooLong
from aiohttp.streams import EMPTY_PAYLOAD, StreamReader
from aiohttp.web_protocol import RequestHandler
from multidict import CIMultiDict

from gateway import loop
from gateway.api.http.errors import STATUS, error_bytes, error_response
from gateway.api.http.heads import BEGUN, head_of
from gateway.api.http.methods import Methods
from gateway.api.http.slow_clients import SlowClientWatch
from gateway.config import ServerSettings
from gateway.core.call import Begun
from gateway.observe import Observer, line
from gateway.wire.errors import Fault, Refusal, invalid
from gateway.wire.http.admission import admit, bad_version, head_too_large, unknown_method
from gateway.wire.http.head import Head
from gateway.wire.http.headers import set_own

if TYPE_CHECKING:
    from gateway.api.lane.connection import FastConnection
    from gateway.api.lane.lane import Lane

Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]
Settle = Callable[[Head, CIMultiDict[str]], None]

_READ_BYTES = 64 * 2**10
"""Bytes of a body buffered for its reader: up to twice that, or 4096 chunks, some 10 ms of parsing."""

_SEE_OFF_S = 2.0
"""Seconds for which a connection stays half open after a malformed request: the client can read why."""

_UNKNOWN_METHOD = re.compile(r"Invalid method.*\bb['\"][\w!#$%&'*+.^`|~-]+ /", re.DOTALL)
"""Matches the parser's words for a well-formed request line whose method it does not know."""

_FAILED = Refusal(Fault.INTERNAL, "The gateway failed.", code="internal_error")


class Server(web.Server):
    """A server for one handler, which gets admitted requests only.

    Attributes:
        settle: Has the last word about the head of every answer to a request.
        is_leaving: Every answer is the last one on its connection, so that clients and balancers open their
            next one elsewhere, and none is cut when the process ends.
        lane: The fast lane, in which connections begin.
    """

    def __init__(
        self, handler: Handler, settings: ServerSettings, observer: Observer, settle: Settle | None = None
    ) -> None:
        # handler_cancellation: who hangs up ends what is done for it
        super().__init__(self._admit, request_factory=_request, handler_cancellation=True)
        self._handler = handler
        self._settings = settings
        self._observer = observer
        self.settle = settle
        self.is_leaving = False
        self.lane: Lane | None = None

    def __call__(self) -> RequestHandler:
        if self.lane is not None:
            return cast(RequestHandler, self.lane.connection())
        return _Connection(self, self._settings, self._observer)

    def turns_away(self, transport: asyncio.Transport) -> bool:
        """Whether there are too many connections already; then this one ends."""
        if not self.is_full:
            return False
        self._observer.request_refused(503)
        transport.write(error_bytes(_too_many_connections()))
        transport.close()
        return True

    def joined(self, connection: FastConnection, transport: asyncio.Transport) -> None:
        """A connection of the fast lane counts as any other."""
        self._connections[cast(RequestHandler, connection)] = transport

    def left(self, connection: FastConnection) -> None:
        self._connections.pop(cast(RequestHandler, connection), None)

    def takes_back(self, connection: _Connection, data: bytes) -> bool:
        """Whether the fast lane goes on with a connection on which all has been answered."""
        if self.lane is None or not self.lane.wants(data) or (transport := connection.let_go()) is None:
            return False
        first = self.lane.connection()
        transport.set_protocol(first)
        first.connection_made(transport)
        first.data_received(data)
        return True

    def hand_over(self, transport: asyncio.Transport, data: bytes, begun: Begun | None) -> None:
        """Take a connection from the fast lane, with what has come and is not answered."""
        connection = _Connection(self, self._settings, self._observer, begun)
        transport.set_protocol(connection)
        connection.connection_made(transport)
        connection.data_received(data)

    @property
    def is_full(self) -> bool:
        """Whether one more connection would be one too many."""
        return len(self._connections) >= self._settings.connections_max

    async def _admit(self, request: web.BaseRequest) -> web.StreamResponse:
        try:
            admit(head_of(request))
        except Refusal as refusal:
            if request.version.major != 1:
                request._cache["version"] = HttpVersion11  # the answer's, too, which must not be HTTP/2.0
            return _refused(refusal, self._observer)
        return await self._handler(request)


class _Connection(RequestHandler):
    """One client's connection."""

    __slots__ = ("_begun", "_body", "_is_deaf", "_observer", "_patience", "_server", "methods")

    def __init__(
        self, server: Server, settings: ServerSettings, observer: Observer, begun: Begun | None = None
    ) -> None:
        super().__init__(
            server,
            loop=asyncio.get_running_loop(),
            auto_decompress=False,  # bodies pass as they are
            keepalive_timeout=settings.keepalive_timeout_s,
            read_bufsize=_READ_BYTES,
            access_log=None,  # type: ignore[arg-type]  # None is how it is turned off
        )
        self._server = server
        self._observer = observer
        self._patience = SlowClientWatch(self, settings)
        self._body: StreamReader = EMPTY_PAYLOAD  # of the last head that has come
        self._is_deaf = False  # what still comes is dropped
        self._begun = begun
        self.methods = Methods(self._parse)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        if not self._server.turns_away(cast(asyncio.Transport, transport)):
            super().connection_made(transport)

    def connection_lost(self, exc: BaseException | None) -> None:
        self._patience.end()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._is_deaf or (self._is_idle and self._server.takes_back(self, data)):
            return
        body, was_whole, heads = self._body, self._body.is_eof(), self._request_count
        self.methods.receive(data)
        if self._request_count != heads:
            message, self._body = self._messages[-1]
            if not was_whole and not isinstance(message, RawRequestMessage):
                # aiohttp does not tell a body that its framing is broken: its reader would wait for ever.
                body.set_exception(invalid("The request's body is not well-formed.", code="invalid_http"))
        if not self._body.is_eof():
            self._patience.wait_for_body(self._body)
        elif was_whole and data and self._request_count == heads and not self._upgraded:
            self._patience.wait_for_head(len(data))
        else:
            self._patience.end()

    @property
    def _is_idle(self) -> bool:
        """Whether all requests are answered, and all of the answers is on its way.

        One that has had none yet is not idle: the fast lane has just sent it here. From Python 3.12 on
        aiohttp waits for the first request already as the connection is made.
        """
        is_waiting = self._request_count > 0 and self._waiter is not None and not self._waiter.done()
        is_open = not (self._close or self._force_close or self._upgraded)
        return is_waiting and is_open and self.methods.is_between and not (self.is_held or self._paused)

    def let_go(self) -> asyncio.Transport | None:
        """Leave the connection to somebody else; None if there is none any more."""
        transport, self.transport = self.transport, None
        if transport is not None:
            self.connection_lost(None)
        return transport

    def _parse(self, data: bytes) -> RawRequestMessage | None:
        heads = self._request_count
        super().data_received(data)
        head = self._messages[-1][0] if self._request_count == heads + 1 else None
        return head if isinstance(head, RawRequestMessage) else None

    def take_begun(self) -> Begun | None:
        """What the fast lane has done for the first request, once."""
        begun, self._begun = self._begun, None
        return begun

    def settle(self, request: web.BaseRequest, headers: CIMultiDict[str]) -> None:
        if self._server.settle is not None:
            self._server.settle(head_of(request), headers)

    @property
    def is_leaving(self) -> bool:
        return self._server.is_leaving

    @property
    def is_held(self) -> bool:
        return self._reading_paused or self._buffer_paused

    def refuse(self, refusal: Refusal) -> None:
        if self._request_in_progress or self._messages:
            self.close()  # after the answers that are under way
        elif self.transport is not None:
            self._observer.request_refused(STATUS[refusal.fault])
            self.transport.write(error_bytes(refusal))
            self.force_close()

    def give_up(self) -> None:
        if self.transport is not None:
            self.transport.abort()

    async def finish_response(
        self, request: web.BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> tuple[web.StreamResponse, bool]:
        if not resp.prepared and not request.content.is_eof():
            # A client that waits to be asked for its body may send it now or not at all, and what follows
            # could be read as either (RFC 9110 §10.1.1).
            resp.force_close()
        finished = await super().finish_response(request, resp, start_time)
        if self._is_deaf and self.transport is not None and self.transport.can_write_eof():
            # RFC 9112 §9.6: closing while the client still sends resets the connection and loses the answer.
            self.transport.write_eof()
            await asyncio.sleep(_SEE_OFF_S)  # the client's end of the connection ends it
        return finished

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        if request.writer.output_size > 0:
            raise ConnectionError("The answer had begun: it cannot be turned into an error.")
        self._is_deaf = status < 500
        return _refused(_malformed(exc) if self._is_deaf else _FAILED, self._observer)

    def _process_keepalive(self) -> None:
        """aiohttp's hook for a connection not used for long: its next request may have come by now."""
        loop.Alarm(0, super()._process_keepalive)

    def log_exception(self, *args: Any, **kwargs: Any) -> None:
        error = kwargs.get("exc_info")
        line("connection_failed", level=logging.DEBUG, error=type(error).__name__)


def _request(
    message: RawRequestMessage,
    payload: StreamReader,
    protocol: RequestHandler,
    writer: AbstractStreamWriter,
    task: asyncio.Task[None],
) -> web.BaseRequest:
    assert isinstance(protocol, _Connection)
    message = protocol.methods.own(message)
    if message.upgrade or message.chunked or protocol.is_leaving:
        # What follows a declined upgrade may be of the other protocol. After chunks aiohttp's parser (3.14)
        # takes the last line of a trailer, which may say anything, for the next request's first header.
        message = message._replace(should_close=True)
    request = _Request(message, payload, protocol, writer, task, task.get_loop())
    if (begun := protocol.take_begun()) is not None:
        request[BEGUN] = begun
    return request


class _Request(web.BaseRequest):
    async def _prepare_hook(self, response: web.StreamResponse) -> None:
        """aiohttp's hook for the head of any answer, whoever made it."""
        assert isinstance(self._protocol, _Connection)
        self._protocol.settle(self, response.headers)


def _too_many_connections() -> Refusal:
    message = "Too many connections are open."
    return Refusal(Fault.UNAVAILABLE, message, code="too_many_connections", retry_after_s=1)


def _malformed(error: BaseException | None) -> Refusal:
    said = error.message if isinstance(error, HttpProcessingError) else ""
    if isinstance(error, LineTooLong) or said.startswith("Too many headers"):
        return head_too_large()
    if isinstance(error, BadStatusLine) and "Invalid HTTP version" in said:
        return bad_version()
    if isinstance(error, BadStatusLine) and _UNKNOWN_METHOD.search(said):
        return unknown_method()
    return invalid("The request is not well-formed HTTP.", code="invalid_http")


def _refused(refusal: Refusal, observer: Observer) -> web.Response:
    """An answer after which nothing that the client has sent is read any more."""
    response = error_response(refusal)
    observer.request_refused(response.status)
    set_own(response.headers, str(uuid.uuid4()))
    response.force_close()
    return response
