"""Tells receivers that responses have ended: at least once, again and again until they take it.

What is still to be told stands in the store's outbox, where the ending put it, and so does how it is with
each receiver: nothing here has to remember it. What was being sent when the process died is sent again by
the next one.
"""

from __future__ import annotations

import asyncio
import functools
import hashlib
import logging
import random
from collections import defaultdict
from collections.abc import Callable
from contextlib import suppress

from gateway import loop
from gateway.config import EndpointSettings, Settings
from gateway.core.job import Status, StoreUnavailable
from gateway.core.webhooks import (
    Attempt,
    Delivery,
    Endpoint,
    Schedule,
    Standing,
    Verdict,
    WebhookSender,
    owner_of,
    receiver_of,
)
from gateway.engine.clock import Clock
from gateway.observe import Observer, line
from gateway.store.bells import OUTBOX
from gateway.store.outbox import GivenUp, LaneBacklog
from gateway.store.port import OutboxStore

_LOOK_S = 5.0
"""Longest time between two looks for due events, in seconds, in case a bell was lost. Normally one comes
sooner: when a job ends, when an attempt ends, or at the time that the last look has named."""

_LEASE_MS = 60_000
"""Milliseconds by which a delivery's lease outlasts the timeout of the attempt: time to store the result."""

_TIDY_MS = 60_000
_AGAIN_S = 1.0
"""Seconds before another try when the store could not write."""


