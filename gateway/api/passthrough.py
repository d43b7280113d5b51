"""Everything that is not ours: one request in, one request out, bytes through in both directions.

Nothing here parses a body or holds one. A client that hangs up ends the call to the backend, a
backend that dies in mid-answer ends the client's connection, and neither can be waited for forever.
"""

from __future__ import annotations

import aiohttp
from aiohttp import hdrs, web
from aiohttp.http import HttpVersion11, StreamWriter

from gateway import loop
from gateway.api.chained_call import ChainedCall
from gateway.api.http.bodies import Upload
from gateway.api.http.errors import error_response
from gateway.api.http.heads import BEGUN, head_of
from gateway.api.http.slow_clients import drained, keep_little_unsent, reset
from gateway.api.ports import Backend
from gateway.api.taps import Tap, TapFactory
from gateway.core.call import PlainCall, RequestBody
from gateway.core.reason import Reason
from gateway.observe import Observer
from gateway.wire.errors import Fault, Refusal
from gateway.wire.http.headers import to_client
from gateway.wire.http.messages import phrase

_ERROR_BYTES_MAX = 64 * 2**10


class Passthrough:
    """Sends requests on to a backend as they are, and its answers back."""

    def __init__(self, observer: Observer, *, stall_timeout_s: float) -> None:
        self._stall_s = stall_timeout_s
        self._observer = observer

    async def forward(
        self,
        request: web.BaseRequest,
        backend: Backend,
        *,
        request_id: str,
        body: bytes | None = None,
        tap_of: TapFactory | None = None,
        chained: ChainedCall | None = None,
    ) -> web.StreamResponse:
        """Answer a request with what the backend answers.

        Args:
            body: The request's body where it has been read (and decoded) already; it is sent with its length.
            tap_of: Makes what sees the answer on its way, and may change it. The backend is then asked not
                to compress it.
            chained: Says the same otherwise, if the backend refuses the body and says why.
        """
        limit_s, idle_s = backend.settings.plain_head_timeout_s, backend.settings.idle_timeout_s
        is_seen = tap_of is not None
        try:
            while True:
                call = _call(request, request_id, body, limit_s, "passthrough", is_seen=is_seen)
                async with backend.plain.open(call) as answer:
                    said = b""
                    if chained is not None and chained.may_learn(answer.status):
                        said = await _beginning(answer, idle_s)
                        if (body := await chained.otherwise(said)) is not None:
                            continue
                    elif chained is not None and answer.status < 300:
                        chained.answered()
                    tap = tap_of(answer) if tap_of is not None else None
                    return await self._relay(request, answer, request_id, idle_s, tap, said)
        except Refusal as refusal:
            return error_response(refusal)

    async def probe(
        self,
        request: web.BaseRequest,
        backend: Backend,
        *,
        request_id: str,
        missing: frozenset[int],
        body: bytes | None = None,
        limit_s: float | None = None,
        tap_of: TapFactory | None = None,
    ) -> web.StreamResponse | None:
        """Answer as `forward` does, unless the backend has no answer: then None, and nothing was sent.

        Args:
            missing: Statuses by which a backend says that it does not know what is asked for.
            limit_s: For the answer's head; by default that of a look-up.
        """
        limit_s = limit_s or backend.settings.lookup_timeout_s
        try:
            call = _call(request, request_id, body, limit_s, "lookup", is_seen=tap_of is not None)
            async with backend.plain.open(call) as answer:
                if answer.status in missing:
                    return None
                tap = tap_of(answer) if tap_of is not None else None
                return await self._relay(request, answer, request_id, backend.settings.idle_timeout_s, tap)
        except Refusal as refusal:
            return error_response(refusal) if refusal.fault is Fault.INVALID else None

    async def _relay(
        self,
        request: web.BaseRequest,
        answer: aiohttp.ClientResponse,
        request_id: str,
        idle_s: float,
        tap: Tap | None,
        begun: bytes = b"",
    ) -> web.StreamResponse:
        """The answer on its way to the client, to its end or to the first failure of either side.

        Args:
            begun: What has been read of it.
        """
        headers = to_client(answer.headers.items(), request_id=request_id)
        response = Relayed(status=answer.status, reason=phrase(answer.status, answer.reason), headers=headers)
        if tap is not None and tap.may_change:
            response.headers.popall(hdrs.CONTENT_LENGTH, None)
        if request.version < HttpVersion11:
            # aiohttp keeps such a connection open where the client asked for it, but without chunks
            # only its end shows the end of the body.
            response.force_close()
        self._observer.passed_through(request.method, answer.status)
        try:
            await self._copy(request, answer, response, idle_s, tap, begun)
        except _Cut as cut:
            self._observer.upstream_failed("passthrough", cut.reason.short)
            _abort(request, response)
        except (ConnectionError, TimeoutError):
            _abort(request, response)  # the client is gone, or took no byte for too long
        return response

    async def _copy(
        self,
        request: web.BaseRequest,
        answer: aiohttp.ClientResponse,
        response: web.StreamResponse,
        idle_s: float,
        tap: Tap | None,
        begun: bytes,
    ) -> None:
        writer = await response.prepare(request)
        assert isinstance(writer, StreamWriter)
        if answer.content_length is None and not answer.content.total_bytes:
            await writer.write(b"")  # aiohttp would hold the head back until a stream's first event
        connection = answer.connection.protocol if answer.connection else None
        try:
            async with loop.timeout(idle_s) as silence:
                while True:
                    silence.start(idle_s)
                    try:
                        chunk, begun = begun or await answer.content.readany(), b""
                    except aiohttp.ClientError as error:
                        raise _Cut(Reason.CUT) from error
                    if tap is not None:
                        chunk, is_end = (await tap.saw(chunk), False) if chunk else (await tap.ended(), True)
                    else:
                        is_end = not chunk
                    if chunk:
                        await writer.write(chunk, drain=False)
                    if is_end:
                        break
                    if request.protocol.writing_paused:
                        silence.start(None)  # not the backend is silent, the client is slow
                        keep_little_unsent(request.transport)
                        await drained(request, self._stall_s)
        except TimeoutError as error:
            if request.protocol.writing_paused:
                raise
            raise _Cut(Reason.TIMEOUT) from error
        if connection is not None and isinstance(connection.exception(), aiohttp.ClientOSError):
            raise _Cut(Reason.CUT)  # reset within a body that only the connection's end would have ended
        async with loop.timeout(self._stall_s):
            await response.write_eof()


