"""Tells receivers that responses have ended: at least once, again and again until they take it.

What is still to be told stands in the store's outbox, where the ending put it: nothing here has to remember
it. What was being sent when the process died is sent again by the next one.
"""

from __future__ import annotations

import asyncio
import functools
import hashlib
import logging
import random
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import assert_never

from gateway import loop
from gateway.config import EndpointSettings, Settings
from gateway.core.job import Status, StoreUnavailable
from gateway.core.webhooks import CALLERS, Attempt, Delivery, Endpoint, Sender, Verdict, receiver_of
from gateway.engine.clock import Clock
from gateway.observe import Observer, line
from gateway.store.port import GivenUp, JobStore

_LOOK_S = 0.25
"""Between two looks for what is due, at most: an attempt that ends makes room, and is followed by a look at
once. A bell at every place where a job can end would have to miss none."""

_TIDY_MS = 60_000
_AGAIN_S = 1.0
"""After the store could not write."""

_JITTER = 0.1
_FAILING_SHOWN = 50


@dataclass(frozen=True, slots=True)
class Receiver:
    """How it is with one.

    Attributes:
        name: An endpoint's, or `CALLERS` for all the callers' URLs.
        origin: Scheme, host and port of an endpoint.
        oldest_s: How long ago the response ended that has waited longest.
        disabled_for_s: Since it wanted no more; None if it is told.
    """

    name: str
    origin: str | None
    is_configured: bool = True
    waiting: int = 0
    oldest_s: float = 0
    disabled_for_s: float | None = None


