"""Calls that the gateway itself makes of a model server: always streamed, each on a connection of its own.

What a backend does wrong comes out as an `UpstreamFailed` with a message for the client, in which neither
an address nor a key stands. A refused connection is tried again, on another replica if there is one, since
nothing was sent; anything after that is not, since the backend may have begun to work.
"""

from __future__ import annotations

import asyncio
import random
import time
import uuid
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import replace

import aiohttp

from gateway.config import TenantSettings, UpstreamSettings
from gateway.core.call import BackendCall, Credential
from gateway.core.machine import Input, UpstreamAnswer, UpstreamClosed, UpstreamFailed, UpstreamFrames
from gateway.observe import Observer
from gateway.outbound.client import FAILURES, explain, url_at
from gateway.outbound.detect import find_api
from gateway.outbound.headers import CREDENTIALS
from gateway.outbound.pool import Pool, Replica
from gateway.wire.calls import Api, Speech
from gateway.wire.chat_request import ChatOptions
from gateway.wire.failures import failure, of_status
from gateway.wire.sse import FrameTooLarge, SseDecoder

_ERROR_BODY_BYTES_MAX = 64 * 2**10
_BACKOFF_FIRST_S = 0.1
_BACKOFF_MAX_S = 2.0
_SECRET_CHARS_MIN = 6
"""Shorter "keys" (`none`, `EMPTY`) are words that stand in ordinary messages."""


