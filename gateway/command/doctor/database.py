"""What a store is like that gateways share: does it answer, how soon does it commit, is its clock right."""

from __future__ import annotations

import statistics
import time

from gateway.command.doctor.findings import Finding, Level
from gateway.config import StoreSettings

_COMMITS = 20
_COMMIT_S_SLOW, _COMMIT_S_BAD = 0.02, 0.2
_SKEW_S_NOTE, _SKEW_S_BAD = 5.0, 60.0
_VERSION_MIN = 140_000
"""PostgreSQL 14, as `server_version_num` says it."""


async def database(settings: StoreSettings) -> list[Finding]:
    """What is found at `store.url`."""
    try:
        import asyncpg
    except ModuleNotFoundError:
        advice = "install backburner[postgres]"
        return [Finding("store", "answers", Level.WRONG, "the package asyncpg is not there", advice)]
    assert settings.url is not None
    limit_s = settings.connect_timeout_s
    try:
        connection = await asyncpg.connect(
            settings.url.get_secret_value(), timeout=limit_s, command_timeout=limit_s, statement_cache_size=0
        )
        try:
            asked_s = time.time()
            now = await connection.fetchrow(
                "SELECT extract(epoch FROM clock_timestamp())::float8 AS now_s, "
                "current_setting('server_version_num')::int AS number, "
                "current_setting('server_version') AS name, current_setting('synchronous_commit') AS durable"
            )
            ahead_s = now["now_s"] - (asked_s + time.time()) / 2
            took_s = []
            for _ in range(_COMMITS):
                started_s = time.perf_counter()
                # Goes to the log and is flushed like any commit, and no table has it.
                await connection.execute("SELECT pg_logical_emit_message(true, 'backburner', 'doctor')")
                took_s.append(time.perf_counter() - started_s)
        finally:
            await connection.close(timeout=limit_s)
    except (TimeoutError, OSError, asyncpg.PostgresError, asyncpg.InterfaceError, ValueError) as error:
        said = f"no: {type(error).__name__}"  # its text may have a part of the URL
        return [Finding("store", "answers", Level.WRONG, said, "look at store.url, and at the server's log")]
    return [
        _version(now["number"], now["name"]),
        _commits(took_s, is_flushed=now["durable"] != "off", settings=settings),
        _clock(ahead_s),
    ]


def _version(number: int, name: str) -> Finding:
    if number < _VERSION_MIN:
        return Finding("store", "answers", Level.WRONG, f"PostgreSQL {name}", "14 or newer is needed")
    return Finding("store", "answers", Level.OK, f"PostgreSQL {name}")


def _commits(took_s: list[float], *, is_flushed: bool, settings: StoreSettings) -> Finding:
    middle_s, longest_s = statistics.median(took_s), max(took_s)
    said = f"{middle_s * 1000:.1f} ms, at most {longest_s * 1000:.1f} ms"
    if not is_flushed and settings.durability == "disk":
        advice = "synchronous_commit is off there: turn it on, or set store.durability: process"
        return Finding("store", "commit time", Level.WRONG, said, advice)
    if middle_s < _COMMIT_S_SLOW:
        return Finding("store", "commit time", Level.OK, said)
    level = Level.WRONG if middle_s >= _COMMIT_S_BAD else Level.NOTE
    advice = "each create waits for one: a database that is nearer, or a faster disk"
    return Finding("store", "commit time", level, said, advice)


def _clock(ahead_s: float) -> Finding:
    check, apart_s = "against the store", abs(ahead_s)
    if apart_s < _SKEW_S_NOTE:
        return Finding("clock", check, Level.OK, "as the database's clock")
    level = Level.NOTE if apart_s < _SKEW_S_BAD else Level.WRONG
    said = f"the database is {apart_s:.0f} s {'ahead' if ahead_s > 0 else 'behind'}"
    return Finding("clock", check, level, said, "run NTP here and there")
