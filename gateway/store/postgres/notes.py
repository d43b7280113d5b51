"""Notes in PostgreSQL."""

from __future__ import annotations

from typing import Any

import orjson

from gateway.store.bells import Bells, note
from gateway.store.notes import end_of, key
from gateway.store.postgres.connections import Connections
from gateway.store.postgres.queries import QUERIES


class PostgresNotes:
    """Those of one database."""

    def __init__(self, connections: Connections, bells: Bells) -> None:
        self._connections = connections
        self._bells = bells

    async def all(self, kind: str) -> dict[str, Any]:
        rows = await self._connections.all(QUERIES["notes"], first=key(kind), end=end_of(kind))
        return {row["key"].removeprefix(key(kind)): orjson.loads(row["value"]) for row in rows}

    async def put(self, kind: str, name: str, said: Any) -> None:
        await self._connections.all(QUERIES["put_note"], key=key(kind, name), value=orjson.dumps(said))
        self._bells.ring(note(kind))

    async def take(self, kind: str, name: str) -> Any:
        row = await self._connections.one(QUERIES["take_note"], key=key(kind, name))
        self._bells.ring(note(kind))
        return None if row is None else orjson.loads(row["value"])

    async def drop_before(self, kind: str, name: str) -> None:
        await self._connections.all(QUERIES["drop_notes"], first=key(kind), end=key(kind, name))
