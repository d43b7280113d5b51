"""Ending a job from outside its run: cancelled, too late, or its run was lost.

One way for all of them: take the job over, so that nobody else can write to it; make its machine anew from
the events that were committed; let the machine end it. So the partial output of a cancelled, expired or
crashed job is what its readers saw, to the event.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import closing

from gateway.config import BackgroundSettings
from gateway.core.job import Claim, ClaimLost, Outcome
from gateway.core.machine import Abandoned, Finish, Input, JobMachine, Unreadable
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
    "events_unreadable",
)


class Closer:
    """Ends jobs.

    Args:
        flush: Commits what a run of this process has received so far.
        abort: Stops a run of this process, and with it the backend's work.
        unsettled: Where an ending is noted that could not be stored.
    """

    def __init__(
        self,
        store: JobStore,
        followers: Followers,
        credentials: Credentials,
        clock: Clock,
        settings: BackgroundSettings,
        observer: Observer,
        flush: Callable[[str], Awaitable[None]],
        abort: Callable[[str], None],
        unsettled: dict[str, Input],
        outputs: Outputs,
    ) -> None:
        self._store = store
        self._followers = followers
        self._credentials = credentials
        self._clock = clock
        self._settings = settings
        self._observer = observer
        self._flush = flush
        self._abort = abort
        self._unsettled = unsettled
        self._outputs = outputs

    async def close(self, response_id: str, ending: Input) -> bool:
        """End a live job by `ending`; False if it was not live, or somebody else ended it meanwhile.

        Raises:
            StoreUnavailable: Its run may be over, but the job has not ended.
        """
        # Shielded: a client that asks for a cancel and hangs up must not leave a job that nobody runs.
        return await asyncio.shield(self._close(response_id, ending))

    async def finish(self, claim: Claim, ending: Input) -> bool:
        """The second half: end a job that is already ours alone."""
        try:
            await self._finish(claim, ending)
        except ClaimLost:
            return False
        except Exception:  # the store's failure, or a defect: it is nobody else's to end now
            self._unsettled[claim.id] = ending
            raise
        return True

    async def _close(self, response_id: str, ending: Input) -> bool:
        await self._flush(response_id)
        claim = await self._store.take_over(response_id)
        if claim is None:
            return False
        self._abort(response_id)
        return await self.finish(claim, ending)

    async def _finish(self, claim: Claim, ending: Input) -> None:
        async with self._outputs.reading(await self._store.events_bytes(claim.id)):
            outcome = await self._outcome(claim, ending)
            now_ms = self._clock.now_ms()
            expires_at_ms = now_ms + int(self._settings.retention_s * 1000)
            await self._store.finish(claim, outcome, now_ms=now_ms, expires_at_ms=expires_at_ms)
        self._credentials.forget(claim.id)
        self._followers.committed(
            claim.id, outcome.first_seq, outcome.event_count, outcome.events, is_end=True
        )
        ran_s = claim.job.ran_s(now_ms)
        self._observer.job_finished(
            claim.id, claim.job.backend, outcome.status, outcome.code, outcome.reason, ran_s
        )

    async def _outcome(self, claim: Claim, ending: Input) -> Outcome:
        stored = [await self._store.all_events(claim.id)]
        now_s = self._clock.now_s()
        if len(stored[0]) > _REPLAY_INLINE_BYTES_MAX:
            return await asyncio.to_thread(self._replayed, claim, stored, ending, now_s)
        return self._replayed(claim, stored, ending, now_s)

    def _replayed(self, claim: Claim, stored: list[bytes], ending: Input, now_s: int) -> Outcome:
        """Takes what is stored out of its list: it is not in memory any more when the ending is made."""
        bytes_max = self._settings.events_bytes_max
        with closing(self._outputs.shelf()) as shelf:
            try:
                machine = JobMachine.restored(
                    claim.job, stored.pop(), events_bytes_max=bytes_max, shelf=shelf
                )
            except Unreadable:  # it has to end all the same, whoever asked, or it would be asked for ever
                line("defect", level=logging.ERROR, id=claim.id, exc_info=True)
                machine, ending = JobMachine(claim.job, events_bytes_max=bytes_max), _DAMAGED
            for command in machine.receive(ending, now_s=now_s):
                if isinstance(command, Finish):
                    return command.outcome
        raise AssertionError(f"{ending!r} does not end a job")
