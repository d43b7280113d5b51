"""What operators can do: end, delete, move and repeat a job, and hold a backend's queue.

Each job ends through the one gate (`endings`), and is made anew through the one way in (`Jobs.accept`). What
is said of backends holds until it is taken back (`orders`).
"""

from __future__ import annotations

import secrets

from gateway.core.transcript import CancelRequested
from gateway.engine.bulk import Bulk, rank_of
from gateway.engine.circumstances import Circumstances
from gateway.engine.credentials import CallerHeaders
from gateway.engine.endings import Endings
from gateway.engine.jobs import Jobs, Repeat, Submission
from gateway.engine.orders import PAUSE, SLOTS
from gateway.engine.refusals import previous_not_found, refusing
from gateway.wire import stored_requests
from gateway.wire.errors import Fault, Refusal, invalid, not_found
from gateway.wire.response_ids import id_of


class Actions:
    """The changes that operators make.

    Attributes:
        bulk: Those of many jobs at once.
    """

    def __init__(self, circumstances: Circumstances, endings: Endings, jobs: Jobs) -> None:
        self._store = endings.store
        self._insight = endings.store.insight
        self._backends = circumstances.backends
        self._controls = circumstances.controls
        self._orders = circumstances.orders
        self._endings = endings
        self._jobs = jobs
        self.bulk = Bulk(endings, self.rerun)

    # -- jobs

    async def cancel(self, response_id: str) -> bool:
        """End a job; False if it is over already. Raises: Refusal, if there is none."""
        with refusing():
            if await self._insight.details(response_id) is None:
                raise not_found(response_id)
            return await self._endings.end(response_id, CancelRequested())

    async def delete(self, response_id: str) -> None:
        """Make a job that is over vanish, with all that is stored of it. Raises: Refusal, if it cannot."""
        with refusing():
            details = await self._insight.details(response_id)
            if details is None:
                raise not_found(response_id)
            if not details.status.is_terminal:
                raise invalid("It is not over yet: cancel it first.", code="not_over")
            if not await self._endings.delete(response_id, bytes.fromhex(details.tenant)):
                raise not_found(response_id)

    async def move(self, response_id: str, tier: str) -> bool:
        """Put a job that waits for its first start into another tier; False: it does not. Raises: Refusal."""
        with refusing():
            if await self._insight.details(response_id) is None:
                raise not_found(response_id)
            return await self._store.set_priority(response_id, rank_of(tier))

    async def rerun(self, response_id: str, *, request_id: str) -> str:
        """Make a new job of the same caller with what a job that is over was asked for. Returns its id.

        The caller's credential and private headers went with the end of the job, so that is done only where
        the backend's calls are made without them. A URL of the caller's own is not told of the new one, whose
        id it does not know.

        Raises:
            Refusal: It cannot be done, or nothing is accepted at present.
        """
        with refusing():
            details = await self._insight.details(response_id)
            call = await self._store.request_of(response_id)
        if details is None or call is None:
            raise not_found(response_id)
        if not details.status.is_terminal:
            raise invalid("It is not over yet: cancel it first.", code="not_over")
        backend = self._backends.get(details.backend)
        if backend is None:
            raise invalid("The settings have its backend no more.", code="backend_removed")
        if backend.sees_callers:
            raise invalid(
                f"{details.backend} is called with the credentials of callers, and this one's went with the "
                "end of the job: only its caller can send it again.",
                code="credential_gone",
            )
        body = stored_requests.body_of(call.request, call.input)
        if details.previous is not None:
            body["previous_response_id"] = details.previous
        tenant = bytes.fromhex(details.tenant)

        async def vetted(is_previous_ours: bool) -> Submission:
            if details.previous is not None and not is_previous_ours:
                raise previous_not_found(details.previous)
            return Submission(
                response_id=id_of(secrets.token_bytes(24)),
                tenant=tenant,
                backend=backend,
                body=body,
                target=call.target,
                stored_headers=stored_requests.headers_of(call.headers),
                held_headers=CallerHeaders(None, {}),
                request_id=request_id,
            )

        accepted = await self._jobs.accept(tenant, Repeat(), details.previous, vetted)
        return accepted.response_id

    # -- backends

    async def pause(self, backend: str, *, by: str | None) -> None:
        """Start no more jobs at a backend; those that run go on. Raises: Refusal."""
        self._check(backend)
        with refusing():
            await self._orders.give(PAUSE, backend, by=by)

    async def resume(self, backend: str) -> None:
        """Start jobs there again. Raises: Refusal."""
        self._check(backend)
        with refusing():
            await self._orders.take_back(PAUSE, backend)

    async def resize(self, backend: str, slots: int | None, *, by: str | None) -> None:
        """How many jobs may run at each replica of a backend; None: as the settings say. Raises: Refusal."""
        self._check(backend)
        least = self._controls.slots_min(backend)
        if slots is not None and slots < least:
            message = f"slots must be more than foreground_reserved, which is {least - 1}."
            raise invalid(message, param="slots")
        with refusing():
            if slots is None:
                await self._orders.take_back(SLOTS, backend)
            else:
                await self._orders.give(SLOTS, backend, by=by, slots=slots)

    def _check(self, backend: str) -> None:
        if backend not in self._backends.names:
            names = ", ".join(self._backends.names)
            raise Refusal(Fault.NOT_FOUND, f"No backend of this name; there are {names}.", code="not_found")