class Deliveries:
    """Keeps the outbox empty, if the receivers let it.

    Args:
        fingerprint: The first eight hex digits of a tenant, as the settings name it.
    """

    def __init__(
        self,
        store: JobStore,
        sender: Sender,
        clock: Clock,
        settings: Settings,
        observer: Observer,
        fingerprint: Callable[[str], str],
    ) -> None:
        self._outbox = store.outbox
        self._sender = sender
        self._clock = clock
        self._settings = settings.webhooks
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
            await self._outbox.set_endpoints(found)
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
        async with asyncio.TaskGroup() as self._group:
            while True:
                try:
                    await self.run_once()
                except StoreUnavailable as error:
                    _log(error)
                    await asyncio.sleep(_AGAIN_S)
                with suppress(TimeoutError):
                    async with asyncio.timeout(_LOOK_S):
                        await self._bell.wait()

    async def _is_owing(self) -> bool:
        try:
            return bool(await self._outbox.waiting())
        except StoreUnavailable as error:
            _log(error)
            return True

    async def run_once(self) -> None:
        """Send what is due, as far as there is room for it, and see to what is too old."""
        self._bell.clear()
        now_ms = self._clock.now_ms()
        if now_ms - self._tidied_at_ms >= _TIDY_MS:
            self._tidied_at_ms = now_ms
            await self._tidy(now_ms)
        await self._look(now_ms)

    async def _look(self, now_ms: int) -> None:
        assert self._group is not None, "only while it runs"
        async with self._looking:  # two at once would send the same twice
            due = await self._outbox.due(
                now_ms=now_ms,
                under_way=self._under_way.keys(),
                per_lane_max=self._settings.concurrency_max,
                own_url_max=self._own_url_max,
            )
            for delivery in due:
                task = self._group.create_task(self._deliver(delivery), name=f"tell-{delivery.response_id}")
                self._under_way[delivery.key] = task
                task.add_done_callback(functools.partial(self._done, delivery.key))

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
        delays_s = self._settings.retry_delays_s
        delay_s = delays_s[min(delivery.attempts, len(delays_s) - 1)]
        delay_s *= random.uniform(1 - _JITTER, 1 + _JITTER)  # noqa: S311  (spreads load, guards nothing)
        due_at_ms = now_ms + int(delay_s * 1000)
        is_last = due_at_ms > delivery.ended_at_ms + self._settings.retry_for_s * 1000
        told = (delivery.response_id, delivery.receiver, delivery.attempts + 1, attempt.reason)
        match attempt.verdict:
            case Verdict.TAKEN:
                await self._outbox.remove(delivery)
                return self._observer.webhook_taken(*told)
            case Verdict.STOP:
                if await self._outbox.disable(delivery.lane, now_ms=now_ms):
                    self._observer.webhook_disabled(delivery.receiver)
            case Verdict.NEVER:
                is_last = True
            case Verdict.AGAIN:
                pass
            case _:
                assert_never(attempt.verdict)
        if is_last:
            await self._outbox.remove(delivery)
            return self._observer.webhook_given_up(*told)
        await self._outbox.put_off(delivery, due_at_ms=due_at_ms, failure=attempt.reason)
        return self._observer.webhook_put_off(*told, delay_s)

    async def _tidy(self, now_ms: int) -> None:
        """Give up what is too old or too much."""
        ended_before_ms = now_ms - int(self._settings.retry_for_s * 1000)
        while given_up := await self._outbox.give_up_old(ended_before_ms=ended_before_ms):
            self._gave_up(given_up, "too_old")
        for waiting in await self._outbox.waiting():
            surplus = waiting.count - self._settings.pending_max
            while surplus > 0 and (given_up := await self._outbox.give_up_surplus(waiting.lane, surplus)):
                self._gave_up(given_up, "too_many")
                surplus -= len(given_up)

    def _gave_up(self, given_up: list[GivenUp], reason: str) -> None:
        for each in given_up:
            self._observer.webhook_given_up(each.response_id, receiver_of(each.lane), None, reason)

    # -- for the operator

    async def receivers(self) -> list[Receiver]:
        """All of the settings, and those for which something still waits."""
        now_ms = self._clock.now_ms()
        found = {name: Receiver(name, each.origin) for name, each in self._settings.endpoints.items()}
        if self._own_url_max:
            found[CALLERS] = Receiver(CALLERS, None)
        for waiting in await self._outbox.waiting():
            name = receiver_of(waiting.lane)
            known = found.get(name) or Receiver(name, None, is_configured=False)
            oldest_s = max(known.oldest_s, (now_ms - waiting.oldest_ms) / 1000)
            found[name] = replace(known, waiting=known.waiting + waiting.count, oldest_s=oldest_s)
        for disabled in await self._outbox.disabled():
            if (known_one := found.get(disabled.name)) is not None:
                since_s = (now_ms - disabled.since_ms) / 1000
                found[disabled.name] = replace(known_one, disabled_for_s=since_s)
        return list(found.values())

    async def failing(self) -> list[tuple[Delivery, float]]:
        """Events whose attempts have failed, the latest first, and in how many seconds the next one is."""
        now_ms = self._clock.now_ms()
        failing = await self._outbox.failing(limit=_FAILING_SHOWN)
        return [(each, (each.due_at_ms - now_ms) / 1000) for each in failing]

    async def measure(self) -> None:
        """Bring the gauges up to date."""
        self._observer.webhooks_measured(
            (each.name, each.waiting, each.oldest_s, each.disabled_for_s is not None)
            for each in await self.receivers()
        )

    async def enable(self, name: str) -> bool:
        """Send to an endpoint again that wanted no more. False if the settings have none of this name."""
        is_there = await self._outbox.enable(name, now_ms=self._clock.now_ms())
        if is_there:
            self._observer.webhook_enabled(name)
        return is_there

    async def retry(self, response_id: str) -> tuple[int, list[str]]:
        """Try again now what waits about a response. Returns for how many receivers, and the names of those
        that are not tried, since they want no more."""
        lanes = await self._outbox.hurry(response_id, now_ms=self._clock.now_ms())
        disabled = {each.name for each in await self._outbox.disabled()} & set(lanes)
        return len(lanes) - len(disabled), sorted(disabled)


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
