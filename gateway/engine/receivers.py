"""The state of the receivers of webhooks, for operators and metrics, and what operators can do about it."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace

from gateway.config import Settings
from gateway.core.webhooks import CALLERS, Delivery, receiver_of
from gateway.engine.clock import Clock
from gateway.observe import Observer
from gateway.store.port import OutboxStore

_FAILING_SHOWN = 50


@dataclass(frozen=True, slots=True)
class ReceiverStatus:
    """The state of one receiver of webhooks.

    Attributes:
        name: An endpoint's, or `CALLERS` for all the callers' URLs.
        origin: Scheme, host and port of an endpoint.
        oldest_s: Age of the oldest undelivered event, from the end of its response.
        disabled_for_s: Seconds since it answered 410; None while it is enabled.
        down: Number of hosts that are down; 0 or 1 for an endpoint.
        down_for_s: Seconds for which the first of these has been down.
        failed_at_ms, failure: When this process last saw an attempt fail, and why; None if it has not.
    """

    name: str
    origin: str | None
    is_configured: bool = True
    waiting: int = 0
    oldest_s: float = 0
    disabled_for_s: float | None = None
    down: int = 0
    down_for_s: float = 0
    failed_at_ms: int | None = None
    failure: str | None = None


class WebhookReceivers:
    """All that there are."""

    def __init__(self, store: OutboxStore, clock: Clock, settings: Settings, observer: Observer) -> None:
        self._outbox = store.outbox
        self._clock = clock
        self._settings = settings.webhooks
        self._has_callers = settings.request_webhooks.metadata_key is not None
        self._observer = observer

    async def all(self) -> list[ReceiverStatus]:
        """All of the settings, and those for which something still waits."""
        now_ms = self._clock.now_ms()
        found = {name: ReceiverStatus(name, each.origin) for name, each in self._settings.endpoints.items()}
        if self._has_callers:
            found[CALLERS] = ReceiverStatus(CALLERS, None)
        by_lane, without = await asyncio.gather(self._outbox.lane_backlogs(), self._outbox.disabled())
        for waiting in by_lane:
            name = receiver_of(waiting.lane)
            known = found.get(name) or ReceiverStatus(name, None, is_configured=False)
            down_for_s = 0.0 if waiting.down_since_ms is None else (now_ms - waiting.down_since_ms) / 1000
            found[name] = replace(
                known,
                waiting=known.waiting + waiting.count,
                oldest_s=max(known.oldest_s, (now_ms - waiting.oldest_ms) / 1000),
                down=known.down + (waiting.down_since_ms is not None),
                down_for_s=max(known.down_for_s, down_for_s),
            )
        for disabled in without:
            if (known_one := found.get(disabled.name)) is not None:
                since_s = (now_ms - disabled.since_ms) / 1000
                found[disabled.name] = replace(known_one, disabled_for_s=since_s)
        for name, (at_ms, reason) in self._observer.last_failures.items():
            if (known_one := found.get(name)) is not None:
                found[name] = replace(known_one, failed_at_ms=at_ms, failure=reason)
        return list(found.values())

    async def failing(self) -> list[tuple[Delivery, float]]:
        """Events whose attempts have failed, the latest first, and in how many seconds the next one is."""
        now_ms = self._clock.now_ms()
        failing = await self._outbox.failing(limit=_FAILING_SHOWN)
        return [(each, (each.due_at_ms - now_ms) / 1000) for each in failing]

    async def measure(self) -> None:
        """Bring the gauges up to date."""
        self._observer.webhooks_measured(
            (each.name, each.waiting, each.oldest_s, each.disabled_for_s is not None, each.down)
            for each in await self.all()
        )

    async def enable(self, name: str) -> bool:
        """Send to an endpoint again that wanted no more. False if the settings have none of this name."""
        is_there = await self._outbox.enable(name)
        if is_there:
            self._observer.webhook_enabled(name)
        return is_there

    async def about(self, response_id: str) -> list[tuple[Delivery, float]]:
        """What waits to be told of a response, and in how many seconds it is tried."""
        now_ms = self._clock.now_ms()
        return [(each, (each.due_at_ms - now_ms) / 1000) for each in await self._outbox.about(response_id)]

    async def retry(self, response_id: str, *, also_taken: bool = False) -> tuple[int, list[str]]:
        """Try again now what waits about a response. Returns for how many receivers, and the names of those
        that are not tried, since they want no more.

        Args:
            also_taken: Tell all again, also those who took it.
        """
        outbox = self._outbox
        lanes = await (outbox.tell_again(response_id) if also_taken else outbox.hurry(response_id))
        disabled = {each.name for each in await self._outbox.disabled()} & set(lanes)
        return len(lanes) - len(disabled), sorted(disabled)
