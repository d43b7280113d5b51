"""Jobs and events in PostgreSQL, shared by several gateways."""

from __future__ import annotations

import asyncio
import functools
import json
import secrets
from collections.abc import Callable, Collection, Mapping
from typing import TYPE_CHECKING, Any

import asyncpg

from gateway.config import StoreSettings
from gateway.core.job import (
    Claim,
    ClaimLost,
    Idempotency,
    Job,
    KeyReused,
    NewJob,
    Outcome,
    Status,
    StoreUnavailable,
)
from gateway.observe import Observer
from gateway.store import bells
from gateway.store.bells import OUTBOX
from gateway.store.port import DeletedJob, Page, QueueLimits, StoredRequest, Work
from gateway.store.postgres import items, operations
from gateway.store.postgres.bells import PostgresBells
from gateway.store.postgres.connections import Connections, PostgresConnector
from gateway.store.postgres.health import Health
from gateway.store.postgres.insight import PostgresInsight
from gateway.store.postgres.membership import Membership
from gateway.store.postgres.notes import PostgresNotes
from gateway.store.postgres.outbox import PostgresOutbox
from gateway.store.postgres.pages import Pages
from gateway.store.postgres.queries import QUERIES
from gateway.store.postgres.startup import prepare
from gateway.store.postgres.writer import Writer
from gateway.store.pushes import NoPushes, Pushes
from gateway.store.rows import Appended, to_call, to_job
from gateway.wire.conversation.items import Turn
from gateway.wire.sse import split_frames

if TYPE_CHECKING:
    from gateway.store.postgres.peers.peers import Peers

_NEVER_MS = 2**62
_MANY = 2**31 - 1
_PURGED_ROWS = 500
_MOVED_ROWS = 1000
"""Rows moved by one statement: an append to one of their jobs waits for it."""


