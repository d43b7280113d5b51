"""The ids of responses: made here, and known again for this gateway's own whatever became of the response."""

from __future__ import annotations

import hmac
import secrets

from gateway.wire.dialects import Dialect
from gateway.wire.responses import OUR_ID

_MARK_DIGITS = 8
"""One id in 2³² of another server, of the same shape, is taken for one of ours."""


class Ids:
    """Makes ids and knows them again.

    Others have ids of the same shape, another gateway behind this one among them, so the shape says nothing:
    the last digits are a keyed digest of the random ones before them.

    Args:
        pepper: Secret bytes that outlive the process.
    """

    def __init__(self, pepper: bytes, dialect: Dialect) -> None:
        self._key = hmac.digest(pepper, b"ids of responses", "sha256")
        self._dialect = dialect

    def new(self) -> str:
        """160 random bits and the mark."""
        drawn = secrets.token_hex(20)
        return f"resp_{drawn}{self._mark(drawn)}"

    def is_own(self, shown_id: str) -> bool:
        """Whether this gateway has made an id, by whichever of its names a client uses it."""
        stored_id = self._dialect.stored_id(shown_id)
        if not OUR_ID.match(stored_id):
            return False
        drawn, mark = stored_id[len("resp_") : -_MARK_DIGITS], stored_id[-_MARK_DIGITS:]
        return hmac.compare_digest(mark, self._mark(drawn))

    def _mark(self, drawn: str) -> str:
        return hmac.digest(self._key, drawn.encode(), "sha256").hex()[:_MARK_DIGITS]
