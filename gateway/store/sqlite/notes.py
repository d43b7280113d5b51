"""Notes in the SQLite file."""

from __future__ import annotations

from typing import Any

import orjson

from gateway.store.bells import Bells, note
from gateway.store.notes import end_of, key
from gateway.store.sqlite.database import Database
from gateway.store.sqlite.queries import QUERIES


class SqliteNotes:
    """Those of one file."""

    def __init__(self, database: Database, bells: Bells) -> None:
        self._database = database
        self._bells = bells

    async def all(self, kind: str) -> dict[str, Any]:
        values = {"first": key(kind), "end": end_of(kind)}
        rows = await self._database.readers.read(lambda raw: raw.execute(QUERIES["notes"], values).fetchall())
        return {row["key"].removeprefix(key(kind)): orjson.loads(row["value"]) for row in rows}

    async def put(self, kind: str, name: str, said: Any) -> None:
        values = {"key": key(kind, name), "value": orjson.dumps(said)}
        await self._database.writer.ask(
            lambda raw: raw.execute(QUERIES["put_meta"], values) and None, len(values["value"])
        )
        self._bells.ring(note(kind))

    async def take(self, kind: str, name: str) -> Any:
        values = {"key": key(kind, name)}
        row = await self._database.writer.ask(
            lambda raw: raw.execute(QUERIES["take_note"], values).fetchone()
        )
        self._bells.ring(note(kind))
        return None if row is None else orjson.loads(row["value"])

    async def drop_before(self, kind: str, name: str) -> None:
        values = {"first": key(kind), "end": key(kind, name)}
        await self._database.writer.ask(lambda raw: raw.execute(QUERIES["drop_notes"], values) and None)