class PostgresStore:
    """The `JobStore` of one of several gateways. Open it with `open`; it must be closed."""

    def __init__(self, settings: StoreSettings, observer: Observer, gateway_id: str, pepper: bytes) -> None:
        connector = PostgresConnector(settings, gateway_id)
        self._health = Health(observer)
        self._owner = gateway_id
        self._reading = Connections(connector, settings.readers, self._health)
        self._writer = Writer(connector, self._health, observer, waiting_bytes_max=settings.waiting_bytes_max)
        self._membership = Membership(connector, self._health, gateway_id)
        self._claims = secrets.randbits(40)
        self._lost_claims: list[int] = []
        self._is_closed = False
        self.bells = PostgresBells(connector, gateway_id, is_quiet=settings.pooler)
        self.pushes: Pushes = NoPushes()
        self._peers: Peers | None = None
        runs_at: Callable[[str, str | None], None] | None = None
        if settings.peer_listen is not None:
            from gateway.store.postgres.peers.peers import Peers  # it seals what it sends

            self._peers = Peers(settings, gateway_id, pepper, self.bells, observer, self._listens_at)
            self.pushes = self._peers.subscriptions
            runs_at = self._peers.subscriptions.runs_at
        self._pages = Pages(self._reading, settings.readers, runs_at)
        self.insight = PostgresInsight(self._reading)
        self.outbox = PostgresOutbox(self._reading, self.bells, gateway_id)
        self.notes = PostgresNotes(self._reading, self.bells)
        self.pepper = pepper
        self.wall_ns = self._membership.wall_ns

    @classmethod
    async def open(cls, settings: StoreSettings, observer: Observer) -> PostgresStore:
        """Open the database, and make its tables if they are not there. Raises: see `prepare`."""
        gateway_id = secrets.token_hex(8)
        pepper = await prepare(settings, PostgresConnector(settings, gateway_id))
        store = cls(settings, observer, gateway_id, pepper)
        try:
            if store._peers is not None:
                await store._peers.open()
            await store.beat()
        except BaseException:
            await store.close()
            raise
        return store

    async def close(self) -> None:
        if self._is_closed:
            return
        self._is_closed = True
        if self._peers is not None:
            self._peers.close()
        await self._writer.close()
        await self._reading.close()
        await self._membership.leave()

    async def tend(self) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(self.bells.run(), name="store-bells")
            if self._peers is not None:
                group.create_task(self._peers.run(), name="store-peers")

    def state(self) -> str:
        return self._health.state.name.lower()

    # -- accepting and reading

    async def create(self, job: NewJob, limits: QueueLimits) -> str:
        accepted_id = await self._writer.accept(operations.create(job, limits), str)
        self.bells.ring(bells.queue(job.backend))
        return accepted_id

    async def start(self, job: NewJob, limits: QueueLimits) -> tuple[str, Work | None]:
        return await self.create(job, limits), None  # whose turn it is, a claim finds out for all gateways

    async def record(
        self,
        job: NewJob,
        status: Status,
        final: bytes,
        *,
        finished_at_ms: int,
        expires_at_ms: int,
        item_ids: tuple[str, ...] = (),
    ) -> None:
        statement = operations.record(job, status, final, finished_at_ms, expires_at_ms, item_ids)
        await self._writer.accept(statement, object)

    async def repeated(self, tenant: bytes, idempotency: Idempotency, *, now_ms: int) -> str | None:
        given = {"tenant": tenant, "key": idempotency.key, "now_ms": now_ms}
        row = await self._reading.one(QUERIES["find_idempotent"], **given)
        if row is None:
            return None
        if row["fingerprint"] != idempotency.fingerprint:
            raise KeyReused
        return str(row["id"])

    async def unnamed(self, tenant: bytes, fingerprint: bytes, *, since_ms: int, now_ms: int) -> str | None:
        given = {"tenant": tenant, "fingerprint": fingerprint, "since_ms": since_ms, "now_ms": now_ms}
        row = await self._reading.one(QUERIES["unnamed"], **given)
        return None if row is None else str(row["id"])

    async def name(self, response_id: str) -> None:
        await self._writer.ask(operations.name(response_id), object)

    async def find(self, response_id: str, tenant: bytes, *, now_ms: int) -> Job | None:
        row = await self._reading.one(QUERIES["find_job"], id=response_id, tenant=tenant, now_ms=now_ms)
        return None if row is None else to_job(row)

    async def request_of(self, response_id: str) -> StoredRequest | None:
        row = await self._reading.one(QUERIES["call_by_id"], id=response_id)
        return None if row is None else to_call(row)

    async def turns_before(self, response_id: str, tenant: bytes) -> list[Turn]:
        rows = await self._reading.all(QUERIES["turns_before"], id=response_id, tenant=tenant)
        return [Turn(row["id"], row["input"], row["final"], row["backend"]) for row in rows]

    async def turns_with(
        self, item_ids: Collection[str], tenant: bytes, *, now_ms: int, bytes_max: int
    ) -> list[Turn]:
        return await items.turns_with(self._reading, item_ids, tenant, now_ms=now_ms, bytes_max=bytes_max)

    async def page(
        self, response_id: str, tenant: bytes, *, after: int, bytes_max: int, now_ms: int
    ) -> Page | None:
        return await self._pages.page(response_id, tenant, after=after, bytes_max=bytes_max, now_ms=now_ms)

    async def all_events(self, response_id: str) -> bytes:
        rows = await self._reading.all(QUERIES["all_events"], id=response_id)
        return b"".join(row["events"] for row in rows)

    async def events_bytes(self, response_id: str) -> int:
        row = await self._reading.one(QUERIES["events_bytes"], id=response_id)
        return int(row["bytes"])

    async def sizes(self) -> dict[str, int]:
        return {"db": int((await self._reading.one(QUERIES["size"]))["pg_database_size"])}

    # -- running

    async def claim(
        self,
        limit: int,
        *,
        attempts_max: int,
        now_ms: int,
        backend: str = "default",
        accepted_before_ms: int | None = None,
        resting: Collection[bytes] = (),
        bytes_max: int = 2**20,
        running_max: int | None = None,
    ) -> list[Work]:
        self._claims += 1
        claimed_by = self._claims
        given = {
            "backend": backend,
            "owner": self._owner,
            "claimed_by": claimed_by,
            "limit": limit,
            "running_max": _MANY if running_max is None else running_max,
            "bytes_max": bytes_max,
            "attempts_max": attempts_max,
            "now_ms": now_ms,
            "accepted_before_ms": _NEVER_MS if accepted_before_ms is None else accepted_before_ms,
            "resting": list(resting),
        }
        pks = await self._writer.ask(operations.claim(given), list)
        if not pks:
            return []
        try:
            given = {"pks": pks, "owner": self._owner, "claimed_by": claimed_by}
            rows = await self._reading.all(QUERIES["works"], **given)
            if len(rows) < len(pks):  # taken from us already, or read of another host than it was written to
                self._lost_claims.append(claimed_by)
                return []
            works = []
            for row in rows:
                job = to_job(row)
                turns = await self.turns_before(job.id, job.tenant) if job.has_previous else []
                works.append(Work(job, to_call(row), turns))
        except StoreUnavailable:
            self._lost_claims.append(claimed_by)  # given back when the database is there again
            raise
        return works

    def append(
        self, claim: Claim, first_seq: int, count: int, events: bytes, *, has_output: bool
    ) -> asyncio.Future[None]:
        run = Appended(claim.id, claim.epoch, first_seq, first_seq + count, has_output, events)
        appended = self._writer.append(run)
        appended.add_done_callback(functools.partial(self._tell_others, run))
        return appended

    def _tell_others(self, run: Appended, appended: asyncio.Future[None]) -> None:
        if appended.cancelled() or appended.exception() is not None:
            return
        self.bells.appended(run.id)
        if self._peers is not None:
            self._peers.subscribers.committed(
                run.id, run.first_seq, run.next_seq - 1, run.events, is_end=False
            )

    async def rewind(self, claim: Claim, seq: int) -> None:
        """Events before `seq` stay, also of a segment that goes on beyond it."""

        async def operation(connection: asyncpg.Connection) -> None:
            given: dict[str, Any] = {"id": claim.id, "epoch": claim.epoch, "seq": seq}
            row = await connection.fetchrow(QUERIES["rewind"].text, *QUERIES["rewind"].values(given))
            if row is None:
                raise ClaimLost
            given |= {"pk": row["pk"], "drawer": row["drawer"]}
            rows = await connection.fetch(
                QUERIES["segments_from"].text, *QUERIES["segments_from"].values(given)
            )
            await connection.execute(
                QUERIES["delete_segments"].text, *QUERIES["delete_segments"].values(given)
            )
            for segment in rows:
                first_seq = segment["first_seq"]
                if kept := split_frames(segment["events"])[: max(0, seq - first_seq)]:
                    last_seq = first_seq + len(kept) - 1
                    values = (row["pk"], first_seq, last_seq, b"".join(kept), row["drawer"])
                    await connection.execute(QUERIES["insert_segment"].text, *values)

        await self._reading.transact(operation)

    async def finish(self, claim: Claim, outcome: Outcome, *, now_ms: int, expires_at_ms: int) -> None:
        await self._writer.ask(operations.finish(claim, outcome, now_ms, expires_at_ms), object)
        self._tell(claim.id)
        if self._peers is not None:
            first_seq, last_seq = outcome.first_seq, outcome.first_seq + outcome.event_count - 1
            self._peers.subscribers.committed(claim.id, first_seq, last_seq, outcome.events, is_end=True)
        self.bells.ring(OUTBOX)

    async def take_over(self, response_id: str, *, epoch: int | None = None) -> Claim | None:
        taken = await self._writer.ask(operations.take_over(response_id, self._owner, epoch), object)
        self.bells.ring(bells.claim(response_id))
        return taken if isinstance(taken, Claim) else None

    async def release(
        self, claim: Claim, *, attempts_returned: int, put_offs: int = 0, not_before_ms: int = 0
    ) -> None:
        statement = operations.release(claim, attempts_returned, put_offs, not_before_ms)
        await self._writer.ask(statement, object)
        self.bells.tell(bells.queue(claim.job.backend))

    async def set_priority(self, response_id: str, priority: int) -> bool:
        return await self._writer.ask(operations.set_priority(response_id, priority), bool)

    @property
    def is_first(self) -> bool:
        return self._membership.is_first

    async def beat(self) -> bool:
        return await self._membership.beat()

    async def agree(self, facts: Mapping[str, str], backends: Collection[str]) -> None:
        own = {f"backend.{name}": "" for name in backends}
        if self._peers is not None:
            own[f"peer.{self._owner}"] = self._peers.address
        await self._membership.agree(json.dumps({**facts, **own}))

    async def abandon(self, *, dead_after_s: float) -> None:
        while self._lost_claims:
            lost = self._lost_claims[:]
            await self._reading.all(QUERIES["free_claims"], owner=self._owner, lost=lost)
            del self._lost_claims[: len(lost)]
        if await self._membership.abandon(dead_after_s):
            self.bells.ring_all()

    async def orphans(self, *, attempts_max: int, limit: int) -> list[str]:
        return await self._ids("orphans", attempts_max=attempts_max, limit=limit)

    async def of_other_backends(self, names: Collection[str], *, limit: int) -> list[str]:
        return await self._ids("of_other_backends", backends=list(names), limit=limit)

    async def waiting_since(self, accepted_before_ms: int, *, backend: str, limit: int) -> list[str]:
        given = {"accepted_before_ms": accepted_before_ms, "backend": backend, "limit": limit}
        return await self._ids("waiting_since", **given)

    async def overdue(self, *, now_ms: int, limit: int) -> list[str]:
        return await self._ids("overdue", now_ms=now_ms, owner=self._owner, limit=limit)

    async def sealing_keys(self) -> dict[str, int]:
        return {row["key_id"]: row["jobs"] for row in await self._reading.all(QUERIES["sealing_keys"])}

    # -- going

    async def delete(self, response_id: str, tenant: bytes, *, now_ms: int) -> DeletedJob | None:
        deleted = await self._writer.ask(operations.delete(response_id, tenant, now_ms), object)
        for topic in (bells.claim(response_id), OUTBOX):
            self.bells.ring(topic)
        self._tell(response_id)
        if self._peers is not None:
            self._peers.subscribers.changed(response_id)
        return deleted if isinstance(deleted, DeletedJob) else None

    async def sweep(self, *, now_ms: int) -> int:
        await self._purge("purge_segments", now_ms)
        gone = await self._purge("purge_jobs", now_ms)
        for row in await self._reading.all(QUERIES["turn_drawers"], now_ms=now_ms):
            await self._empty(row["number"], now_ms)
        return gone

    async def _empty(self, drawer: int, now_ms: int) -> None:
        """Empty one whole, but for what is kept."""
        given = {"drawer": drawer, "now_ms": now_ms}
        while (await self._reading.one(QUERIES["move_on"], **given, limit=_MOVED_ROWS))[0]:
            pass
        await self._reading.one(QUERIES["empty_drawer"], **given)

    async def _purge(self, query: str, now_ms: int) -> int:
        """In pieces, between which others write."""
        total = 0
        while rows := await self._reading.all(QUERIES[query], now_ms=now_ms, limit=_PURGED_ROWS):
            total += len(rows)
        return total

    async def reclaim_space(self) -> None:
        """The database sees to it by itself."""

    def _tell(self, response_id: str) -> None:
        """It has ended, or is gone. Who follows it elsewhere may be subscribed to another gateway than this
        one, and has not asked us then."""
        if self._peers is None:
            self.bells.appended(response_id)
        else:
            self.bells.tell(bells.response(response_id))

    async def _listens_at(self, gateway_id: str) -> str | None:
        row = await self._reading.one(QUERIES["listens_at"], id=gateway_id)
        return None if row is None else row["address"]

    async def _ids(self, query: str, **given: Any) -> list[str]:
        return [row["id"] for row in await self._reading.all(QUERIES[query], **given)]
