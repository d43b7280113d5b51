"""Everything that is not ours: one request in, one request out, bytes through in both directions.

Nothing here parses a body or holds one. A client that hangs up ends the call to the backend, a
backend that dies in mid-answer ends the client's connection, and neither can be waited for forever.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import AsyncIterator

import aiohttp
from aiohttp import hdrs, web
from aiohttp.http import HttpVersion11, StreamWriter
from multidict import CIMultiDict

from gateway.api.errors import error_response
from gateway.config import Settings
from gateway.observe import Observer
from gateway.outbound.client import FAILURES, backend_url, explain
from gateway.outbound.headers import is_sendable, to_backend, to_client
from gateway.wire.errors import Fault, Refusal, invalid

_SLICE_BYTES = 256 * 2**10
"""One write of a body already in memory: a socket's buffer would copy all that it cannot send."""


class Passthrough:
    """Sends requests on to the backend as they are, and its answers back."""

    def __init__(self, session: aiohttp.ClientSession, settings: Settings, observer: Observer) -> None:
        self._session = session
        self._settings = settings
        self._observer = observer
        key = settings.upstream.api_key
        self._api_key = None if key is None else key.get_secret_value()

    async def forward(
        self, request: web.BaseRequest, *, request_id: str, body: bytes | None = None
    ) -> web.StreamResponse:
        """Answer a request with what the backend answers.

        Args:
            body: The request's body where it has been read already; it is sent with its length.
        """
        try:
            answer = await self._ask(
                request, request_id, body, self._settings.upstream.plain_head_timeout_s, "passthrough"
            )
        except Refusal as refusal:
            return _refused(refusal)
        return await self._relay(request, answer, request_id)

    async def probe(
        self, request: web.BaseRequest, *, request_id: str, missing: frozenset[int]
    ) -> web.StreamResponse | None:
        """Answer as `forward` does, unless the backend has no answer: then None, and nothing was sent.

        Args:
            missing: Statuses by which a backend says that it does not know what is asked for.
        """
        try:
            answer = await self._ask(
                request, request_id, None, self._settings.upstream.lookup_timeout_s, "lookup"
            )
        except Refusal as refusal:
            return _refused(refusal) if refusal.fault is Fault.INVALID else None
        if answer.status in missing:
            answer.release()
            return None
        return await self._relay(request, answer, request_id)

    async def knows(self, request: web.BaseRequest, *, request_id: str, target: str) -> bool:
        """Whether the backend answers a GET of `target`, asked with the caller's headers, with 200."""
        headers = to_backend(request.headers, request_id=request_id, api_key=self._api_key, keep_length=False)
        limit_s = self._settings.upstream.lookup_timeout_s
        try:
            answer = await self._call("GET", target, headers, None, limit_s, "lookup")
        except Refusal:
            return False
        answer.release()
        return answer.status == 200

    async def _ask(
        self, request: web.BaseRequest, request_id: str, body: bytes | None, limit_s: float, kind: str
    ) -> aiohttp.ClientResponse:
        """The request on its way, up to the head of the answer."""
        headers = to_backend(
            request.headers, request_id=request_id, api_key=self._api_key, keep_length=body is None
        )
        if body is not None:
            headers[hdrs.CONTENT_LENGTH] = str(len(body))
        upload = _Upload(request, body) if body is not None or request.body_exists else None
        return await self._call(request.method, request.raw_path, headers, upload, limit_s, kind)

    async def _call(
        self,
        method: str,
        target: str,
        headers: CIMultiDict[str],
        upload: _Upload | None,
        limit_s: float,
        kind: str,
    ) -> aiohttp.ClientResponse:
        url = backend_url(self._settings.upstream, target)
        started = asyncio.get_running_loop().time()
        try:
            async with asyncio.timeout(limit_s) as limit:
                if upload is not None:
                    upload.postpone(limit, limit_s)
                # A dead pooled connection is tried once more by aiohttp, for idempotent methods without
                # a started body only (RFC 9112 §9.3.1).
                answer = await self._session.request(
                    method, url, headers=headers, data=upload, allow_redirects=False
                )
        except FAILURES as error:
            if upload is not None and upload.failure is not None:
                raise invalid("The request body could not be read.") from error
            reason, refusal = explain(error)
            self._observer.upstream_failed(kind, reason)
            raise refusal from error
        if upload is not None:
            upload.postpone(None, 0)
        if answer.status < 200:  # a switch of protocols that nobody asked for: what follows is not HTTP
            answer.close()
            raise explain(aiohttp.ClientError())[1]
        self._observer.upstream_answered(kind, asyncio.get_running_loop().time() - started)
        return answer

    async def _relay(
        self, request: web.BaseRequest, answer: aiohttp.ClientResponse, request_id: str
    ) -> web.StreamResponse:
        """The answer on its way to the client, to its end or to the first failure of either side."""
        headers = to_client(answer.headers, request_id=request_id)
        reason = answer.reason if answer.reason is not None and is_sendable(answer.reason) else None
        response = _Relayed(status=answer.status, reason=reason, headers=headers)
        if request.version < HttpVersion11:
            # aiohttp keeps such a connection open where the client asked for it, but without chunks
            # only its end shows the end of the body.
            response.force_close()
        self._observer.passed_through(request.method, answer.status)
        try:
            await self._copy(request, answer, response)
        except _Cut as cut:
            self._observer.upstream_failed("passthrough", cut.reason)
            _abort(request, response)
        except (ConnectionError, TimeoutError):
            _abort(request, response)  # the client is gone, or took no byte for too long
        finally:
            answer.close()
        return response

    async def _copy(
        self, request: web.BaseRequest, answer: aiohttp.ClientResponse, response: web.StreamResponse
    ) -> None:
        writer = await response.prepare(request)
        assert isinstance(writer, StreamWriter)
        connection = answer.connection.protocol if answer.connection else None
        loop, idle_s = asyncio.get_running_loop(), self._settings.upstream.idle_timeout_s
        stall_s = self._settings.server.write_stall_timeout_s
        try:
            async with asyncio.timeout(None) as silence:
                while True:
                    # The timer moves in steps of a tenth: a stream of small events would otherwise
                    # spend more on timers than on bytes.
                    if (silence.when() or 0) < (due := loop.time() + idle_s):
                        silence.reschedule(due + idle_s / 10)
                    try:
                        chunk = await answer.content.readany()
                    except aiohttp.ClientError as error:
                        raise _Cut("cut") from error
                    if not chunk:
                        break
                    await writer.write(chunk, drain=False)
                    if request.protocol.writing_paused:
                        silence.reschedule(None)  # not the backend is silent, the client is slow
                        await _drained(request, stall_s)
        except TimeoutError as error:
            if request.protocol.writing_paused:
                raise
            raise _Cut("timeout") from error
        if connection is not None and isinstance(connection.exception(), aiohttp.ClientOSError):
            raise _Cut("cut")  # reset within a body that only the connection's end would have ended
        async with asyncio.timeout(stall_s):
            await response.write_eof()


