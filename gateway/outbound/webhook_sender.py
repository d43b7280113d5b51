"""Sends events to their receivers: a connection for each attempt, no redirect, nothing of the answer kept.

Two clients that share nothing: one for the operator's endpoints, which may be anywhere, one for URLs of
callers, which may only lead to public addresses.
"""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field, replace
from typing import Any, Final

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from gateway import __version__, loop
from gateway.config import Settings
from gateway.core.webhooks import Attempt, Delivery, Verdict
from gateway.outbound.client import FAILURES, read_up_to
from gateway.outbound.guard import AddressDenied, SocketFactory, guarded
from gateway.wire import webhooks

_ANSWER_BYTES_MAX: Final = 64 * 2**10
"""Bytes of an answer that are read, so that a receiver is not cut off within it, and thrown away."""


_FINAL_REASONS: Final = frozenset({"address_denied", "invalid_url", "http_410"})
"""Failures after which a caller's own URL is never tried again. An endpoint is: its operator can repair
it."""


_EVENT_STATUSES: Final = frozenset({400, 409, 413, 414, 415, 422, 431})
"""Statuses by which a healthy receiver may refuse one event. Any other failure says that the receiver is
unhealthy, is not at this address, or does not know our secret."""
_HOST_STATUSES: Final = frozenset({408, 425, 429})
"""4xx statuses that concern the whole host. For a caller's own URL, every other 3xx and 4xx concerns that URL
alone."""


@dataclass(frozen=True, slots=True)
class _Target:
    url: URL = field(repr=False)
    secrets: Sequence[str] = field(repr=False)


class HttpWebhookSender:
    """The `WebhookSender` of the settings; `open` closes it with the stack."""

    def __init__(
        self,
        settings: Settings,
        operators: aiohttp.ClientSession,
        callers: aiohttp.ClientSession,
    ) -> None:
        self._operators = operators
        self._callers = callers
        self._timeout_s = settings.webhooks.timeout_s
        self._callers_secrets = settings.request_webhooks.signing_secrets
        self._endpoints: Mapping[str, _Target] = {
            name: _Target(URL(endpoint.url.get_secret_value()), endpoint.signing_secrets)
            for name, endpoint in settings.webhooks.endpoints.items()
        }

    @classmethod
    async def open(cls, settings: Settings, stack: AsyncExitStack) -> HttpWebhookSender:
        """Open its clients until the stack unwinds."""
        guard = guarded(settings.webhooks.allowed_networks)
        operators = _make_session(guard if settings.webhooks.deny_private else None)
        return cls(
            settings,
            await stack.enter_async_context(operators),
            await stack.enter_async_context(_make_session(guard)),
        )

    async def send(self, delivery: Delivery) -> Attempt:
        session, receiver = self._operators, self._endpoints.get(delivery.lane)
        if delivery.url is not None:
            session, receiver = self._callers, _Target(URL(delivery.url), self._callers_secrets)
        assert receiver is not None, "only events for receivers that there are get sent"
        attempt = await self._post(session, receiver, delivery)
        if delivery.url is not None and attempt.reason in _FINAL_REASONS:
            return replace(attempt, verdict=Verdict.NEVER)
        return attempt

    async def _post(self, session: aiohttp.ClientSession, receiver: _Target, delivery: Delivery) -> Attempt:
        body = webhooks.event(delivery.response_id, delivery.status, delivery.ended_at_ms // 1000)
        # The wall clock's time, not the store's: receivers compare it with theirs.
        headers = webhooks.signed_headers(
            delivery.response_id, body, receiver.secrets, sent_at_s=int(time.time())
        )
        answer = None
        try:
            async with loop.timeout(self._timeout_s):
                answer = await session.post(receiver.url, data=body, headers=headers, allow_redirects=False)
                await read_up_to(answer, _ANSWER_BYTES_MAX)
        except FAILURES as error:
            if answer is None:
                return Attempt(Verdict.DOWN, _reason(error))
        except ValueError:  # a host name that TLS cannot spell
            return Attempt(Verdict.DOWN, "invalid_url")
        answer.close()
        # Whatever became of its body: the status is what counts.
        return Attempt(_verdict(answer.status, is_own_url=delivery.url is not None), f"http_{answer.status}")


def _verdict(status: int, *, is_own_url: bool) -> Verdict:
    if 200 <= status < 300:
        return Verdict.TAKEN
    if status == 410:  # Standard Webhooks: the receiver wants no more
        return Verdict.STOP
    # Redirects are failures too: a signed event goes where the settings say, and nowhere else.
    is_of_the_url = is_own_url and 300 <= status < 500 and status not in _HOST_STATUSES
    return Verdict.AGAIN if status in _EVENT_STATUSES or is_of_the_url else Verdict.DOWN


def _reason(error: BaseException) -> str:
    match error:
        case aiohttp.InvalidURL():
            return "invalid_url"
        case aiohttp.ClientConnectorError(os_error=AddressDenied()):
            return "address_denied"
        case aiohttp.ClientConnectorDNSError():
            return "unresolved"
        case aiohttp.ClientSSLError():
            return "tls"
        case aiohttp.ClientConnectorError():
            return "unreachable"
        case TimeoutError():
            return "timeout"
    return "cut"


def _make_session(guard: SocketFactory | None) -> aiohttp.ClientSession:
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(
            limit=0,  # the engine has limits, by receiver
            force_close=True,  # no receiver gets to speak on another's connection
            resolver=_Resolver(),
            socket_factory=guard,
        ),
        cookie_jar=aiohttp.DummyCookieJar(),
        trust_env=False,  # no HTTP_PROXY: a proxy would dial where the guard does not see it
        auto_decompress=False,
        headers={"User-Agent": f"Backburner/{__version__}"},
        skip_auto_headers=("Accept-Encoding",),
        timeout=aiohttp.ClientTimeout(total=None),  # each attempt has its own
    )


class _Resolver(AbstractResolver):
    """The system's resolver, on a thread for each name that is being looked up.

    The event loop has a handful of threads for all look-ups: a few names whose servers do not answer would
    keep the model servers' names waiting behind them. Daemons: one that hangs must not hold up an exit.
    """

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        def look_up() -> list[tuple[Any, ...]]:
            return list(
                socket.getaddrinfo(host, port, family, socket.SOCK_STREAM, flags=socket.AI_ADDRCONFIG)
            )

        return [
            ResolveResult(
                hostname=host,
                host=address[0],
                port=port,
                family=found,
                proto=protocol,
                flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV,
            )
            for found, _, protocol, _, address in await _on_own_thread(look_up)
        ]

    async def close(self) -> None:
        """Nothing is kept."""


async def _on_own_thread(work: Callable[[], list[tuple[Any, ...]]]) -> list[tuple[Any, ...]]:
    loop = asyncio.get_running_loop()
    done: asyncio.Future[list[tuple[Any, ...]]] = loop.create_future()

    def settle(result: list[tuple[Any, ...]] | None, error: BaseException | None) -> None:
        if done.done():  # given up meanwhile
            return
        if error is not None:
            done.set_exception(error)
        else:
            done.set_result(result or [])

    def run() -> None:
        try:
            outcome: tuple[Any, Any] = work(), None
        except (OSError, UnicodeError) as error:  # of a name too long for IDNA, too
            outcome = None, OSError(str(error)) if isinstance(error, UnicodeError) else error
        with suppress(RuntimeError):  # the loop has ended since
            loop.call_soon_threadsafe(settle, *outcome)

    threading.Thread(target=run, name="look-up", daemon=True).start()
    return await done