class HttpBackend:
    """One named backend.

    Args:
        session: One that keeps no connections: a pooled one may have died, and a call sent into it
            might or might not have reached the backend.
        event_bytes_max: Of one event, and of an answer that is not a stream.

    Attributes:
        sees_callers: It gets the callers' own credentials, and so can tell them apart itself.
        withheld: Names, in lower case, of headers of the caller that it does not get.
    """

    def __init__(
        self,
        name: str,
        session: aiohttp.ClientSession,
        settings: UpstreamSettings,
        *,
        event_bytes_max: int,
        observer: Observer,
        tenants: TenantSettings | None = None,
    ) -> None:
        self.name = name
        self.settings = settings
        self.pool = Pool(settings)
        self.api_key = settings.read_api_key()
        self.own_headers = {header: value.get_secret_value() for header, value in settings.headers.items()}
        tenants = tenants or TenantSettings()
        has_own_key = self.api_key is not None or bool(
            CREDENTIALS & {name.lower() for name in self.own_headers}
        )
        self.sees_callers = tenants.passes_credentials and not has_own_key
        self.withheld = frozenset() if self.sees_callers else CREDENTIALS
        if tenants.header is not None:
            self.withheld |= {tenants.header.lower()}
        self._session = session
        self._event_bytes_max = event_bytes_max
        self._observer = observer
        self.speech = Speech(
            api=Api.RESPONSES if settings.api == "auto" else Api(settings.api),
            is_certain=settings.api != "auto",
            chat=ChatOptions(
                has_developer_role=settings.developer_role,
                max_tokens_field=settings.max_tokens_field,
                reasoning_field=None if settings.reasoning_field == "none" else settings.reasoning_field,
            ),
            rename=settings.rename,
            drop=frozenset(settings.drop_fields),
            force=settings.set_fields,
        )

    def learn(self, api: Api) -> None:
        """It has shown which API it speaks."""
        self.speech = replace(self.speech, api=api, is_certain=True)

    async def ask(self, credential: Credential | None) -> Speech:
        if not self.speech.is_certain and (replica := self.pool.pick()) is not None:
            headers = self._authorization(credential)
            api = await find_api(self._session, replica, self.settings, headers, self.name)
            if api is not None:
                self.learn(api)
        return self.speech

    async def stream(self, call: BackendCall) -> AsyncGenerator[Input, None]:
        failed = UpstreamFailed(failure("The backend could not be reached."), "upstream_unreachable")
        for attempt in range(1, self.settings.connect_attempts_max + 1):
            tried: list[Replica] = []
            while (replica := await self._next(call, tried)) is not None:
                tried.append(replica)
                with self.pool.call(replica, is_background=call.is_background):
                    answer = await self._open(call, replica)
                    if not isinstance(answer, UpstreamFailed):
                        if answer.status < 300 and not self.speech.is_certain:
                            self.learn(self.speech.api)
                        async with aclosing(self._read(answer)) as items:
                            try:
                                async for item in items:
                                    yield self._redacted(item, call)
                            finally:
                                answer.close()  # not released to a pool: closing is what stops the model
                        return
                failed = answer
                if not _may_go_elsewhere(call, failed):
                    break
            if not tried or failed.reason != "upstream_unreachable" or self.pool.is_down:
                break
            if attempt < self.settings.connect_attempts_max:
                await asyncio.sleep(_backoff_s(attempt))  # all have been tried: again, a little later
        yield self._redacted(failed, call)

    async def _next(self, call: BackendCall, tried: list[Replica]) -> Replica | None:
        """Where to try next; a background call waits for its turn there, a plain one goes at once."""
        if call.is_background:
            return await self.pool.room_for_background(tried=tried)
        return self.pool.pick(tried=tried)

    async def _open(self, call: BackendCall, replica: Replica) -> aiohttp.ClientResponse | UpstreamFailed:
        kind = "background" if call.is_background else "passthrough"
        limit_s = self.settings.head_timeout_s if call.is_background else self.settings.plain_head_timeout_s
        started = time.perf_counter()
        try:
            async with asyncio.timeout(limit_s):
                answer = await self._session.post(
                    url_at(replica.origin, call.target),
                    data=call.body,
                    headers=self._headers(call),
                    allow_redirects=False,
                )
        except FAILURES as error:
            reason, refusal = explain(error)
            self.pool.failed(replica)
            self._observer.upstream_failed(kind, reason)
            return UpstreamFailed(failure(refusal.message), f"upstream_{reason}")
        replica.breaker.succeeded()
        self._observer.upstream_answered(kind, time.perf_counter() - started)
        return answer

    def _headers(self, call: BackendCall) -> dict[str, str]:
        return {
            **call.headers,
            "Content-Type": "application/json",
            "Accept": "text/event-stream",
            "Accept-Encoding": "identity",
            "Idempotency-Key": call.job_id,
            "X-Request-Id": _request_id(call.job_id),
            "Via": "1.1 backburner",
            **self._authorization(call.credential),
        }

    def _authorization(self, credential: Credential | None) -> dict[str, str]:
        if self.api_key is not None:
            return {"Authorization": f"Bearer {self.api_key}", **self.own_headers}
        if credential is not None and self.sees_callers:
            return {credential.name: credential.value, **self.own_headers}
        return dict(self.own_headers)

    async def _read(self, answer: aiohttp.ClientResponse) -> AsyncGenerator[Input, None]:
        problem = _not_a_stream(answer)
        silence = _Silence(answer, self.settings.idle_timeout_s)
        try:
            if problem is not None:
                yield problem
            elif not 200 <= answer.status < 300:
                body = await _body(answer, _ERROR_BODY_BYTES_MAX, silence)
                yield UpstreamFailed(of_status(answer.status, body), "upstream_refused", answer.status)
            elif answer.content_type == "application/json":
                yield UpstreamAnswer(await _body(answer, self._event_bytes_max, silence))
            else:
                decoder = SseDecoder(self._event_bytes_max)
                while chunk := await answer.content.readany():
                    silence.broken()
                    if frames := decoder.feed(chunk):
                        yield UpstreamFrames(frames)
                if frames := decoder.close():
                    yield UpstreamFrames(frames)
                yield UpstreamClosed()
        except FrameTooLarge as problem:
            yield UpstreamFrames(problem.before)
            yield UpstreamFailed(
                failure("The backend sent more in one event than the gateway accepts."), "upstream_too_large"
            )
        except FAILURES:
            reason = "timeout" if silence.is_too_long else "cut"
            self._observer.upstream_failed("background", reason)
            message = "The connection to the backend broke before the response was complete."
            if silence.is_too_long:
                message = f"The backend sent nothing for {self.settings.idle_timeout_s:g} s."
            yield UpstreamFailed(failure(message), f"upstream_{reason}")
        finally:
            silence.stop()

    def _redacted(self, item: Input, call: BackendCall) -> Input:
        """A backend may quote the key it refuses; nobody else gets to read it."""
        if not isinstance(item, UpstreamFailed):
            return item
        message = item.failure["message"]
        secrets = [
            self.api_key,
            call.credential.value if call.credential else None,
            *self.own_headers.values(),
        ]
        for secret in filter(None, secrets):
            for text in (secret, secret.removeprefix("Bearer ")):
                message = message.replace(text, "***") if len(text) >= _SECRET_CHARS_MIN else message
        return replace(item, failure={**item.failure, "message": message})


