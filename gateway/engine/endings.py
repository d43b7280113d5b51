"""The one gate through which jobs end, whoever ends them: their run, a client, the clock or the gateway.

A job that runs here is ended by its own run, which has the output in memory. Any other one is taken over, so
that nobody else can write to it, and its transcript is made anew from the events that were committed. So the
partial output of a cancelled, expired or crashed job is what its readers saw, to the event.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable
from contextlib import closing
from dataclasses import dataclass
from typing import Protocol

from gateway.config import BackgroundSettings
from gateway.core.job import Claim, ClaimLost, Job, Outcome, Status, StoreUnavailable
from gateway.core.reason import Reason
from gateway.core.retry import Now
from gateway.core.transcript import Abandoned, Stop, Transcript, Unreadable
from gateway.engine.clock import Clock
from gateway.engine.credentials import Credentials
from gateway.engine.followers import Followers
from gateway.engine.outputs import Outputs
from gateway.observe import Observer, line
from gateway.store.port import JobStore

_REPLAY_INLINE_BYTES_MAX = 256 * 2**10
"""A longer log is parsed on a thread: it would hold up every stream of the process."""
_WAIT_MAX_S = 60
"""Longest wait, in seconds, before another try at an ending that a defect has made fail."""

DEFECT = Abandoned("The gateway failed while it ran or ended this response.", Reason.DEFECT)
_DAMAGED = Abandoned(
    "The stored events of this response are damaged: its output is not known, and they are kept as they are.",
    Reason.EVENTS_UNREADABLE,
)


class LiveRun(Protocol):
    """A run of this process, as the gate sees it."""

    @property
    def work(self) -> Claim:
        """Its claim."""

    async def flush(self) -> None:
        """Commit what it has received. Raises: StoreUnavailable; then it goes on."""

    async def stop(self, stop: Stop) -> bool:
        """End it. False if it cannot: its claim is lost, or it is ending by itself.

        Raises:
            ClaimLost, StoreUnavailable: It is over, and its job has not ended.
        """


@dataclass(frozen=True, slots=True)
class Owed:
    """An ending that could not be stored.

    Attributes:
        claim: The claim it was to be stored by. If the job has a later epoch, its ending is no longer owed.
        defects: How many tries a defect has made fail; failures of the store do not count.
        due_ms: Earliest time of the next try, in Unix milliseconds.
    """

    claim: Claim
    stop: Stop
    defects: int
    due_ms: int


@dataclass(frozen=True, slots=True)
class Endings:
    """Ends jobs.

    Attributes:
        runs: Those of this process.
        owed: By job. Written by `owe`; whoever looks for jobs to end leaves these out.
    """

    store: JobStore
    followers: Followers
    credentials: Credentials
    clock: Clock
    settings: BackgroundSettings
    observer: Observer
    outputs: Outputs
    runs: dict[str, LiveRun]
    owed: dict[str, Owed]

    async def commit(self, claim: Claim, outcome: Outcome) -> None:
        """Store an ending, and tell everybody: the one way out.

        Raises:
            ClaimLost, StoreUnavailable: The job has not ended by this.
        """
        now_ms = self.clock.now_ms()
        expires_at_ms = now_ms + int(self.settings.retention_s * 1000)
        await self.store.finish(claim, outcome, now_ms=now_ms, expires_at_ms=expires_at_ms)
        self.observer.events.inc(outcome.event_count)
        self.followers.committed(
            claim.id, outcome.first_seq, outcome.event_count, outcome.events, is_end=True
        )
        self._ended(claim.job, outcome.status, outcome.code, outcome.reason, now_ms)

    def _ended(self, job: Job, status: Status, code: str | None, reason: Reason, now_ms: int) -> None:
        """Tell of an end, the one by a delete as well."""
        self.credentials.forget(job.id)
        self.owed.pop(job.id, None)
        self.observer.job_finished(
            job.id, job.backend, status, code, reason, job.ran_s(now_ms), tenant=job.tenant
        )

    async def end(self, response_id: str, stop: Stop) -> bool:
        """End a live job; False if it was not live, or somebody else ended it meanwhile.

        Raises:
            StoreUnavailable: Its run may be over, but the job has not ended.
        """
        # Shielded: a client that asks for a cancel and hangs up must not leave a job that nobody runs.
        return await asyncio.shield(self._end(response_id, stop))

    async def _end(self, response_id: str, stop: Stop) -> bool:
        if run := self.runs.get(response_id):
            await run.flush()
            try:
                if await run.stop(stop):
                    return True
            except ClaimLost:
                return False
            except Exception:  # its run is over, so nobody else would end it
                self.owe(run.work, stop)
                raise
        claim = await self.store.take_over(response_id)
        if claim is None:
            return False
        return await self.end_claimed(claim, stop)

    async def end_claimed(self, claim: Claim, stop: Stop) -> bool:
        """End a job that this process has taken over, and that has no run."""
        owed = self.owed.get(claim.id)
        try:
            if owed is not None and owed.defects:
                await self.commit(claim, self._bare(claim, DEFECT))
            else:
                async with self.outputs.reading(await self.store.events_bytes(claim.id)):
                    await self.commit(claim, await self._replayed(claim, stop))
        except ClaimLost:
            return False
        except Exception as error:  # the store's failure, or a defect: it is nobody else's to end now
            self.owe(claim, stop, is_defect=not isinstance(error, StoreUnavailable))
            raise
        return True

    def owe(self, claim: Claim, stop: Stop, *, is_defect: bool = False) -> None:
        """Note an ending that could not be stored; `settle` makes it. After a defect, the next try is one
        without the events; if that fails so as well, it is made less and less often."""
        owed = self.owed.get(claim.id)
        defects = (owed.defects if owed is not None else 0) + is_defect
        wait_s = min(2 ** (defects - 2), _WAIT_MAX_S) if defects > 1 else 0
        claim = Claim(claim.job)  # of a run's, the input and the turns are not needed any more
        self.owed[claim.id] = Owed(claim, stop, defects, self.clock.now_ms() + wait_s * 1000)

    async def delete(self, response_id: str, tenant: bytes) -> bool:
        """Make a job vanish; if it runs, the backend is told to stop. False if it is gone already."""
        # Shielded: a client that hangs up must not leave the readers waiting.
        return await asyncio.shield(self._delete(response_id, tenant))

    async def _delete(self, response_id: str, tenant: bytes) -> bool:
        now_ms = self.clock.now_ms()
        deleted = await self.store.delete(response_id, tenant, now_ms=now_ms)
        if deleted is None:
            return False
        self.followers.gone(response_id)
        if (job := deleted.ended) is not None:  # by the store alone: there is nothing to be kept of it
            self._ended(job, job.status, None, Reason.CANCELLED, now_ms)
        self.observer.job_deleted(response_id)
        return True

    async def settle(self) -> None:
        """Give jobs the endings that could not be stored before. Raises: StoreUnavailable."""
        now_ms = self.clock.now_ms()
        for response_id, owed in list(self.owed.items()):
            if owed.due_ms > now_ms:
                continue
            # Anew: a write of its run may have come after all, and whoever has it now may be well.
            job = await self.store.find(response_id, owed.claim.job.tenant, now_ms=now_ms)
            if job is not None and not job.status.is_terminal and job.epoch <= owed.claim.epoch:
                await self._tried(response_id, self.end_claimed(Claim(job), owed.stop))
            elif self.owed.get(response_id) is owed:
                del self.owed[response_id]

    async def try_to_end(self, response_id: str, stop: Stop) -> bool:
        """The same as `end`. A defect that one job brings to light must not keep others from their ends."""
        return await self._tried(response_id, self.end(response_id, stop))

    async def _tried(self, response_id: str, ending: Awaitable[bool]) -> bool:
        try:
            return await ending
        except StoreUnavailable:
            raise
        except Exception:  # it is logged, and the others go on
            line("defect", level=logging.ERROR, id=response_id, exc_info=True)
            return False

    async def _replayed(self, claim: Claim, stop: Stop) -> Outcome:
        stored = [await self.store.all_events(claim.id)]
        if len(stored[0]) > _REPLAY_INLINE_BYTES_MAX:
            return await asyncio.to_thread(self._outcome, claim, stored, stop)
        return self._outcome(claim, stored, stop)

    def _outcome(self, claim: Claim, stored: list[bytes], stop: Stop) -> Outcome:
        """Takes the stored events out of the list, so that they are freed before the ending is made."""
        bytes_max = self.settings.events_bytes_max
        with closing(self.outputs.shelf()) as shelf:
            now = Now(self.clock.now_ms())
            try:
                transcript = Transcript.restored(
                    claim.job, stored.pop(), events_bytes_max=bytes_max, shelf=shelf
                )
                return transcript.stop(stop, now)
            except Exception as error:
                # The job must end all the same, or its ending would be tried for ever.
                line("defect", level=logging.ERROR, id=claim.id, exc_info=True)
                return self._bare(claim, _DAMAGED if isinstance(error, Unreadable) else DEFECT)

    def _bare(self, claim: Claim, stop: Stop) -> Outcome:
        """An ending without the events that are stored: they are kept, and not looked at."""
        transcript = Transcript(claim.job, events_bytes_max=self.settings.events_bytes_max)
        return transcript.stop(stop, Now(self.clock.now_ms()))
