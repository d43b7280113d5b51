"""All backends: which of them serves a model, and how they are."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from contextlib import AsyncExitStack
from fnmatch import fnmatchcase
from typing import Any

from gateway.config import Settings
from gateway.observe import Observer
from gateway.outbound.backend import HttpBackend
from gateway.outbound.backfill import Backfill
from gateway.outbound.breaker import BreakerState
from gateway.outbound.client import make_session


class HttpBackends:
    """The backends of the settings, in their order. Open with `open`."""

    def __init__(self, backends: dict[str, HttpBackend], default: str | None, observer: Observer) -> None:
        self._backends = backends
        self._default = default
        self._observer = observer
        self._paused: set[str] = set()
        self._backfills = {
            name: Backfill(backend)
            for name, backend in backends.items()
            if backend.settings.backfill != "off"
        }

    @classmethod
    async def open(cls, settings: Settings, observer: Observer, stack: AsyncExitStack) -> HttpBackends:
        """Make them, with sessions that close with the stack."""
        backends = {}
        for name, upstream in settings.all_backends.items():
            session = await stack.enter_async_context(make_session(upstream, keeps_connections=False))
            backends[name] = HttpBackend(
                name,
                session,
                await stack.enter_async_context(make_session(upstream)),
                upstream,
                event_bytes_max=settings.background.event_bytes_max,
                observer=observer,
                tenants=settings.tenants,
                # The page was judged here: some servers would judge it again, by a list of their own.
                withheld=frozenset({"origin"}) if settings.server.cors_origins else frozenset(),
            )
            stack.callback(backends[name].quick.close)
        default = settings.default_backend or (next(iter(backends)) if len(backends) == 1 else None)
        return cls(backends, default, observer)

    @property
    def names(self) -> Collection[str]:
        return self._backends.keys()

    @property
    def all(self) -> Collection[HttpBackend]:
        return self._backends.values()

    @property
    def reads_bodies(self) -> bool:
        """Whether a request's model decides anything, so that bodies must be read to pass them on."""
        return len(self._backends) > 1 or any(
            len(backend.pool.replicas) > 1 or backend.settings.rename for backend in self.all
        )

    def get(self, name: str) -> HttpBackend | None:
        return self._backends.get(name)

    def of_model(self, model: str) -> HttpBackend | None:
        """The backend that names the model, by a rename or a pattern without wildcards; else the first one of
        whose patterns its name matches; else the default one."""
        for backend in self.all:
            if model in backend.settings.rename or model in backend.settings.models:
                return backend
        for backend in self.all:
            if any(fnmatchcase(model, pattern) for pattern in backend.settings.models):
                return backend
        return self.default

    @property
    def default(self) -> HttpBackend | None:
        """For requests that name no model; None if there are several and none was chosen."""
        return self._backends.get(self._default) if self._default is not None else None

    @property
    def renames(self) -> bool:
        """Whether clients know a model by another name than a backend does."""
        return any(backend.settings.rename for backend in self.all)

    def pause(self, name: str, *, is_paused: bool) -> None:
        (self._paused.add if is_paused else self._paused.discard)(name)

    def is_paused(self, name: str) -> bool:
        return name in self._paused

    def resize(self, name: str, slots: int | None) -> None:
        self._backends[name].pool.resize(slots)

    def slots_min(self, name: str) -> int:
        return self._backends[name].pool.capacity_min

    def sizes(self, name: str) -> tuple[int, int]:
        backend = self._backends[name]
        return backend.pool.capacity, backend.settings.concurrency_max

    def slots(self, name: str) -> int:
        if name in self._paused:
            return 0
        slots = self._backends[name].pool.background_slots()
        backfill = self._backfills.get(name)
        return slots if backfill is None else min(slots, backfill.slots_max)

    def slots_kept(self, name: str) -> int:
        backfill, pool = self._backfills.get(name), self._backends[name].pool
        if backfill is not None and backfill.slots_max < pool.background_slots():
            return 0  # not all are given out, and these few are for whoever waits
        return pool.slots_kept()

    def held_until_ms(self, name: str, now_ms: int) -> int | None:
        backfill = self._backfills.get(name)
        return backfill.held_until_ms(now_ms) if backfill is not None else None

    def halted(self, name: str) -> str | None:
        if name in self._paused:
            return "paused"
        backfill = self._backfills.get(name)
        if (why := self._backends[name].pool.halted()) is not None:
            return why
        return "hold" if backfill is not None and backfill.is_busy else None

    def state(self) -> dict[str, Any]:
        """How each of them is, for people and for the metrics."""
        states: dict[str, Any] = {}
        for backend in self.all:
            replicas = []
            for number, replica in enumerate(backend.pool.replicas):
                breaker, rests = backend.pool.breaker_state(replica), backend.pool.rests(replica)
                is_usable = replica.is_healthy and breaker is BreakerState.CLOSED
                replicas.append(
                    {
                        "url": replica.url,
                        "healthy": is_usable,
                        "check": backend.checks.finding(replica).value,
                        "breaker": breaker.value,
                        "resting": rests,
                        "plain_calls": replica.plain,
                        "background_calls": replica.background,
                    }
                )
                self._observer.replica(
                    backend.name,
                    number,
                    is_usable=is_usable,
                    is_left_alone=breaker is BreakerState.OPEN,
                    rests=rests,
                    plain=replica.plain,
                    background=replica.background,
                )
            api = backend.speech.api.value if backend.speech.is_certain else "not known yet"
            backfill = self._backfills.get(backend.name)
            states[backend.name] = {
                "api": api,
                "background_held": backfill is not None and backfill.is_busy,
                "paused": backend.name in self._paused,
                "replicas": replicas,
            }
        return states

    async def run(self) -> None:
        """Watch their replicas and the queues of their engines, until cancelled."""
        async with asyncio.TaskGroup() as group:
            for backend in self.all:
                for replica in backend.pool.replicas:
                    group.create_task(backend.checks.run(replica))
            for backfill in self._backfills.values():
                group.create_task(backfill.run())
