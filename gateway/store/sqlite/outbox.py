"""The events that are still to be told, and to whom: the `Outbox` of the one SQLite file.

Rows come into it by a trigger (sql/schema.sql), in the transaction that ends a job, and are counted by
others. Here they are looked for, put off and removed.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Collection, Mapping
from dataclasses import asdict
from typing import Any

from gateway.core.job import Status
from gateway.core.webhooks import (
    UP,
    Delivery,
    Endpoint,
    Judge,
    Standing,
    unchanged,
)
from gateway.store.bells import OUTBOX, Bells
from gateway.store.lanes import AttemptLimits, in_order
from gateway.store.outbox import Disabled, Due, GivenUp, LaneBacklog
from gateway.store.sqlite.database import Database
from gateway.store.sqlite.queries import QUERIES

_NEVER_MS = 2**62
_PIECE = 500
"""Rows deleted by one operation, so that other commits get their turn in between."""


class SqliteOutbox:
    """One file's."""

    def __init__(self, database: Database, bells: Bells) -> None:
        self._database = database
        self._bells = bells

    async def set_endpoints(self, endpoints: Collection[Endpoint], *, due_by_ms: int = _NEVER_MS) -> None:
        def operation(raw: sqlite3.Connection) -> None:
            raw.execute(QUERIES["due_by"], {"due_by_ms": due_by_ms})
            raw.execute(QUERIES["probe_all"])
            raw.execute(QUERIES["free_deliveries"])
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

    async def claim(self, *, now_ms: int, lease_ms: int, per_lane_max: int, own_url_max: int) -> Due:
        def operation(raw: sqlite3.Connection) -> Due:
            rows = _due(raw, now_ms, per_lane_max, own_url_max)
            for row in rows:
                raw.execute(QUERIES["lease_delivery"], {"pk": row["pk"], "until_ms": now_ms + lease_ms})
            (next_at_ms,) = raw.execute(QUERIES["next_due"], {"now_ms": now_ms}).fetchone()
            return Due([_delivery(row) for row in rows], next_at_ms)

        return await self._database.writer.ask(operation)

    async def remove(self, delivery: Delivery, judge: Judge = unchanged) -> tuple[Standing, Standing]:
        def operation(raw: sqlite3.Connection, _bytes_max: int = 0) -> tuple[Standing, Standing]:
            values = {"response": delivery.response_id, "lane": delivery.lane}
            standings = _judge(raw, delivery.lane, judge)
            raw.execute(QUERIES["remove_delivery"], values)
            return standings

        if delivery.url is None:
            return await self._database.writer.ask(operation)
        # a caller's text: no byte of it stays in the log
        return await self._database.delete(operation)

    async def put_off(
        self, delivery: Delivery, *, due_at_ms: int, failure: str, judge: Judge = unchanged
    ) -> tuple[Standing, Standing]:
        values = {
            "response": delivery.response_id,
            "lane": delivery.lane,
            "due_at_ms": due_at_ms,
            "failure": failure,
        }

        def operation(raw: sqlite3.Connection) -> tuple[Standing, Standing]:
            raw.execute(QUERIES["put_off_delivery"], values)
            return _judge(raw, delivery.lane, judge)

        return await self._database.writer.ask(operation)

    async def disable(self, name: str, *, now_ms: int) -> bool:
        values = {"name": name, "now_ms": now_ms}
        return await self._database.writer.ask(
            lambda raw: raw.execute(QUERIES["disable_endpoint"], values).rowcount > 0
        )

    async def enable(self, name: str) -> bool:
        def operation(raw: sqlite3.Connection) -> bool:
            is_there = raw.execute(QUERIES["enable_endpoint"], {"name": name}).rowcount > 0
            if is_there:
                _judge(raw, name, lambda _: UP)
                raw.execute(QUERIES["hurry_lane"], {"lane": name})
            return is_there

        is_there = await self._database.writer.ask(operation)
        self._bells.ring(OUTBOX)
        return is_there

    async def hurry(self, response_id: str) -> list[str]:
        def operation(raw: sqlite3.Connection) -> list[str]:
            rows = raw.execute(QUERIES["hurry_response"], {"response": response_id}).fetchall()
            raw.execute(QUERIES["probe_lanes_of"], {"response": response_id})
            return [row["lane"] for row in rows]

        lanes = await self._database.writer.ask(operation)
        self._bells.ring(OUTBOX)
        return lanes

    async def about(self, response_id: str) -> list[Delivery]:
        values = {"response": response_id}
        rows = await self._database.readers.read(
            lambda raw: raw.execute(QUERIES["deliveries_about"], values).fetchall()
        )
        return [_delivery(row) for row in rows]

    async def tell_again(self, response_id: str) -> list[str]:
        def operation(raw: sqlite3.Connection) -> list[str]:
            values = {"response": response_id}
            rows = raw.execute(QUERIES["tell_endpoints_again"], values).fetchall()
            rows += raw.execute(QUERIES["tell_caller_again"], values).fetchall()
            raw.execute(QUERIES["probe_lanes_of"], values)
            return [row["lane"] for row in rows]

        lanes = await self._database.writer.ask(operation)
        self._bells.ring(OUTBOX)
        return lanes

    async def give_up_old(self, *, ended_before_ms: int) -> list[GivenUp]:
        values = {"ended_before_ms": ended_before_ms, "limit": _PIECE}
        return await self._give_up("give_up_old", values)

    async def give_up_surplus(self, lane: str, surplus: int) -> list[GivenUp]:
        return await self._give_up("give_up_surplus", {"lane": lane, "limit": min(surplus, _PIECE)})

    async def _give_up(self, query: str, values: Mapping[str, Any]) -> list[GivenUp]:
        rows = await self._database.delete(lambda raw, _: raw.execute(QUERIES[query], values).fetchall())
        return [GivenUp(row["response"], row["lane"]) for row in rows]

    async def lane_backlogs(self) -> list[LaneBacklog]:
        rows = await self._database.readers.read(
            lambda raw: raw.execute(QUERIES["waiting_by_lane"]).fetchall()
        )
        return [
            LaneBacklog(row["name"], row["waiting"], row["oldest_ms"], row["down_since_ms"]) for row in rows
        ]

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


