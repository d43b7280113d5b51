"""The ids of responses: made here, and known again by their shape, whatever became of the response."""

from __future__ import annotations

import re

_OWN = re.compile(r"(?:resp|req)_[0-9a-f]{48}\Z")


def id_of(drawn: bytes) -> str:
    """The id of a response that is made here, of 24 random bytes."""
    return f"resp_{drawn.hex()}"


def is_own(response_id: str) -> bool:
    """True if an id is of the shape of those made here, by whichever of its names a client uses it.

    No backend is asked for one: it is answered as fast for whoever asks, and one that was deleted is gone.
    OpenAI's are longer (50 digits, 2026), other servers' have other alphabets or lengths.
    """
    return _OWN.match(response_id) is not None