async def _body(answer: aiohttp.ClientResponse, bytes_max: int, silence: _Silence) -> bytes:
    """A whole body; of a longer one, an error keeps its beginning and an answer is refused."""
    chunks: list[bytes] = []
    size = 0
    while chunk := await answer.content.readany():
        silence.broken()
        chunks.append(chunk)
        size += len(chunk)
        if size > bytes_max:
            if answer.status < 300:
                raise FrameTooLarge
            break
    return b"".join(chunks)[:bytes_max]


class _Silence:
    """Closes an answer that has been silent for too long, which fails whoever reads it.

    One timer that looks at a clock, and not a timeout around each read: a stream is thousands of reads.
    """

    def __init__(self, answer: aiohttp.ClientResponse, seconds_max: float) -> None:
        self._answer = answer
        self._seconds_max = seconds_max
        self._loop = asyncio.get_running_loop()
        self._since = self._loop.time()
        self._timer = self._loop.call_later(seconds_max, self._look)
        self.is_too_long = False

    def broken(self) -> None:
        """Something came."""
        self._since = self._loop.time()

    def stop(self) -> None:
        self._timer.cancel()

    def _look(self) -> None:
        left = self._since + self._seconds_max - self._loop.time()
        if left > 0:
            self._timer = self._loop.call_later(left, self._look)
            return
        self.is_too_long = True
        self._answer.close()


def _may_go_elsewhere(call: BackendCall, failed: UpstreamFailed) -> bool:
    """Whether another replica may be asked in its place.

    A background call that was broken off may have begun; whether it is run again, its job decides. A client
    that waits has seen nothing yet, and its official SDK would try again itself.
    """
    return failed.reason == "upstream_unreachable" or (
        failed.reason == "upstream_cut" and not call.is_background
    )


def _request_id(job_id: str) -> str:
    """A UUID that follows from the job: some servers refuse any other kind of request id with a 400."""
    return str(uuid.UUID(hex=job_id.removeprefix("resp_")[:32], version=4))


def _not_a_stream(answer: aiohttp.ClientResponse) -> UpstreamFailed | None:
    """What is wrong with a head that promises neither events, nor an object, nor a readable error."""
    encoding = answer.headers.get("Content-Encoding", "identity")
    if encoding != "identity":
        message = "The backend compressed its answer, which it was asked not to do."
        return UpstreamFailed(failure(message), "upstream_bad_encoding", answer.status)
    if 300 <= answer.status < 400:
        message = f"The backend answered with a redirect (status {answer.status}), which is not followed."
        return UpstreamFailed(failure(message), "upstream_redirect", answer.status)
    if answer.status < 300 and answer.content_type not in ("text/event-stream", "application/json"):
        message = f"The backend answered with {answer.content_type!r} in place of an event stream."
        return UpstreamFailed(failure(message), "upstream_bad_type", answer.status)
    return None


def _backoff_s(attempt: int) -> float:
    """Full jitter: simultaneous failures must not come back simultaneously."""
    return random.uniform(0, min(_BACKOFF_MAX_S, _BACKOFF_FIRST_S * 2**attempt))  # noqa: S311  not a secret
