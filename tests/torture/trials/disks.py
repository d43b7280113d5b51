"""A disk that runs full, or fails: what was promised holds, and no failure is hidden."""

from __future__ import annotations

import asyncio
import random
import subprocess
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import aiohttp

from tests.torture import journal, oracle
from tests.torture.clients import Crowd, Mix
from tests.torture.disk import break_disk, mend_disk
from tests.torture.gateway import HEADERS, Gateway
from tests.torture.journal import Journal, Story
from tests.torture.model import create_body
from tests.torture.trial import Bench, trial
from tests.torture.trials.kills import note_verdict, require_whole

_CLIENTS = 12
_MIB = 2**20
_VOLUME_BYTES = 16 * _MIB
_QUOTA_BYTES = 6 * _MIB
_BODY_BYTES = 200_000
_PLAIN = 20
"""Plain requests in each bad time."""
_PROBE_DELTAS = 2
_OFF_S = 1.0
_BACK_S = 10.0
_WITH_OUTPUT = Mix(deltas=(50, 400), paces_ms=(0, 2, 5))


@trial(
    "T19",
    "a volume of 16 MiB that runs full, and a database that reaches its largest size; then there is room",
    pass_mark="0 damaged; 0 false 200; all plain requests succeed; creates get 503 with Retry-After and "
    f"store_full, or find room and are kept; they are accepted again within {_BACK_S:g} s, without a restart",
    runs=20,
    short_runs=1,
    quick_runs=1,
    round_s=90,
)
async def run_full(bench: Bench) -> None:
    model = await bench.model()
    for number in bench.rounds():
        async with _volume(bench.directory / f"volume-{number}") as volume:
            if volume is not None:
                await _fill_volume(bench, model.url, volume)
            else:
                bench.figure("volume", "no right to mount one here")
        await _fill_quota(bench, model.url)


async def _fill_volume(bench: Bench, upstream: str, volume: Path) -> None:
    """Another program takes all that is free, while responses run, and gives it back."""
    gateway = await bench.prepared(upstream)
    gateway.database = volume / "gateway.db"
    await gateway.start()
    filler = volume / "filler"
    try:
        async with _Busy(bench, gateway) as client:
            await asyncio.sleep(random.uniform(0.5, 1.5))
            _leave_no_byte(filler)
            await client.until_refused(_BODY_BYTES)
            _leave_no_byte(filler)  # what was free in between
            await client.bad_time("store_full")
            filler.unlink()
            await client.until_accepted("volume")
        await gateway.kill9()
        require_whole(bench, gateway, "a full volume")
    finally:
        await gateway.end()


async def _fill_quota(bench: Bench, upstream: str) -> None:
    """Responses take all the room there is, those that run need more, and some are deleted."""
    gateway = await bench.gateway(upstream, store__database_bytes_max=_QUOTA_BYTES, **_SMALL)
    async with _Busy(bench, gateway) as client:
        filled = await client.until_refused(_BODY_BYTES)
        await client.bad_time("store_full")
        for response_id in filled:
            await client.delete(response_id)
        await client.until_accepted("quota")
    await gateway.kill9()
    require_whole(bench, gateway, "a full file")


_SMALL: dict[str, Any] = {"background__body_bytes_max": _MIB, "background__events_bytes_max": _MIB} | {
    "background__event_bytes_max": _MIB,
    "background__store_wait_s": 5,
}


@trial(
    "T20",
    "the disk fails writes and flushes of the log and of the file, under load; then it is mended, or the "
    "process dies before it is",
    pass_mark=f"no 200 after a failed commit; creates refused within {_OFF_S:g} s; 0 refused and run; "
    f"back within {_BACK_S:g} s of the mending",
    runs=50,
    short_runs=2,
    quick_runs=1,
    round_s=40,
)
async def fail_the_disk(bench: Bench) -> None:
    model = await bench.model()
    gateway = await bench.prepared(model.url)
    control = gateway.database.with_name("fault")
    gateway.next_start("--faults", str(control))
    await gateway.start()
    async with Journal(bench.directory / "journal") as notes, Crowd(gateway, notes, _CLIENTS):
        for number in bench.rounds():
            await asyncio.sleep(random.uniform(0.2, 1.0))
            async with _Client(bench, gateway) as client:
                call, where = random.choice(("sync", "write")), random.choice(("-wal", "-wal", ".db"))
                break_disk(control, call=call, file=where, after=random.randrange(8))
                if where == "-wal":
                    await client.until_state("failing", "slowest to refuse s", _OFF_S)
                    await client.bad_time("store_failing")
                else:  # found out when the log is copied into the file, which can wait
                    await asyncio.sleep(1)
                if number % 2:
                    await gateway.kill9()
                    mend_disk(control)
                    require_whole(bench, gateway, f"kill {number} on a failing disk")
                    gateway.next_start("--faults", str(control))
                    await gateway.restart()
                else:
                    mend_disk(control)
                    await client.until_state("ok", "slowest to come back s", _BACK_S)
    told = journal.read(notes.path)
    note_verdict(bench, await oracle.audit(gateway, told.stories.values()))
    run = {call.tag for call in await model.calls()}
    bench.figure("refused", len(told.refused))
    bench.figure("refused and run", len(run & set(told.refused)))
    bench.require(not run & set(told.refused), "creates were refused, and run all the same")


