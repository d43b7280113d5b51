"""The callers' credentials and private headers, for as long as their jobs need them.

On disk they are sealed, or not at all. Without a key for that they are in memory only, and are lost with the
process. Where another gateway may end the job, and tells nobody of it, they are not in memory either.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from gateway.core.job import Job, NewJob, Sealed
from gateway.engine.sealer import Sealer, Unsealable, missing
from gateway.store.port import SealedStore
from gateway.wire import stored_requests
from gateway.wire.http.head import Credential


@dataclass(frozen=True, slots=True)
class CallerHeaders:
    """What goes with a call but not to disk in clear.

    Attributes:
        others: Headers that nothing is known about: a key may stand in any of them.
    """

    credential: Credential | None
    others: dict[str, str] = field(repr=False)


class SealingKeyMissing(Exception):
    """Jobs wait whose credentials cannot be opened; the text says by which key they were sealed."""


class Credentials:
    """Kept from acceptance to the end of the job.

    Args:
        are_shared: Another gateway may run a job, and end it.
    """

    def __init__(self, sealer: Sealer | None, *, are_shared: bool = False) -> None:
        self._sealer = sealer
        self._are_shared = are_shared
        self._held: dict[str, CallerHeaders] = {}

    def keep(self, job: NewJob, headers: CallerHeaders, *, may_seal: bool) -> Sealed | None:
        """What to store with the job; None: they are held in memory, if they may be.

        Args:
            may_seal: False where the call is made with a key of the gateway's own: it needs none of these.
        """
        must_seal = self._are_shared and bool(headers.others)
        if self._sealer is None or not (may_seal or must_seal):
            if not self._are_shared:
                self._held[job.id] = headers
            return None
        own = headers.credential
        text = stored_requests.private_bytes((own.name, own.value) if own else None, headers.others)
        return self._sealer.seal(text, owner=job.id, tenant=job.tenant)

    def of(self, job: Job, sealed: Sealed | None) -> CallerHeaders | None:
        """Those of a job; None if they were in the memory of a process that has ended.

        Raises:
            Unsealable: They are there, and cannot be read.
        """
        if sealed is None:
            return self._held.get(job.id)
        if self._sealer is None:
            raise Unsealable(missing(sealed.key_id))
        own, others = stored_requests.private_of(self._sealer.open(sealed, owner=job.id, tenant=job.tenant))
        return CallerHeaders(Credential(*own) if own else None, others)

    def is_in_memory_only(self, response_id: str) -> bool:
        """Whether a credential of its caller would be lost with the process."""
        held = self._held.get(response_id)
        return held is not None and held.credential is not None

    def forget(self, response_id: str) -> None:
        """The store forgets by itself what is sealed."""
        self._held.pop(response_id, None)

    async def take_stock(self, store: SealedStore, *, may_fail_jobs: bool) -> None:
        """At a start: whether what was sealed can be opened. Raises: SealingKeyMissing."""
        known = self._sealer.key_ids if self._sealer is not None else ()
        lost = {key: jobs for key, jobs in (await store.sealing_keys()).items() if key not in known}
        if lost and not may_fail_jobs:
            keys = ", ".join(f"'{key}' ({jobs})" for key, jobs in lost.items())
            raise SealingKeyMissing(
                f"credentials of waiting jobs are sealed by keys that are not configured: {keys}. "
                "Give them again (credentials.sealing_keys), or let those jobs fail "
                "(credentials.missing_key: fail_jobs)"
            )
