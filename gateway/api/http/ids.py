"""Ids of requests: UUIDs of version 4, as some backends refuse any other kind."""

from __future__ import annotations

import os
from typing import Final

_VARIANTS: Final = dict(zip("0123456789abcdef", "89ab" * 4, strict=True))


def new_request_id() -> str:
    """As `str(uuid.uuid4())`, in a quarter of the time."""
    drawn = os.urandom(16).hex()
    variant = _VARIANTS[drawn[16]]
    return f"{drawn[:8]}-{drawn[8:12]}-4{drawn[13:16]}-{variant}{drawn[17:20]}-{drawn[20:]}"
