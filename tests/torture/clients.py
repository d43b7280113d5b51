"""A crowd of clients that do everything a client can do, all the time, and never give up.

Each goes through one response after the other: creates it (streamed or not, with an `Idempotency-Key` or
without), reads, hangs up, comes back with its cursor, polls, cancels, deletes. What it is told goes into the
journal before it goes on.
"""

from __future__ import annotations

import asyncio
import random
import secrets
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import aiohttp
import orjson

from tests.acceptance.harness import Gateway, frames, payload
from tests.torture.gateway import HEADERS
from tests.torture.journal import TERMINAL, Journal
from tests.torture.model import create_body

Act = Literal["wait", "hang up", "cancel", "delete"]

_LOST = (aiohttp.ClientError, OSError, TimeoutError)
_RETRY_S = 0.05
_REFUSED_S = 0.2
_SILENCE_S = 30.0


class Address(Protocol):
    """Of a gateway, or of one of several: it may be another at every look."""

    @property
    def url(self) -> str: ...


@dataclass(frozen=True, slots=True)
class Mix:
    """What the clients do. Pairs are ranges, shares are of 1. A fault is the model server's, in the middle of
    the text of a job's first call."""

    streamed: float = 0.6
    keyed: float = 0.3
    acts: tuple[Act, ...] = ("wait", "wait", "hang up", "cancel", "delete")
    deltas: tuple[int, int] = (3, 60)
    paces_ms: tuple[int, ...] = (0, 2, 10, 30)
    faults: tuple[str, ...] = ("",)


