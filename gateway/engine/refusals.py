"""What goes wrong below the engine, as a client is told of it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from gateway.core.job import KeyReused, PreviousGone, StoreUnavailable
from gateway.wire.errors import Fault, Refusal, invalid


def previous_not_found(previous_id: str) -> Refusal:
    """For unknown, expired, deleted and foreign ids alike."""
    return invalid(
        f"Previous response with id '{previous_id}' not found.",
        param="previous_response_id",
        code="previous_response_not_found",
    )


@contextmanager
def refusing() -> Iterator[None]:
    """Around calls of the store."""
    try:
        yield
    except (KeyReused, StoreUnavailable) as error:
        raise refusal_of(error, None) from None


def refusal_of(error: Exception, previous_id: str | None) -> Refusal:
    """Args: previous_id: As the client named it."""
    match error:
        case KeyReused():
            message = "This Idempotency-Key was used for another request."
            return Refusal(Fault.KEY_REUSED, message, code="idempotency_key_reused")
        case PreviousGone():
            return previous_not_found(str(previous_id))
        case StoreUnavailable():
            message = f"The gateway's store cannot be used at the moment: {error.meaning}."
            return Refusal(Fault.UNAVAILABLE, message, code=error.code, retry_after_s=10)
    raise error
