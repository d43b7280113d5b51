"""Readers of event streams: a cursor and a bell each, no queue.

After a commit a reader who has all that came before is written to at once, and no task wakes for it. The same
bytes wait for all others in a short tail in memory; whoever has fallen behind it reads pages from the store
until it has caught up. So a slow reader costs one page and a socket buffer, and every reader, early or late,
gets the bytes that were committed.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import aclosing, contextmanager
from dataclasses import dataclass, field

from gateway.config import StreamSettings
from gateway.core.job import NewJob, StoreUnavailable
from gateway.engine.clock import Clock
from gateway.engine.refusals import refusal_of
from gateway.engine.tails import Tails
from gateway.observe import Observer
from gateway.store.bells import response, wanted
from gateway.store.port import EventStore, Page
from gateway.wire.errors import Fault, Refusal
from gateway.wire.sse import KEEP_ALIVE

_EXPECTED_S = 1.0
"""Longest time, in seconds, for which a new response is watched before its creator begins to read it."""
_EARLY_S = 0.01
"""Seconds by which a timer may go off early."""

Sink = Callable[[bytes], bool]
"""Takes whole events now, or says that it can't."""


@dataclass(frozen=True, slots=True)
class Watching:
    """A reader, as operators see it.

    Attributes:
        since_ms: Unix milliseconds.
        cursor: Number of the last event that it was sent; -1: none yet.
        tenant: First eight hex digits.
        peer: Where its connection comes from: a proxy, if there is one.
    """

    since_ms: int
    cursor: int
    tenant: str
    peer: str | None


class _Follower:
    """One reader.

    Attributes:
        cursor: The last event that it has.
        is_waiting: It has all there is.
    """

    __slots__ = ("_loop", "_sink", "_told_s", "bell", "cursor", "is_waiting", "peer", "since_ms", "tenant")

    def __init__(
        self, cursor: int, sink: Sink | None, tenant: bytes, since_ms: int, peer: str | None
    ) -> None:
        self.cursor = cursor
        self.tenant = tenant
        self.since_ms = since_ms
        self.peer = peer
        self.bell = asyncio.Event()
        self.is_waiting = False
        self._sink = sink
        self._loop = asyncio.get_running_loop()
        self._told_s = 0.0

    def tell(self, first_seq: int, page: Page) -> None:
        """Events were committed: write them, or ring."""
        is_next = self.is_waiting and first_seq == self.cursor + 1 and not page.is_end
        if is_next and self._written(page.events):
            self.cursor, self._told_s = page.last_seq, self._loop.time()
        else:
            self.bell.set()

    def _written(self, events: bytes) -> bool:
        try:
            return self._sink is not None and self._sink(events)
        except (
            Exception
        ):  # a reader's defect is no failure of the response: it meets it again in its own task
            self._sink = None
            return False

    async def rang(self, seconds: float) -> bool:
        """Wait for the bell; False if it has not rung, and nothing was written, for so long."""
        self.is_waiting, self._told_s = True, self._loop.time()
        try:
            while (left_s := self._told_s + seconds - self._loop.time()) > 0:
                if await _rang(self.bell, left_s):
                    return True
            return False
        finally:
            self.is_waiting = False


@dataclass(slots=True)
class _Watched:
    """One response with readers, or with one that is expected: that of its maker."""

    readers: set[_Follower] = field(default_factory=set)
    is_gone: bool = False
    pump: asyncio.Task[None] | None = None
    expected: bytes | None = None

    def ring(self) -> None:
        for reader in self.readers:
            reader.bell.set()


