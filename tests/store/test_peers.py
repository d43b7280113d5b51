"""Stores of several gateways that push events to each other: what comes so, and what comes without it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, ExitStack, contextmanager
from typing import Any

import pytest
from pydantic import SecretStr

from gateway.config import StoreSettings
from gateway.core.job import Claim
from gateway.observe import Observer
from gateway.store import bells
from gateway.store.postgres.peers import frames, link, subscriptions
from gateway.store.postgres.store import PostgresStore
from gateway.store.refused import DatabaseRefused
from tests.store.exercise import EXPIRY, block, ending, event, page, started
from tests.store.jobs import NOW, TENANT
from tests.support.cutting import Way, way_to

Taken = tuple[int, int, bytes, bool]


class Gateway:
    """A store, and what it counts."""

    def __init__(self, store: PostgresStore, observer: Observer) -> None:
        self.store = store
        self.observer = observer

    @property
    def served(self) -> float:
        return self.count("backburner_pushed_responses")

    def count(self, name: str, **labels: str) -> float:
        return self.observer.registry.get_sample_value(name, labels) or 0.0

    @property
    def port(self) -> int:
        assert self.store._peers is not None
        return int(self.store._peers.address.rpartition(":")[2])


class Following:
    """Who follows a response at a gateway, as the engine does: by pushes, by its bell, and by looking."""

    def __init__(self, gateway: Gateway, name: str) -> None:
        self.gateway = gateway
        self.name = name
        self.taken: asyncio.Queue[Taken] = asyncio.Queue()
        self.rang = asyncio.Event()

    def take(self, first_seq: int, last_seq: int, events: bytes, is_end: bool) -> None:
        self.taken.put_nowait((first_seq, last_seq, events, is_end))

    async def next(self) -> Taken:
        async with asyncio.timeout(5):
            return await self.taken.get()

    async def rings(self) -> None:
        async with asyncio.timeout(5):
            await self.rang.wait()
        self.rang.clear()

    async def until_served(self, *, is_served: bool = True) -> None:
        """Look, as followers do now and then, until it is pushed, or is not any more."""
        async with asyncio.timeout(5):
            while (self.name in self.gateway.store.bells.served) != is_served:
                await self.gateway.store.page(self.name, TENANT, after=-1, bytes_max=1, now_ms=NOW)
                await asyncio.sleep(0.02)


OpenGateway = Callable[..., Awaitable[Gateway]]


@pytest.fixture
async def gateway(url: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[OpenGateway]:
    """Opens gateways on one database, each of which can be dialled unless it is told otherwise."""
    monkeypatch.setattr(subscriptions, "_AGAIN_S", 0.02)
    async with AsyncExitStack() as stack:

        async def opened(**settings: Any) -> Gateway:
            given = {"peer_listen": "127.0.0.1:0", **settings}
            observer = Observer()
            store = await PostgresStore.open(StoreSettings(url=SecretStr(url), **given), observer)
            stack.push_async_callback(store.close)
            tending = asyncio.create_task(store.tend())
            stack.callback(tending.cancel)
            await store.agree({}, ["default"])
            return Gateway(store, observer)

        yield opened


@pytest.fixture
def follow() -> Iterator[Callable[[Gateway, str], Following]]:
    """Follows a response, to the end of the test."""
    with ExitStack() as stack:

        def followed(gateway: Gateway, name: str) -> Following:
            following = Following(gateway, name)
            stack.enter_context(gateway.store.pushes.listen(name, following.take))
            stack.enter_context(gateway.store.bells.listen(following.rang.set, bells.response(name)))
            return following

        yield followed


Follow = Callable[[Gateway, str], Following]


async def heard(sender: Gateway, at: Gateway) -> None:
    """What one has told before is heard at the other."""
    has_rung = asyncio.Event()
    with at.store.bells.listen(has_rung.set, bells.note("x")):
        async with asyncio.timeout(5):
            while not has_rung.is_set():
                sender.store.bells.tell(bells.note("x"))
                await asyncio.sleep(0.05)


async def append(gateway: Gateway, claim: Claim, first: int, count: int, text: str = "") -> bytes:
    events = block(first, count, text)
    await gateway.store.append(claim, first, count, events, has_output=True)
    return events


async def test_events_and_the_end_are_pushed_to_who_follows_and_are_those_of_the_table(
    gateway: OpenGateway, follow: Follow
) -> None:
    owner, other = await gateway(), await gateway()
    claim = await started(owner.store, "a")
    following = follow(other, "a")
    await following.until_served()
    assert owner.store.bells.is_wanted("a")
    first = await append(owner, claim, 3, 3)
    assert await following.next() == (3, 5, first, False)
    await owner.store.finish(claim, ending(6), now_ms=NOW, expires_at_ms=EXPIRY)
    assert await following.next() == (6, 6, ending(6).events, True)
    assert (await page(other.store, "a", after=2)).events == first + ending(6).events


async def test_one_subscription_is_enough_for_a_response_and_one_connection_for_a_gateway(
    gateway: OpenGateway, follow: Follow
) -> None:
    owner, *others = [await gateway() for _ in range(3)]
    claims = [await started(owner.store, name) for name in ("a", "b")]
    all_of_them = [follow(other, name) for other in others for name in ("a", "b")]
    for following in all_of_them:
        await following.until_served()
    assert owner.store._peers is not None
    assert len(owner.store._peers.subscribers._of) == 2
    for claim in claims:
        await append(owner, claim, 3, 1)
    for following in all_of_them:
        assert (await following.next())[:2] == (3, 3)


async def test_who_is_pushed_events_is_told_of_none_by_a_bell_and_asks_for_none(
    gateway: OpenGateway, follow: Follow, monkeypatch: pytest.MonkeyPatch
) -> None:
    owner, other = await gateway(), await gateway()
    claim = await started(owner.store, "a")
    following = follow(other, "a")
    await following.until_served()
    other.store.bells.tell(bells.wanted("a"))  # one that it sent before may come late
    await heard(other, owner)
    told: list[str] = []
    monkeypatch.setattr(owner.store.bells, "tell", told.append)
    for number in range(5):
        await append(owner, claim, 3 + number, 1)
        await following.next()
    assert told == []


async def test_what_is_pushed_is_not_asked_for_again_and_again(
    gateway: OpenGateway, follow: Follow, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.store.postgres.bells._ASK_S", 0.02)
    owner, other = await gateway(), await gateway()
    await started(owner.store, "a")
    following = follow(other, "a")
    await following.until_served()
    told: list[str] = []
    monkeypatch.setattr(other.store.bells, "tell", told.append)
    follow(other, "b")
    async with asyncio.timeout(5):
        while told.count(bells.wanted("b")) < 3:
            await asyncio.sleep(0.01)
    assert bells.wanted("a") not in told


async def test_a_notification_for_another_gateway_wakes_nobody_who_is_pushed_events(
    gateway: OpenGateway, follow: Follow
) -> None:
    owner, other, old = await gateway(), await gateway(), await gateway(peer_listen=None)
    claim = await started(owner.store, "a")
    following, told = follow(other, "a"), follow(old, "a")
    await following.until_served()
    async with asyncio.timeout(5):
        while not owner.store.bells._is_asked_for("a"):
            await asyncio.sleep(0.01)
    told.rang.clear()
    following.rang.clear()
    await append(owner, claim, 3, 1)
    await told.rings()
    await heard(owner, other)
    assert not following.rang.is_set()
    assert (await following.next())[:2] == (3, 3)


async def test_a_gateway_without_the_setting_is_told_by_bells_and_tells_by_bells(
    gateway: OpenGateway, follow: Follow
) -> None:
    new, old = await gateway(), await gateway(peer_listen=None)
    for owner, other, name in ((new, old, "a"), (old, new, "b")):
        claim = await started(owner.store, name)
        following = follow(other, name)
        async with asyncio.timeout(5):
            while not owner.store.bells.is_wanted(name):
                await page(other.store, name)
                await asyncio.sleep(0.02)
        following.rang.clear()
        await append(owner, claim, 3, 1)
        await following.rings()
        assert other.served == 0


async def test_when_the_owner_is_gone_followers_look_and_ask_by_a_bell_and_find_who_is_next(
    gateway: OpenGateway, follow: Follow
) -> None:
    owner, other, heir = [await gateway() for _ in range(3)]
    await started(owner.store, "a")
    following = follow(other, "a")
    await following.until_served()
    following.rang.clear()
    assert owner.store._peers is not None
    owner.store._peers.close()
    await following.rings()
    assert other.served == 0
    assert other.count("backburner_peer_links_lost_total", reason="closed") == 1
    claim = await heir.store.take_over("a")
    assert claim is not None
    await following.until_served()
    events = await append(heir, claim, 3, 1)
    assert await following.next() == (3, 3, events, False)


async def test_a_job_that_nobody_runs_any_more_is_asked_for_by_a_bell(
    gateway: OpenGateway, follow: Follow, monkeypatch: pytest.MonkeyPatch
) -> None:
    owner, other = await gateway(), await gateway()
    claim = await started(owner.store, "a")
    following = follow(other, "a")
    await following.until_served()
    told: list[str] = []
    monkeypatch.setattr(other.store.bells, "tell", told.append)
    await owner.store.release(claim, attempts_returned=0)
    await following.until_served(is_served=False)
    assert told == [bells.wanted("a")]
    async with asyncio.timeout(5):
        while owner.store.bells._pushed:
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("happens", ["end", "delete", "delete where it runs"])
async def test_an_end_or_a_delete_at_whichever_gateway_is_heard_of_at_once(
    gateway: OpenGateway, follow: Follow, happens: str
) -> None:
    owner, other, third = [await gateway() for _ in range(3)]
    await started(owner.store, "a")
    following = follow(other, "a")
    await following.until_served()
    async with asyncio.timeout(5):
        while not third.store.bells.is_wanted("a"):
            await asyncio.sleep(0.01)
    third.store.bells._wanted_until_s.clear()  # as it is a while later: it is not asked again
    following.rang.clear()
    if happens == "end":
        claim = await third.store.take_over("a")
        assert claim is not None
        await third.store.finish(claim, ending(3), now_ms=NOW, expires_at_ms=EXPIRY)
    else:
        deleter = owner if happens == "delete where it runs" else third
        assert await deleter.store.delete("a", TENANT, now_ms=NOW)
    await following.rings()


async def test_of_more_than_fits_into_a_frame_followers_are_told_to_look(
    gateway: OpenGateway, follow: Follow
) -> None:
    owner, other = await gateway(), await gateway()
    claim = await started(owner.store, "a")
    following = follow(other, "a")
    await following.until_served()
    following.rang.clear()
    await append(owner, claim, 3, 1, "x" * frames.EVENTS_BYTES_MAX)
    await following.rings()
    await append(owner, claim, 4, 1)
    assert (await following.next())[:2] == (4, 4)


async def test_a_gateway_that_does_not_take_its_events_is_cut_off_and_reads_the_table(
    gateway: OpenGateway, follow: Follow
) -> None:
    owner, other = await gateway(peer_unsent_bytes_max=2**16), await gateway()
    claim = await started(owner.store, "a")
    following = follow(other, "a")
    await following.until_served()
    assert other.store._peers is not None
    (peer,) = other.store._peers.subscriptions._peers.values()
    assert peer.link is not None
    assert peer.link._transport is not None
    peer.link._transport.pause_reading()
    for number in range(60):
        await append(owner, claim, 3 + number, 1, "x" * 2**18)
    assert owner.count("backburner_peer_links_lost_total", reason="slow") == 1
    assert "a" not in owner.store.bells._pushed
    peer.link.close()
    following.rang.clear()
    await following.until_served()
    assert (await page(other.store, "a", after=2)).last_seq >= 3


async def test_events_are_pushed_also_where_a_pooler_takes_the_notifications_away(
    gateway: OpenGateway, follow: Follow
) -> None:
    owner, other = [await gateway(pooler=True) for _ in range(2)]
    claim = await started(owner.store, "a")
    following = follow(other, "a")
    await following.until_served()
    events = await append(owner, claim, 3, 1)
    assert await following.next() == (3, 3, events, False)


async def test_more_connections_than_are_allowed_are_closed(gateway: OpenGateway) -> None:
    owner = await gateway(peer_links_max=1)
    first = await asyncio.open_connection("127.0.0.1", owner.port)
    second = await asyncio.open_connection("127.0.0.1", owner.port)
    assert await second[0].read() == b""
    for _, writer in (first, second):
        writer.transport.abort()


async def test_an_address_that_cannot_be_listened_on_is_refused_by_name(gateway: OpenGateway) -> None:
    first = await gateway()
    with pytest.raises(DatabaseRefused, match=r"store\.peer_listen cannot be listened on"):
        await gateway(peer_listen=f"127.0.0.1:{first.port}")


async def test_a_frame_of_a_later_release_is_left_out_and_one_that_is_cut_off_ends_the_connection(
    gateway: OpenGateway, follow: Follow
) -> None:
    owner, other = await gateway(), await gateway()
    claim = await started(owner.store, "a")
    following = follow(other, "a")
    await following.until_served()
    assert owner.store._peers is not None
    (there,) = owner.store._peers.subscribers._of
    there.send(frames.Frame(b"z", 1, b"something new").encoded())
    await append(owner, claim, 3, 1)
    assert (await following.next())[:2] == (3, 3)
    there.send(frames.Frame(frames.EVENTS, 1, b"events").encoded()[:-1])
    async with asyncio.timeout(5):
        while other.count("backburner_peer_links_lost_total", reason="damaged") != 1:
            await asyncio.sleep(0.01)


@contextmanager
def noted(store: PostgresStore, address: str) -> Iterator[None]:
    """What others find as its address."""
    assert store._peers is not None
    was, store._peers.address = store._peers.address, address
    yield
    store._peers.address = was


async def test_between_gateways_nothing_of_the_pepper_or_of_an_event_is_to_be_read(
    gateway: OpenGateway, follow: Follow
) -> None:
    owner, other = await gateway(), await gateway()
    seen = bytearray()
    async with way_to(owner.port) as way:
        listen_to(way, seen)
        with noted(owner.store, f"127.0.0.1:{way.port}"):
            await owner.store.agree({}, ["default"])
        claim = await started(owner.store, "a")
        following = follow(other, "a")
        await following.until_served()
        await append(owner, claim, 3, 1, "what a model has said")
        await following.next()
    assert len(seen) > 100
    for secret in (owner.store.pepper, b"what a model", event(3)[:12]):
        assert secret not in seen


def listen_to(way: Way, seen: bytearray) -> None:
    """Keep what goes over a way."""
    pump = way._pump

    async def kept(source: asyncio.StreamReader, sink: asyncio.StreamWriter, *, is_answer: bool) -> None:
        write = sink.write

        def noting(data: bytes) -> None:
            seen.extend(data)
            write(data)

        sink.write = noting  # type: ignore[method-assign, assignment]
        await pump(source, sink, is_answer=is_answer)

    way._pump = kept  # type: ignore[method-assign]


async def test_a_link_that_nobody_needs_is_closed(
    gateway: OpenGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    owner, other = await gateway(), await gateway()
    await started(owner.store, "a")
    following = Following(other, "a")
    with other.store.pushes.listen("a", following.take):
        await following.until_served()
    assert other.store._peers is not None
    monkeypatch.setattr(subscriptions, "_IDLE_S", -1.0)
    other.store._peers.subscriptions.beat()
    async with asyncio.timeout(5):
        while owner.store._peers and owner.store._peers.subscribers._of:
            await asyncio.sleep(0.01)
    other.store._peers.subscriptions.beat()
    assert other.store._peers.subscriptions._peers == {}


async def test_a_link_that_falls_silent_is_given_up_for_the_bells(
    gateway: OpenGateway, follow: Follow, monkeypatch: pytest.MonkeyPatch
) -> None:
    owner, other = await gateway(), await gateway()
    await started(owner.store, "a")
    following = follow(other, "a")
    await following.until_served()
    following.rang.clear()
    monkeypatch.setattr(link, "_SILENT_S", -1.0)
    assert other.store._peers is not None
    other.store._peers.subscriptions.beat()
    await following.rings()
    assert other.count("backburner_peer_links_lost_total", reason="silent") == 1
