"""How connections to a backend's servers are made, and what it is called when they cannot be."""

from __future__ import annotations

import asyncio
import socket
import ssl
import time
from functools import cache
from typing import Any, Final

import aiohappyeyeballs
import aiohttp
from aiohttp.client_reqrep import ConnectionKey
from yarl import URL

from gateway import loop
from gateway.outbound.connection import HttpConnection, KnownAnswers

_NAMES_KEPT_S: Final = 10.0
"""Seconds for which a resolved name is cached, as in aiohttp's client."""
_NEXT_ADDRESS_S: Final = 0.25
"""Seconds until the next address of a name is tried beside the last one (RFC 8305)."""

_Address = tuple[Any, Any, int, str, tuple[Any, ...]]


class BackendConnector:
    """Makes connections.

    Args:
        limit_s: Longest time for one, the look-up of the name included.
    """

    def __init__(self, limit_s: float) -> None:
        self._limit_s = limit_s
        self._known = KnownAnswers()
        self._resolved: dict[tuple[str, int], tuple[float, list[_Address]]] = {}

    async def connect(self, origin: URL) -> HttpConnection:
        """A new one. Raises: what aiohttp's client would, see `client.FAILURES`."""
        assert origin.host is not None
        assert origin.port is not None
        host, port, wire = origin.host, origin.port, HttpConnection(self._known)
        is_secure = origin.scheme == "https"
        event_loop = asyncio.get_running_loop()
        try:
            async with loop.timeout(self._limit_s):
                addresses = await self._addresses(host, port)
                first, *others = addresses
                to: dict[str, Any] = {"host": first[4][0], "port": first[4][1]}
                # A single address takes the event loop half the time; but it takes no scope of a link's own.
                if others or any(first[4][2:]):
                    sock = await aiohappyeyeballs.start_connection(
                        addresses, happy_eyeballs_delay=_NEXT_ADDRESS_S, interleave=1, loop=event_loop
                    )
                    to = {"sock": sock}
                await event_loop.create_connection(
                    lambda: wire,
                    **to,
                    ssl=_tls() if is_secure else None,
                    server_hostname=host.rstrip(".") if is_secure else None,  # certificates have no such dot
                )
        except (OSError, TimeoutError) as error:
            self._resolved.pop((host, port), None)
            raise _named(error, host, port) from error
        return wire

    async def _addresses(self, host: str, port: int) -> list[_Address]:
        now_s = time.monotonic()
        until_s, addresses = self._resolved.get((host, port), (0.0, []))
        if now_s >= until_s:
            found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
            addresses = list(found)
            self._resolved[host, port] = (now_s + _NAMES_KEPT_S, addresses)
        return addresses


@cache
def _tls() -> ssl.SSLContext:
    """As aiohttp's client has it."""
    context = ssl.create_default_context()
    context.set_alpn_protocols(("http/1.1",))
    return context


def _named(error: OSError | TimeoutError, host: str, port: int) -> Exception:
    """A failure to connect in the words of aiohttp's client."""
    key = ConnectionKey(host, port, False, True, None, None, None)
    match error:
        case socket.gaierror():
            return aiohttp.ClientConnectorDNSError(key, error)
        case ssl.CertificateError():
            return aiohttp.ClientConnectorCertificateError(key, error)
        case ssl.SSLError():
            return aiohttp.ClientConnectorSSLError(key, error)
        case TimeoutError() if error.errno is None:
            return aiohttp.ConnectionTimeoutError()
    return aiohttp.ClientConnectorError(key, error)