class Followers:
    """Everybody who reads a stream, by response."""

    def __init__(self, store: EventStore, clock: Clock, settings: StreamSettings, observer: Observer) -> None:
        self._store = store
        self._clock = clock
        self._settings = settings
        self._observer = observer
        self._watched: dict[str, _Watched] = {}
        self._tails = Tails(each_bytes_max=settings.tail_bytes_max, all_bytes_max=settings.tails_bytes_max)
        self._of_tenant: Counter[bytes] = Counter()
        self._arrivals: dict[str, Callable[[], None]] = {}
        self._count = 0
        self._is_closed = False

    # -- for whoever writes

    def is_watched(self, response_id: str) -> bool:
        """Whether somebody waits for its events, here or at another gateway."""
        return response_id in self._watched or self._store.bells.is_wanted(response_id)

    def watching(self, response_id: str) -> list[Watching]:
        """Who reads it here now, whoever came first at first."""
        watched = self._watched.get(response_id)
        found = [
            Watching(each.since_ms, each.cursor, each.tenant.hex()[:8], each.peer)
            for each in (watched.readers if watched is not None else ())
        ]
        return sorted(found, key=lambda each: each.since_ms)

    @contextmanager
    def arrivals(self, response_id: str, wake: Callable[[], None]) -> Iterator[None]:
        """Within the block, call `wake` when a reader comes: it wants what is not yet committed."""
        self._arrivals[response_id] = wake
        try:
            with self._store.bells.listen(wake, wanted(response_id)):
                yield
        finally:
            del self._arrivals[response_id]

    def expect(self, job: NewJob) -> None:
        """Watch a response that is about to be stored, and keep its events: its creator reads them next."""
        watched = self._watched[job.id] = _Watched(expected=job.tenant)
        asyncio.get_running_loop().call_later(_EXPECTED_S, self._unwatch, job.id, watched)

    def created(self, job: NewJob) -> None:
        """Its first events are in the store."""
        if self._tails.end(job.id) is None:  # a run that has begun may have told of its own already
            self.committed(job.id, 0, job.next_seq, job.events, is_end=False)

    def committed(self, response_id: str, first_seq: int, count: int, events: bytes, *, is_end: bool) -> None:
        """These events are in the store. Call it after the commit, in order, and never before."""
        watched = self._watched.get(response_id)
        if watched is None:
            return
        page = Page(events, first_seq + count - 1, is_end)
        self._tails.add(response_id, first_seq, page)
        for reader in watched.readers:
            reader.tell(first_seq, page)

    def gone(self, response_id: str) -> None:
        """The response was deleted: its readers' streams end."""
        if watched := self._watched.get(response_id):
            watched.is_gone = True
            watched.ring()

    def close(self) -> None:
        """End every stream, cleanly and at an event's end: the readers come back with their cursors."""
        self._is_closed = True
        for watched in self._watched.values():
            watched.ring()

    # -- for whoever reads

    async def follow(
        self,
        response_id: str,
        tenant: bytes,
        *,
        after: int,
        sink: Sink | None = None,
        peer: str | None = None,
    ) -> AsyncGenerator[bytes, None]:
        """The events after `after`, live, to the end of the response; whole events in each block. Where there
        are none yet, the first block is empty: it says that there is a stream.

        Args:
            sink: Is given events, in their place between two blocks, while it takes them.
            peer: Where the reader's connection comes from, for operators.

        Raises:
            Refusal: Too many readers, or the store does not answer (before the first block).
        """
        reader = _Follower(after, sink, tenant, self._clock.now_ms(), peer)
        with self._attached(response_id, tenant, reader) as watched:
            async with aclosing(self._pages(response_id, tenant, watched, reader)) as pages:
                async for block in pages:
                    yield block

    async def _pages(
        self, response_id: str, tenant: bytes, watched: _Watched, reader: _Follower
    ) -> AsyncGenerator[bytes, None]:
        # Whether it is known to be this tenant's: the store has said so, or the tenant has just made it.
        is_checked, watched.expected = watched.expected == tenant, None
        has_begun = False
        bytes_max = self._settings.page_bytes_max
        while not (watched.is_gone or self._is_closed):
            reader.bell.clear()  # before the read: what comes after it rings again
            page = self._tails.after(response_id, reader.cursor, bytes_max) if is_checked else None
            if page is None:
                try:
                    page = await self._store.page(
                        response_id,
                        tenant,
                        after=reader.cursor,
                        bytes_max=bytes_max,
                        now_ms=self._clock.now_ms(),
                    )
                except StoreUnavailable as error:
                    if is_checked:
                        return  # the reader comes back with its cursor
                    raise refusal_of(error, None) from None
                if page is None:
                    return
                is_checked = True
            if page.events:
                reader.cursor = page.last_seq
                yield page.events
            if page.is_end:
                return
            if not has_begun and not page.events:
                yield b""
            has_begun = True
            if not page.events and not await reader.rang(self._settings.heartbeat_s):
                yield KEEP_ALIVE

    async def _pump(self, response_id: str, tenant: bytes, watched: _Watched) -> None:
        """Look for what others have written, for all readers at once: when it rings, and now and then. What
        this process writes is in the tail already."""
        bell, bells = asyncio.Event(), self._store.bells
        with bells.listen(bell.set, response(response_id)):
            while not watched.is_gone:
                look_s = None if response_id in self._arrivals else bells.look_s
                runs_here = look_s is None
                has_rung = await _rang(
                    bell, self._settings.heartbeat_s if look_s is None else _until_next(look_s)
                )
                bell.clear()
                end = self._tails.end(response_id)
                if end is None and not runs_here:  # a tail begins where the readers are
                    end = min((each.cursor for each in watched.readers if each.is_waiting), default=None)
                if end is None:  # there is no tail: each reader reads the store
                    has_news = has_rung
                else:
                    has_news = await self._extend(response_id, tenant, watched, end, bell)
                if has_news:
                    watched.ring()

    async def _extend(
        self, response_id: str, tenant: bytes, watched: _Watched, end: int, bell: asyncio.Event
    ) -> bool:
        """Add to a tail the page that follows it in the store; ring if there is more. False if none does."""
        bytes_max, now_ms = self._settings.page_bytes_max, self._clock.now_ms()
        try:
            page = await self._store.page(response_id, tenant, after=end, bytes_max=bytes_max, now_ms=now_ms)
        except StoreUnavailable:
            return False
        watched.is_gone = page is None
        if page is not None and page.events and self._tails.end(response_id) in (end, None):
            self._tails.add(response_id, end + 1, page)
            if page.has_more:
                bell.set()
        return page is None or page.is_end or bool(page.events)

    @contextmanager
    def _attached(self, response_id: str, tenant: bytes, reader: _Follower) -> Iterator[_Watched]:
        watched = self._watched.get(response_id)
        readers = len(watched.readers) if watched is not None else 0
        if (
            self._count >= self._settings.readers_max
            or self._of_tenant[tenant] >= self._settings.readers_per_tenant_max
            or readers >= self._settings.readers_per_response_max
        ):
            message = "Too many open streams; close one, or poll."
            raise Refusal(Fault.OVERLOADED, message, code="too_many_streams", retry_after_s=5)
        if watched is None:
            watched = self._watched[response_id] = _Watched()
        if watched.pump is None:
            watched.pump = asyncio.create_task(self._pump(response_id, tenant, watched))
        watched.readers.add(reader)
        self._of_tenant[tenant] += 1
        self._count += 1
        self._observer.followers.set(self._count)
        if arrival := self._arrivals.get(response_id):
            arrival()
        try:
            yield watched
        finally:
            self._count -= 1
            self._observer.followers.set(self._count)
            self._of_tenant[tenant] -= 1
            if not self._of_tenant[tenant]:
                del self._of_tenant[tenant]
            watched.readers.discard(reader)
            self._unwatch(response_id, watched)

    def _unwatch(self, response_id: str, watched: _Watched) -> None:
        """Unless somebody reads it, or it was watched anew."""
        if watched.readers or self._watched.get(response_id) is not watched:
            return
        if watched.pump is not None:
            watched.pump.cancel()
            watched.pump = None  # the two would keep each other
        del self._watched[response_id]
        self._tails.drop(response_id)


async def _rang(bell: asyncio.Event, seconds: float | None) -> bool:
    try:
        async with asyncio.timeout(seconds):
            await bell.wait()
    except TimeoutError:
        return False
    return True


def _until_next(look_s: float) -> float:
    """Seconds to the next poll. All followers poll at the same moments: the store reads for all at once."""
    left_s = look_s - asyncio.get_running_loop().time() % look_s
    return left_s if left_s > _EARLY_S else left_s + look_s