def _judge(raw: sqlite3.Connection, lane: str, judge: Judge) -> tuple[Standing, Standing]:
    """The standing of a lane's receiver, before and now. Of a lane where nothing waits none is known."""
    row = raw.execute(QUERIES["standing"], {"lane": lane}).fetchone()
    before = UP if row is None else Standing(*row)
    after = judge(before)
    if row is not None and after != before:
        raw.execute(QUERIES["put_standing"], {**asdict(after), "lane": lane})
    return before, after


def _due(raw: sqlite3.Connection, now_ms: int, per_lane_max: int, own_url_max: int) -> list[sqlite3.Row]:
    in_lane = dict(raw.execute(QUERIES["leased_by_lane"], {"now_ms": now_ms}).fetchall())
    room = AttemptLimits(in_lane, per_lane_max, own_url_max)
    lanes = raw.execute(QUERIES["due_lanes_of_endpoints"], {"now_ms": now_ms}).fetchall()
    if room.own_free > 0:
        # Of so many, some have room: each of the others has an attempt under way.
        values = {"now_ms": now_ms, "busy": json.dumps(room.busy()), "limit": own_url_max}
        lanes += raw.execute(QUERIES["due_lanes_of_callers"], values).fetchall()
    found: list[sqlite3.Row] = []
    for name, down_since_ms in lanes:
        is_down = down_since_ms is not None
        if (free := room.at(name, is_down=is_down)) > 0:
            first = _first_due(raw, {"lane": name, "now_ms": now_ms, "limit": free}, is_down=is_down)[:free]
            room.take(name, len(first))
            found += first
    return found


def _first_due(raw: sqlite3.Connection, values: Mapping[str, Any], *, is_down: bool) -> list[sqlite3.Row]:
    put_off = raw.execute(QUERIES["due_put_off"], values).fetchall()
    fresh = raw.execute(QUERIES["due_fresh"], values).fetchall()
    return in_order(put_off, fresh, is_down=is_down)


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
