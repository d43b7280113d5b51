"""What operators see: how it stands, which jobs there are, and all about one of them.

It only reads, and nothing here costs a job anything: what changes quickly is asked of the runs when somebody
looks. What operators can do is in `actions`.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import AsyncGenerator, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from gateway.config import BackgroundSettings
from gateway.core.call import Backends, Controls
from gateway.core.job import FIRST_OUTPUT_SEQ, LIVE, Job, StoreUnavailable
from gateway.core.outlook import Around, Subject, Told, if_the_gateway_dies, why_it_waits
from gateway.core.tiers import TIERS
from gateway.engine.clock import Clock
from gateway.engine.endings import Endings
from gateway.engine.runner import Runner
from gateway.observe import Observer, line
from gateway.observe.history import STEP_MS, Kind, Live
from gateway.observe.journal import Move
from gateway.store.insight import Backlog, Crowd, Details, Facts, WaitingJobs
from gateway.store.insight import Wanted as Wanted  # for the API, which never touches a store
from gateway.store.port import Call

_FRESH_S = 1.0
"""For so long an overview is good enough for everybody: ten open pages cost what one does."""
_RATES_MAX = 2_000
_RATE_S_MIN = 0.9
_EVENTS_AGAIN_S = 0.5
_PAGE_BYTES = 64 * 2**10
_STORABLE = frozenset({"ok", "nearly_full", "taken_away"})
"""The states of a store in which jobs are started."""

REWOUND = b"event: rewound\ndata: {}\n\n"
"""Told among a job's events: it runs again from its start, and what came before is void."""