class _Client:
    """One that looks at what goes on in a bad time, and what does not. An async context."""

    def __init__(self, bench: Bench, gateway: Gateway) -> None:
        self._bench = bench
        self._gateway = gateway
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(force_close=True), headers=HEADERS
        )
        self._number = 0
        self._kept: list[Story] = []

    async def __aenter__(self) -> _Client:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._session.close()

    async def create(self, size: int = 0) -> tuple[int, dict[str, Any], str]:
        """Status, body and Retry-After of a create with so much input."""
        self._number += 1
        body = create_body(f"probe.{id(self)}.{self._number}", stream=False, deltas=_PROBE_DELTAS)
        body["input"] = "x" * size
        async with self._session.post(f"{self._gateway.url}/responses", json=body) as answer:
            return answer.status, await answer.json(), answer.headers.get("Retry-After", "")

    async def delete(self, response_id: str) -> None:
        async with self._session.delete(f"{self._gateway.url}/responses/{response_id}") as answer:
            self._bench.require(answer.status == 200, f"a delete was answered {answer.status}")

    async def until_refused(self, size: int) -> list[str]:
        """Create until it is refused. Returns what was accepted."""
        accepted: list[str] = []
        while True:
            status, body, _ = await self.create(size)
            if status != 200:
                return accepted
            accepted.append(body["id"])

    async def bad_time(self, code: str) -> None:
        """Plain requests pass, creates are refused by this code, and are told when to come back.

        On a full disk one may be accepted all the same: a log that has been copied into the file is written
        anew from its beginning, which takes no room. What is accepted then has to be kept like any other.
        """
        is_full = code == "store_full"
        refused = 0
        while refused < _PLAIN:
            body = create_body(f"plain.{refused}", stream=False, background=False, deltas=1)
            async with self._session.post(f"{self._gateway.url}/responses", json=body) as answer:
                self._bench.add("plain requests")
                self._bench.require(answer.status == 200, f"a plain request was answered {answer.status}")
                await answer.read()
            status, told, retry_after = await self.create(_BODY_BYTES if is_full else 0)
            if is_full and status == 200 and len(self._kept) < _PLAIN:
                self._bench.add("found room")
                tag = f"probe.{id(self)}.{self._number}"
                self._kept.append(Story(told["id"], tag, False, _PROBE_DELTAS, time.monotonic()))
                continue
            refused += 1
            self._bench.add("creates refused")
            found = status, (told.get("error") or {}).get("code"), retry_after.isdigit()
            self._bench.require(found == (503, code, True), f"a create was answered {found}")

    async def until_accepted(self, what: str) -> None:
        started = time.monotonic()
        while (await self.create(_BODY_BYTES))[0] != 200 and time.monotonic() < started + 2 * _BACK_S:
            await asyncio.sleep(0.05)
        took_s = time.monotonic() - started
        self._bench.most(f"back after s, {what}", took_s)
        self._bench.require(took_s <= _BACK_S, f"{what}: creates were refused for {took_s:.1f} s more")

    async def until_state(self, state: str, figure: str, limit_s: float) -> None:
        """Wait until `/readyz` shows the store like this."""
        started = time.monotonic()
        while time.monotonic() < started + 3 * limit_s:
            async with self._session.get(f"{self._gateway.admin}/readyz") as answer:
                if (await answer.json())["store"] == state:
                    break
            await asyncio.sleep(0.02)
        took_s = time.monotonic() - started
        self._bench.most(figure, took_s)
        self._bench.require(took_s <= limit_s, f"the store was {state} only after {took_s:.1f} s")


class _Busy(_Client):
    """With a crowd at work, whose every response is audited in the end."""

    async def __aenter__(self) -> _Busy:
        self._notes = Journal(self._gateway.place / f"journal-{id(self)}")
        self._crowd = Crowd(self._gateway, self._notes, _CLIENTS, _WITH_OUTPUT)
        await self._notes.__aenter__()
        await self._crowd.__aenter__()
        return self

    async def __aexit__(self, *error: object) -> None:
        await self._crowd.__aexit__(*error)
        await self._notes.__aexit__(*error)
        await super().__aexit__(*error)
        told = journal.read(self._notes.path)
        note_verdict(self._bench, await oracle.audit(self._gateway, [*told.stories.values(), *self._kept]))


@asynccontextmanager
async def _volume(place: Path) -> AsyncIterator[Path | None]:
    """A small file system of its own; None without the right to mount one."""
    place.mkdir()
    options = f"size={_VOLUME_BYTES},mode=0700"
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", place], capture_output=True)
    try:
        yield None if mounted.returncode else place
    finally:
        if not mounted.returncode:
            subprocess.run(["umount", "--lazy", place], check=True)


def _leave_no_byte(path: Path) -> None:
    with path.open("ab", buffering=0) as file:
        for size in (_MIB, 4096, 1):
            with suppress(OSError):
                while file.write(b"f" * size) == size:
                    pass