class Deliveries:
    """Keeps the outbox empty, if the receivers let it.

    Args:
        fingerprint: The first eight hex digits of a tenant, as the settings name it.
    """

    def __init__(
        self,
        store: OutboxStore,
        sender: WebhookSender,
        clock: Clock,
        settings: Settings,
        observer: Observer,
        fingerprint: Callable[[str], str],
    ) -> None:
        self._outbox = store.outbox
        self._bells = store.bells
        self._sender = sender
        self._clock = clock
        self._settings = settings.webhooks
        self._schedule = Schedule(self._settings.retry_delays_s, self._settings.retry_for_s)
        self._own_url_max = 0
        if settings.request_webhooks.metadata_key is not None:
            self._own_url_max = settings.request_webhooks.concurrency_max
        self._observer = observer
        self._fingerprint = fingerprint
        self._under_way: dict[tuple[str, str], asyncio.Task[None]] = {}
        self._looking = asyncio.Lock()
        self._bell = asyncio.Event()
        self._group: asyncio.TaskGroup | None = None
        self._tidied_at_ms = 0
        self._is_set = False

    async def take_stock(self) -> None:
        """At a start, before any job can end: the receivers are those of the settings. If the store cannot
        write now, `run` does it when it can; till then, ends are told to those of the last process."""
        found = []
        for name, settings in self._settings.endpoints.items():
            tenants = frozenset(map(self._fingerprint, settings.tenants))
            found.append(_endpoint(name, settings, tenants))
        try:
            due_by_ms = self._clock.now_ms() + max(self._schedule.delays_ms(1))
            await self._outbox.set_endpoints(found, due_by_ms=due_by_ms)
        except StoreUnavailable as error:
            _log(error)
        else:
            self._is_set = True

    async def run(self) -> None:
        """Look and send, until cancelled; at once over if there is nobody to tell, and nothing waits."""
        while not self._is_set:
            await asyncio.sleep(_AGAIN_S)
            await self.take_stock()
        if not (self._settings.endpoints or self._own_url_max or await self._is_owing()):
            return
        await self._tell_who_is_down()
        with self._bells.listen(self._bell.set, OUTBOX):
            async with asyncio.TaskGroup() as self._group:
                while True:
                    quiet_s = _AGAIN_S
                    try:
                        quiet_s = await self.run_once()
                    except StoreUnavailable as error:
                        _log(error)
                        self._bell.clear()
                    with suppress(TimeoutError):
                        async with asyncio.timeout(quiet_s):
                            await self._bell.wait()

    async def _tell_who_is_down(self) -> None:
        """At a start: the line about it stands in the log of another process, if it was written at all."""
        with suppress(StoreUnavailable):
            down = {
                each.lane for each in await self._outbox.lane_backlogs() if each.down_since_ms is not None
            }
            for receiver in sorted(set(map(receiver_of, down))):
                self._observer.webhook_down(receiver, "still_down")

    async def _is_owing(self) -> bool:
        try:
            return bool(await self._outbox.lane_backlogs())
        except StoreUnavailable as error:
            _log(error)
            return True

    async def run_once(self) -> float:
        """Send what is due, as far as there is room for it, and see to what is too old. Returns how many
        seconds later the next look is due."""
        self._bell.clear()
        now_ms = self._clock.now_ms()
        if now_ms - self._tidied_at_ms >= _TIDY_MS:
            self._tidied_at_ms = now_ms
            await self._tidy(now_ms)
        return await self._look(now_ms)

    async def _look(self, now_ms: int) -> float:
        assert self._group is not None, "only while it runs"
        async with self._looking:  # two at once would send the same twice
            due = await self._outbox.claim(
                now_ms=now_ms,
                lease_ms=int(self._settings.timeout_s * 1000) + _LEASE_MS,
                per_lane_max=self._settings.concurrency_max,
                own_url_max=self._own_url_max,
            )
            for delivery in due.deliveries:
                if delivery.key in self._under_way:  # the lease ended before its result could be stored
                    continue
                task = self._group.create_task(self._deliver(delivery), name=f"tell-{delivery.response_id}")
                self._under_way[delivery.key] = task
                task.add_done_callback(functools.partial(self._done, delivery.key))
        next_at_ms = due.next_at_ms
        return _LOOK_S if next_at_ms is None else min(_LOOK_S, (next_at_ms - now_ms) / 1000)

    def _done(self, key: tuple[str, str], _task: asyncio.Task[None]) -> None:
        del self._under_way[key]
        self._bell.set()

    async def drain(self, timeout_s: float) -> None:
        """At a stop: try what has ended until now, let what is under way end, and begin nothing more."""
        if self._group is None or timeout_s <= 0:
            return
        with suppress(StoreUnavailable):
            await self._look(self._clock.now_ms())
        await self._looking.acquire()  # for good
        if self._under_way:
            await loop.are_done(list(self._under_way.values()), timeout_s)

    async def _deliver(self, delivery: Delivery) -> None:
        try:
            attempt = await self._sender.send(delivery)
        except Exception:  # a defect in one delivery must not end the others
            line("defect", level=logging.ERROR, id=delivery.response_id, exc_info=True)
            attempt = Attempt(Verdict.AGAIN, "defect")
        while True:  # not sent again only because its result could not be stored
            try:
                return await self._settle(delivery, attempt)
            except StoreUnavailable as error:
                _log(error)
            await asyncio.sleep(_AGAIN_S)

    async def _settle(self, delivery: Delivery, attempt: Attempt) -> None:
        now_ms = self._clock.now_ms()
        delays_ms = self._schedule.delays_ms(random.random())  # noqa: S311  (guards nothing)
        delay_ms = self._schedule.delay_ms(delivery, attempt.verdict, now_ms=now_ms, delays_ms=delays_ms)
        told = (delivery.response_id, delivery.receiver, delivery.attempts + 1, attempt.reason)

        def judge(standing: Standing) -> Standing:
            return standing.after(attempt.verdict, now_ms=now_ms, delays_ms=delays_ms)

        if attempt.verdict is Verdict.STOP and await self._outbox.disable(delivery.lane, now_ms=now_ms):
            self._observer.webhook_disabled(delivery.receiver)
        if delay_ms is None:
            before, after = await self._outbox.remove(delivery, judge)
            is_taken = attempt.verdict is Verdict.TAKEN
            tell = self._observer.webhook_taken if is_taken else self._observer.webhook_given_up
            tell(*told)
        else:
            due_at_ms = now_ms + delay_ms
            before, after = await self._outbox.put_off(
                delivery, due_at_ms=due_at_ms, failure=attempt.reason, judge=judge
            )
            self._observer.webhook_put_off(*told, delay_ms / 1000, is_down=after.down_since_ms is not None)
        if before.down_since_ms is None and after.down_since_ms is not None:
            self._observer.webhook_down(delivery.receiver, attempt.reason)
        elif before.down_since_ms is not None and after.down_since_ms is None:
            self._observer.webhook_up(delivery.receiver, (now_ms - before.down_since_ms) / 1000)

    async def _tidy(self, now_ms: int) -> None:
        """Give up what is too old or too much: of too much, the oldest at the receiver that has the most."""
        ended_before_ms = now_ms - int(self._settings.retry_for_s * 1000)
        while given_up := await self._outbox.give_up_old(ended_before_ms=ended_before_ms):
            self._gave_up(given_up, "too_old")
        by_owner: defaultdict[str, list[LaneBacklog]] = defaultdict(list)
        for waiting in await self._outbox.lane_backlogs():
            by_owner[owner_of(waiting.lane)].append(waiting)
        for lanes in by_owner.values():
            surplus = sum(lane.count for lane in lanes) - self._settings.pending_max
            for lane in sorted(lanes, key=lambda lane: lane.count, reverse=True):
                while surplus > 0 and (given_up := await self._outbox.give_up_surplus(lane.lane, surplus)):
                    self._gave_up(given_up, "too_many")
                    surplus -= len(given_up)

    def _gave_up(self, given_up: list[GivenUp], reason: str) -> None:
        by_receiver: defaultdict[str, list[str]] = defaultdict(list)
        for each in given_up:
            by_receiver[receiver_of(each.lane)].append(each.response_id)
        for receiver, response_ids in by_receiver.items():
            self._observer.webhooks_given_up(receiver, response_ids, reason)


def _log(error: StoreUnavailable) -> None:
    line("store_unavailable", level=logging.ERROR, doing="webhooks", reason=str(error))


def _endpoint(name: str, settings: EndpointSettings, tenants: frozenset[str]) -> Endpoint:
    """What the store needs to know of a receiver: neither its address nor its secrets."""
    identity = "\0".join([settings.url.get_secret_value(), *settings.signing_secrets])
    return Endpoint(
        name,
        statuses=frozenset(Status(event.removeprefix("response.")) for event in settings.events),
        tenants=tenants,
        fingerprint=hashlib.sha256(identity.encode()).digest(),
    )
