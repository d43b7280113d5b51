"""Several gateways on one PostgreSQL: how late events are at another gateway than the one that runs the job,
and what that costs the database."""

from __future__ import annotations

import asyncio
import re
import tempfile
import time
from collections.abc import Callable, Coroutine, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import aiohttp

from benchmarks.client import HEADERS, client, rank
from benchmarks.figure import Figure, Groups, Measure, Trial
from benchmarks.goals import ELSEWHERE
from benchmarks.lab import Lab
from benchmarks.machine import all_cpu_s
from benchmarks.proxies import Proxy
from demo.postgres import Postgres, binaries, postgres

JOBS, RATE = 10, 10
MANY, FAST = 60, 50
UNFOLLOWED = f"{MANY} × {FAST}/s, nobody follows"
RARELY = f"{UNFOLLOWED}, flush_ms 1,000"
_SEALING = "bench:YmFja2J1cm5lciBiZW5jaG1hcmtzLCAzMiBieXRlcyE=\n"
_BEGIN_S = 1.0
"""Until all are followed: what comes before is not measured."""
_STAMPED = re.compile(rb'"delta":"[^"@]*@(\d{16})')


@contextmanager
def _gateways(lab: Lab, count: int, url: str | None, flush_ms: int, *, pushed: bool) -> Iterator[list[Proxy]]:
    """So many on a database; one on a file if there is no URL."""
    settings: dict[str, dict[str, Any]] = {"background": {"flush_ms": flush_ms}}
    if url is not None:
        keys = Path(tempfile.mkdtemp(dir=lab.directory)) / "sealing-keys"
        keys.write_text(_SEALING)
        keys.chmod(0o600)
        settings |= {"store": {"url": url}, "credentials": {"sealing_keys_file": str(keys)}}
        if pushed:
            settings["store"]["peer_listen"] = "127.0.0.1:0"
    with ExitStack() as stack:
        yield [stack.enter_context(lab.gateway(**settings)) for _ in range(count)]


def _owners(gateways: list[Proxy], ids: list[str]) -> list[int]:
    """Which gateway runs each response, by the logs."""
    until_s = time.monotonic() + 10
    while time.monotonic() < until_s:
        logs = [(each.folder / "gateway.log").read_text() for each in gateways]
        runs = [re.findall(r'"id":"([^"]+)","to":"in_progress"', log) for log in logs]
        found = {response_id: number for number, here in enumerate(runs) for response_id in here}
        if found.keys() >= set(ids):
            return [found[response_id] for response_id in ids]
        time.sleep(0.02)
    raise TimeoutError("not all responses were started")


def _elsewhere(creator: int, owner: int, count: int) -> int:
    """Where it is followed: where it was created, or at the next if it runs there."""
    return creator if creator != owner else (owner + 1) % count


async def _follow(
    session: aiohttp.ClientSession, port: int, response_id: str, since_us: float
) -> list[float]:
    """How late each event was that was sent since then, in milliseconds."""
    url = f"http://127.0.0.1:{port}/v1/responses/{response_id}?stream=true"
    async with session.get(url, headers=HEADERS) as answer:
        return [
            (time.monotonic() * 1e6 - sent_us) / 1000
            async for line in answer.content
            if (found := _STAMPED.search(line)) and (sent_us := int(found[1])) >= since_us
        ]


@dataclass(frozen=True, slots=True)
class _Load:
    """What a database has had to do until now: transactions, rows written, bytes of WAL, seconds of CPU."""

    transactions: int
    rows: int
    wal: int
    cpu_s: float
    connections: int

    @classmethod
    async def now(cls, server: Postgres, url: str) -> _Load:
        import asyncpg

        connection = await asyncpg.connect(url)
        row = await connection.fetchrow(
            "SELECT xact_commit, tup_inserted + tup_updated + tup_deleted AS rows, "
            "numbackends - 1 AS connections, pg_wal_lsn_diff(pg_current_wal_lsn(), '0/0')::bigint AS wal "
            "FROM pg_stat_database WHERE datname = current_database()"
        )
        await connection.close()
        return cls(row["xact_commit"], row["rows"], row["wal"], all_cpu_s(server.pid), row["connections"])

    def since(self, before: _Load, took_s: float, events: int) -> dict[str, float]:
        return {
            "transactions": (self.transactions - before.transactions) / took_s,
            "rows": (self.rows - before.rows) / took_s,
            "wal": (self.wal - before.wal) / events,
            "database cpu": (self.cpu_s - before.cpu_s) / events * 1e6,
            "connections": self.connections,
        }


