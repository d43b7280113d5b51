"""Readers of event streams: the same bytes for everybody, after their commit and not before."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import AsyncExitStack, aclosing, contextmanager, suppress
from typing import Any

import pytest

from gateway.core.job import Outcome, Status, StoreUnavailable
from gateway.core.reason import Reason
from gateway.core.upstream import UpstreamClosed
from gateway.store.bells import response
from gateway.store.pushes import Take
from gateway.wire.errors import Fault, Refusal
from gateway.wire.sse import KEEP_ALIVE, encode, split_frames
from tests.support.house import (
    ALL,
    OTHER,
    TENANT,
    Build,
    Hold,
    House,
    Step,
    Wrapped,
    frames,
    is_terminal,
    parsed,
)


async def take(house: House, response_id: str, count: int) -> bytes:
    """The first so many events, read live."""
    got: list[bytes] = []
    async with asyncio.timeout(10):
        async with aclosing(house.engine.followers.follow(response_id, b"t" * 32, after=-1)) as stream:
            async for block in stream:
                got += [] if block == KEEP_ALIVE else split_frames(block)
                if len(got) >= count:
                    break
    return b"".join(got[:count])


async def test_readers_from_every_cursor_get_the_same_bytes(build: Build) -> None:
    house = await build(stream={"readers_per_response_max": 100})
    holds = [Hold() for _ in range(3)]
    script: list[Step] = [frames(0, 3), holds[0], frames(3, 9), holds[1], frames(9, 15), holds[2]]
    house.backend.script = [*script, frames(15), UpstreamClosed()]
    response_id = await house.submit(stream=True)
    readers = []
    for hold in holds:  # some come before there is anything to see, some in between, some after the end
        readers += [(after, asyncio.create_task(house.stream(response_id, after))) for after in range(-1, 4)]
        await hold.here()
        hold.go.set()
    await house.ended(response_id)
    whole = split_frames(await house.store.all_events(response_id))
    assert len(whole) > 20
    readers += [(after, asyncio.create_task(house.stream(response_id, after))) for after in range(-1, 40)]
    for after, reader in readers:
        assert await reader == b"".join(whole[after + 1 :])
    await house.stored(response_id)
    assert house.engine.followers._watched == {}


async def test_no_reader_sees_an_event_before_its_commit(build: Build) -> None:
    class Slow(Wrapped):
        def __init__(self, store: Any) -> None:
            super().__init__(store)
            self.committed = b""

        async def _slowly(self) -> None:
            for _ in range(20):  # readers get every chance to see too much
                await asyncio.sleep(0)

        async def create(self, job: Any, limits: Any) -> Any:
            self.committed += job.events
            return await self.inner.create(job, limits)

        async def start(self, job: Any, limits: Any) -> Any:
            self.committed += job.begun().events
            return await self.inner.start(job, limits)

        async def append(self, claim: Any, first_seq: int, count: int, events: bytes, **options: Any) -> None:
            await self._slowly()
            self.committed += events  # from here on the commit may have happened
            await self.inner.append(claim, first_seq, count, events, **options)

        async def finish(self, claim: Any, outcome: Any, **options: Any) -> None:
            await self._slowly()
            self.committed += outcome.events
            await self.inner.finish(claim, outcome, **options)

    house = await build(wrap=Slow)
    response_id = await house.submit(stream=True)

    async def read() -> bytes:
        got = b""
        async with aclosing(house.engine.followers.follow(response_id, TENANT, after=-1)) as stream:
            async for block in stream:
                got += block
                assert house.store.committed.startswith(got), "seen before it was kept"
        return got

    async with asyncio.timeout(10):
        results = await asyncio.gather(*(read() for _ in range(10)))
    assert set(results) == {await house.store.all_events(response_id)}


async def test_a_failed_commit_is_never_shown(build: Build) -> None:
    class Failing(Wrapped):
        async def append(self, claim: Any, first_seq: int, *arguments: Any, **options: Any) -> None:
            if first_seq > 3:
                raise StoreUnavailable("disk full")
            await self.inner.append(claim, first_seq, *arguments, **options)

    house = await build(wrap=Failing, background={"store_wait_s": 0})
    hold = Hold()
    house.backend.script = [frames(0, 3), hold, frames(3, 8), Hold()]
    response_id = await house.submit(stream=True)
    reader = asyncio.create_task(house.stream(response_id))
    await hold.here()
    await take(house, response_id, 4)
    hold.go.set()
    await house.backend.closed(response_id)
    await house.tick()
    assert (await house.ended(response_id))["status"] == "failed"
    assert parsed(await reader) == await house.stored(response_id)


@pytest.mark.parametrize("after", [30, 10_000])
async def test_a_reader_that_starts_past_the_end_stops_with_it(house: House, after: int) -> None:
    hold = Hold()
    house.backend.script = [frames(0, 8), hold, frames(8), UpstreamClosed()]
    response_id = await house.submit(stream=True)
    early = asyncio.create_task(house.stream(response_id, after))
    await hold.here()
    hold.go.set()
    await house.ended(response_id)
    assert await early == b""
    assert await house.stream(response_id, after) == b""


async def test_a_slow_reader_falls_back_to_the_store_and_catches_up(build: Build) -> None:
    pages = []

    class Counting(Wrapped):
        async def page(self, response_id: str, tenant: bytes, **options: Any) -> Any:
            pages.append(options["after"])
            return await self.inner.page(response_id, tenant, **options)

    house = await build(stream={"tail_bytes_max": 1024, "page_bytes_max": 1024}, wrap=Counting)
    holds = [Hold() for _ in range(18)]
    script = [step for number, hold in enumerate(holds) for step in (hold, frames(number, number + 1))]
    house.backend.script = [*script, frames(18), UpstreamClosed()]
    response_id = await house.submit(stream=True)
    slow = house.engine.followers.follow(response_id, TENANT, after=-1)
    fast = house.engine.followers.follow(response_id, TENANT, after=-1)
    async with aclosing(slow), aclosing(fast), asyncio.timeout(10):
        got, whole = await anext(slow), await anext(fast)
        await holds[0].here()
        for number, hold in enumerate(holds):  # a commit for each: somebody keeps up
            hold.go.set()
            if number > 1:  # the first two are lifecycle, which makes no event here
                whole += await anext(fast)
        async for block in fast:
            whole += block
        assert house.engine.followers._tails.size < len(whole)
        behind = len(pages)
        async for block in slow:
            got += block
    assert got == whole == await house.store.all_events(response_id)
    assert len(pages) > behind + 1, "it was meant to need the store"
    assert len(split_frames(whole)) > 20


async def test_a_reader_that_keeps_up_needs_the_store_once(build: Build) -> None:
    pages = []

    class Counting(Wrapped):
        async def page(self, *arguments: Any, **options: Any) -> Any:
            pages.append(options["after"])
            return await self.inner.page(*arguments, **options)

    house = await build(wrap=Counting)
    hold = Hold()
    house.backend.script = [frames(0, 3), hold, *ALL[1:]]
    response_id = await house.submit(stream=True)
    await hold.here()
    await take(house, response_id, 4)
    pages.clear()
    reader = asyncio.create_task(house.stream(response_id, 3))
    async with asyncio.timeout(10):
        while not pages:
            await asyncio.sleep(0)
    hold.go.set()
    await reader
    assert len(pages) <= 2  # the second, if nothing had yet been committed while it watched


async def test_a_commit_nobody_told_of_leaves_no_hole_in_a_stream(build: Build) -> None:
    """A run that is stopped while its last commit is under way: it happens, and the run tells nobody."""
    reached, go = asyncio.Event(), asyncio.Event()

    class Slow(Wrapped):
        async def append(self, claim: Any, first_seq: int, *arguments: Any, **options: Any) -> None:
            work = asyncio.ensure_future(self.inner.append(claim, first_seq, *arguments, **options))
            if first_seq > 4:
                await work
                reached.set()
                await go.wait()  # committed; but whoever waits here is stopped before it hears
            await work

    house = await build(wrap=Slow)
    first = Hold()
    house.backend.script = [frames(0, 4), first, frames(4, 8), Hold()]
    response_id = await house.submit(stream=True)
    reader = house.engine.followers.follow(response_id, TENANT, after=-1)
    async with aclosing(reader), asyncio.timeout(10):
        got = b""
        while len(split_frames(got)) < 5:
            got += await anext(reader)
        first.go.set()
        await reached.wait()
        await house.engine.drain(0)
        with suppress(StopAsyncIteration):
            while True:
                got += await anext(reader)
    whole = await house.store.all_events(response_id)
    assert whole.startswith(got), "a hole in the stream"
    assert (await house.shown(response_id))["status"] == "failed"


async def test_a_reader_that_arrives_does_not_wait_for_the_flush(build: Build) -> None:
    house = await build(background={"flush_ms": 10_000})
    hold = Hold()
    house.backend.script = [frames(0, 8), hold]
    response_id = await house.submit(stream=True)
    await hold.here()
    assert len(split_frames(await house.store.all_events(response_id))) == 3, "nobody was watching"
    async with asyncio.timeout(5):
        await take(house, response_id, 9)


# -- limits


async def test_a_response_has_so_many_readers_and_the_next_is_refused(build: Build) -> None:
    limits = {"readers_per_response_max": 2, "readers_per_tenant_max": 3, "readers_max": 3}
    house = await build(stream=limits, is_started=False)
    first, second = await house.submit(stream=True), await house.submit(stream=True)
    followers = house.engine.followers
    async with aclosing(followers.follow(first, TENANT, after=-1)) as one:
        async with aclosing(followers.follow(first, TENANT, after=-1)) as two:
            await anext(one)
            await anext(two)
            with pytest.raises(Refusal) as of_response:
                await anext(followers.follow(first, TENANT, after=-1))
            assert (of_response.value.fault, of_response.value.retry_after_s) == (Fault.OVERLOADED, 5)
            async with aclosing(followers.follow(second, TENANT, after=-1)) as three:
                await anext(three)
                with pytest.raises(Refusal):
                    await anext(followers.follow(second, TENANT, after=-1))
        async with aclosing(followers.follow(first, TENANT, after=-1)) as again:
            await anext(again)  # a place that was left is free
    assert followers._count == 0
    assert followers._watched == {}


async def test_a_tenant_has_so_many_readers_and_others_still_get_theirs(build: Build) -> None:
    limits = {"readers_per_response_max": 1, "readers_per_tenant_max": 2}
    house = await build(stream=limits, is_started=False)
    mine = [await house.submit(stream=True) for _ in range(3)]
    foreign = await house.submit(stream=True, tenant=OTHER)
    followers = house.engine.followers
    async with AsyncExitStack() as stack:

        async def read(response_id: str, tenant: bytes) -> None:
            stream = followers.follow(response_id, tenant, after=-1)
            await stack.enter_async_context(aclosing(stream))
            await anext(stream)

        await read(mine[0], TENANT)
        await read(mine[1], TENANT)
        with pytest.raises(Refusal) as refused:
            await read(mine[2], TENANT)
        assert (refused.value.fault, refused.value.code) == (Fault.OVERLOADED, "too_many_streams")
        await read(foreign, OTHER)
    assert not followers._of_tenant


async def test_readers_whose_tail_made_room_for_others_get_the_same_bytes(build: Build) -> None:
    limits = {"tail_bytes_max": 4096, "tails_bytes_max": 4096, "page_bytes_max": 1024}
    house = await build(stream=limits)
    tails = house.engine.followers._tails
    ids, readers = [], []
    for _ in range(8):
        ids.append(await house.submit(stream=True))
        readers += [asyncio.create_task(house.stream(ids[-1], after)) for after in (-1, 5)]
    for response_id in ids:
        await house.observer.until(response_id, "finished")
        assert tails.size <= 4096
    for number, response_id in enumerate(ids):
        whole = split_frames(await house.store.all_events(response_id))
        assert await readers[2 * number] == b"".join(whole)
        assert await readers[2 * number + 1] == b"".join(whole[6:])
    assert tails.size == 0


async def test_a_silent_stream_has_heartbeats_that_are_no_events(build: Build) -> None:
    house = await build(stream={"heartbeat_s": 0.01})
    hold = Hold()
    house.backend.script = [frames(0, 4), hold, frames(4), UpstreamClosed()]
    response_id = await house.submit(stream=True)
    blocks = []
    async with asyncio.timeout(10):
        async with aclosing(house.engine.followers.follow(response_id, TENANT, after=-1)) as stream:
            async for block in stream:
                blocks.append(block)
                if hold.reached.is_set() and blocks.count(KEEP_ALIVE) >= 3:
                    hold.go.set()
    assert blocks.count(KEEP_ALIVE) >= 3
    events = b"".join(block for block in blocks if block != KEEP_ALIVE)
    assert events == await house.store.all_events(response_id)


# -- endings


@pytest.mark.parametrize("case", ["foreign", "unknown"])
async def test_a_stream_of_what_is_not_there_is_empty(house: House, case: str) -> None:
    response_id = await house.submit(stream=True)
    if case == "foreign":
        assert await house.stream(response_id, tenant=OTHER) == b""
    else:
        assert await house.stream("resp_" + "f" * 48) == b""


async def test_a_foreign_reader_gets_nothing_of_a_tail_in_memory(house: House) -> None:
    hold = Hold()
    house.backend.script = [frames(0, 8), hold, frames(8), UpstreamClosed()]
    response_id = await house.submit(stream=True)
    owner = asyncio.create_task(house.stream(response_id))
    await hold.here()
    await take(house, response_id, 9)
    assert await house.stream(response_id, tenant=OTHER) == b""
    hold.go.set()
    assert is_terminal(parsed(await owner)[-1])


async def test_closing_ends_every_stream_at_an_event_s_end(house: House) -> None:
    house.backend.script = [frames(0, 8), Hold()]
    ids = [await house.submit(stream=True) for _ in range(3)]
    readers = [asyncio.create_task(house.stream(response_id)) for response_id in ids for _ in range(3)]
    for response_id in ids:
        await take(house, response_id, 9)
    house.engine.followers.close()
    for number, reader in enumerate(readers):
        got = await reader  # `stream` has seen that it is whole events
        assert got
        assert (await house.store.all_events(ids[number // 3])).startswith(got)
    assert await house.stream(ids[0]) == b""  # and no new one begins


async def test_a_delete_whose_client_has_gone_still_ends_the_streams(build: Build) -> None:
    deleted, go = asyncio.Event(), asyncio.Event()

    class Slow(Wrapped):
        async def delete(self, *arguments: Any, **options: Any) -> Any:
            found = await self.inner.delete(*arguments, **options)
            deleted.set()
            await go.wait()
            return found

    house = await build(wrap=Slow)
    house.backend.script = [frames(0, 8), Hold()]
    response_id = await house.submit(stream=True)
    reader = asyncio.create_task(house.stream(response_id))
    await take(house, response_id, 9)
    client = asyncio.create_task(house.jobs.delete(await house.job(response_id)))
    await deleted.wait()
    client.cancel()
    with pytest.raises(asyncio.CancelledError):
        await client
    go.set()
    assert (await house.store.all_events(response_id)).startswith(await reader)
    await house.backend.closed(response_id)


async def test_a_store_that_does_not_answer_ends_a_stream_and_lets_none_begin(build: Build) -> None:
    house = await build(is_started=False, stream={"heartbeat_s": 0.05})
    response_id = await house.submit(stream=False)

    async def fails(*_: Any, **__: Any) -> Any:
        raise StoreUnavailable("disk")

    async with aclosing(house.engine.followers.follow(response_id, TENANT, after=-1)) as stream:
        assert split_frames(await anext(stream)), "it has begun"
        house.store.page = fails
        async with asyncio.timeout(10):
            assert {block async for block in stream} <= {KEEP_ALIVE}
    with pytest.raises(Refusal) as refused:
        await house.stream(response_id)
    assert refused.value.code == "store_unavailable"


@pytest.mark.parametrize(("heartbeat_s", "rings"), [(15, True), (0.05, False)], ids=["rung", "looked"])
async def test_what_another_replica_writes_reaches_every_reader_with_one_read_of_the_store(
    build: Build, heartbeat_s: float, rings: bool
) -> None:
    class Counting(Wrapped):
        pages = 0

        async def page(self, *arguments: Any, **options: Any) -> Any:
            self.pages += 1
            return await self.inner.page(*arguments, **options)

    house = await build(wrap=Counting, stream={"heartbeat_s": heartbeat_s})
    first, hold = Hold(), Hold()
    house.backend.script = [frames(0, 3), first, frames(3, 9), hold]
    response_id = await house.submit(stream=True)
    await first.here()
    readers = [asyncio.create_task(house.stream(response_id)) for _ in range(5)]
    await until_watched(house, response_id, 5)
    first.go.set()
    await hold.here()
    await take(house, response_id, 5)  # they are all at the end of the tail
    taken = await house.store.take_over(response_id)
    next_seq, before = taken.job.next_seq, house.store.pages
    last = encode("response.completed", b'{"sequence_number":%d}' % next_seq)
    outcome = Outcome(Status.COMPLETED, b"{}", next_seq, last, 1, None, Reason.ENDED)
    await house.store.finish(taken, outcome, now_ms=house.clock.now_ms(), expires_at_ms=2**60)
    if rings:
        house.store.bells.ring(response(response_id))
    async with asyncio.timeout(10):
        for got in await asyncio.gather(*readers):
            assert split_frames(got)[-1] == last
    if rings:
        assert house.store.pages - before == 1, "one read for all"


async def test_what_another_replica_pushes_reaches_every_reader_once_and_only_a_gap_needs_the_store(
    build: Build,
) -> None:
    class Pushed(Wrapped):
        pages = 0
        take: Take

        @property
        def pushes(self) -> Pushed:
            return self

        @contextmanager
        def listen(self, response_id: str, take: Take) -> Iterator[None]:
            self.take = take
            yield

        async def page(self, *arguments: Any, **options: Any) -> Any:
            self.pages += 1
            return await self.inner.page(*arguments, **options)

    house = await build(wrap=Pushed)
    first, hold = Hold(), Hold()
    house.backend.script = [frames(0, 3), first, frames(3, 9), hold]
    response_id = await house.submit(stream=True)
    await first.here()
    readers = [asyncio.create_task(house.stream(response_id)) for _ in range(5)]
    await until_watched(house, response_id, 5)
    first.go.set()
    await hold.here()
    await take(house, response_id, 5)  # they are all at the end of the tail
    taken = await house.store.take_over(response_id)
    next_seq, before = taken.job.next_seq, house.store.pages

    async def written(count: int) -> tuple[int, int, bytes, bool]:
        nonlocal next_seq
        numbers = range(next_seq, next_seq + count)
        events = b"".join(encode("response.test", b'{"sequence_number":%d}' % number) for number in numbers)
        await house.store.append(taken, next_seq, count, events, has_output=True)
        next_seq += count
        return numbers[0], numbers[-1], events, False

    pushed = await written(3)
    house.store.take(*pushed)
    house.store.take(*pushed)  # it may come twice: from the table, and late
    house.store.take(*await written(1))
    assert house.store.pages == before
    await written(2)  # these are lost on the way
    house.store.take(*await written(1))
    async with asyncio.timeout(10):
        while house.engine.followers.watching(response_id)[0].cursor < next_seq - 1:
            await asyncio.sleep(0.01)
    last = encode("response.completed", b'{"sequence_number":%d}' % next_seq)
    outcome = Outcome(Status.COMPLETED, b"{}", next_seq, last, 1, None, Reason.ENDED)
    await house.store.finish(taken, outcome, now_ms=house.clock.now_ms(), expires_at_ms=2**60)
    house.store.take(next_seq, next_seq, last, True)
    whole = await house.store.all_events(response_id)
    async with asyncio.timeout(10):
        assert set(await asyncio.gather(*readers)) == {whole}
    assert house.store.pages - before == 1, "one read for all"


async def test_the_reader_of_a_new_stream_reads_nothing_back_and_no_stranger_profits(build: Build) -> None:
    class Counting(Wrapped):
        pages = 0

        async def page(self, *arguments: Any, **options: Any) -> Any:
            self.pages += 1
            return await self.inner.page(*arguments, **options)

    house = await build(wrap=Counting)
    hold = Hold()
    house.backend.script = [hold]
    response_id = await house.submit(stream=True)
    first = await take(house, response_id, 2)
    assert house.store.pages == 0
    assert (await house.store.all_events(response_id)).startswith(first)
    other = await house.submit(stream=True)
    stranger = house.engine.followers.follow(other, OTHER, after=-1)
    assert [block async for block in stranger] == []


async def test_a_reader_that_was_expected_and_does_not_come_is_forgotten(
    build: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.engine.followers._EXPECTED_S", 0.05)
    house = await build()
    response_id = await house.submit(stream=True)
    assert house.engine.followers.is_watched(response_id)
    async with asyncio.timeout(10):
        while house.engine.followers.is_watched(response_id):
            await asyncio.sleep(0.01)
    assert house.engine.followers._tails.size == 0


async def until_watched(house: Any, response_id: str, count: int) -> None:
    async with asyncio.timeout(10):
        watched = house.engine.followers._watched
        while response_id not in watched or len(watched[response_id].readers) < count:
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("takes", ["all", "none", "every other", "none, by a defect"])
async def test_what_a_sink_takes_and_what_comes_in_blocks_are_the_stream(build: Build, takes: str) -> None:
    house = await build(background={"flush_ms": 0})
    hold = Hold()
    house.backend.script = [frames(0, 6), hold, *(frames(n, n + 1) for n in range(6, 20)), frames(20)]
    response_id = await house.submit(stream=True)
    await hold.here()
    told: list[bytes] = []
    asked = 0

    def sink(events: bytes) -> bool:
        nonlocal asked
        asked += 1
        if takes == "none, by a defect":
            raise RuntimeError("a defect of this reader")
        if takes == "none" or (takes == "every other" and asked % 2):
            return False
        told.append(events)
        return True

    async with aclosing(house.engine.followers.follow(response_id, TENANT, after=-1, sink=sink)) as blocks:
        told.append(await anext(blocks))
        hold.go.set()
        async for block in blocks:
            told.append(block)  # noqa: PERF401  the sink adds its own in between
    assert b"".join(told) == await house.store.all_events(response_id)
    assert (await house.shown(response_id))["status"] == "completed"
    assert asked
