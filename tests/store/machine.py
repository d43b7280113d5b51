"""The real store against a small model of what it promises, under any order of calls, crashes included.

Hypothesis makes up the calls. Two owners work on one file; whatever an owner holds may have been taken over,
ended, deleted or swept since, and the process may have died. After each call all that can be read is
compared.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, replace
from typing import Any, ClassVar, TypeVar

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, multiple, rule

from gateway.core.job import (
    TRANSITIONS,
    Claim,
    ClaimLost,
    Idempotency,
    KeyReused,
    Outcome,
    PreviousGone,
    QueueFull,
    Sealed,
    Status,
)
from gateway.core.reason import Reason
from gateway.core.webhooks import UP, Delivery, Endpoint, Standing, Verdict
from gateway.store.port import QueueLimits
from gateway.wire.sse import encode, split_frames
from tests.store.homes import FileHome, Home
from tests.store.jobs import new_job

T = TypeVar("T")

TENANT, STRANGER = b"t" * 32, b"s" * 32
ATTEMPTS_MAX = 2
RETENTION_MS = 100


@dataclass
class Modelled:
    """What the store has acknowledged about one job."""

    pk: int
    status: Status
    events: list[bytes]
    deadline_ms: int
    is_followable: bool
    is_rerunnable: bool
    previous: str | None
    sealed: Sealed | None
    epoch: int = 0
    attempt: int = 0
    put_offs: int = 0
    is_owned: bool = False
    owner: int = 0
    output_shown: bool = False
    expires_at_ms: int | None = None

    def move(self, status: Status) -> None:
        assert status in TRANSITIONS[self.status], f"{self.status} -> {status}"
        self.status = status

    def may_rerun(self) -> bool:
        is_untried = self.attempt == 0
        return not self.output_shown and (is_untried or (self.is_rerunnable and self.attempt < ATTEMPTS_MAX))


def event(number: int, text: str) -> bytes:
    return encode("response.test", b'{"sequence_number":%d,"text":"%b"}' % (number, text.encode()))


class StoreMachine(RuleBasedStateMachine):
    jobs = Bundle("jobs")
    claims = Bundle("claims")
    """Of every holder there ever was: most of them are stale."""

    on_example: ClassVar[list[Callable[[], object]]] = []
    """Told of the end of each."""
    homes: ClassVar[list[Callable[[], Home]]] = [FileHome]
    """The last one makes the store of each example."""
    illegal_moves: ClassVar[int] = 0
    """Tried, and refused by the trigger; of all examples."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.home = self.homes[-1]()
        self.now_ms = 1000
        self.model: dict[str, Modelled] = {}
        self.untold: dict[str, Status] = {}
        """Ends whose event nobody has taken yet; whether the job is still there makes no difference."""
        self.put_off_until: dict[str, int] = {}
        self.standing = UP
        """Of the one receiver."""
        self.keys: dict[str, tuple[bytes, str]] = {}
        self.made = 0

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return self.loop.run_until_complete(work)

    @initialize()
    def open(self) -> None:
        self.owners = self.run(self.home.open())
        self.store = self.owners[0]
        statuses = frozenset(status for status in Status if status.is_terminal)
        self.run(self.store.outbox.set_endpoints([Endpoint("x", statuses, frozenset(), b"")]))
        self.standing = replace(self.standing, probe_at_ms=0)

    def teardown(self) -> None:
        self.run(self.home.close())
        self.loop.close()
        for tell in self.on_example:
            tell()

    # -- what is asked of the store

    @rule(
        target=jobs,
        previous=st.one_of(st.none(), jobs),
        is_followable=st.booleans(),
        is_rerunnable=st.booleans(),
        deadline_ms=st.sampled_from([50, 1_000_000]),
        key=st.sampled_from([None, None, "a", "b"]),
        fingerprint=st.sampled_from([b"one", b"one", b"two"]),
        room=st.sampled_from([10_000, 10_000, 3]),
    )
    def create(
        self,
        previous: str | None,
        is_followable: bool,
        is_rerunnable: bool,
        deadline_ms: int,
        key: str | None,
        fingerprint: bytes,
        room: int,
    ) -> Any:
        name = f"j{self.made + 1}"
        first = [event(0, name), event(1, name)]
        new = new_job(
            name,
            previous_id=previous,
            created_at_ms=self.now_ms,
            deadline_ms=self.now_ms + deadline_ms,
            input=name.encode(),
            is_streamed=is_followable,
            is_followable=is_followable,
            is_rerunnable=is_rerunnable,
            events=b"".join(first),
            idempotency=None if key is None else Idempotency(key, fingerprint),
            sealed=Sealed("k1", name.encode()) if is_followable else None,
        )
        work = self.store.create(new, QueueLimits(10_000, room))
        earlier = self.repeated(key)
        if earlier is not None:
            if earlier[0] == fingerprint:
                assert self.run(work) == earlier[1]
            else:
                with pytest.raises(KeyReused):
                    self.run(work)
            return multiple()
        refusal: type[Exception] | None = None
        if sum(job.status is Status.QUEUED for job in self.model.values()) >= room:
            refusal = QueueFull
        elif previous is not None and not self.is_there(previous):
            refusal = PreviousGone
        if refusal is not None:
            with pytest.raises(refusal):
                self.run(work)
            return multiple()
        assert self.run(work) == name
        self.made += 1
        self.model[name] = Modelled(
            self.made,
            Status.QUEUED,
            first,
            new.deadline_ms,
            is_followable,
            is_rerunnable,
            previous,
            new.sealed,
        )
        if key is not None:
            self.keys[key] = fingerprint, name
        return name

    def repeated(self, key: str | None) -> tuple[bytes, str] | None:
        """Whose create the same key repeats, and by what fingerprint; for as long as that can be seen."""
        found = self.keys.get(key) if key is not None else None
        return found if found and self.is_there(found[1]) else None

    @rule(key=st.sampled_from(["a", "b"]), fingerprint=st.sampled_from([b"one", b"two"]))
    def ask_for_a_repeat(self, key: str, fingerprint: bytes) -> None:
        work = self.store.repeated(TENANT, Idempotency(key, fingerprint), now_ms=self.now_ms)
        earlier = self.repeated(key)
        if earlier is not None and earlier[0] != fingerprint:
            with pytest.raises(KeyReused):
                self.run(work)
        else:
            assert self.run(work) == (earlier[1] if earlier else None)
        theirs = self.store.repeated(STRANGER, Idempotency(key, fingerprint), now_ms=self.now_ms)
        assert self.run(theirs) is None

    @rule(target=claims, limit=st.integers(1, 3), owner=st.integers(0, 1))
    def claim(self, limit: int, owner: int) -> Any:
        waiting = [
            name
            for name, job in self.model.items()
            if not job.is_owned
            and job.deadline_ms > self.now_ms
            and (job.status is Status.QUEUED or (job.status is Status.IN_PROGRESS and job.may_rerun()))
        ]
        asked = self.owners[owner]
        got = self.run(asked.claim(limit, attempts_max=ATTEMPTS_MAX, now_ms=self.now_ms))
        assert [claim.id for claim in got] == waiting[:limit]
        for claim in got:
            job = self.model[claim.id]
            if job.status is Status.QUEUED:
                job.move(Status.IN_PROGRESS)
            job.is_owned, job.epoch, job.attempt = True, job.epoch + 1, job.attempt + 1
            job.owner = owner
            assert (claim.epoch, claim.job.attempt) == (job.epoch, job.attempt)
            assert claim.job.put_offs == job.put_offs
            assert claim.job.next_seq == len(job.events)
            if len(job.events) > 3:  # as a run does with what a lost one has left
                self.run(asked.rewind(claim, 3))
                job.events = job.events[:3]
        return multiple(*got)

    def is_present(self, claim: Claim) -> bool:
        job = self.model.get(claim.id)
        return job is not None and job.epoch == claim.epoch and not job.status.is_terminal

    @rule(
        claim=claims, count=st.integers(1, 4), skew=st.sampled_from([0, 0, 0, 0, -1, 1]), output=st.booleans()
    )
    def append(self, claim: Claim, count: int, skew: int, output: bool) -> None:
        job = self.model.get(claim.id)
        first = (len(job.events) if job else 3) + skew
        events = [event(first + n, f"epoch {claim.epoch}") for n in range(count)]

        async def appended() -> None:
            await self.store.append(claim, first, count, b"".join(events), has_output=output)

        if job and self.is_present(claim) and job.status is Status.IN_PROGRESS and skew == 0:
            self.run(appended())
            job.events += events
            job.output_shown = job.output_shown or (output and job.is_followable)
        else:
            with pytest.raises(ClaimLost):
                self.run(appended())

    def _finish(self, claim: Claim, status: Status, skew: int = 0) -> None:
        job = self.model.get(claim.id)
        first = (len(job.events) if job else 3) + skew
        last = event(first, f"terminal {claim.epoch}")
        outcome = Outcome(status, status.value.encode(), first, last, 1, None, Reason.ENDED)
        work = self.store.finish(claim, outcome, now_ms=self.now_ms, expires_at_ms=self.now_ms + RETENTION_MS)
        if not (job and self.is_present(claim) and skew == 0):
            with pytest.raises(ClaimLost):
                self.run(work)
        elif status not in TRANSITIONS[job.status]:
            with pytest.raises(self.home.illegal, match="illegal move"):
                self.run(work)
        else:
            self.run(work)
            job.move(status)
            self.untold[claim.id] = status
            job.events.append(last)
            job.is_owned, job.expires_at_ms = False, self.now_ms + RETENTION_MS

    @rule(
        claim=claims,
        status=st.sampled_from([status for status in Status if status.is_terminal]),
        skew=st.sampled_from([0, 0, 0, 1, -1]),
    )
    def finish(self, claim: Claim, status: Status, skew: int) -> None:
        self._finish(claim, status, skew)

    @rule(claim=claims, returned=st.integers(0, 1), put_offs=st.integers(0, 1))
    def release(self, claim: Claim, returned: int, put_offs: int) -> None:
        released = self.store.release(claim, attempts_returned=returned, put_offs=put_offs)
        if not self.is_present(claim):
            with pytest.raises(ClaimLost):
                self.run(released)
            return
        self.run(released)
        job = self.model[claim.id]
        job.put_offs += put_offs
        job.is_owned, job.epoch, job.attempt = False, job.epoch + 1, max(0, job.attempt - returned)

    @rule(target=claims, name=jobs, finishes=st.booleans(), owner=st.integers(0, 1))
    def cancel(self, name: str, finishes: bool, owner: int) -> Any:
        """Both halves, or only the first: then the holder stays, and may be overtaken in its turn."""
        claim = self.run(self.owners[owner].take_over(name))
        job = self.model.get(name)
        if job is None or job.status.is_terminal:
            assert claim is None
            return multiple()
        assert claim is not None
        job.is_owned, job.epoch, job.owner = True, job.epoch + 1, owner
        if finishes:
            self._finish(claim, Status.CANCELLED)
        return claim

    @rule(owner=st.integers(0, 1))
    def reap(self, owner: int) -> None:
        """End what is late, and what was lost and must not run again."""
        store = self.owners[owner]
        late = self.run(store.overdue(now_ms=self.now_ms, limit=1000))
        lost = self.run(store.orphans(attempts_max=ATTEMPTS_MAX, limit=1000))
        for name in dict.fromkeys([*late, *lost]):
            claim = self.run(store.take_over(name))
            assert claim is not None
            self.model[name].is_owned, self.model[name].epoch = True, self.model[name].epoch + 1
            self._finish(claim, Status.FAILED)

    @rule(name=jobs)
    def a_stranger_asks(self, name: str) -> None:
        assert self.run(self.store.find(name, STRANGER, now_ms=self.now_ms)) is None
        page = self.store.page(name, STRANGER, after=-1, bytes_max=2**20, now_ms=self.now_ms)
        assert self.run(page) is None
        assert not self.run(self.store.delete(name, STRANGER, now_ms=self.now_ms))
        assert self.run(self.store.turns_before(name, STRANGER)) == []

    @rule(name=jobs, status=st.sampled_from(Status))
    def a_wrong_statement_moves_it(self, name: str, status: Status) -> None:
        """Past all code: the table itself says no."""
        job = self.model.get(name)
        if job is None or status is job.status or status in TRANSITIONS[job.status]:
            return
        times = (1, 2**40) if status.is_terminal else (None, None)
        work = self.home.move(name, (status.value, *times))
        with pytest.raises(self.home.illegal, match="illegal move"):
            self.run(work)
        StoreMachine.illegal_moves += 1

    @rule(name=jobs)
    def delete(self, name: str) -> None:
        deleted = self.run(self.store.delete(name, TENANT, now_ms=self.now_ms))
        assert (deleted is not None) is self.is_there(name)
        if deleted is not None:
            job = self.model[name]
            assert (deleted.ended is None) is job.status.is_terminal
            if not job.status.is_terminal:
                job.move(Status.CANCELLED)
                self.untold[name] = Status.CANCELLED
                job.epoch += 1
            job.is_owned, job.expires_at_ms = False, 0

    @rule()
    def tell(self) -> None:
        """The oldest event is taken."""
        for delivery in self._due()[:1]:
            before, after = self.run(self.store.outbox.remove(delivery, lambda _: UP))
            assert (before, after) == (self.standing, UP)
            del self.untold[delivery.response_id]
            self.put_off_until.pop(delivery.response_id, None)
            self.standing = UP

    @rule(verdict=st.sampled_from([Verdict.DOWN, Verdict.DOWN, Verdict.AGAIN]))
    def fail_to_tell(self, verdict: Verdict) -> None:
        """The oldest event is not taken."""

        def judge(standing: Standing) -> Standing:
            return standing.after(verdict, now_ms=self.now_ms, delays_ms=[50, 200])

        for delivery in self._due()[:1]:
            due_at_ms = self.now_ms + 60
            put_off = self.store.outbox.put_off(delivery, due_at_ms=due_at_ms, failure="x", judge=judge)
            assert self.run(put_off) == (self.standing, judge(self.standing))
            self.standing = judge(self.standing)
            self.put_off_until[delivery.response_id] = due_at_ms

    def _due(self) -> list[Delivery]:
        find = self.store.outbox.claim(now_ms=self.now_ms, lease_ms=0, per_lane_max=1000, own_url_max=0)
        return self.run(find).deliveries

    @rule(passed_ms=st.sampled_from([1, 60, 150]))
    def time_passes(self, passed_ms: int) -> None:
        self.now_ms += passed_ms

    @rule()
    def sweep(self) -> None:
        while self.run(self.store.sweep(now_ms=self.now_ms)):
            pass
        self.run(self.store.reclaim_space())
        while gone := [name for name in self.model if not self.is_there(name) and not self.is_leant_on(name)]:
            for name in gone:
                del self.model[name]
        for name, job in self.model.items():
            if not self.is_there(name):
                job.events = []
        assert self.run(self.home.rows()) == set(self.model)

    @rule(is_clean=st.booleans())
    def restart(self, is_clean: bool) -> None:
        """The process ends, or is killed: then the next one finds what it left as it lay."""
        self.run(self.home.leave(is_clean=is_clean))
        self.open()
        self.run(self.store.abandon(dead_after_s=0))
        for job in self.model.values():
            if job.is_owned and not job.status.is_terminal:
                job.is_owned, job.epoch = False, job.epoch + 1

    # -- what always holds

    def is_there(self, name: str) -> bool:
        job = self.model.get(name)
        return job is not None and (job.expires_at_ms is None or job.expires_at_ms > self.now_ms)

    def is_leant_on(self, name: str) -> bool:
        return any(job.previous == name for job in self.model.values())

    @invariant()
    def every_job_is_as_acknowledged(self) -> None:
        for number in range(1, self.made + 1):
            name = f"j{number}"
            job = self.run(self.store.find(name, TENANT, now_ms=self.now_ms))
            page = self.run(self.store.page(name, TENANT, after=-1, bytes_max=2**20, now_ms=self.now_ms))
            if not self.is_there(name):
                assert job is None
                assert page is None
                continue
            expected = self.model[name]
            assert job is not None
            assert page is not None
            assert job.status is expected.status
            assert job.next_seq == len(expected.events)
            assert split_frames(page.events) == expected.events
            assert page.is_end is expected.status.is_terminal
            assert job.final == (expected.status.value.encode() if expected.status.is_terminal else None)
            numbers = [int(e.split(b'"sequence_number":')[1].split(b",")[0]) for e in expected.events]
            assert numbers == list(range(len(numbers)))
            assert sum(b"terminal" in e for e in expected.events) == expected.status.is_terminal
            call = self.run(self.store.request_of(name))
            assert call is not None
            assert (call.input, call.sealed) == (
                name.encode(),
                None if expected.status.is_terminal else expected.sealed,
            )

    @invariant()
    def every_end_is_told_once(self) -> None:
        due = self._due()
        ready = {name for name in self.untold if self.put_off_until.get(name, 0) <= self.now_ms}
        if self.standing.down_since_ms is None:
            assert {each.response_id for each in due} == ready
        elif self.now_ms >= self.standing.probe_at_ms:
            assert {each.response_id for each in due} <= ready
            assert len(due) == min(1, len(ready))
        else:
            assert due == []
        assert all(self.untold[each.response_id] is each.status for each in due)
        assert len({each.response_id for each in due}) == len(due)

    @invariant()
    def what_is_counted_is_there(self) -> None:
        waiting = self.run(self.store.outbox.lane_backlogs())
        counted = [(each.count, each.down_since_ms) for each in waiting]
        assert counted == ([(len(self.untold), self.standing.down_since_ms)] if self.untold else [])
        backlog = self.run(self.store.insight.backlog(now_ms=self.now_ms))
        there = [job for name, job in self.model.items() if self.is_there(name)]
        assert backlog.by_status == {status: sum(job.status is status for job in there) for status in Status}
        live = [job for job in there if not job.status.is_terminal and not job.is_owned]
        assert sum(each.count for each in backlog.waiting.values()) == len(live)

    @invariant()
    def nobody_is_forgotten(self) -> None:
        orphans = self.run(self.store.orphans(attempts_max=ATTEMPTS_MAX, limit=1000))
        assert orphans == [
            name
            for name, job in self.model.items()
            if job.status is Status.IN_PROGRESS and not job.is_owned and not job.may_rerun()
        ]
        overdue = self.run(self.store.overdue(now_ms=self.now_ms, limit=1000))
        assert set(overdue) == {
            name
            for name, job in self.model.items()
            if not job.status.is_terminal
            and job.deadline_ms
            <= self.now_ms - (self.home.late_elsewhere_ms if job.is_owned and job.owner else 0)
        }
