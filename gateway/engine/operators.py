"""What operators see: which jobs there are, and all about one of them.

It only reads, and nothing here costs a job anything: what changes quickly is asked of the runs when somebody
looks. What operators can do is in `actions`.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass, replace

from gateway.core.job import FIRST_OUTPUT_SEQ, LIVE, Job, Status
from gateway.core.outlook import Outlook, Subject, if_the_gateway_dies, what_holds, why_it_waits
from gateway.core.tiers import TIERS
from gateway.engine.circumstances import Circumstances
from gateway.engine.clock import Clock
from gateway.engine.followers import Followers, Watching
from gateway.observe import Observer
from gateway.observe.journal import Move
from gateway.store.insight import Details, Facts
from gateway.store.insight import Wanted as Wanted  # for the API, which never touches a store
from gateway.store.port import StoredRequest

_RANKED_MAX = 10_000
_RATES_MAX = _RANKED_MAX
_RATE_S_MIN = 0.9
_EVENTS_AGAIN_S = 0.5
_PAGE_BYTES = 64 * 2**10

REWOUND = b"event: rewound\ndata: {}\n\n"
"""Told among a job's events: it runs again from its start, and what came before is void."""


@dataclass(frozen=True, slots=True)
class JobRow:
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
        told: The attempts to tell of its end that this process made, if it is among the latest.
        waits: Why nobody works on it; None if somebody does, or it is over.
        watching: Who reads it here.
    """

    details: Details
    row: JobRow
    moves: list[Move]
    told: list[Move]
    waits: Outlook | None
    if_killed: Outlook
    watching: list[Watching]
    replica: int | None
    upstream_request: str | None
    upstream_status: int | None
    request: str | None


class Operators:
    """The read side of the admin port, as far as it is about jobs."""

    def __init__(
        self, circumstances: Circumstances, followers: Followers, clock: Clock, observer: Observer
    ) -> None:
        self._circumstances = circumstances
        self._store = circumstances.store
        self._insight = circumstances.store.insight
        self._runner = circumstances.runner
        self._followers = followers
        self._clock = clock
        self._journal = observer.journal
        self._tellings = observer.tellings
        self._rates: OrderedDict[str, tuple[float, int, float | None]] = OrderedDict()

    # -- lists

    async def jobs(
        self, wanted: Wanted, *, limit: int, before: int | None, is_oldest_first: bool
    ) -> tuple[list[JobRow], int | None]:
        """Some jobs, and where to go on (None: there are no more). Raises: StoreUnavailable."""
        listing = await self._insight.jobs(
            wanted, limit=limit, before=before, is_oldest_first=is_oldest_first
        )
        now_ms = self._clock.now_ms()
        barred = self._runner.barred(now_ms)
        return [self._row(facts, now_ms, barred) for facts in listing.jobs], listing.before

    async def ranked(
        self, wanted: Wanted, *, limit: int, skip: int, by: str
    ) -> tuple[list[JobRow], int | None]:
        """Jobs in progress, by what they have done, and how many to skip for the next ones (None: there are
        no more). All of them are looked at, the newest 10,000: slots limit their number.

        Args:
            by: `events`: those with the most events first; `speed`: the fastest first. How fast the runs of
                other gateways are is not known here: they come last.

        Raises: StoreUnavailable.
        """
        running = replace(wanted, statuses=frozenset({Status.IN_PROGRESS}))
        rows, _ = await self.jobs(running, limit=_RANKED_MAX, before=None, is_oldest_first=False)

        def rank(row: JobRow) -> float:
            return row.event_count if by == "events" else -1 if row.events_per_s is None else row.events_per_s

        rows.sort(key=rank, reverse=True)
        following = skip + limit
        return rows[skip:following], following if following < len(rows) else None

    def _row(self, facts: Facts, now_ms: int, barred: Mapping[tuple[str, bytes], str] | None) -> JobRow:
        progress = self._runner.progress(facts.id)
        if progress is None:
            waits = None
            if barred is not None and facts.status in LIVE:
                why = barred.get((facts.backend, bytes.fromhex(facts.tenant)))
                waits = what_holds(
                    _subject(facts), self._circumstances.around(facts.backend, None, now_ms, barred=why)
                )
            tier, word = TIERS[facts.priority], waits.why if waits is not None else None
            return JobRow(facts, tier, False, facts.event_count, None, None, word)
        rate = self._rate(facts.id, progress.event_count)
        tier, silent_s = TIERS[facts.priority], round(progress.silent_s, 2)
        return JobRow(facts, tier, True, progress.event_count, rate, silent_s, None)

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
        around = self._circumstances.around(details.backend, details, now_ms, barred=barred)
        journal = self._journal
        return OneJob(
            details,
            row,
            journal.of(response_id),
            self._tellings.of(response_id),
            why_it_waits(subject, around),
            if_the_gateway_dies(subject, around),
            self._followers.watching(response_id),
            journal.latest(response_id, "replica"),
            journal.latest(response_id, "upstream_request"),
            journal.latest(response_id, "upstream_status"),
            journal.latest(response_id, "request"),
        )

    # -- content

    async def request_of(self, response_id: str) -> StoredRequest | None:
        """What a job was asked for; None if there is none. Raises: StoreUnavailable."""
        return await self._store.request_of(response_id)

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


def _subject(facts: Facts, row: JobRow | None = None) -> Subject:
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
