"""What is noted of the items of a response whose ids do not say where they are: eight bytes for each."""

from __future__ import annotations

import hashlib
from array import array


def key_of(item_id: str) -> int:
    """Whoever finds one looks at the item itself: eight bytes are enough to find it."""
    return int.from_bytes(hashlib.sha256(item_id.encode()).digest()[:8], "little", signed=True)


def keys_of(item_ids: tuple[str, ...]) -> bytes | None:
    """The keys of all of them; None of none."""
    return array("q", map(key_of, item_ids)).tobytes() if item_ids else None
