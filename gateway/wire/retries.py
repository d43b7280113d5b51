"""What a client says of a create that it sends again: a key of its own, or that it is a retry."""

from __future__ import annotations

import re

from gateway.wire.errors import invalid

KEY_PATTERN = r"^[ -~]{1,255}$"
"""Of an `Idempotency-Key`: the characters of a structured field's string (RFC 8941 §3.3.3)."""


def idempotency_key(given: list[str]) -> str | None:
    """What `Idempotency-Key` says (draft-ietf-httpapi-idempotency-key-header-07); taken as it is, quotes too.

    Raises:
        Refusal: It was given more than once, or is no header text that can be stored and compared.
    """
    if not given:
        return None
    if len(given) > 1 or not re.fullmatch(KEY_PATTERN, given[0]):
        raise invalid(
            "'Idempotency-Key' must be given once, with 1 to 255 printable ASCII characters.",
            param="Idempotency-Key",
            code="invalid_idempotency_key",
        )
    return given[0]


def is_retry(count: str | None) -> bool:
    """Whether a client says that it asks again: `X-Stainless-Retry-Count` of the official SDKs."""
    return count is not None and re.fullmatch(r"0*[1-9][0-9]{0,3}", count) is not None
