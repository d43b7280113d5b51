"""In which response an item is: an index of ids, and what it finds."""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Iterable
from contextlib import closing

from gateway.core.job import TooMuchNamed
from gateway.store.queries import QUERIES
from gateway.wire.item_ids import start_of_response
from gateway.wire.items import Turn


def insert_items(raw: sqlite3.Connection, pk: int, tenant: bytes, item_ids: Iterable[str]) -> None:
    """Enter items of a response."""
    values = [{"pk": pk, "key": _key(tenant, item_id)} for item_id in item_ids]
    if values:
        raw.executemany(QUERIES["insert_item"], values)


def _key(tenant: bytes, item_id: str) -> int:
    digest = hashlib.sha256(tenant + item_id.encode()).digest()
    return int.from_bytes(digest[:8], "big", signed=True)


def turns_with(
    raw: sqlite3.Connection, item_ids: Iterable[str], tenant: bytes, *, now_ms: int, bytes_max: int
) -> list[Turn]:
    """The responses in which these items are, newest first. Raises: TooMuchNamed."""
    found = (_holder(raw, item_id, tenant, now_ms) for item_id in item_ids)
    holders = [{"pk": pk} for pk in sorted({pk for pk in found if pk is not None}, reverse=True)]
    # One by one: each statement sees the file as it is then, and what is not there any more is not found.
    sizes = (raw.execute(QUERIES["holder_size"], holder).fetchone() for holder in holders)
    if sum(row["size"] for row in sizes if row is not None) > bytes_max:
        raise TooMuchNamed
    rows = (raw.execute(QUERIES["holder"], holder).fetchone() for holder in holders)
    return [Turn(row["id"], row["input"], row["final"] or b"") for row in rows if row is not None]


def _holder(raw: sqlite3.Connection, item_id: str, tenant: bytes, now_ms: int) -> int | None:
    """The newest response in which an item is and is shown."""
    values = {"key": _key(tenant, item_id), "start": start_of_response(item_id), "tenant": tenant}
    with closing(raw.execute(QUERIES["holders"], values)) as rows:
        for row in rows:
            if raw.execute(QUERIES["is_shown"], {"pk": row["pk"], "now_ms": now_ms}).fetchone():
                return int(row["pk"])
    return None
