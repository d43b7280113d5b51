"""Gateways that follow responses which run here: each has one connection to us, whatever it follows.

Nothing is kept for them. Whoever does not take what it is sent loses its connection, and reads the table.
"""

from __future__ import annotations

import asyncio

from gateway.observe import Observer
from gateway.store.postgres.bells import PostgresBells
from gateway.store.postgres.peers.frames import (
    ALIVE,
    EVENTS,
    EVENTS_BYTES_MAX,
    LAST,
    LEAVE,
    LOOK,
    SUBSCRIBE,
    Frame,
    frames_of,
)
from gateway.store.postgres.peers.link import Link, Self


class Subscribers:
    """All of them.

    Args:
        links_max: More connections are closed at once.
    """

    def __init__(self, me: Self, bells: PostgresBells, observer: Observer, *, links_max: int) -> None:
        self._me = me
        self._bells = bells
        self._observer = observer
        self._links_max = links_max
        self._server: asyncio.Server | None = None
        self._links: set[Link] = set()  # also those that have not proved anything
        self._of: dict[Link, dict[int, str]] = {}
        self._by_response: dict[str, dict[Link, int]] = {}

    async def listen(self, host: str, port: int) -> int:
        """Returns the port. Raises: OSError."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(self._made, host, port)
        return int(self._server.sockets[0].getsockname()[1])

    def close(self) -> None:
        if self._server is not None:
            self._server.close()
        for link in list(self._links):
            link.close()

    def beat(self) -> None:
        """Say that we live, and close links to those who say nothing."""
        for link in list(self._of):
            link.send(Frame(ALIVE).encoded())
            link.doubt()

    def committed(
        self, response_id: str, first_seq: int, last_seq: int, events: bytes, *, is_end: bool
    ) -> None:
        """These events are in the store, and were written here."""
        if response_id not in self._by_response:
            return
        is_large = len(events) > EVENTS_BYTES_MAX
        kind = LOOK if is_large else LAST if is_end else EVENTS
        self._tell(response_id, kind, b"" if is_large else events, first_seq, last_seq)

    def changed(self, response_id: str) -> None:
        """It was deleted, perhaps."""
        self._tell(response_id, LOOK, b"", 0, 0)

    def _tell(self, response_id: str, kind: bytes, events: bytes, first_seq: int, last_seq: int) -> None:
        for link, number in self._by_response.get(response_id, {}).items():
            link.send(Frame(kind, number, events, first_seq, last_seq).encoded())

    # -- of a link

    def _made(self) -> Link:
        link = Link(self._me, None, self, is_refused=len(self._links) >= self._links_max)
        self._links.add(link)
        return link

    def opened(self, link: Link) -> None:
        self._of[link] = {}

    def heard(self, link: Link, record: memoryview) -> None:
        for frame in frames_of(record):
            if frame.kind == SUBSCRIBE:
                self._subscribe(link, frame.number, frame.text.decode())
            elif frame.kind == LEAVE:
                self._leave(link, frame.number)

    def lost(self, link: Link, reason: str) -> None:
        self._links.discard(link)
        for number in list(self._of.get(link, ())):
            self._leave(link, number)
        self._of.pop(link, None)
        self._observer.link_lost(reason)

    def _subscribe(self, link: Link, number: int, response_id: str) -> None:
        self._of[link][number] = response_id
        self._by_response.setdefault(response_id, {})[link] = number
        self._bells.pushed(response_id, link.peer_id)
        link.send(Frame(LOOK, number).encoded())  # what was committed before is in the table

    def _leave(self, link: Link, number: int) -> None:
        response_id = self._of[link].pop(number, "")
        links = self._by_response.get(response_id, {})
        if links.get(link) == number:
            del links[link]
            if not links:
                del self._by_response[response_id]
            if all(other.peer_id != link.peer_id for other in links):
                self._bells.pushed_no_more(response_id, link.peer_id)
