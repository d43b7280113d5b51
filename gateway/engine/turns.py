"""Conversations: what a response goes on from, and what was said before it."""

from __future__ import annotations

import logging
from typing import Any

from gateway.config import BackgroundSettings, ConversationSettings
from gateway.core.acceptance import kept_turn
from gateway.core.backends import JobBackend
from gateway.core.job import IdTaken, Job, PreviousGone, Status, StoreUnavailable, TooMuchNamed
from gateway.engine.clock import Clock
from gateway.engine.refusals import previous_not_found, refusing
from gateway.engine.thoughts import Thoughts
from gateway.observe import line
from gateway.store.port import TurnStore
from gateway.wire import query_strings, responses
from gateway.wire.conversation import items, references
from gateway.wire.errors import Fault, Refusal, invalid, not_found
from gateway.wire.item_ids import NAMED_MAX

CHAINABLE = frozenset({Status.COMPLETED, Status.INCOMPLETE})


class Turns:
    """The turns of conversations.

    Args:
        thoughts: Opens what was sealed of them.
    """

    def __init__(
        self,
        store: TurnStore,
        clock: Clock,
        settings: BackgroundSettings,
        conversations: ConversationSettings,
        thoughts: Thoughts,
    ) -> None:
        self._store = store
        self._clock = clock
        self._settings = settings
        self._conversations = conversations
        self._thoughts = thoughts

    async def input_items(self, job: Job, query: query_strings.ListItems) -> bytes:
        """One page of the input items, those of earlier turns included."""
        with refusing():
            call = await self._store.request_of(job.id)
            turns = await self._store.turns_before(job.id, job.tenant)
        if call is None:
            raise not_found(job.id)
        listed = items.listed(turns, job.id, call.input)
        return items.page(
            listed, limit=query.limit, order=query.order, after=query.after, before=query.before
        )

    async def told(self, input: Any, tenant: bytes, backend: JobBackend) -> Any:
        """An input as it is said: with the items of ours that it names, and with thoughts in clear that were
        sealed here.

        Args:
            backend: Whom it is said to. One that speaks the Responses API to the caller itself may know the
                items that are not here.

        Raises:
            Refusal: It names what is not there, or has what cannot be opened.
        """
        if wanted := references.named_in(input):
            found = await self._items(wanted, tenant)
            missing = next((item_id for item_id in wanted if item_id not in found), None)
            if missing is not None and not _may_know_items(backend):
                raise references.not_found(missing)
            input = references.put_in(input, found) if found else input
        return self._thoughts.opened(input, tenant)

    async def _items(self, wanted: list[str], tenant: bytes) -> dict[str, items.Item]:
        """Those of these items that are here."""
        if len(wanted) > NAMED_MAX:
            raise invalid(f"Too many item references: at most {NAMED_MAX}.", param="input")
        bytes_max = self._conversations.references_bytes_max
        try:
            with refusing():
                turns = await self._store.turns_with(
                    wanted, tenant, now_ms=self._clock.now_ms(), bytes_max=bytes_max
                )
        except TooMuchNamed:
            message = f"The items that the request names are in responses of more than {bytes_max} bytes."
            raise Refusal(Fault.TOO_LARGE, message, param="input", code="request_too_large") from None
        return references.found_in(turns, frozenset(wanted))

    async def record(
        self,
        body: dict[str, Any],
        final: bytes,
        *,
        response_id: str,
        status: Status,
        item_ids: tuple[str, ...],
        tenant: bytes,
        previous: Job | None,
        backend: str,
    ) -> bool:
        """Keep a plain response as a turn. One that cannot be kept is only not to be gone on from.

        Args:
            item_ids: Of the output: see `Outcome`.
            previous: What it went on from, if that was ours.

        Returns:
            Whether it is there.
        """
        if previous is None and isinstance(body.get("previous_response_id"), str):
            return False  # the backend's own: it knows the context, we do not
        now_ms = self._clock.now_ms()
        turn = kept_turn(
            body,
            response_id=response_id,
            tenant=tenant,
            previous_id=previous.id if previous is not None else None,
            backend=backend,
            now_ms=now_ms,
        )
        expires_at_ms = now_ms + int(self._settings.retention_s * 1000)
        try:
            await self._store.record(
                turn,
                status,
                final,
                finished_at_ms=now_ms,
                expires_at_ms=expires_at_ms,
                item_ids=item_ids,
            )
        except (IdTaken, PreviousGone, StoreUnavailable) as error:
            line("not_recorded", level=logging.WARNING, id=response_id, reason=type(error).__name__)
            return False
        return True

    async def up_to(self, previous: Job, named_id: str) -> list[items.Turn]:
        """The turns of a conversation to one of our responses, whatever its client calls it. Raises: Refusal,
        if it cannot be continued."""
        check_chainable(previous, named_id)
        with refusing():
            call = await self._store.request_of(previous.id)
            turns = await self._store.turns_before(previous.id, previous.tenant)
        if call is None or previous.final is None:
            raise previous_not_found(named_id)
        return [*turns, items.Turn(previous.id, call.input, previous.final, previous.backend)]


def check_chainable(previous: Job, named_id: object) -> None:
    """Let a response be gone on from, whatever its client calls it. Raises: Refusal, if it cannot be."""
    if previous.final is not None and previous.status in CHAINABLE:
        if not previous.has_previous and responses.goes_on(previous.final):
            raise invalid(
                f"Response '{named_id}' goes on from a response of the backend's own, "
                "whose content the gateway does not have: it cannot be continued here.",
                param="previous_response_id",
                code="previous_response_not_usable",
            )
        return
    is_over = previous.status.is_terminal
    raise invalid(
        f"Response '{named_id}' is {'' if is_over else 'still '}{previous.status.value}; "
        "only a completed or incomplete response can be continued.",
        param="previous_response_id",
        code="previous_response_not_usable" if is_over else "previous_response_not_ready",
    )


def _may_know_items(backend: JobBackend) -> bool:
    """Whether an item may be in a backend's own store, and is shown to its caller only."""
    return backend.sees_callers and not backend.speech.is_translated
