"""Calls of the fast lane: over connections of their own, balanced and counted with all others.

Here nothing is tried again. A call that was not answered goes back to whoever made it, with what came of it,
and the one loop of `outbound.calls` judges it and goes on.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Callable
from typing import Final

import aiohttp

from gateway import loop
from gateway.config import UpstreamSettings
from gateway.core.call import Begun, PlainCall
from gateway.core.quick import AnswerHead, Listener, Prepared
from gateway.core.reason import Reason
from gateway.observe import Observer
from gateway.outbound.budget import RetryBudget
from gateway.outbound.client import FAILURES, IDLE_CONNECTION_S
from gateway.outbound.connection import HttpConnection
from gateway.outbound.connector import BackendConnector
from gateway.outbound.pool import Pool, Replica
from gateway.outbound.tries import is_as_if_unsent
from gateway.wire.http.head import Head
from gateway.wire.http.messages import Pairs, serialised, sized

_ID: Final = str(uuid.uuid4())
"""Stands for the request's id in a head that is made ready. No caller knows it, or a header could have it."""

_DIED: Final = (aiohttp.ClientOSError, aiohttp.ServerDisconnectedError)

_TICK_S: Final = 1.0
_TRUSTED_S: Final = 0.5
"""Idle seconds for which a connection is reused without asking the kernel, which takes time: only a server
that is shutting down closes one so soon."""


class HttpQuickCalls:
    """Those to one backend.

    Args:
        headers: The headers with which a call goes on, as for every plain one.
    """

    def __init__(
        self,
        pool: Pool,
        budget: RetryBudget,
        connector: BackendConnector,
        settings: UpstreamSettings,
        headers: Callable[[PlainCall], Pairs],
        observer: Observer,
    ) -> None:
        self.pool = pool
        self.budget = budget
        self.observer = observer
        self._settings = settings
        self._headers = headers
        self._connector = connector
        self._idle: dict[Replica, list[HttpConnection]] = {replica: [] for replica in pool.replicas}
        self._hosts = {
            replica: f"Host: {replica.origin.host_port_subcomponent}\r\n".encode()
            for replica in pool.replicas
        }
        self._calls: set[HttpQuickCall] = set()
        shortest_s = min(settings.plain_head_timeout_s, settings.idle_timeout_s)
        self._ticker = loop.Ticker(min(_TICK_S, shortest_s / 2), self._tick)
        self.head_ticks = self._ticker.ticks(settings.plain_head_timeout_s)
        self.idle_ticks = self._ticker.ticks(settings.idle_timeout_s)

    def close(self) -> None:
        """Close all connections."""
        self._ticker.stop()
        for call in tuple(self._calls):
            call.drop()
        for wires in self._idle.values():
            for wire in wires:
                wire.close()
            wires.clear()

    def prepare(self, head: Head, size: int | None = None) -> Prepared:
        call = PlainCall(_ID, head.method, head.target, head.headers, 0, body=lambda: None, bytes=size)
        headers = self._headers(call)
        if size is None:
            headers = sized(head, headers)
        before, _, after = serialised("", headers).removeprefix(b"\r\n").partition(_ID.encode())
        return Prepared(
            head.method, f"{head.method} {head.target} HTTP/1.1\r\n".encode(), before, after + b"\r\n"
        )

    def call(
        self, prepared: Prepared, body: bytes, request_id: str, listener: Listener
    ) -> HttpQuickCall | None:
        replica = self.pool.pick()
        if replica is None:
            return None
        head = (
            prepared.line,
            self._hosts[replica],
            prepared.before,
            request_id.encode(),
            prepared.after,
            body,
        )
        call = HttpQuickCall(self, replica, prepared.method, b"".join(head), listener)
        self.pool.begin(replica, is_background=False)
        self._calls.add(call)
        self._ticker.wake()
        if (wire := self._idle_wire(replica)) is not None:
            call.start(wire)
        else:
            call.task = asyncio.create_task(self._connect(call), name="connecting")
        return call

    def ended(self, call: HttpQuickCall) -> None:
        """A call is over; its connection may serve the next one."""
        self._calls.discard(call)
        self.pool.end(call.replica, is_background=False)
        if call.wire is not None:
            self._keep(call.replica, call.wire)

    # -- connections

    def _keep(self, replica: Replica, wire: HttpConnection) -> None:
        if wire.is_open:
            wire.idle_since_s = time.monotonic()
            self._idle[replica].append(wire)
            self._ticker.wake()

    def _idle_wire(self, replica: Replica) -> HttpConnection | None:
        wires = self._idle[replica]
        if not wires:
            return None
        now_s = time.monotonic()
        while wires:
            wire = wires.pop()
            idle_s = now_s - wire.idle_since_s
            if wire.is_open and (
                idle_s < _TRUSTED_S or (idle_s < IDLE_CONNECTION_S and wire.is_established())
            ):
                return wire
            wire.close()
        return None

    async def _connect(self, call: HttpQuickCall) -> None:
        try:
            wire = await self._connector.connect(call.replica.origin)
        except FAILURES as error:
            call.unreached(error)
            return
        except Exception:  # a defect: its client must not wait for ever
            call.unreached(aiohttp.ClientError())
            raise
        if call.is_over:
            self._keep(call.replica, wire)
        else:
            call.start(wire)

    def _tick(self) -> bool:
        for call in tuple(self._calls):
            call.tick()
        now_s = time.monotonic()
        for replica, wires in self._idle.items():
            for wire in wires:
                if now_s - wire.idle_since_s >= IDLE_CONNECTION_S:
                    wire.close()
            self._idle[replica] = [wire for wire in wires if wire.is_open]
        return bool(self._calls) or any(self._idle.values())


