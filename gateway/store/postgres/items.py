"""In which response an item is: how one is found."""

from __future__ import annotations

from array import array
from collections import defaultdict
from collections.abc import Iterable

from gateway.core.job import TooMuchNamed
from gateway.store.item_keys import key_of
from gateway.store.postgres.connections import Connections
from gateway.store.postgres.queries import QUERIES
from gateway.wire.conversation.items import Turn
from gateway.wire.item_ids import ItemPosition, position_of

_SEARCHED_MAX = 100_000
"""So many of a tenant's responses are searched, the newest, in pieces."""
_PIECE = 1_000

_Found = tuple[int, ItemPosition]
"""A job, and where in it the item is."""


async def turns_with(
    reading: Connections, item_ids: Iterable[str], tenant: bytes, *, now_ms: int, bytes_max: int
) -> list[Turn]:
    """The responses in which these items are, newest first, without what need not be read of them.

    Raises:
        TooMuchNamed: It would be more than so many bytes.
    """
    search = _Search(reading, tenant, now_ms)
    told = {item_id: await search.told_by(item_id) for item_id in item_ids}
    found = await search.looked_up([item_id for item_id, where in told.items() if where is None])
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
    # Each statement sees the tables as they are then; what is not there any more is not found.
    sizes = [await reading.one(QUERIES["size_of_turn"], **part) for part in wanted]
    if sum(row["size"] for row in sizes if row is not None) > bytes_max:
        raise TooMuchNamed
    rows = [await reading.one(QUERIES["part_of_turn"], **part) for part in wanted]
    return [Turn(row["id"], row["input"] or b"", row["final"] or b"") for row in rows if row is not None]


class _Search:
    """Looks for responses of one tenant that are shown: as themselves, or as earlier turns of others."""

    def __init__(self, reading: Connections, tenant: bytes, now_ms: int) -> None:
        self._reading = reading
        self._tenant = tenant
        self._now_ms = now_ms

    async def told_by(self, item_id: str) -> _Found | None:
        """What an id tells by itself."""
        if (told := position_of(item_id)) is None:
            return None
        start, place = told
        row = await self._reading.one(QUERIES["job_by_start"], start=start, tenant=self._tenant)
        return (row["pk"], place) if row is not None and await self._is_shown(row["pk"]) else None

    async def looked_up(self, item_ids: Iterable[str]) -> set[_Found]:
        """The newest responses that have these items."""
        found: set[_Found] = set()
        keys = set(map(key_of, item_ids))
        before, searched = 2**62, 0
        while keys and searched < _SEARCHED_MAX:
            rows = await self._reading.all(
                QUERIES["named_of_tenant"], tenant=self._tenant, before=before, limit=_PIECE
            )
            for row in rows:
                noted = array("q", row["keys"])
                if keys.isdisjoint(noted) or not await self._is_shown(row["job"]):
                    continue
                found.add((row["job"], ItemPosition.OUTPUT if row["in_output"] else ItemPosition.INPUT))
                keys.difference_update(noted)
                if not keys:
                    break
            if len(rows) < _PIECE:
                break
            before, searched = rows[-1]["job"] - 1, searched + len(rows)
        return found

    async def _is_shown(self, pk: int) -> bool:
        row = await self._reading.one(QUERIES["is_shown"], pk=pk, now_ms=self._now_ms)
        return bool(row["exists"])
