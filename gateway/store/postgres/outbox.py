"""The events that are still to be told, and to whom: the `Outbox` of one database.

Rows come into it by a trigger (sql/migrations), in the transaction that ends a job. Here they are looked for,
put off and removed; one gateway at a time looks, so that limits hold for all of them together.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import asdict
from typing import Any

import asyncpg

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
from gateway.store.postgres.connections import Connections, rows_of
from gateway.store.postgres.queries import QUERIES, Query

_NEVER_MS = 2**62
_PIECE = 500


class PostgresOutbox:
    """The outbox as one gateway works on it."""

    def __init__(self, connections: Connections, bells: Bells, owner: str) -> None:
        self._connections = connections
        self._bells = bells
        self._owner = owner
        self._names: list[str] = []  # endpoints that this gateway knows how to reach

    async def set_endpoints(self, endpoints: Collection[Endpoint], *, due_by_ms: int = _NEVER_MS) -> None:
        async def operation(connection: asyncpg.Connection) -> None:
            await rows_of(connection, QUERIES["lock_outbox"])
            await rows_of(connection, QUERIES["due_by"], due_by_ms=due_by_ms)
            await rows_of(connection, QUERIES["probe_all"])
            names = [endpoint.name for endpoint in endpoints]
            await rows_of(connection, QUERIES["drop_other_endpoints"], names=names)
            for endpoint in endpoints:
                await rows_of(
                    connection,
                    QUERIES["put_endpoint"],
                    name=endpoint.name,
                    statuses=sorted(endpoint.statuses),
                    tenants=sorted(endpoint.tenants),
                    fingerprint=endpoint.fingerprint,
                )

        await self._connections.transact(operation)
        self._names = [endpoint.name for endpoint in endpoints]

    async def claim(self, *, now_ms: int, lease_ms: int, per_lane_max: int, own_url_max: int) -> Due:
        async def operation(connection: asyncpg.Connection) -> Due:
            await rows_of(connection, QUERIES["lock_outbox"])
            lanes = await rows_of(connection, QUERIES["due_lanes"], names=self._names)
            rows = await _due(connection, lanes, now_ms, per_lane_max, own_url_max)
            given = {"pks": [row["pk"] for row in rows], "until_ms": now_ms + lease_ms, "owner": self._owner}
            if rows:
                await rows_of(connection, QUERIES["lease_deliveries"], **given)
            later = [lane["due_at_ms"] for lane in lanes if lane["due_at_ms"] > now_ms]
            return Due([_delivery(row) for row in rows], min(later, default=None))

        return await self._connections.transact(operation)

    async def remove(self, delivery: Delivery, judge: Judge = unchanged) -> tuple[Standing, Standing]:
        async def operation(connection: asyncpg.Connection) -> tuple[Standing, Standing]:
            standings = await _judge(connection, delivery.lane, judge)
            key = {"response": delivery.response_id, "lane": delivery.lane}
            await rows_of(connection, QUERIES["remove_delivery"], **key)
            if not await _has_deliveries(connection, delivery.lane):
                await rows_of(connection, QUERIES["drop_standing"], lane=delivery.lane)
            return standings

        return await self._connections.transact(operation)

    async def put_off(
        self, delivery: Delivery, *, due_at_ms: int, failure: str, judge: Judge = unchanged
    ) -> tuple[Standing, Standing]:
        given = {"response": delivery.response_id, "lane": delivery.lane, "failure": failure}

        async def operation(connection: asyncpg.Connection) -> tuple[Standing, Standing]:
            await rows_of(connection, QUERIES["put_off_delivery"], **given, due_at_ms=due_at_ms)
            return await _judge(connection, delivery.lane, judge)

        return await self._connections.transact(operation)

    async def disable(self, name: str, *, now_ms: int) -> bool:
        row = await self._connections.one(QUERIES["disable_endpoint"], name=name, now_ms=now_ms)
        return row is not None

    async def enable(self, name: str) -> bool:
        async def operation(connection: asyncpg.Connection) -> bool:
            is_there = bool(await rows_of(connection, QUERIES["enable_endpoint"], name=name))
            if is_there:
                await rows_of(connection, QUERIES["drop_standing"], lane=name)
                await rows_of(connection, QUERIES["hurry_lane"], lane=name)
            return is_there

        is_there = await self._connections.transact(operation)
        self._bells.ring(OUTBOX)
        return is_there

    async def hurry(self, response_id: str) -> list[str]:
        async def operation(connection: asyncpg.Connection) -> list[str]:
            rows = await rows_of(connection, QUERIES["hurry_response"], response=response_id)
            await rows_of(connection, QUERIES["probe_lanes_of"], response=response_id)
            return [row["lane"] for row in rows]

        lanes = await self._connections.transact(operation)
        self._bells.ring(OUTBOX)
        return lanes

    async def about(self, response_id: str) -> list[Delivery]:
        rows = await self._connections.all(QUERIES["deliveries_about"], response=response_id)
        return [_delivery(row) for row in rows]

    async def tell_again(self, response_id: str) -> list[str]:
        async def operation(connection: asyncpg.Connection) -> list[str]:
            rows = await rows_of(connection, QUERIES["tell_endpoints_again"], response=response_id)
            rows += await rows_of(connection, QUERIES["tell_caller_again"], response=response_id)
            await rows_of(connection, QUERIES["probe_lanes_of"], response=response_id)
            return [row["lane"] for row in rows]

        lanes = await self._connections.transact(operation)
        self._bells.ring(OUTBOX)
        return lanes

    async def give_up_old(self, *, ended_before_ms: int) -> list[GivenUp]:
        return await self._give_up(QUERIES["give_up_old"], ended_before_ms=ended_before_ms, limit=_PIECE)

    async def give_up_surplus(self, lane: str, surplus: int) -> list[GivenUp]:
        return await self._give_up(QUERIES["give_up_surplus"], lane=lane, limit=min(surplus, _PIECE))

    async def _give_up(self, query: Query, **given: Any) -> list[GivenUp]:
        async def operation(connection: asyncpg.Connection) -> list[GivenUp]:
            rows = await rows_of(connection, query, **given)
            if rows:
                await rows_of(connection, QUERIES["drop_idle_standings"])
            return [GivenUp(row["response"], row["lane"]) for row in rows]

        return await self._connections.transact(operation)

    async def lane_backlogs(self) -> list[LaneBacklog]:
        rows = await self._connections.all(QUERIES["waiting_by_lane"])
        return [
            LaneBacklog(row["lane"], row["waiting"], row["oldest_ms"], row["down_since_ms"]) for row in rows
        ]

    async def disabled(self) -> list[Disabled]:
        rows = await self._connections.all(QUERIES["disabled_endpoints"])
        return [Disabled(row["name"], row["disabled_at_ms"]) for row in rows]

    async def failing(self, *, limit: int) -> list[Delivery]:
        rows = await self._connections.all(QUERIES["failing_deliveries"], limit=limit)
        return [_delivery(row) for row in rows]


async def _has_deliveries(connection: asyncpg.Connection, lane: str) -> bool:
    return bool((await rows_of(connection, QUERIES["has_deliveries"], lane=lane))[0]["exists"])


async def _judge(connection: asyncpg.Connection, lane: str, judge: Judge) -> tuple[Standing, Standing]:
    """The standing of a lane's receiver, before and now. Of a lane where nothing waits none is known."""
    rows = await rows_of(connection, QUERIES["standing"], lane=lane)
    before = Standing(*rows[0]) if rows else UP
    after = judge(before)
    if after != before and after == UP:
        await rows_of(connection, QUERIES["drop_standing"], lane=lane)
    elif after != before and await _has_deliveries(connection, lane):
        await rows_of(connection, QUERIES["put_standing"], **asdict(after), lane=lane)
    return before, after


async def _due(
    connection: asyncpg.Connection, lanes: list[Any], now_ms: int, per_lane_max: int, own_url_max: int
) -> list[Any]:
    leased = await rows_of(connection, QUERIES["leased_by_lane"], now_ms=now_ms)
    room = AttemptLimits({row["lane"]: row["jobs"] for row in leased}, per_lane_max, own_url_max)
    found: list[Any] = []
    for lane in lanes:
        is_down = lane["down_since_ms"] is not None
        if lane["due_at_ms"] <= now_ms and (free := room.at(lane["name"], is_down=is_down)) > 0:
            first = (await _first_due(connection, lane["name"], now_ms, free, is_down=is_down))[:free]
            room.take(lane["name"], len(first))
            found += first
    return found


async def _first_due(
    connection: asyncpg.Connection, lane: str, now_ms: int, limit: int, *, is_down: bool
) -> list[Any]:
    put_off = await rows_of(connection, QUERIES["due_put_off"], lane=lane, now_ms=now_ms, limit=limit)
    fresh = await rows_of(connection, QUERIES["due_fresh"], lane=lane, now_ms=now_ms, limit=limit)
    return in_order(put_off, fresh, is_down=is_down)


def _delivery(row: Any) -> Delivery:
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