class _Relayed(web.StreamResponse):
    """A response with the backend's headers only."""

    async def _prepare_headers(self) -> None:
        """aiohttp has no switch for its own Content-Type; inventing one changes what the body is."""
        is_typed = hdrs.CONTENT_TYPE in self.headers
        await super()._prepare_headers()
        if not is_typed:
            self.headers.pop(hdrs.CONTENT_TYPE, None)


class _Upload:
    """The request's body on its way to the backend, one read at a time.

    Each read moves the deadline of the answer's head: the backend's time runs from the end of the
    request, and an upload may take as long as it moves.
    """

    def __init__(self, request: web.BaseRequest, body: bytes | None) -> None:
        self.failure: Exception | None = None
        self._request = request
        self._body = body
        self._limit: asyncio.Timeout | None = None
        self._limit_s = 0.0

    def postpone(self, limit: asyncio.Timeout | None, limit_s: float) -> None:
        """Name the deadline to move; None once the head is there, as the upload may go on after it."""
        self._limit, self._limit_s = limit, limit_s

    async def __aiter__(self) -> AsyncIterator[bytes]:
        if self._body is not None:
            for start in range(0, len(self._body), _SLICE_BYTES):
                yield self._body[start : start + _SLICE_BYTES]
            return
        # Only now: a client that waits for it keeps its body while the backend is unreachable.
        continue_if_expected(self._request)
        if not self._request.content.total_bytes:
            # aiohttp holds the head back for the first piece, which may be long in coming; sent now,
            # the backend can refuse an upload before it has begun.
            yield b""
        while chunk := await self._read():
            if self._limit is not None:
                self._limit.reschedule(asyncio.get_running_loop().time() + self._limit_s)
            yield chunk

    async def _read(self) -> bytes:
        try:
            return await self._request.content.readany()
        except Exception as error:
            self.failure = error  # the caller's fault, whatever aiohttp makes of it on its way up
            raise


class _Cut(Exception):
    """The backend's answer ended before its body did; the reason is the one to count."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


async def _drained(request: web.BaseRequest, stall_s: float) -> None:
    """Wait until the client has taken enough of what was written.

    Raises:
        ConnectionError: It is gone.
        TimeoutError: It took no byte for `stall_s`.
    """
    # A task, as aiohttp cannot wait for the same thing again once a timeout has cancelled it.
    draining = asyncio.ensure_future(request.writer.drain())
    try:
        while True:
            left = _unsent(request)
            done, _ = await asyncio.wait({draining}, timeout=stall_s)
            if done:
                return draining.result()
            if _unsent(request) >= left:
                raise TimeoutError
    finally:
        draining.cancel()


def _unsent(request: web.BaseRequest) -> int:
    return request.transport.get_write_buffer_size() if request.transport is not None else 0


def continue_if_expected(request: web.BaseRequest) -> None:
    """Ask for the body of a client that waits to be asked (RFC 9110 §10.1.1)."""
    expects = request.headers.get(hdrs.EXPECT, "").lower() == "100-continue"
    if expects and request.version >= HttpVersion11 and request.transport is not None:
        request.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")


def _abort(request: web.BaseRequest, response: web.StreamResponse) -> None:
    """Break the connection off so that the client cannot take what it has for the whole."""
    transport = request.transport
    if transport is None:
        return
    chunked = hdrs.TRANSFER_ENCODING in response.headers
    if not chunked and hdrs.CONTENT_LENGTH not in response.headers:
        # Here an orderly end is the end of the body: only a reset (no lingering) tells the difference.
        connection = transport.get_extra_info("socket")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transport.abort()


def _refused(refusal: Refusal) -> web.Response:
    response = error_response(refusal)
    if refusal.fault is Fault.INVALID:
        response.force_close()  # where a body could not be read, no next request can be found either
    return response