@dataclass(slots=True)
class _Ask:
    tag: str
    is_streamed: bool
    is_keyed: bool
    act: Act
    deltas: int
    pace_ms: int
    fault: str
    id: str = ""
    cursor: int = -1
    is_over: bool = False
    is_gone: bool = False
    is_cancelled: bool = False

    @property
    def body(self) -> dict[str, Any]:
        script: dict[str, Any] = {"deltas": self.deltas, "pace_ms": self.pace_ms}
        if self.fault:
            script |= {"fault": self.fault, "after": self.deltas // 2, "calls": 1}
        return create_body(self.tag, stream=self.is_streamed, **script)

    @property
    def seconds(self) -> float:
        """About how long its answer takes."""
        return self.deltas * max(self.pace_ms, 1) / 1000


class Crowd:
    """An async context: the clients are at work inside it, and end what they have begun when it is left.

    Args:
        gateway: Asked for its address at every call, since it may be another process by then.
        patience_s: A client that has not reached the end of its response so long after the others is left.
    """

    def __init__(
        self,
        gateway: Address,
        journal: Journal,
        clients: int,
        mix: Mix | None = None,
        *,
        patience_s: float = 60,
    ) -> None:
        self._patience_s = patience_s
        self._gateway = gateway
        self._journal = journal
        self._clients = clients
        self._mix = mix or Mix()
        self._prefix = secrets.token_hex(3)
        self._number = 0
        self._is_leaving = False
        self._tasks: list[asyncio.Task[None]] = []
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Crowd:
        # Every request on a connection of its own: an idle one that died with a gateway would be found dead
        # by the next request, and its client would repeat that silently.
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(force_close=True, limit=0),
            timeout=aiohttp.ClientTimeout(total=None, sock_read=_SILENCE_S),
            headers=HEADERS,
        )
        self._tasks = [asyncio.create_task(self._client()) for _ in range(self._clients)]
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._session is not None
        self._is_leaving = True
        await asyncio.wait(self._tasks, timeout=self._patience_s)
        for task in self._tasks:
            task.cancel()  # one that is still there: its response never ends, and the audit will say so
        await asyncio.wait(self._tasks)
        await self._session.close()
        for task in self._tasks:
            if not task.cancelled():
                task.result()

    async def _client(self) -> None:
        while not self._is_leaving:
            await self._play(self._think_of_one())

    def _think_of_one(self) -> _Ask:
        mix = self._mix
        self._number += 1
        return _Ask(
            f"{self._prefix}.{self._number}",
            random.random() < mix.streamed,
            random.random() < mix.keyed,
            random.choice(mix.acts),
            random.randint(*mix.deltas),
            random.choice(mix.paces_ms),
            random.choice(mix.faults),
        )

    async def _play(self, ask: _Ask) -> None:
        async with asyncio.TaskGroup() as group:
            acting = group.create_task(self._act(ask))
            try:
                await self._journal.note("asked", tag=ask.tag)
                if not await self._create(ask):
                    return
                while not (ask.is_over or ask.is_gone):
                    await (self._resume(ask) if ask.is_streamed else self._poll(ask))
                if ask.act in ("cancel", "delete"):
                    await acting
                elif not ask.is_gone:
                    await self._look_at_end(ask)
            finally:
                acting.cancel()

    # -- create

    async def _create(self, ask: _Ask) -> bool:
        """False if it was not accepted, or nobody knows."""
        headers = {"Idempotency-Key": f"key-{ask.tag}"} if ask.is_keyed else {}
        while True:
            try:
                async with self._call("POST", "/responses", headers, ask.body) as answer:
                    if answer.status != 200:
                        await answer.read()
                        await self._journal.note("refused", tag=ask.tag, status=answer.status)
                        await asyncio.sleep(_REFUSED_S)
                        return False
                    if ask.is_streamed and "event-stream" in answer.content_type:
                        await self._read(ask, answer)
                    else:
                        await self._accepted(ask, orjson.loads(await answer.read())["id"])
            except _LOST:
                pass
            if ask.id:
                return True
            if not ask.is_keyed or self._is_leaving:
                return False
            await asyncio.sleep(_RETRY_S)

    async def _accepted(self, ask: _Ask, response_id: str) -> None:
        ask.id = response_id
        await self._journal.note(
            "accepted", id=ask.id, tag=ask.tag, streamed=ask.is_streamed, deltas=ask.deltas
        )

    # -- read

    async def _read(self, ask: _Ask, answer: aiohttp.ClientResponse) -> None:
        """A stream from its cursor on, to its end or to where this client hangs up."""
        hang_up_after = ask.cursor + random.randint(1, ask.deltas) if ask.act == "hang up" else None
        async for events in _blocks(answer):
            contents = [payload(event) for event in events]
            if not ask.id:
                await self._accepted(ask, contents[0]["response"]["id"])
            await self._journal.note("events", id=ask.id, events=[event.decode() for event in events])
            for content in contents:
                if ask.is_over:
                    await self._wrong(ask, f"{content['type']} came after the end")
                if content["sequence_number"] != ask.cursor + 1:
                    await self._wrong(ask, f"{content['sequence_number']} came after {ask.cursor}")
                ask.cursor = content["sequence_number"]
                ask.is_over = content["type"].removeprefix("response.") in TERMINAL
            if hang_up_after is not None and ask.cursor >= hang_up_after and not ask.is_over:
                ask.act = "wait"  # once is enough
                answer.close()
                return

    async def _resume(self, ask: _Ask) -> None:
        path = f"/responses/{ask.id}?stream=true&starting_after={ask.cursor}"
        with suppress(*_LOST):
            async with self._call("GET", path) as answer:
                if answer.status == 200:
                    await self._read(ask, answer)
                else:
                    await self._not_there(ask, answer)
        if not ask.is_over:
            await asyncio.sleep(_RETRY_S)

    async def _poll(self, ask: _Ask) -> None:
        was_cancelled = ask.is_cancelled
        with suppress(*_LOST):
            async with self._call("GET", f"/responses/{ask.id}") as answer:
                body = await answer.read()
                if answer.status != 200:
                    await self._not_there(ask, answer)
                    return
                status = orjson.loads(body)["status"]
                if status in TERMINAL:
                    await self._journal.note("final", id=ask.id, body=body.decode())
                    ask.is_over = True
                    return
                if ask.is_cancelled == was_cancelled:  # else it was read before, and was long on its way
                    await self._journal.note("status", id=ask.id, status=status)
        await asyncio.sleep(random.uniform(_RETRY_S, 4 * _RETRY_S))

    async def _look_at_end(self, ask: _Ask) -> None:
        """A reader of a stream polls once when it has ended."""
        while ask.is_streamed:
            with suppress(*_LOST):
                async with self._call("GET", f"/responses/{ask.id}") as answer:
                    body = await answer.read()
                    if answer.status != 200:
                        await self._not_there(ask, answer)
                    else:
                        await self._journal.note("final", id=ask.id, body=body.decode())
                    return
            await asyncio.sleep(_RETRY_S)

    async def _not_there(self, ask: _Ask, answer: aiohttp.ClientResponse) -> None:
        if answer.status == 503:
            await asyncio.sleep(_RETRY_S)
            return
        ask.is_gone = True
        if answer.status != 404 or ask.act != "delete":
            await self._wrong(ask, f"answered {answer.status}: {(await answer.text())[:200]}")

    # -- act

    async def _act(self, ask: _Ask) -> None:
        """Beside the reading: cancel or delete at some moment of its life, or a little after it."""
        if ask.act not in ("cancel", "delete"):
            return
        while not ask.id:
            await asyncio.sleep(0.005)
        await asyncio.sleep(random.uniform(0, 1.2 * ask.seconds + 0.02))
        await (self._cancel(ask) if ask.act == "cancel" else self._delete(ask))

    async def _cancel(self, ask: _Ask) -> None:
        while True:
            with suppress(*_LOST):
                async with self._call("POST", f"/responses/{ask.id}/cancel") as answer:
                    body = await answer.read()
                if answer.status == 503:  # not now
                    await asyncio.sleep(_REFUSED_S)
                    continue
                if answer.status == 200:
                    ask.is_cancelled = True
                    await self._journal.note("cancelled", id=ask.id, body=body.decode())
                    await self._seal(ask)
                elif answer.status != 400:
                    await self._wrong(ask, f"its cancel was answered {answer.status}")
                return
            await asyncio.sleep(_RETRY_S)

    async def _seal(self, ask: _Ask) -> None:
        """The log as it is after the cancel: nothing may come to it any more."""
        if ask.is_streamed:
            with suppress(*_LOST):
                async with self._call("GET", f"/responses/{ask.id}?stream=true") as answer:
                    log = await answer.read()
                if answer.status == 200 and _is_whole(log):
                    await self._journal.note("sealed", id=ask.id, log=log.decode())

    async def _delete(self, ask: _Ask) -> None:
        await self._journal.note("delete_asked", id=ask.id)
        is_repeated = False
        while True:
            with suppress(*_LOST):
                async with self._call("DELETE", f"/responses/{ask.id}") as answer:
                    await answer.read()
                if answer.status == 503:
                    await asyncio.sleep(_REFUSED_S)
                    continue
                if answer.status == 200 or (answer.status == 404 and is_repeated):
                    await self._journal.note("deleted", id=ask.id)
                else:
                    await self._wrong(ask, f"its delete was answered {answer.status}")
                return
            is_repeated = True
            await asyncio.sleep(_RETRY_S)

    # -- pieces

    def _call(self, method: str, path: str, headers: dict[str, str] | None = None, body: Any = None) -> Any:
        assert self._session is not None
        data = None if body is None else orjson.dumps(body)
        return self._session.request(method, self._gateway.url + path, data=data, headers=headers)

    async def _wrong(self, ask: _Ask, what: str) -> None:
        await self._journal.note("wrong", id=ask.id, what=what)


def _is_whole(log: bytes) -> bool:
    """Not one that ended early, as with a store that has just gone: whoever reads that comes back."""
    return any(payload(event)["type"].removeprefix("response.") in TERMINAL for event in frames(log)[-1:])


async def _blocks(answer: aiohttp.ClientResponse) -> AsyncIterator[list[bytes]]:
    """The events of a stream, as many at a time as came together."""
    buffer = b""
    async for chunk in answer.content.iter_any():
        whole, separator, buffer = (buffer + chunk).rpartition(b"\n\n")
        if events := frames(whole + separator):
            yield events


async def until_ready(gateway: Gateway, seconds: float = 20) -> None:
    """Wait until it says so itself."""
    deadline = time.monotonic() + seconds
    async with aiohttp.ClientSession() as session:
        while True:
            with suppress(*_LOST):
                async with session.get(f"{gateway.admin}/readyz") as answer:
                    if answer.status == 200:
                        return
            assert time.monotonic() < deadline, "the gateway did not become ready"
            await asyncio.sleep(_RETRY_S)
