"""From one process to the next: what is done with live jobs at a start and at a stop."""

from __future__ import annotations

import logging

from gateway.config import BackgroundSettings
from gateway.core.job import Claim, ClaimLost, StoreUnavailable
from gateway.core.machine import Abandoned
from gateway.engine.closer import Closer
from gateway.observe import Observer, line
from gateway.store.port import JobStore

_SHUT_DOWN = Abandoned(
    "The gateway was shut down before the response was complete; the output so far is kept.",
    "interrupted_by_shutdown",
)


async def take_stock(store: JobStore) -> bool:
    """At a start, with the file ours alone: no owner of before is alive. What waits will be claimed, what
    may not run again the sweeper ends in its first round. False if the store cannot do it now."""
    try:
        await store.void_owners()
    except StoreUnavailable as error:
        line("store_unavailable", level=logging.ERROR, doing="take stock", reason=str(error))
        return False
    return True


async def hand_over(
    claims: list[Claim], store: JobStore, closer: Closer, settings: BackgroundSettings, observer: Observer
) -> None:
    """At a stop, after the runs were stopped: silent jobs go back to be run again from their start, and the
    attempt does not count; the others fail with what they had."""
    for stopped in claims:
        try:
            claim = await store.take_over(stopped.id)
            if claim is None:
                continue
            reruns = settings.recovery == "rerun_if_silent"
            if not (reruns and claim.job.may_rerun(settings.attempts_max + 1)):
                await closer.finish(claim, _SHUT_DOWN)
                continue
            await store.release(claim, attempts_returned=1)
        except ClaimLost:
            continue
        except StoreUnavailable as error:  # as after a crash, the next start sees to it
            line("store_unavailable", level=logging.ERROR, doing="hand over", reason=str(error))
            continue
        observer.job_released(claim.id, "shutdown", 0)
