"""Bulk actions: what operators do to many jobs at once.

First they are told to which, and then it is done to exactly those, whichever gateway is told so.
"""

from __future__ import annotations

import asyncio
import re
import secrets
from collections import Counter
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Protocol

from gateway.core.job import LIVE, Status, StoreUnavailable
from gateway.core.tiers import TIERS
from gateway.core.transcript import CancelRequested
from gateway.engine.endings import Endings
from gateway.engine.refusals import refusal_of, refusing
from gateway.store.insight import Wanted
from gateway.wire.errors import Refusal, invalid

_BULK_MAX = 10_000
_AT_ONCE = 8
"""Endings at a time: they share commits, and each may hold all events of a job in memory."""
_PREVIEW_S = 120.0
_TOKEN = re.compile(r"([0-9]{15})-[A-Za-z0-9_-]{22}", re.ASCII)
"""Until when it is good, in Unix milliseconds, and a secret: in the order of their ends."""
_SHOWN = 5


@dataclass(frozen=True, slots=True)
class Preview:
    """To which jobs a change of many would be done: these and no others, even if more match by then.

    Attributes:
        token: By which it is confirmed.
        is_all: False: more match than one go may change.
    """

    token: str
    count: int
    first: list[str]
    is_all: bool
    valid_s: float


@dataclass(frozen=True, slots=True)
class Cancelled:
    """How many were ended, and how many had ended already."""

    cancelled: int
    over: int


@dataclass(frozen=True, slots=True)
class Deleted:
    """How many were deleted, and how many were gone, or live."""

    deleted: int
    not_deleted: int


@dataclass(frozen=True, slots=True)
class Moved:
    """How many are in the tier now, and how many had been started or were over."""

    moved: int
    started: int


@dataclass(frozen=True, slots=True)
class Rerun:
    """How many were made anew, the first of the new ids, and why the others were not, by the error's code."""

    rerun: int
    first: list[str]
    refused: dict[str, int]


class StoppedHalfway(Refusal):
    """The store failed in the middle: to so many it was done, and the rest was not tried any more."""

    def __init__(self, error: StoreUnavailable, count: int) -> None:
        cause = refusal_of(error, None)
        message = f"{cause.message} Before that it was done to {count}; ask for a new preview of the others."
        super().__init__(cause.fault, message, code=cause.code, retry_after_s=cause.retry_after_s)
        self.count = count


class Many(StrEnum):
    """What can be done to many jobs at once."""

    CANCEL = "cancel"
    RERUN = "rerun"
    DELETE = "delete"
    TIER = "tier"

    @property
    def of(self) -> frozenset[Status]:
        """Jobs in these states only."""
        match self:
            case Many.CANCEL:
                return LIVE
            case Many.TIER:
                return frozenset({Status.QUEUED})
            case Many.RERUN | Many.DELETE:
                return frozenset(Status) - LIVE


@dataclass(frozen=True, slots=True)
class Plan:
    """What a preview was of.

    Attributes:
        said: By what the jobs were chosen, in words for the audit line.
        tier: Where to; only of `TIER`.
    """

    doing: Many
    said: str
    ids: list[str]
    tier: str | None = None


class _Rerun(Protocol):
    async def __call__(self, response_id: str, *, request_id: str) -> str:
        """See `Actions.rerun`."""