def _call(
    request: web.BaseRequest,
    request_id: str,
    body: bytes | None,
    limit_s: float,
    kind: str,
    *,
    is_seen: bool,
) -> PlainCall:
    """The call by which a request goes on."""

    def upload() -> RequestBody | None:
        return Upload(request, body) if body is not None or request.body_exists else None

    head, size = head_of(request), None if body is None else len(body)
    return PlainCall(
        request_id,
        head.method,
        head.target,
        head.headers,
        limit_s,
        kind,
        upload,
        size,
        is_seen,
        begun=request.pop(BEGUN, None),  # another call for the same request is one of its own
    )


async def _beginning(answer: aiohttp.ClientResponse, idle_s: float) -> bytes:
    """The first part of an answer; all of it, if it is an error as servers send them."""
    begun = b""
    try:
        async with loop.timeout(idle_s):
            while len(begun) < _ERROR_BYTES_MAX and (chunk := await answer.content.readany()):
                begun += chunk
    except (aiohttp.ClientError, TimeoutError):
        pass  # whoever reads on finds out, too
    return begun


class Relayed(web.StreamResponse):
    """A response with the backend's headers only."""

    async def _prepare_headers(self) -> None:
        """aiohttp has no switch for its own Content-Type; inventing one changes what the body is."""
        is_typed = hdrs.CONTENT_TYPE in self.headers
        await super()._prepare_headers()
        if not is_typed:
            self.headers.pop(hdrs.CONTENT_TYPE, None)


class _Cut(Exception):
    """The backend's answer ended before its body did; the reason is the one to count."""

    def __init__(self, reason: Reason) -> None:
        super().__init__(reason)
        self.reason = reason


def _abort(request: web.BaseRequest, response: web.StreamResponse) -> None:
    """Break the connection off so that the client cannot take what it has for the whole."""
    chunked = hdrs.TRANSFER_ENCODING in response.headers
    if not chunked and hdrs.CONTENT_LENGTH not in response.headers:
        reset(request)  # here an orderly end is the end of the body: only a reset tells the difference
    elif request.transport is not None:
        request.transport.abort()
