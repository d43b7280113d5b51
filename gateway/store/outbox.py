"""The events that are still to be told, and to whom: the `Outbox` of the one SQLite file.

Rows come into it by a trigger (sql/schema.sql), in the transaction that ends a job. Here they are looked for,
put off and removed.
"""

from __future__ import annotations

import json
import sqlite3
from collections import Counter
from collections.abc import Collection, Mapping
from typing import Any

from gateway.core.job import Status
from gateway.core.webhooks import OWN_URL, Delivery, Endpoint
from gateway.store.database import Database
from gateway.store.port import Disabled, GivenUp, Waiting
from gateway.store.queries import QUERIES

_PIECE = 500
"""Rows deleted by one operation: other commits get their turn in between."""


class SqliteOutbox:
    """One file's."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def set_endpoints(self, endpoints: Collection[Endpoint]) -> None:
        def operation(raw: sqlite3.Connection) -> None:
            names = json.dumps([endpoint.name for endpoint in endpoints])
            raw.execute(QUERIES["drop_other_endpoints"], {"names": names})
            for endpoint in endpoints:
                raw.execute(
                    QUERIES["put_endpoint"],
                    {
                        "name": endpoint.name,
                        "statuses": json.dumps(sorted(endpoint.statuses)),
                        "tenants": json.dumps(sorted(endpoint.tenants)),
                        "fingerprint": endpoint.fingerprint,
                    },
                )

        await self._database.writer.ask(operation)

    async def due(
        self,
        *,
        now_ms: int,
        under_way: Collection[tuple[str, str]],
        per_lane_max: int,
        own_url_max: int,
    ) -> list[Delivery]:
        return await self._database.readers.read(
            lambda raw: _due(raw, now_ms, under_way, per_lane_max, own_url_max)
        )

    async def remove(self, delivery: Delivery) -> None:
        def operation(raw: sqlite3.Connection, _bytes_max: int = 0) -> None:
            values = {"response": delivery.response_id, "lane": delivery.lane}
            raw.execute(QUERIES["remove_delivery"], values)

        if delivery.url is None:
            await self._database.writer.ask(operation)
        else:  # a caller's text: no byte of it stays in the log
            await self._database.delete(operation)

    async def put_off(self, delivery: Delivery, *, due_at_ms: int, failure: str) -> None:
        values = {
            "response": delivery.response_id,
            "lane": delivery.lane,
            "due_at_ms": due_at_ms,
            "failure": failure,
        }
        await self._database.writer.ask(lambda raw: raw.execute(QUERIES["put_off_delivery"], values) and None)

    async def disable(self, name: str, *, now_ms: int) -> bool:
        values = {"name": name, "now_ms": now_ms}
        return await self._database.writer.ask(
            lambda raw: raw.execute(QUERIES["disable_endpoint"], values).rowcount > 0
        )

    async def enable(self, name: str, *, now_ms: int) -> bool:
        def operation(raw: sqlite3.Connection) -> bool:
            is_there = raw.execute(QUERIES["enable_endpoint"], {"name": name}).rowcount > 0
            if is_there:
                raw.execute(QUERIES["hurry_lane"], {"lane": name, "now_ms": now_ms})
            return is_there

        return await self._database.writer.ask(operation)

    async def hurry(self, response_id: str, *, now_ms: int) -> list[str]:
        values = {"response": response_id, "now_ms": now_ms}
        rows = await self._database.writer.ask(
            lambda raw: raw.execute(QUERIES["hurry_response"], values).fetchall()
        )
        return [row["lane"] for row in rows]

    async def give_up_old(self, *, ended_before_ms: int) -> list[GivenUp]:
        values = {"ended_before_ms": ended_before_ms, "limit": _PIECE}
        return await self._give_up("give_up_old", values)

    async def give_up_surplus(self, lane: str, surplus: int) -> list[GivenUp]:
        return await self._give_up("give_up_surplus", {"lane": lane, "limit": min(surplus, _PIECE)})

    async def _give_up(self, query: str, values: Mapping[str, Any]) -> list[GivenUp]:
        rows = await self._database.delete(lambda raw, _: raw.execute(QUERIES[query], values).fetchall())
        return [GivenUp(row["response"], row["lane"]) for row in rows]

    async def waiting(self) -> list[Waiting]:
        rows = await self._database.readers.read(
            lambda raw: raw.execute(QUERIES["waiting_by_lane"]).fetchall()
        )
        return [Waiting(row["lane"], row["waiting"], row["oldest_ms"]) for row in rows]

    async def disabled(self) -> list[Disabled]:
        rows = await self._database.readers.read(
            lambda raw: raw.execute(QUERIES["disabled_endpoints"]).fetchall()
        )
        return [Disabled(row["name"], row["disabled_at_ms"]) for row in rows]

    async def failing(self, *, limit: int) -> list[Delivery]:
        values = {"limit": limit}
        rows = await self._database.readers.read(
            lambda raw: raw.execute(QUERIES["failing_deliveries"], values).fetchall()
        )
        return [_delivery(row) for row in rows]


def _due(
    raw: sqlite3.Connection,
    now_ms: int,
    under_way: Collection[tuple[str, str]],
    per_lane_max: int,
    own_url_max: int,
) -> list[Delivery]:
    busy = Counter(lane for _, lane in under_way)
    own_free = own_url_max - sum(count for lane, count in busy.items() if lane.startswith(OWN_URL))
    found: list[Delivery] = []
    for lane in raw.execute(QUERIES["lanes"]).fetchall():
        name: str = lane["lane"]
        is_own = name.startswith(OWN_URL)
        free = min(per_lane_max - busy[name], own_free) if is_own else per_lane_max - busy[name]
        if lane["due_at_ms"] > now_ms or free <= 0:
            continue
        # What is under way is still due, and comes first.
        values = {"lane": name, "now_ms": now_ms, "limit": busy[name] + free}
        rows = raw.execute(QUERIES["due_deliveries"], values).fetchall()
        fresh = [each for each in map(_delivery, rows) if each.key not in under_way][:free]
        own_free -= len(fresh) if is_own else 0
        found += fresh
    return found


def _delivery(row: sqlite3.Row) -> Delivery:
    return Delivery(
        response_id=row["response"],
        lane=row["lane"],
        url=row["url"],
        status=Status(row["status"]),
        ended_at_ms=row["ended_at_ms"],
        attempts=row["attempts"],
        due_at_ms=row["due_at_ms"],
        failure=row["failure"],
    )
