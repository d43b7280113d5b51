"""The one gate through which jobs end, whoever ends them: their run, a client, the clock or the gateway.

A job that runs here is ended by its own run, which has the output in memory. Any other one is taken over, so
that nobody else can write to it, and its transcript is made anew from the events that were committed. So the
partial output of a cancelled, expired or crashed job is what its readers saw, to the event.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import closing
from dataclasses import dataclass
from typing import Protocol

from gateway.config import BackgroundSettings
from gateway.core.job import Claim, ClaimLost, Outcome, StoreUnavailable
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

_DAMAGED = Abandoned(
    "The stored events of this response are damaged: its output is not known, and they are kept as they are.",
    Reason.EVENTS_UNREADABLE,
)


_DEFECT = Abandoned("The gateway failed while it ended this response.", Reason.DEFECT)


class LiveRun(Protocol):
    """A run of this process, as far as its end goes."""

    async def flush(self) -> None:
        """Commit what it has received. Raises: StoreUnavailable; then it goes on."""

    async def stop(self, stop: Stop) -> bool:
        """End it. False if that is not in its power (any more): its claim is gone, or it ends by itself.

        Raises:
            ClaimLost, StoreUnavailable: It is over, and its job has not ended.
        """


@dataclass(frozen=True, slots=True)
class Endings:
    """Ends jobs.

    Attributes:
        runs: Those of this process.
        owed: Jobs whose run is over and whose ending could not be stored, with the ending they should get.
    """

    store: JobStore
    followers: Followers
    credentials: Credentials
    clock: Clock
    settings: BackgroundSettings
    observer: Observer
    outputs: Outputs
    runs: dict[str, LiveRun]
    owed: dict[str, Stop]

    async def commit(self, claim: Claim, outcome: Outcome) -> None:
        """Store an ending, and tell everybody: the one way out.

        Raises:
            ClaimLost, StoreUnavailable: The job has not ended by this.
        """
        now_ms = self.clock.now_ms()
        expires_at_ms = now_ms + int(self.settings.retention_s * 1000)
        await self.store.finish(claim, outcome, now_ms=now_ms, expires_at_ms=expires_at_ms)
        job, count = claim.job, outcome.event_count
        self.credentials.forget(job.id)
        self.observer.events.inc(count)
        self.followers.committed(job.id, outcome.first_seq, count, outcome.events, is_end=True)
        ran_s = job.ran_s(now_ms)
        self.observer.job_finished(
            job.id, job.backend, outcome.status, outcome.code, outcome.reason, ran_s, tenant=job.tenant
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
                self.owed[response_id] = stop
                raise
        claim = await self.store.take_over(response_id)
        if claim is None:
            return False
        return await self.end_claimed(claim, stop)

    async def end_claimed(self, claim: Claim, stop: Stop) -> bool:
        """End a job that is ours alone already, and has no run."""
        try:
            async with self.outputs.reading(await self.store.events_bytes(claim.id)):
                await self.commit(claim, await self._replayed(claim, stop))
        except ClaimLost:
            return False
        except Exception:  # the store's failure, or a defect: it is nobody else's to end now
            self.owed[claim.id] = stop
            raise
        return True

    async def delete(self, response_id: str, tenant: bytes) -> bool:
        """Make a job vanish; if it runs, the backend is told to stop. False if it is gone already."""
        # Shielded: a client that hangs up must not leave the readers waiting.
        return await asyncio.shield(self._delete(response_id, tenant))

    async def _delete(self, response_id: str, tenant: bytes) -> bool:
        if not await self.store.delete(response_id, tenant, now_ms=self.clock.now_ms()):
            return False
        self.credentials.forget(response_id)
        self.followers.gone(response_id)
        self.observer.job_deleted(response_id)
        return True

    async def settle(self) -> None:
        """Give jobs the endings that could not be stored before. Raises: StoreUnavailable."""
        for response_id in list(self.owed):
            stop = self.owed.pop(response_id)  # before the call, which may note it anew
            try:
                await self.try_to_end(response_id, stop)
            except StoreUnavailable:
                self.owed.setdefault(response_id, stop)
                raise

    async def try_to_end(self, response_id: str, stop: Stop) -> bool:
        """The same as `end`. A defect that one job brings to light must not keep others from their ends."""
        try:
            return await self.end(response_id, stop)
        except StoreUnavailable:
            raise
        except Exception:  # see above: it is logged, and the others go on
            line("defect", level=logging.ERROR, id=response_id, exc_info=True)
            return False

    async def _replayed(self, claim: Claim, stop: Stop) -> Outcome:
        stored = [await self.store.all_events(claim.id)]
        if len(stored[0]) > _REPLAY_INLINE_BYTES_MAX:
            return await asyncio.to_thread(self._outcome, claim, stored, stop)
        return self._outcome(claim, stored, stop)

    def _outcome(self, claim: Claim, stored: list[bytes], stop: Stop) -> Outcome:
        """Takes what is stored out of its list: it is not in memory any more when the ending is made."""
        bytes_max = self.settings.events_bytes_max
        with closing(self.outputs.shelf()) as shelf:
            now = Now(self.clock.now_ms())
            try:
                transcript = Transcript.restored(
                    claim.job, stored.pop(), events_bytes_max=bytes_max, shelf=shelf
                )
                return transcript.stop(stop, now)
            except Exception as error:
                # Whoever asked, it has to end all the same, or it would be asked for ever.
                line("defect", level=logging.ERROR, id=claim.id, exc_info=True)
                last_word = _DAMAGED if isinstance(error, Unreadable) else _DEFECT
                return Transcript(claim.job, events_bytes_max=bytes_max).stop(last_word, now)
