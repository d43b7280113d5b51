"""Makes the doctor's requests to a backend, as the gateway makes its own: with its key and headers."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import Any

import aiohttp
import orjson
from yarl import URL

from gateway.command.doctor.engines import EngineLoad, load_in
from gateway.command.doctor.shapes import ROUTES, ProbeAnswer, ProbeRequest, body_of, shown
from gateway.config import UpstreamSettings
from gateway.outbound.client import FAILURES, explain, make_session, read_up_to, url_at
from gateway.wire.http.head import CREDENTIALS
from gateway.wire.speech import Api
from gateway.wire.sse import FrameTooLarge, SseDecoder

_BODY_BYTES_MAX = 4 * 2**20
_METRICS_S = 5.0


@dataclass(slots=True)
class ProbeClient:
    """Asks one replica.

    Attributes:
        skews: Seconds by which the server's clock was ahead of ours, by each answer that has a `Date`.
        has_key: A credential goes with each request.
        max_tokens_field, wants_usage: What it turned out to want.
    """

    session: aiohttp.ClientSession
    settings: UpstreamSettings
    url: str
    headers: dict[str, str]
    limit_s: float
    has_key: bool
    model: str = ""
    api: Api = Api.RESPONSES
    max_tokens_field: str = "max_tokens"
    wants_usage: bool = True
    skews: list[float] = field(default_factory=list)

    async def get(self, path: str) -> tuple[ProbeAnswer, bytes]:
        """The answer to a GET below the base URL, and its body."""
        answer = ProbeAnswer()
        started_s = time.monotonic()
        body = b""
        with self._told(answer):
            async with asyncio.timeout(self.limit_s), self._request("GET", self._target(path)) as got:
                body = await read_up_to(got, _BODY_BYTES_MAX)
                answer.status = got.status
                if got.status != 200:
                    answer.refused(got.status, body)
        answer.took_s = time.monotonic() - started_s
        return answer, body

    async def ask(self, ask: ProbeRequest, *, api: Api | None = None) -> ProbeAnswer:
        """The answer of its model, to the end."""
        answer = ProbeAnswer()
        with self._told(answer):
            async with asyncio.timeout(self.limit_s), self.stream(ask, answer, api=api) as pieces:
                async for _ in pieces:
                    pass
        return answer

    @contextlib.asynccontextmanager
    async def stream(
        self, ask: ProbeRequest, answer: ProbeAnswer, *, api: Api | None = None
    ) -> AsyncIterator[AsyncIterator[None]]:
        """The same, piece of text by piece of text; leaving the block closes the connection.

        Raises: see `client.FAILURES`.
        """
        api = api or self.api
        body = body_of(ask, api, self.model, self.max_tokens_field)
        if not self.wants_usage:
            body.pop("stream_options", None)
        body = {name: value for name, value in body.items() if name not in self.settings.drop_fields}
        body |= self.settings.set_fields
        started_s = time.monotonic()
        async with self._request("POST", self._target(ROUTES[api]), body) as got:
            answer.status = got.status
            yield self._pieces(got, answer, api, started_s)

    async def _pieces(
        self, got: aiohttp.ClientResponse, answer: ProbeAnswer, api: Api, started_s: float
    ) -> AsyncIterator[None]:
        if got.status != 200:
            answer.refused(got.status, await read_up_to(got, _BODY_BYTES_MAX))
            return
        answer.is_stream = got.content_type == "text/event-stream"
        if not answer.is_stream:
            with contextlib.suppress(orjson.JSONDecodeError):
                answer.take(orjson.loads(await read_up_to(got, _BODY_BYTES_MAX)), api)
            answer.took_s = answer.first_s = time.monotonic() - started_s
            return
        decoder = SseDecoder(_BODY_BYTES_MAX)
        async for chunk in got.content.iter_any():
            for frame in decoder.feed(chunk):
                with contextlib.suppress(orjson.JSONDecodeError):
                    if answer.take(orjson.loads(frame.data), api):
                        answer.first_s = answer.first_s or time.monotonic() - started_s
                        yield
            answer.took_s = time.monotonic() - started_s

    async def load(self) -> EngineLoad | None:
        """What the engine does just now; None if it does not say."""
        try:
            async with (
                asyncio.timeout(_METRICS_S),
                self._request("GET", self.settings.backfill_metrics_path) as got,
            ):
                return load_in(await read_up_to(got, _BODY_BYTES_MAX)) if got.status == 200 else None
        except FAILURES:
            return None

    def _target(self, path: str) -> str:
        return (URL(self.url).raw_path.rstrip("/") or "/v1") + path

    @contextlib.asynccontextmanager
    async def _request(
        self, method: str, target: str, body: dict[str, Any] | None = None
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        headers = {**self.headers, "User-Agent": "backburner-doctor"}
        if body is not None:
            headers["Content-Type"] = "application/json"
        data = None if body is None else orjson.dumps(body)
        url = url_at(URL(self.url).origin(), target)
        before_s = time.time()
        async with self.session.request(
            method, url, data=data, headers=headers, allow_redirects=False
        ) as got:
            self._look_at_clock(got, (before_s + time.time()) / 2)
            yield got
            got.close()

    def _look_at_clock(self, got: aiohttp.ClientResponse, now_s: float) -> None:
        try:
            theirs = parsedate_to_datetime(got.headers["Date"])
        except (LookupError, ValueError, TypeError):
            return
        # The header has whole seconds: on average it is half a second behind.
        self.skews.append(theirs.replace(tzinfo=theirs.tzinfo or UTC).timestamp() + 0.5 - now_s)

    @contextlib.contextmanager
    def _told(self, answer: ProbeAnswer) -> Iterator[None]:
        """Make a failure of the network an answer in words."""
        try:
            yield
        except (*FAILURES, FrameTooLarge) as error:
            answer.words, answer.is_broken = shown(explain(error, self.limit_s)[1].message), True


def client_for(settings: UpstreamSettings, url: str, key: str | None, limit_s: float) -> ProbeClient:
    """One for a replica; its session is to be closed. Raises: ValueError, if the key file is unfit."""
    headers = {name: value.get_secret_value() for name, value in settings.headers.items()}
    if (own := settings.read_api_key() or key) is not None:
        headers = {"Authorization": f"Bearer {own}", **headers}
    has_key = not CREDENTIALS.isdisjoint(name.lower() for name in headers)
    session = make_session(settings, keeps_connections=False)
    field = settings.max_tokens_field
    return ProbeClient(session, settings, url, headers, limit_s, has_key, max_tokens_field=field)
