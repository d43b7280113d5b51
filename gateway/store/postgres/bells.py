"""Bells between several gateways: rung here at once, and at the others by PostgreSQL notifications.

Notifications have a connection of their own and are never part of a transaction that writes events: NOTIFY
holds a lock on the whole database until its commit. That commit does not wait for the disk, which is safe, as
the events are stored by then. A few topics are sent at once; of many, batches are sent, at most 40 a second.
Events of a response are announced only while another gateway has asked for them; it asks again and again.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import asyncpg

from gateway.store.bells import LocalBells, Topic, response, wanted
from gateway.store.postgres.connections import PostgresConnector
from gateway.store.postgres.health import FAILURES
from gateway.store.postgres.queries import QUERIES

_CHANNEL = "backburner"
_PACE_S = 0.001
"""Seconds between two notifications, for each topic of the first; `_PACE_MAX_S` at most."""
_PACE_MAX_S = 0.025
_PAYLOAD_BYTES_MAX = 7_900
_TOPICS_MAX = 5_000
_ALL = Topic("*")
_ASK_S = 10.0
_ASKED_FOR_S = 25.0
_LOOK_S = 1.0
"""Seconds between two polls while notifications arrive, in case one is late or lost."""
_LOOK_UNHEARD_S = 0.25
"""Seconds between two polls while none arrive: the connection failed, or a pooler drops them."""
_RECONNECT_S = 0.5
_TRY_S = 5.0
"""Seconds without a topic after which the connection is checked: a machine that is gone reports no error."""
_RESPONSE = response("")
_WANTED = wanted("")


class PostgresBells(LocalBells):
    """The bells of one gateway.

    Args:
        gateway_id: Its own notifications are not rung again.
        is_quiet: Send and hear nothing.
    """

    def __init__(self, connector: PostgresConnector, gateway_id: str, *, is_quiet: bool) -> None:
        super().__init__()
        self._connector = connector
        self._id = gateway_id
        self._is_quiet = is_quiet
        self._is_heard = False  # our own notifications come back to us
        self._telling: dict[Topic, None] = {}
        self._has_some = asyncio.Event()
        self._wanted_until_s: dict[str, float] = {}

    @property
    def look_s(self) -> float:  # type: ignore[override]
        return _LOOK_S if self._is_heard else _LOOK_UNHEARD_S

    def ring(self, topic: Topic) -> None:
        super().ring(topic)
        self.tell(topic)

    def tell(self, topic: Topic) -> None:
        """Ring at the other gateways only."""
        if not self._is_quiet and len(self._telling) < _TOPICS_MAX:
            self._telling[topic] = None
            self._has_some.set()

    def appended(self, response_id: str) -> None:
        """A response has new events, of which its followers here know."""
        if self.is_wanted(response_id):
            self.tell(response(response_id))

    def is_wanted(self, response_id: str) -> bool:
        return self._wanted_until_s.get(response_id, 0.0) > time.monotonic()

    @contextmanager
    def listen(self, wake: Callable[[], object], *topics: Topic) -> Iterator[None]:
        for topic in topics:
            if topic.startswith(_RESPONSE):
                self.tell(wanted(topic.removeprefix(_RESPONSE)))
        with super().listen(wake, *topics):
            yield

    async def run(self) -> None:
        """Send and hear, until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._make_up(), name="store-bells-make-up")
            if self._is_quiet:
                return
            group.create_task(self._ask_again(), name="store-bells-ask")
            while True:
                connection = None
                try:
                    connection = await self._connector.connect(synchronous_commit="off")
                    await connection.add_listener(_CHANNEL, self._hear)
                    self.tell(_ALL)  # also to us: whether it comes back says whether we hear
                    await self._send(connection)
                except FAILURES:
                    self._is_heard = False
                    await asyncio.sleep(_RECONNECT_S)
                finally:
                    if connection is not None:
                        connection.terminate()

    async def _send(self, connection: asyncpg.Connection) -> None:
        connection.add_termination_listener(lambda _: self._has_some.set())
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(_TRY_S):
                    await self._has_some.wait()
            if not self._connector.is_usable(connection):
                raise ConnectionError("it was closed, or leads to a host that is not asked any more")
            self._has_some.clear()
            topics, self._telling = list(self._telling), {}
            if len(topics) == _TOPICS_MAX:
                topics = [_ALL]
            try:
                await connection.fetch(QUERIES["notify"].text, list(_payloads(self._id, topics)))
            except BaseException:
                self._telling = dict.fromkeys(topics) | self._telling
                raise
            await asyncio.sleep(min(_PACE_MAX_S, _PACE_S * len(topics)))

    def _hear(self, _connection: Any, _pid: int, _channel: str, payload: object) -> None:
        sender, *topics = str(payload).split("\n")
        if sender == self._id:
            if not self._is_heard:
                self._is_heard = True
                self.ring_all()  # of what was told meanwhile
            return
        for topic in topics:
            if topic == _ALL:
                self.ring_all()
            elif topic.startswith(_WANTED):
                self._want(Topic(topic))
            else:
                super().ring(Topic(topic))

    def _want(self, topic: Topic) -> None:
        response_id = topic.removeprefix(_WANTED)
        was_wanted = self.is_wanted(response_id)
        self._wanted_until_s[response_id] = time.monotonic() + _ASKED_FOR_S
        if not was_wanted:
            super().ring(topic)

    def ring_all(self) -> None:
        """Here: anything may have happened."""
        for topic in self.topics:
            super().ring(topic)

    async def _make_up(self) -> None:
        """While nothing is heard, ring for what is not looked for all the time: most of all, that a job was
        taken from its run."""
        while True:
            await asyncio.sleep(_LOOK_S)
            if not self._is_heard:
                for topic in self.topics:
                    if not topic.startswith(_RESPONSE):
                        super().ring(topic)

    async def _ask_again(self) -> None:
        while True:
            await asyncio.sleep(_ASK_S)
            now_s = time.monotonic()
            self._wanted_until_s = {
                name: until_s for name, until_s in self._wanted_until_s.items() if until_s > now_s
            }
            for topic in self.topics:
                if topic.startswith(_RESPONSE):
                    self.tell(wanted(topic.removeprefix(_RESPONSE)))


def _payloads(sender: str, topics: list[Topic]) -> Iterator[str]:
    """The topics, in as many texts as are needed."""
    text = sender
    for topic in topics:
        if len(text) + len(topic) >= _PAYLOAD_BYTES_MAX:
            yield text
            text = sender
        text += f"\n{topic}"
    yield text