class HttpQuickCall:
    """One of them, at one server.

    Attributes:
        wire: Its connection, once it has one.
        task: Gets one.
    """

    __slots__ = (
        "_calls",
        "_has_moved",
        "_is_answered",
        "_is_paused",
        "_listener",
        "_method",
        "_request",
        "_started_s",
        "_still",
        "is_over",
        "replica",
        "task",
        "wire",
    )

    def __init__(
        self, calls: HttpQuickCalls, replica: Replica, method: str, request: bytes, listener: Listener
    ) -> None:
        self._calls = calls
        self._method = method
        self._request = request
        self._listener = listener
        self._is_answered = self._is_paused = self._has_moved = False
        self._still = 0  # ticks since anything came
        self._started_s = time.monotonic()
        self.replica = replica
        self.wire: HttpConnection | None = None
        self.task: asyncio.Task[None] | None = None
        self.is_over = False

    def start(self, wire: HttpConnection) -> None:
        """There is a connection."""
        self.wire = wire
        self._still = 0
        wire.send(self, self._request, shows_bodies=self._method != "HEAD")

    # -- for whoever called

    def pause(self) -> None:
        self._is_paused = True
        if self.wire is not None:
            self.wire.pause()

    def resume(self) -> None:
        self._is_paused = False
        if self.wire is not None:
            self.wire.resume()

    def drop(self) -> None:
        if self.wire is not None:
            self.wire.close()
        self._over()

    # -- for the connection

    def answered(self, head: AnswerHead, body: bytes, is_end: bool) -> None:
        self._is_answered = self._has_moved = True
        calls = self._calls
        calls.budget.called()
        calls.observer.upstream_answered("passthrough", time.monotonic() - self._started_s)
        calls.pool.answered(self.replica, head.status, takes_jobs=False)
        if is_end:
            self._over()
        self._listener.answered(head, body, is_end)

    def received(self, body: bytes, is_end: bool) -> None:
        self._has_moved = True
        if is_end:
            self._over()
        self._listener.received(body, is_end)

    def broke(self, error: Exception, *, is_unsent: bool) -> None:
        assert self.wire is not None
        has_died = isinstance(error, _DIED)  # else the server has answered, in its way
        again = has_died and is_as_if_unsent(self._method, is_used=self.wire.is_used, is_unsent=is_unsent)
        self._fail(None if again else error, Reason.CUT)

    def unreached(self, error: Exception) -> None:
        """There is no connection."""
        if not self.is_over:
            self._fail(error, Reason.CUT)

    def tick(self) -> None:
        """Some time has passed."""
        if self._has_moved or self._is_paused or self.wire is None:
            self._has_moved, self._still = False, 0
            return
        self._still += 1
        if self._still >= (self._calls.idle_ticks if self._is_answered else self._calls.head_ticks):
            self.wire.close()
            self._fail(TimeoutError(), Reason.TIMEOUT)

    def _fail(self, error: Exception | None, reason: Reason) -> None:
        is_answered = self._is_answered
        self._over()
        if is_answered:
            self._listener.cut(reason)
            return
        if error is not None:
            self._calls.budget.called()
        self._listener.failed(None if error is None else Begun(self.replica, error))

    def _over(self) -> None:
        if not self.is_over:
            self.is_over = True
            self._calls.ended(self)
