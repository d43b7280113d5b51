"""Several gateways on one PostgreSQL: how late events are at another gateway than the one that runs the job,
and what that costs the database."""

from __future__ import annotations

import asyncio
import re
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

import aiohttp

from benchmarks.client import HEADERS, client, rank
from benchmarks.figure import Figure, Groups, Measure, Trial
from benchmarks.goals import ELSEWHERE
from benchmarks.lab import Lab
from benchmarks.proxies import Proxy
from demo.postgres import Postgres, binaries, postgres

JOBS, RATE = 10, 10
_SEALING = "bench:YmFja2J1cm5lciBiZW5jaG1hcmtzLCAzMiBieXRlcyE=\n"
_BEGIN_S = 1.0
"""Until all are followed: what comes before is not measured."""
_STAMPED = re.compile(rb'"delta":"[^"@]*@(\d{16})')


@contextmanager
def _gateways(lab: Lab, count: int, url: str | None) -> Iterator[list[Proxy]]:
    """So many on a database; one on a file if there is no URL."""
    settings = {}
    if url is not None:
        keys = Path(tempfile.mkdtemp(dir=lab.directory)) / "sealing-keys"
        keys.write_text(_SEALING)
        keys.chmod(0o600)
        settings = {"store": {"url": url}, "credentials": {"sealing_keys_file": str(keys)}}
    with ExitStack() as stack:
        yield [stack.enter_context(lab.gateway(**settings)) for _ in range(count)]


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


async def _load(url: str | None) -> tuple[int, int]:
    """Transactions that a database has committed, and rows that were written."""
    if url is None:
        return 0, 0
    import asyncpg

    connection = await asyncpg.connect(url)
    row = await connection.fetchrow(
        "SELECT xact_commit, tup_inserted + tup_updated + tup_deleted AS rows FROM pg_stat_database "
        "WHERE datname = current_database()"
    )
    await connection.close()
    return row["xact_commit"], row["rows"]


async def _measure(lab: Lab, gateways: list[Proxy], url: str | None) -> Mapping[str, float]:
    seconds = 5 if lab.short else 10
    ids = []
    for number in range(JOBS):
        with client(gateways[number % len(gateways)].port) as asking:
            ids.append(asking.create_streamed(f"n{int((seconds + _BEGIN_S) * RATE)}r{RATE}"))
    since_s = time.monotonic() + _BEGIN_S
    ports = [gateways[(number + 1) % len(gateways)].port for number in range(JOBS)]
    async with aiohttp.ClientSession() as session:
        following = asyncio.gather(
            *(_follow(session, port, each, since_s * 1e6) for port, each in zip(ports, ids, strict=True))
        )
        await asyncio.sleep(_BEGIN_S)
        before, cpu_s = await _load(url), sum(each.cpu_s() for each in gateways)
        late = [each for follower in await following for each in follower]
        took_s, after = time.monotonic() - since_s, await _load(url)
    found = {
        "cpu": (sum(each.cpu_s() for each in gateways) - cpu_s) / len(late) * 1e6,
        "delay p50": rank(late, 0.5),
        "delay p99": rank(late, 0.99),
    }
    if url is not None:
        found["transactions"], found["rows"] = (
            (now - then) / took_s for now, then in zip(after, before, strict=True)
        )
    return found


def _run(lab: Lab, count: int, url: str | None) -> Mapping[str, float]:
    with _gateways(lab, count, url) as gateways:
        return asyncio.run(_measure(lab, gateways, url))


def _groups(lab: Lab) -> Groups:
    trials = [Trial(ELSEWHERE, "SQLite", partial(_run, lab, 1, None))]
    with ExitStack() as stack:
        if binaries() is None:
            lab.skipped["PostgreSQL"] = "there is no initdb in the path or in /usr/lib/postgresql"
        else:
            server: Postgres = stack.enter_context(postgres(fsync=True))
            lab.pids.append(server.pid)
            stack.callback(lab.pids.remove, server.pid)
            trials += [
                Trial(ELSEWHERE, f"PostgreSQL, {count}", partial(_run, lab, count, server.database()))
                for count in (1, 2, 3)
            ]
        yield trials


REPLICAS = Figure(
    name="replicas",
    title="Several gateways on one PostgreSQL (fsync on), each stream followed at another gateway",
    measures={
        "delay p50": Measure("ms"),
        "delay p99": Measure("ms"),
        "cpu": Measure("µs CPU/event"),
        "transactions": Measure("transactions/s"),
        "rows": Measure("rows/s"),
    },
    groups=_groups,
    charted=("delay p99",),
    anchor="SQLite",
    rounds=5,
    short_rounds=1,
)
