"""Which requests take the fast lane, and what its connections share."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Generator
from dataclasses import replace
from typing import Final, Protocol, TypeVar

from gateway import loop
from gateway.api.http.cors import Cors
from gateway.api.http.ids import new_request_id
from gateway.api.lane.answers import Shows
from gateway.api.lane.connection import FastConnection
from gateway.api.lane.heads import Forwarder, Heads, KnownHead
from gateway.config import ServerSettings
from gateway.core.call import Begun
from gateway.core.quick import Listener, QuickCall
from gateway.observe import Observer
from gateway.wire.errors import Refusal
from gateway.wire.http.head import Head

_TICK_S: Final = 1.0

T = TypeVar("T")
HandOver = Callable[[asyncio.Transport, bytes, Begun | None], None]


class Requests(Protocol):
    """The router, as the fast lane needs it."""

    @property
    def cors(self) -> Cors: ...

    @property
    def is_gate(self) -> bool:
        """Whether the gateway itself decides which callers come in."""

    def tenant(self, head: Head) -> bytes:
        """Whose request it is. Raises: Refusal, if that cannot be told, or the caller may not come in."""

    def way(self, head: Head) -> Forwarder | None:
        """What forwards a request whose answer may come from a backend just as it is; else None."""

    def begin(self) -> None:
        """A request is being answered."""

    def end(self) -> None: ...


class Doors(Protocol):
    """The server to which all connections belong."""

    @property
    def is_leaving(self) -> bool: ...

    def turns_away(self, transport: asyncio.Transport) -> bool:
        """Whether there are too many connections already; then this one ends."""

    def joined(self, connection: FastConnection, transport: asyncio.Transport) -> None: ...

    def left(self, connection: FastConnection) -> None: ...

    def hand_over(self, transport: asyncio.Transport, data: bytes, begun: Begun | None) -> None:
        """The other lane takes a connection, with what has come and is not answered."""


class Lane:
    """The fast lane of one port.

    Attributes:
        new_id: Makes the id of a request.
    """

    def __init__(
        self, requests: Requests, doors: Doors, settings: ServerSettings, observer: Observer
    ) -> None:
        self.requests = requests
        self.observer = observer
        self.new_id = new_request_id
        self.stall_s = settings.write_stall_timeout_s
        self.shows = Shows(requests.cors)
        self.turns_away = doors.turns_away
        self.hand_over = doors.hand_over
        self._doors = doors
        self.head = Heads(requests.way, requests.cors.concerns, body_bytes_max=settings.body_bytes_max).read
        self._connections: set[FastConnection] = set()
        self._ticker = loop.Ticker(min(_TICK_S, settings.keepalive_timeout_s / 2), self._tick)
        self.keepalive_ticks = self._ticker.ticks(settings.keepalive_timeout_s)

    def connection(self) -> FastConnection:
        """For a client that connects."""
        return FastConnection(self)

    def wants(self, data: bytes) -> bool:
        """Whether what has come begins with a head that takes this lane, whatever follows it."""
        known, _ = self.head(data)
        return known is not None and known.backend is not None

    @property
    def is_leaving(self) -> bool:
        return self._doors.is_leaving

    def joined(self, connection: FastConnection, transport: asyncio.Transport) -> None:
        self._connections.add(connection)
        self._doors.joined(connection, transport)
        self._ticker.wake()

    def left(self, connection: FastConnection) -> None:
        self._connections.discard(connection)
        self._doors.left(connection)

    def _tick(self) -> bool:
        for connection in tuple(self._connections):
            connection.tick()
        return bool(self._connections)

    # -- requests

    def call(
        self, known: KnownHead, body: bytes, request_id: str, listener: Listener, transport: asyncio.Transport
    ) -> QuickCall | None:
        """Send a request on; None if it is for the other lane to answer, or to refuse."""
        head, backend, size = known.head, known.backend, None
        try:
            if self.requests.is_gate:
                head = replace(head, peer=_peer(transport))
                self.requests.tenant(head)
            if backend is None:
                found = _at_once(known.way.look(head, body, lambda: self.requests.tenant(head)))
                if found is None:
                    return None
                (backend, body), size = found, len(found[1])
        except Refusal:
            return None
        if size is not None and size != known.length:
            prepared = backend.quick.prepare(head, size)
        elif backend.name in known.prepared:
            prepared = known.prepared[backend.name]
        else:
            prepared = known.prepared[backend.name] = backend.quick.prepare(head, size)
        return backend.quick.call(prepared, body, request_id, listener)


def _peer(transport: asyncio.Transport) -> str | None:
    """The address of the other end, as aiohttp gives it."""
    name = transport.get_extra_info("peername")
    return str(name[0]) if isinstance(name, (list, tuple)) else name


def _at_once(look: Generator[None, None, T]) -> T:
    """What a look at a small body finds, without its pauses."""
    while True:
        try:
            next(look)
        except StopIteration as done:
            found: T = done.value
            return found
