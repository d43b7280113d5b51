"""The HTTP client: one session, where it may call, and what its failures are called.

The only place that knows aiohttp's exceptions: above it there are refusals. Nothing here retries,
follows a redirect or keeps a cookie.
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Final, Self

import aiohttp
from aiohttp.connector import Connection
from aiohttp.tracing import Trace
from yarl import URL

from gateway import loop
from gateway.config import UpstreamSettings
from gateway.core.reason import Reason
from gateway.wire.errors import Fault, Refusal, invalid
from gateway.wire.http.head import is_target

IDLE_CONNECTION_S: Final = 4
"""uvicorn closes idle connections at 5 s: sending into one that just closed is a needless 502."""

_NUMBER = re.compile(r"[0-9]+(\.[0-9]+)?")

FAILURES: Final = (aiohttp.ClientError, TimeoutError, OSError)
"""What a call to the backend may raise; `explain` takes each of them."""


def make_session(settings: UpstreamSettings, *, keeps_connections: bool = True) -> aiohttp.ClientSession:
    """A client for calls to the backend; the caller closes it.

    Args:
        keeps_connections: False for background calls. A pooled connection may just have died, and then
            nobody could say whether the backend has begun to work; theirs are few and long.
    """
    return aiohttp.ClientSession(
        # limit=0: pass-through has no cap of its own, and background calls are capped in the engine;
        # aiohttp's 100 would let long streams starve everybody else.
        connector=_Connector(
            settings.connect_timeout_s,
            limit=0,
            **{"keepalive_timeout": IDLE_CONNECTION_S} if keeps_connections else {"force_close": True},
        ),
        # A shared jar would send the cookie that was set for one tenant with the next one's request.
        cookie_jar=aiohttp.DummyCookieJar(),
        # No HTTP_PROXY and no ~/.netrc: a request and its key go to the configured origin only.
        trust_env=False,
        # Bodies go through as they are; Content-Length and Content-Encoding then still hold.
        auto_decompress=False,
        # Headers that the caller did not send are not ours to invent.
        skip_auto_headers=("User-Agent", "Accept", "Accept-Encoding", "Content-Type"),
        timeout=aiohttp.ClientTimeout(total=None),  # a stream may run for hours; each call has its own
    )


class Method(str):
    """A method as it was sent: aiohttp would turn it to upper case, and `get` is not GET (RFC 9110 §9.1)."""

    __slots__ = ()

    def upper(self) -> Self:
        return self


class _Connector(aiohttp.TCPConnector):
    """Gives up a connection that is too long in coming, its name's look-up included. aiohttp's own timer
    would take a halt of ours for one of the network."""

    def __init__(self, limit_s: float, **options: Any) -> None:
        super().__init__(**options)
        self._limit_s = limit_s

    async def connect(
        self,
        req: aiohttp.ClientRequest,
        traces: list[Trace],
        timeout: aiohttp.ClientTimeout,  # noqa: ASYNC109  aiohttp's signature
    ) -> Connection:
        async with loop.timeout(self._limit_s):
            return await super().connect(req, traces, timeout)


def checked_target(raw_path_and_query: str) -> str:
    """A caller's request target, byte for byte, as it goes to a backend. Raises: Refusal, if it is none."""
    if not is_target(raw_path_and_query):
        raise invalid("The request target must be an absolute path, without a fragment.")
    return raw_path_and_query


def url_at(origin: URL, raw_path_and_query: str) -> URL:
    """Where a request goes. Raises: see `checked_target`."""
    return URL(f"{origin}{checked_target(raw_path_and_query)}", encoded=True)


async def read_up_to(answer: aiohttp.ClientResponse, bytes_max: int) -> bytes:
    """A body, or of a longer one its beginning."""
    chunks: list[bytes] = []
    size = 0
    while size < bytes_max and (chunk := await answer.content.readany()):
        chunks.append(chunk)
        size += len(chunk)
    return b"".join(chunks)[:bytes_max]


def explain(error: BaseException, limit_s: float) -> tuple[Reason, Refusal]:
    """Why a call failed: the reason to count, and what to tell the client; never an address.

    Args:
        limit_s: How long it was waited for.
    """
    if isinstance(error, (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError)):
        return Reason.UNREACHABLE, Refusal(
            Fault.BACKEND_UNREACHABLE,
            f"The backend could not be reached: {_why_unreachable(error)}.",
            code="backend_unreachable",
        )
    if isinstance(error, TimeoutError):
        return Reason.TIMEOUT, Refusal(
            Fault.BACKEND_TIMEOUT,
            f"The backend did not answer within {limit_s:g} s.",
            code="backend_timeout",
        )
    return Reason.CUT, Refusal(
        Fault.BACKEND_UNREACHABLE,
        "The backend broke the connection off before it answered.",
        code="backend_disconnected",
    )


def _why_unreachable(error: aiohttp.ClientConnectorError | aiohttp.ConnectionTimeoutError) -> str:
    """In words that name no host: the system's own text for the error number names none."""
    if isinstance(error, aiohttp.ConnectionTimeoutError):
        return "there was no connection in time"
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return "its name could not be resolved"
    if isinstance(error, aiohttp.ClientSSLError):
        return "the TLS handshake failed"
    number = error.os_error.errno
    if number is None or number not in errno.errorcode:
        return "there was no connection"
    return os.strerror(number).lower()


def asked_wait_s(headers: Mapping[str, str], now: datetime) -> float | None:
    """How long a backend asks to be left alone; None if it does not say, or nothing that makes sense.

    `Retry-After` is a number of seconds or a date (RFC 9110, section 10.2.3); `Retry-After-Ms` is what OpenAI
    and Azure send beside it, and the official clients look at first. A date that has passed means: at once.
    """
    for name, per_second in (("Retry-After-Ms", 1000), ("Retry-After", 1)):
        text = headers.get(name, "").strip()
        if _NUMBER.fullmatch(text):
            return float(text) / per_second
    try:
        until = parsedate_to_datetime(headers.get("Retry-After", ""))
        return max(0.0, (until.replace(tzinfo=until.tzinfo or UTC) - now).total_seconds())
    except (ValueError, OverflowError):
        return None