class Bulk:
    """Previews, and what is done to what they have shown."""

    def __init__(self, endings: Endings, rerun: _Rerun) -> None:
        self._endings = endings
        self._store = endings.store
        self._insight = endings.store.insight
        self._clock = endings.clock
        self._rerun = rerun

    async def preview(
        self, doing: Many, chosen: Wanted | Collection[str], *, said: str, tier: str | None = None
    ) -> Preview:
        """To which jobs it would be done: those of these ids, or all wanted ones, in a state for it.

        Args:
            said, tier: See `Plan`.

        Raises:
            Refusal: There is no such tier, or it was not said; or the store does not answer.
        """
        if doing is Many.TIER:
            rank_of(tier)
        if isinstance(chosen, Wanted):
            statuses = doing.of if chosen.statuses is None else doing.of.intersection(chosen.statuses)
            with refusing():
                listing = await self._insight.jobs(replace(chosen, statuses=statuses), limit=_BULK_MAX)
            found, is_all = [facts.id for facts in listing.jobs], listing.before is None
        else:
            found, is_all = list(dict.fromkeys(chosen))[:_BULK_MAX], len(chosen) <= _BULK_MAX
        now_ms = self._clock.now_ms()
        token = f"{now_ms + int(_PREVIEW_S * 1000):015}-{secrets.token_urlsafe(16)}"
        with refusing():
            await self._store.notes.drop_before(_preview(doing), f"{now_ms:015}")
            await self._store.notes.put(_preview(doing), token, {"said": said, "ids": found, "tier": tier})
        return Preview(token, len(found), found[:_SHOWN], is_all, _PREVIEW_S)

    async def confirmed(self, token: str, doing: Many) -> Plan:
        """What a preview was of, once. Raises: Refusal, if it was none of this change."""
        found, stored = _TOKEN.fullmatch(token), None
        if found is not None and int(found[1]) >= self._clock.now_ms():
            with refusing():
                stored = await self._store.notes.take(_preview(doing), token)
        if stored is None:
            message = "This preview is not known, was confirmed already, or is too old: ask for a new one."
            raise invalid(message, param="token")
        return Plan(doing, **stored)

    async def cancel(self, plan: Plan) -> Cancelled:
        """End what was previewed. Raises: StoppedHalfway."""

        async def cancelled(response_id: str) -> bool:
            return await self._endings.try_to_end(response_id, CancelRequested())

        count = await _count(plan.ids, cancelled)
        return Cancelled(count, len(plan.ids) - count)

    async def delete(self, plan: Plan) -> Deleted:
        """Delete what was previewed. Raises: StoppedHalfway."""

        async def deleted(response_id: str) -> bool:
            details = await self._insight.details(response_id)
            if details is None or not details.status.is_terminal:
                return False
            return await self._endings.delete(response_id, bytes.fromhex(details.tenant))

        count = await _count(plan.ids, deleted)
        return Deleted(count, len(plan.ids) - count)

    async def move(self, plan: Plan) -> Moved:
        """Put what was previewed into its tier. Raises: StoppedHalfway."""
        priority = rank_of(plan.tier)

        async def moved(response_id: str) -> bool:
            return await self._store.set_priority(response_id, priority)

        count = await _count(plan.ids, moved)
        return Moved(count, len(plan.ids) - count)

    async def rerun(self, plan: Plan, *, request_id: str) -> Rerun:
        """Run what was previewed again, one after the other: they keep their order. Raises: Refusal.

        The oldest is first, as it was the first time. Where one is refused, the others are made all the same.
        """
        made: list[str] = []
        refused: Counter[str] = Counter()
        for response_id in reversed(plan.ids):
            try:
                made.append(await self._rerun(response_id, request_id=request_id))
            except Refusal as refusal:
                refused[refusal.code or refusal.fault.name.lower()] += 1
        return Rerun(len(made), made[:_SHOWN], dict(refused))


def _preview(doing: Many) -> str:
    """The kind of note in which a preview of it lies."""
    return f"preview-{doing}"


def rank_of(tier: str | None) -> int:
    """Of a tier by its name. Raises: Refusal, if there is none of it."""
    if tier not in TIERS:
        raise invalid(f"tier must be one of {', '.join(TIERS)}.", param="tier")
    return TIERS.index(tier)


async def _count(ids: Collection[str], do: Callable[[str], Awaitable[bool]]) -> int:
    """Do it to each, some at once; to how many it was done. Raises: StoppedHalfway."""
    waiting = iter(ids)
    count = 0
    failure: StoreUnavailable | None = None

    async def each() -> None:
        nonlocal count, failure
        for response_id in waiting:
            try:
                is_done = await do(response_id)
            except StoreUnavailable as error:
                failure = error
            else:
                count += is_done
            if failure is not None:
                return  # nothing goes on behind an answer that says it failed

    await asyncio.gather(*(each() for _ in range(_AT_ONCE)))
    if failure is not None:
        raise StoppedHalfway(failure, count)
    return count