async def _followed(
    lab: Lab, gateways: list[Proxy], server: Postgres | None, url: str | None
) -> Mapping[str, float]:
    seconds = 5 if lab.short else 10
    ids = []
    for number in range(JOBS):
        with client(gateways[number % len(gateways)].port) as asking:
            ids.append(asking.create_streamed(f"n{int((seconds + _BEGIN_S) * RATE)}r{RATE}"))
    since_s = time.monotonic() + _BEGIN_S
    ports = [
        gateways[_elsewhere(number % len(gateways), owner, len(gateways))].port
        for number, owner in enumerate(_owners(gateways, ids))
    ]
    async with aiohttp.ClientSession() as session:
        following = asyncio.gather(
            *(_follow(session, port, each, since_s * 1e6) for port, each in zip(ports, ids, strict=True))
        )
        await asyncio.sleep(_BEGIN_S)
        before = await _Load.now(server, url) if server and url else None
        cpu_s = sum(each.cpu_s() for each in gateways)
        late = [each for follower in await following for each in follower]
        took_s = time.monotonic() - since_s
    found = {
        "cpu": (sum(each.cpu_s() for each in gateways) - cpu_s) / len(late) * 1e6,
        "delay p50": rank(late, 0.5),
        "delay p99": rank(late, 0.99),
    }
    if before and server and url:
        found |= (await _Load.now(server, url)).since(before, took_s, len(late))
    return found


async def _unfollowed(
    lab: Lab, gateways: list[Proxy], server: Postgres | None, url: str | None
) -> Mapping[str, float]:
    """Of jobs that nobody looks at: what each event costs."""
    seconds = 5 if lab.short else 10
    for number in range(MANY):
        with client(gateways[number % len(gateways)].port) as asking:
            asking.create(f"n{int((seconds + 4 * _BEGIN_S) * FAST)}r{FAST}", stream=False)
    await asyncio.sleep(_BEGIN_S)
    before = await _Load.now(server, url) if server and url else None
    cpu_s, deltas = sum(each.cpu_s() for each in gateways), lab.upstream.counts()["deltas"]
    began_s = time.monotonic()
    await asyncio.sleep(seconds)
    took_s, events = time.monotonic() - began_s, lab.upstream.counts()["deltas"] - deltas
    found = {
        "cpu": (sum(each.cpu_s() for each in gateways) - cpu_s) / events * 1e6,
        "events": events / took_s,
    }
    if before and server and url:
        found |= (await _Load.now(server, url)).since(before, took_s, events)
    lab.upstream.until_idle()
    return found


_Measured = Callable[
    [Lab, list[Proxy], Postgres | None, str | None], Coroutine[Any, Any, Mapping[str, float]]
]


def _run(
    lab: Lab,
    measured: _Measured,
    count: int,
    server: Postgres | None,
    flush_ms: int = 100,
    *,
    pushed: bool = False,
) -> Mapping[str, float]:
    url = server.database() if server else None
    with _gateways(lab, count, url, flush_ms, pushed=pushed) as gateways:
        return asyncio.run(measured(lab, gateways, server, url))


def _groups(lab: Lab) -> Groups:
    with ExitStack() as stack:
        server = None
        if binaries() is None:
            lab.skipped["PostgreSQL"] = "there is no initdb in the path or in /usr/lib/postgresql"
        else:
            server = stack.enter_context(postgres(fsync=True))
            lab.pids.append(server.pid)
            stack.callback(lab.pids.remove, server.pid)
        for case, measured in ((ELSEWHERE, _followed), (UNFOLLOWED, _unfollowed)):
            trials = [Trial(case, "SQLite", partial(_run, lab, measured, 1, None))]
            if server is not None:
                trials += [
                    Trial(case, f"PostgreSQL, {count}", partial(_run, lab, measured, count, server))
                    for count in (1, 2, 3)
                ]
                trials += [
                    Trial(
                        case,
                        f"pushed, {count}",
                        partial(_run, lab, measured, count, server, pushed=True),
                    )
                    for count in (2, 3)
                    if case == ELSEWHERE
                ]
            yield trials
        if server is not None:
            yield [Trial(RARELY, "PostgreSQL, 1", partial(_run, lab, _unfollowed, 1, server, 1000))]


REPLICAS = Figure(
    name="replicas",
    title="Several gateways on one PostgreSQL (fsync on)",
    measures={
        "delay p50": Measure("ms"),
        "delay p99": Measure("ms"),
        "cpu": Measure("µs CPU/event"),
        "events": Measure("events/s", more_is_better=True),
        "database cpu": Measure("µs CPU of PostgreSQL/event"),
        "transactions": Measure("transactions/s"),
        "rows": Measure("rows/s"),
        "wal": Measure("bytes of WAL/event"),
        "connections": Measure("connections"),
    },
    groups=_groups,
    charted=("delay p99",),
    anchor="SQLite",
    rounds=5,
    short_rounds=1,
)