@dataclass(frozen=True, slots=True)
class BackendNow:
    """How it stands at a backend.

    Attributes:
        slots: How many jobs may run there in all at this moment; `capacity` by its slots alone.
        slots_per_replica: Now; and by the settings.
        demand: Jobs that wait or run: what to scale on.
        halted: Why nothing is started there; None: something may be.
        reasons: How many jobs wait, by what they wait for.
    """

    name: str
    running: int
    waiting: int
    demand: int
    slots: int
    capacity: int
    slots_per_replica: int
    slots_per_replica_default: int
    paused: bool
    halted: str | None
    why: str | None
    oldest_waiting_s: float | None
    reasons: Mapping[str, int]
    api: str
    replicas: list[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Overview:
    """How it stands. Statuses are the API's; `waiting` and `running` tell live jobs by whether they run."""

    now_ms: int
    store: str
    draining: bool
    states: Mapping[str, int]
    waiting: int
    running: int
    oldest_waiting_s: float | None
    backends: list[BackendNow]
    tenants: list[dict[str, Any]]
    models: list[str]


@dataclass(frozen=True, slots=True)
class Row:
    """A job in a list: what the store has, and what its run knows."""

    facts: Facts
    tier: str
    is_running: bool
    event_count: int
    events_per_s: float | None
    silent_s: float | None
    waits_for: str | None


@dataclass(frozen=True, slots=True)
class OneJob:
    """All about a job that is no content.

    Attributes:
        moves: What happened to it since this process started, if it is among the latest.
        waits: Why nobody works on it; None if somebody does, or it is over.
    """

    details: Details
    row: Row
    moves: list[Move]
    waits: Told | None
    if_killed: Told
    readers: int
    replica: int | None
    upstream_request: str | None
    upstream_status: int | None
    request: str | None


class Operators:
    """The read side of the admin port.

    Args:
        is_in_memory_only: Whether a job's credential would be lost with the process.
        is_draining: Whether the gateway is shutting down.
    """

    def __init__(
        self,
        backends: Backends,
        controls: Controls,
        runner: Runner,
        endings: Endings,
        clock: Clock,
        settings: BackgroundSettings,
        observer: Observer,
        reasons: Callable[[str, WaitingJobs | None], dict[str, int]],
        is_in_memory_only: Callable[[str], bool],
        is_draining: Callable[[], bool],
    ) -> None:
        self._store = endings.store
        self._insight = endings.store.insight
        self._followers = endings.followers
        self._backends = backends
        self._controls = controls
        self._runner = runner
        self._clock = clock
        self._attempts_max = settings.attempts_max if settings.recovery == "rerun_if_silent" else 1
        self._observer = observer
        self._reasons = reasons
        self._is_in_memory_only = is_in_memory_only
        self._is_draining = is_draining
        self._rates: OrderedDict[str, tuple[float, int, float | None]] = OrderedDict()
        self._looking = asyncio.Lock()
        self._overview: tuple[float, Overview] | None = None

    async def run(self) -> None:
        """Keep the last hour, until cancelled."""
        while True:
            await asyncio.sleep(STEP_MS / 1000)
            await self.tick()

    async def tick(self) -> None:
        """A step of the last hour is over."""
        try:
            crowds = await self._insight.crowds()
        except StoreUnavailable as error:
            line("store_unavailable", level=10, doing="history", reason=str(error))
            crowds = []
        live = [Live(_kind(each), each.waiting, each.running) for each in crowds]
        self._observer.history.tick(self._clock.now_ms(), live)

    # -- all of it

    async def overview(self) -> Overview:
        """How it stands, a second ago at most. Raises: StoreUnavailable."""
        async with self._looking:
            if self._overview is None or time.monotonic() - self._overview[0] > _FRESH_S:
                self._overview = time.monotonic(), await self._look()
            return self._overview[1]

    def forget(self) -> None:
        """Something was done: the next look is a new one."""
        self._overview = None

    async def _look(self) -> Overview:
        now_ms = self._clock.now_ms()
        backlog, crowds = await asyncio.gather(
            self._insight.backlog(now_ms=now_ms, barred=self._runner.barred(now_ms)), self._insight.crowds()
        )
        states = self._controls.state()
        backends = [self._backend(name, states[name], backlog, now_ms) for name in self._backends.names]
        return Overview(
            now_ms,
            self._store.state(),
            self._is_draining(),
            {status.value: count for status, count in backlog.by_status.items()},
            sum(each.count for each in backlog.waiting.values()),
            sum(each.running for each in backends),
            _age_s(min((each.oldest_ms for each in backlog.waiting.values()), default=None), now_ms),
            backends,
            _tenants(crowds),
            sorted({each.model for each in crowds if each.model}),
        )

    def _backend(self, name: str, state: dict[str, Any], backlog: Backlog, now_ms: int) -> BackendNow:
        waiting = backlog.waiting.get(name)
        count = waiting.count if waiting is not None else 0
        running = self._runner.count(name)
        now, default = self._controls.sizes(name)
        halted = self._backends.halted(name)
        told = why_it_waits(_anybody(name, now_ms), self._around(name, None, now_ms)) if halted else None
        return BackendNow(
            name,
            running,
            count,
            count + running,
            self._backends.slots(name),
            now * len(state["replicas"]),
            now,
            default,
            self._controls.is_paused(name),
            halted,
            told.sentence if told is not None else None,
            _age_s(waiting.oldest_ms if waiting is not None else None, now_ms),
            {reason: number for reason, number in self._reasons(name, waiting).items() if number},
            state["api"],
            state["replicas"],
        )

    # -- lists

    async def jobs(
        self, wanted: Wanted, *, limit: int, before: int | None, is_oldest_first: bool
    ) -> tuple[list[Row], int | None]:
        """Some jobs, and where to go on (None: there are no more). Raises: StoreUnavailable."""
        listing = await self._insight.jobs(
            wanted, limit=limit, before=before, is_oldest_first=is_oldest_first
        )
        now_ms = self._clock.now_ms()
        barred = self._runner.barred(now_ms)
        return [self._row(facts, now_ms, barred) for facts in listing.jobs], listing.before

    def _row(self, facts: Facts, now_ms: int, barred: Mapping[tuple[str, bytes], str] | None) -> Row:
        progress = self._runner.progress(facts.id)
        if progress is None:
            waits = None
            if barred is not None and facts.status in LIVE:
                why = barred.get((facts.backend, bytes.fromhex(facts.tenant)))
                waits = why_it_waits(_subject(facts), self._around(facts.backend, None, now_ms, barred=why))
            tier, word = TIERS[facts.priority], waits.why if waits is not None else None
            return Row(facts, tier, False, facts.event_count, None, None, word)
        rate = self._rate(facts.id, progress.event_count)
        tier, silent_s = TIERS[facts.priority], round(progress.silent_s, 2)
        return Row(facts, tier, True, progress.event_count, rate, silent_s, None)

    def _rate(self, response_id: str, count: int) -> float | None:
        """Events a second since the last look, if that is not too short ago to tell."""
        now_s = time.monotonic()
        then_s, earlier, known = self._rates.pop(response_id, (now_s, count, None))
        if (passed_s := now_s - then_s) >= _RATE_S_MIN:
            known = max(0.0, round((count - earlier) / passed_s, 1))
            then_s, earlier = now_s, count
        self._rates[response_id] = then_s, earlier, known
        if len(self._rates) > _RATES_MAX:
            self._rates.popitem(last=False)
        return known

    # -- one of them

    async def job(self, response_id: str) -> OneJob | None:
        """All about it; None if there is none. Raises: StoreUnavailable."""
        details = await self._insight.details(response_id)
        if details is None:
            return None
        now_ms = self._clock.now_ms()
        barred = self._runner.barred(now_ms).get((details.backend, bytes.fromhex(details.tenant)))
        row = self._row(details, now_ms, None)
        subject = _subject(details, row)
        around = self._around(details.backend, details, now_ms, barred=barred)
        journal = self._observer.journal
        return OneJob(
            details,
            row,
            journal.of(response_id),
            why_it_waits(subject, around),
            if_the_gateway_dies(subject, around),
            self._followers.readers(response_id),
            journal.latest(response_id, "replica"),
            journal.latest(response_id, "upstream_request"),
            journal.latest(response_id, "upstream_status"),
            journal.latest(response_id, "request"),
        )

    def _around(
        self, name: str, details: Details | None, now_ms: int, *, barred: str | None = None
    ) -> Around:
        backend = self._backends.get(name)
        if backend is None:
            return Around(now_ms, 0, 0, is_known=False, attempts_max=self._attempts_max)
        held_ms = self._backends.held_until_ms(name, now_ms)
        until_ms = details.created_at_ms + now_ms - held_ms if details and held_ms is not None else None
        return Around(
            now_ms,
            self._backends.slots(name),
            self._runner.count(name),
            is_paused=self._controls.is_paused(name),
            halted=self._backends.halted(name),
            barred=barred,
            held_until_ms=until_ms,
            unreached_s=backend.unreached_s,
            down_wait_s=backend.patience.down_wait_s,
            is_draining=self._is_draining(),
            can_store=self._store.state() in _STORABLE,
            attempts_max=self._attempts_max,
            is_credential_held=(
                details is not None and backend.sees_callers and self._is_in_memory_only(details.id)
            ),
        )

    # -- content

    async def call_of(self, response_id: str) -> Call | None:
        """What a job was asked for; None if there is none. Raises: StoreUnavailable."""
        return await self._store.call_of(response_id)

    async def content_of(self, details: Details) -> Job | None:
        """A job with its response, as its client sees it. Raises: StoreUnavailable."""
        now_ms = self._clock.now_ms()
        return await self._store.find(details.id, bytes.fromhex(details.tenant), now_ms=now_ms)

    async def events(self, details: Details, *, after: int) -> AsyncGenerator[bytes, None]:
        """Its events after `after`, to its end, whole ones in each block. Unlike clients', this reader
        changes nothing: no commit is hurried for it, and it sees a run that begins anew (`REWOUND`).

        Raises: StoreUnavailable.
        """
        tenant = bytes.fromhex(details.tenant)
        yield b""
        while True:
            page = await self._store.page(
                details.id, tenant, after=after, bytes_max=_PAGE_BYTES, now_ms=self._clock.now_ms()
            )
            if page is None:
                return
            if page.events:
                after = page.last_seq
                yield page.events
            elif (found := await self._insight.details(details.id)) is None:
                return
            elif found.event_count <= after:
                after = FIRST_OUTPUT_SEQ - 1
                yield REWOUND
                continue
            if page.is_end:
                return
            if not page.events:
                await asyncio.sleep(_EVENTS_AGAIN_S)


def _subject(facts: Facts, row: Row | None = None) -> Subject:
    """A job as `core.outlook` judges it; of facts alone, only the word for what it waits for is right."""
    whole = facts if isinstance(facts, Details) else None
    return Subject(
        facts.backend,
        facts.status.is_terminal,
        row.is_running or (whole is not None and whole.is_owned) if row is not None else False,
        facts.attempt,
        facts.put_offs,
        whole.is_rerunnable if whole is not None else False,
        whole.output_shown if whole is not None else False,
        row.event_count if row is not None else facts.event_count,
        whole.ahead if whole is not None else 0,
        facts.created_at_ms,
        facts.not_before_ms,
        whole.deadline_ms if whole is not None else 0,
    )


def _anybody(backend: str, now_ms: int) -> Subject:
    """Any job that waits there."""
    return Subject(backend, False, False, 0, 0, True, False, 0, 0, now_ms, 0, 0)


def _kind(crowd: Crowd) -> Kind:
    return Kind(crowd.backend, crowd.model or "", crowd.tenant[:8])


def _age_s(since_ms: int | None, now_ms: int) -> float | None:
    return None if since_ms is None else max(0, now_ms - since_ms) / 1000


def _tenants(crowds: list[Crowd]) -> list[dict[str, Any]]:
    """Callers with live jobs, the one with the most first."""
    found: dict[str, dict[str, Any]] = {}
    for crowd in crowds:
        digits = crowd.tenant[:8]
        one = found.setdefault(digits, {"tenant": digits, "waiting": 0, "running": 0})
        one["waiting"] += crowd.waiting
        one["running"] += crowd.running
    return sorted(found.values(), key=lambda one: one["waiting"] + one["running"], reverse=True)[:20]
