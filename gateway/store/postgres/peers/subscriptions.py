"""Responses that are followed here and run at other gateways, which push their events to us.

A job's row says who runs it; each page that is read brings it along, and whoever follows looks once a second.
What is not pushed is as without: we ask by a bell, are told by one, and read the table.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from gateway.core.job import StoreUnavailable
from gateway.observe import Observer
from gateway.store.bells import response
from gateway.store.postgres.bells import PostgresBells
from gateway.store.postgres.peers.frames import ALIVE, EVENTS, LAST, LEAVE, LOOK, SUBSCRIBE, Frame, frames_of
from gateway.store.postgres.peers.link import Link, Self
from gateway.store.pushes import Take

_AGAIN_S = 1.0
"""From one attempt to reach a gateway to the next."""
_DIAL_S = 2.0
_IDLE_S = 60.0
"""After the last response of a gateway that was followed."""


@dataclass(slots=True, eq=False)
class _Watch:
    """A response with followers.

    Attributes:
        runs_at: The replica that runs it, as far as is known.
        peer: The same, once it was asked to push.
    """

    response_id: str
    take: Take
    number: int
    runs_at: str | None = None
    peer: _Peer | None = None


@dataclass(slots=True, eq=False)
class _Peer:
    """Another gateway."""

    id: str
    link: Link | None = None
    dialling: asyncio.Task[None] | None = None
    not_before_s: float = 0.0
    used_s: float = 0.0
    watches: dict[int, _Watch] = field(default_factory=dict)


class Subscriptions:
    """All of them.

    Args:
        address_of: Where a replica listens, as `host:port`; None if it does not.
    """

    def __init__(
        self,
        me: Self,
        bells: PostgresBells,
        observer: Observer,
        address_of: Callable[[str], Awaitable[str | None]],
    ) -> None:
        self._me = me
        self._bells = bells
        self._observer = observer
        self._address_of = address_of
        self._watches: dict[str, _Watch] = {}
        self._peers: dict[str, _Peer] = {}
        self._last = 0

    @contextmanager
    def listen(self, response_id: str, take: Take) -> Iterator[None]:
        """See `Pushes`."""
        self._last += 1
        watch = self._watches[response_id] = _Watch(response_id, take, self._last)
        try:
            yield
        finally:
            self._leave(watch)
            if self._watches.get(response_id) is watch:
                del self._watches[response_id]

    def runs_at(self, response_id: str, gateway_id: str | None) -> None:
        """Who runs it now; None: nobody."""
        watch = self._watches.get(response_id)
        if watch is None or (watch.peer is not None and watch.runs_at == gateway_id):
            return
        if watch.peer is not None:
            self._leave(watch)
            self._bells.ask(response_id)
        watch.runs_at = gateway_id
        if gateway_id is not None and gateway_id != self._me.id:
            self._subscribe(watch, self._peers.setdefault(gateway_id, _Peer(gateway_id)))

    def beat(self) -> None:
        """Say that we live, and close links to those who say nothing, or nothing that we want."""
        now_s = asyncio.get_running_loop().time()
        for peer in list(self._peers.values()):
            if peer.watches:
                peer.used_s = now_s
            if peer.link is None:
                if peer.dialling is None:
                    del self._peers[peer.id]
            elif now_s - peer.used_s > _IDLE_S:
                peer.link.close()
            else:
                peer.link.send(Frame(ALIVE).encoded())
                peer.link.doubt()

    def close(self) -> None:
        for peer in list(self._peers.values()):
            if peer.dialling is not None:
                peer.dialling.cancel()
            if peer.link is not None:
                peer.link.close()

    # -- one response

    def _subscribe(self, watch: _Watch, peer: _Peer) -> None:
        if peer.link is None:
            if peer.dialling is None and asyncio.get_running_loop().time() >= peer.not_before_s:
                peer.dialling = asyncio.create_task(self._dial(peer), name=f"store-dials-{peer.id}")
            return
        watch.peer = peer
        peer.watches[watch.number] = watch
        peer.link.send(Frame(SUBSCRIBE, watch.number, watch.response_id.encode()).encoded())

    def _leave(self, watch: _Watch) -> None:
        if watch.peer is not None:
            if watch.peer.link is not None:
                watch.peer.link.send(Frame(LEAVE, watch.number).encoded())
            del watch.peer.watches[watch.number]
            watch.peer = None
        self._served(watch, None)

    def _served(self, watch: _Watch, by: str | None) -> None:
        served = self._bells.served
        if by is None:
            served.pop(watch.response_id, None)
        else:
            served[watch.response_id] = by
        self._observer.pushed.set(len(served))

    # -- one gateway

    async def _dial(self, peer: _Peer) -> None:
        loop = asyncio.get_running_loop()
        try:
            if (address := await self._address_of(peer.id)) is not None:
                host, _, port = address.rpartition(":")
                async with asyncio.timeout(_DIAL_S):
                    await loop.create_connection(
                        lambda: Link(self._me, peer.id, self), host.strip("[]"), int(port)
                    )
        except (OSError, ValueError, StoreUnavailable):
            pass  # whoever looks next tries again
        finally:
            peer.dialling = None
            peer.not_before_s = loop.time() + _AGAIN_S

    def opened(self, link: Link) -> None:
        peer = self._peers.setdefault(link.peer_id, _Peer(link.peer_id))
        if peer.link is not None:
            return link.close()
        peer.link, peer.used_s = link, asyncio.get_running_loop().time()
        for watch in self._watches.values():
            if watch.runs_at == peer.id and watch.peer is None:
                self._subscribe(watch, peer)
        return None

    def heard(self, link: Link, record: memoryview) -> None:
        watches = self._peers[link.peer_id].watches
        for frame in frames_of(record):
            watch = watches.get(frame.number)
            if watch is None:
                continue  # it was left a moment ago, or this is a sign of life
            if frame.kind == LOOK:
                self._served(watch, link.peer_id)
                self._bells.ring_here(response(watch.response_id))
            elif frame.kind in (EVENTS, LAST):
                watch.take(frame.first_seq, frame.last_seq, frame.text, frame.kind == LAST)

    def lost(self, link: Link, reason: str) -> None:
        self._observer.link_lost(reason)
        peer = self._peers.get(link.peer_id)
        if peer is None or peer.link is not link:
            return
        watches, peer.link, peer.watches = list(peer.watches.values()), None, {}
        for watch in watches:
            watch.peer = None
            self._served(watch, None)
            self._bells.ask(watch.response_id)
