"""Calls on behalf of clients that wait for the answer: a request that goes on, a look-up, a WebSocket.

Another replica is asked only while none has answered a byte.
"""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import aclosing, asynccontextmanager

import aiohttp
from aiohttp import hdrs
from multidict import CIMultiDict

from gateway import loop
from gateway.config import UpstreamSettings
from gateway.core.call import PlainCall, RequestBody
from gateway.observe import Observer
from gateway.outbound.calls import Unanswered, each_answer
from gateway.outbound.client import FAILURES, Method, read_up_to, url_at
from gateway.outbound.pool import Replica
from gateway.outbound.tries import Failover
from gateway.wire.errors import Fault, Refusal, invalid
from gateway.wire.http.head import CREDENTIALS
from gateway.wire.http.headers import ask_to_upgrade, to_backend


class HttpPlainCalls:
    """Those of one backend.

    Args:
        session: One that keeps connections.
        tries: Makes the way of one call; given a replica, of one that was sent there already.
        own: Headers that the gateway sets, in the place of a caller's.
        withheld: Names, in lower case, of headers of the caller that the backend does not get.
    """

    def __init__(
        self,
        session: aiohttp.ClientSession,
        settings: UpstreamSettings,
        tries: Callable[[Replica | None], Failover],
        *,
        own: Mapping[str, str],
        withheld: frozenset[str],
        observer: Observer,
    ) -> None:
        self._session = session
        self._settings = settings
        self._tries = tries
        self._own = CIMultiDict(own)
        self._withheld = withheld
        self._observer = observer

    def headers(self, call: PlainCall) -> list[tuple[str, str]]:
        """Those with which a call goes on."""
        own, withheld = self._own.copy(), self._withheld
        if call.is_seen:
            own[hdrs.ACCEPT_ENCODING] = "identity"
        if call.bytes is not None:
            own[hdrs.CONTENT_LENGTH] = str(call.bytes)
            withheld |= {"content-encoding"}  # what was read was decoded
        elif call.body is None:
            withheld |= {"content-length"}
        return to_backend(call.headers, request_id=call.request_id, own=own, withheld=withheld)

    @asynccontextmanager
    async def open(self, call: PlainCall) -> AsyncIterator[aiohttp.ClientResponse]:
        refused = Refusal(
            Fault.UNAVAILABLE,
            "The backend cannot be reached at the moment.",
            code="backend_unavailable",
            retry_after_s=math.ceil(self._settings.breaker_open_s),
        )
        body: RequestBody | None = None
        begun = call.begun
        headers = self.headers(call)
        if call.is_upgrade:
            headers = ask_to_upgrade(headers, may_have_keys=not self._withheld >= CREDENTIALS)

        async def send(replica: Replica, limit: loop.timeout) -> aiohttp.ClientResponse:
            nonlocal body, begun
            if begun is not None:
                failed, begun = begun.error, None
                raise failed
            if call.body is not None and (body := call.body()) is not None:
                body.limit = limit
            url = url_at(replica.origin, call.target)
            try:
                # A dead pooled connection is tried once more by aiohttp, for idempotent methods without a
                # started body only (RFC 9112 §9.3.1).
                answer = await self._session.request(
                    Method(call.method), url, headers=headers, data=body, allow_redirects=False
                )
            except FAILURES as error:
                if body is None or body.failure is None:
                    raise
                if isinstance(body.failure, Refusal):
                    raise body.failure from error
                raise invalid("The request body could not be read.") from error
            if body is not None:
                body.limit = None
            if answer.status < 200 and not call.is_upgrade:
                answer.close()  # a switch of protocols that nobody asked for: what follows is not HTTP
                raise aiohttp.ClientError
            return answer

        tries = self._tries(begun.server if begun is not None and isinstance(begun.server, Replica) else None)
        async with aclosing(each_answer(tries, send, call.limit_s, call.kind, self._observer)) as answers:
            async for replica, answer in answers:
                if isinstance(answer, Unanswered):
                    refused = answer.refusal
                    if body is not None and not body.is_whole:
                        break
                    continue
                tries.pool.answered(replica, answer.status, takes_jobs=False)
                try:
                    yield answer
                finally:
                    answer.close()
                return
        raise refused

    async def look_up(self, call: PlainCall, *, bytes_max: int = 0) -> tuple[int, bytes] | None:
        try:
            async with self.open(call) as answer:
                return answer.status, await read_up_to(answer, bytes_max if answer.status == 200 else 0)
        except (Refusal, *FAILURES):
            return None
