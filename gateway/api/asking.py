"""Asking a backend on behalf of a client: which replica, whose headers, and for how long.

Knows aiohttp's client and nothing of the answer to come. Another replica is asked only while none has
answered a byte.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import aiohttp
from aiohttp import hdrs, web
from multidict import CIMultiDict
from yarl import URL

from gateway import loop
from gateway.api.upload import Upload
from gateway.observe import Observer
from gateway.outbound.backend import HttpBackend
from gateway.outbound.client import FAILURES, Method, Reason, explain, read_up_to, url_at
from gateway.outbound.headers import to_backend
from gateway.outbound.pool import Replica
from gateway.outbound.tries import Tries
from gateway.wire.errors import Fault, Refusal, invalid

_FETCH_BYTES_MAX = 4 * 2**20


class Asker:
    """Makes the calls for requests that clients are waiting for."""

    def __init__(self, session: aiohttp.ClientSession, observer: Observer) -> None:
        self._session = session
        self._observer = observer

    def ask(
        self,
        request: web.BaseRequest,
        backend: HttpBackend,
        request_id: str,
        body: bytes | None,
        limit_s: float,
        kind: str,
        *,
        is_seen: bool,
    ) -> AbstractAsyncContextManager[aiohttp.ClientResponse]:
        """A request on its way, up to the head of the answer; leaving the block ends the call.

        Args:
            body: Where it has been read already, and so decoded.
            limit_s: From the end of the request to the answer's head.
            kind: For the metrics: `passthrough` or `lookup`.
            is_seen: The answer must come uncompressed.

        Raises:
            Refusal: By entering the block; nothing was answered.
        """
        headers = self._headers(request, backend, request_id, keep_length=body is None)
        if is_seen:
            headers[hdrs.ACCEPT_ENCODING] = "identity"
        if body is not None:
            headers[hdrs.CONTENT_LENGTH] = str(len(body))
            headers.popall(hdrs.CONTENT_ENCODING, None)  # what was read was decoded

        def upload() -> Upload | None:
            return Upload(request, body) if body is not None or request.body_exists else None

        return self._called(request.method, request.raw_path, headers, upload, backend, limit_s, kind)

    async def fetch(
        self, request: web.BaseRequest, backend: HttpBackend, *, request_id: str, target: str
    ) -> bytes | None:
        """What the backend answers to a GET of `target`, with the caller's headers; None but for 200."""
        headers = self._headers(request, backend, request_id, keep_length=False)
        headers["Accept-Encoding"] = "identity"
        limit_s = backend.settings.lookup_timeout_s
        try:
            async with self._called(
                "GET", target, headers, lambda: None, backend, limit_s, "lookup"
            ) as answer:
                return await read_up_to(answer, _FETCH_BYTES_MAX) if answer.status == 200 else None
        except (Refusal, *FAILURES):
            return None

    async def knows(
        self, request: web.BaseRequest, backend: HttpBackend, *, request_id: str, target: str
    ) -> bool:
        """Whether the backend answers a GET of `target`, asked with the caller's headers, with 200."""
        return await self.status(request, backend, request_id=request_id, target=target) == 200

    async def status(
        self, request: web.BaseRequest, backend: HttpBackend, *, request_id: str, target: str
    ) -> int | None:
        """How the backend answers a GET of `target`, asked with the caller's headers; None if it does not."""
        headers = self._headers(request, backend, request_id, keep_length=False)
        limit_s = backend.settings.lookup_timeout_s
        try:
            async with self._called(
                "GET", target, headers, lambda: None, backend, limit_s, "lookup"
            ) as answer:
                return answer.status
        except Refusal:
            return None

    def _headers(
        self, request: web.BaseRequest, backend: HttpBackend, request_id: str, *, keep_length: bool
    ) -> CIMultiDict[str]:
        headers = to_backend(
            request.headers,
            request_id=request_id,
            api_key=backend.api_key,
            keep_length=keep_length,
            withheld=backend.withheld,
        )
        for name, value in backend.own_headers.items():
            headers[name] = value
        return headers

    @asynccontextmanager
    async def _called(
        self,
        method: str,
        target: str,
        headers: CIMultiDict[str],
        upload_of: Callable[[], Upload | None],
        backend: HttpBackend,
        limit_s: float,
        kind: str,
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """The answer of one replica. Another one is asked while none has answered a byte, and the body is
        still there to be sent again; if there is no other, a connection is tried twice."""
        refused: Refusal | None = None
        tries = backend.tries(is_background=False)
        while (replica := await tries.next()) is not None:
            upload = upload_of()
            with backend.pool.call(replica, is_background=False):
                try:
                    url = url_at(replica.origin, target)
                    answer = await self._call(method, url, headers, upload, limit_s, kind, tries, replica)
                except Refusal as refusal:
                    if upload is not None and not upload.is_whole:
                        raise
                    refused = refusal
                    continue
                backend.pool.answered(replica, answer.status, takes_jobs=False)
                try:
                    yield answer
                finally:
                    answer.close()
                return
        if refused is not None:
            raise refused
        raise Refusal(
            Fault.UNAVAILABLE,
            "The backend cannot be reached at the moment.",
            code="backend_unavailable",
            retry_after_s=math.ceil(backend.settings.breaker_open_s),
        )

    async def _call(
        self,
        method: str,
        url: URL,
        headers: CIMultiDict[str],
        upload: Upload | None,
        limit_s: float,
        kind: str,
        tries: Tries,
        replica: Replica,
    ) -> aiohttp.ClientResponse:
        started = asyncio.get_running_loop().time()
        try:
            async with loop.timeout(limit_s) as limit:
                if upload is not None:
                    upload.limit = limit
                # A dead pooled connection is tried once more by aiohttp, for idempotent methods without
                # a started body only (RFC 9112 §9.3.1).
                answer = await self._session.request(
                    Method(method), url, headers=headers, data=upload, allow_redirects=False
                )
        except FAILURES as error:
            if upload is not None and upload.failure is not None:
                if isinstance(upload.failure, Refusal):
                    raise upload.failure from error
                raise invalid("The request body could not be read.") from error
            reason, refusal = explain(error, limit_s)
            tries.failed(replica, reason)
            self._observer.upstream_failed(kind, reason)
            raise refusal from error
        if upload is not None:
            upload.limit = None
        if answer.status < 200:  # a switch of protocols that nobody asked for: what follows is not HTTP
            answer.close()
            tries.failed(replica, Reason.CUT)
            raise explain(aiohttp.ClientError(), limit_s)[1]
        self._observer.upstream_answered(kind, asyncio.get_running_loop().time() - started)
        return answer
