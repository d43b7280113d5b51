"""In which response an item is: what is noted of items, and how one is found."""

from __future__ import annotations

import sqlite3
from array import array
from collections import defaultdict
from collections.abc import Iterable
from contextlib import closing

from gateway.core.job import TooMuchNamed
from gateway.store.item_keys import key_of, keys_of
from gateway.store.sqlite.queries import QUERIES
from gateway.wire.conversation.items import Turn
from gateway.wire.item_ids import ItemPosition, position_of

_SEARCHED_MAX = 100_000
"""So many of a tenant's responses are searched, the newest: some tenths of a second."""

_Found = tuple[int, ItemPosition]
"""A job, and where in it the item is."""


def note_items(
    raw: sqlite3.Connection, pk: int, tenant: bytes, place: ItemPosition, item_ids: tuple[str, ...]
) -> None:
    """Note down what items a response has."""
    if keys := keys_of(item_ids):
        values = {"pk": pk, "tenant": tenant, "in_output": int(place is ItemPosition.OUTPUT), "keys": keys}
        raw.execute(QUERIES["insert_named"], values)


def turns_with(
    raw: sqlite3.Connection, item_ids: Iterable[str], tenant: bytes, *, now_ms: int, bytes_max: int
) -> list[Turn]:
    """The responses in which these items are, newest first, without what need not be read of them.

    Raises:
        TooMuchNamed: It would be more than so many bytes.
    """
    search = _Search(raw, tenant, now_ms)
    told = {item_id: search.told_by(item_id) for item_id in item_ids}
    found = search.looked_up([item_id for item_id, where in told.items() if where is None])
    places: defaultdict[int, set[ItemPosition]] = defaultdict(set)
    for where in (*told.values(), *found):
        if where is not None:
            places[where[0]].add(where[1])
    wanted = [
        {
            "pk": pk,
            "with_input": ItemPosition.INPUT in places[pk],
            "with_final": ItemPosition.OUTPUT in places[pk],
        }
        for pk in sorted(places, reverse=True)
    ]
    # Each statement sees the file as it is then; what is not there any more is not found.
    sizes = (raw.execute(QUERIES["size_of_turn"], part).fetchone() for part in wanted)
    if sum(row["size"] for row in sizes if row is not None) > bytes_max:
        raise TooMuchNamed
    rows = (raw.execute(QUERIES["part_of_turn"], part).fetchone() for part in wanted)
    return [Turn(row["id"], row["input"] or b"", row["final"] or b"") for row in rows if row is not None]


class _Search:
    """Looks for responses of one tenant that are shown: as themselves, or as earlier turns of others."""

    def __init__(self, raw: sqlite3.Connection, tenant: bytes, now_ms: int) -> None:
        self._raw = raw
        self._tenant = tenant
        self._now_ms = now_ms

    def told_by(self, item_id: str) -> _Found | None:
        """What an id tells by itself."""
        if (told := position_of(item_id)) is None:
            return None
        start, place = told
        values = {"start": start, "tenant": self._tenant}
        row = self._raw.execute(QUERIES["job_by_start"], values).fetchone()
        return (row["pk"], place) if row is not None and self._is_shown(row["pk"]) else None

    def looked_up(self, item_ids: Iterable[str]) -> set[_Found]:
        """The newest responses that have these items."""
        found: set[_Found] = set()
        keys = set(map(key_of, item_ids))
        if not keys:
            return found
        values = {"tenant": self._tenant, "limit": _SEARCHED_MAX}
        with closing(self._raw.execute(QUERIES["named_of_tenant"], values)) as rows:
            for row in rows:
                noted = array("q", row["keys"])
                if keys.isdisjoint(noted) or not self._is_shown(row["job"]):
                    continue
                found.add((row["job"], ItemPosition.OUTPUT if row["in_output"] else ItemPosition.INPUT))
                keys.difference_update(noted)
                if not keys:
                    break
        return found

    def _is_shown(self, pk: int) -> bool:
        values = {"pk": pk, "now_ms": self._now_ms}
        return self._raw.execute(QUERIES["is_shown"], values).fetchone() is not None
