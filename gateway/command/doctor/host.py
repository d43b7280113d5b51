"""Looks at what is around the gateway: the place of its store, the clock, file descriptors, and itself."""

from __future__ import annotations

import os
import resource
import shutil
import sqlite3
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gateway.command.admin import Admin, look
from gateway.command.doctor.findings import Finding, Level
from gateway.command.status import NotDone
from gateway.config import Settings, StoreSettings
from gateway.process import are_few_files, files_wanted
from gateway.store.sqlite.file import beside
from gateway.store.sqlite.filesystem import filesystem_magic, unfit

_FLUSHES, _FLUSH_BYTES = 20, 4096
_FLUSH_S_SLOW, _FLUSH_S_BAD = 0.02, 0.2
_FREE_BYTES_MIN = 64 * 2**20
_MIB = 2**20
_FUTURE_S = 5.0
_SKEW_S_NOTE, _SKEW_S_BAD = 5.0, 60.0
"""A signature of a webhook counts for five minutes, and a token until its `exp`."""
# Magic numbers of statfs(2), linux/magic.h.
_PASSING = {0x01021994: "in memory (tmpfs)", 0x794C7630: "in the container's own layer (overlay)"}


# -- the store


def store(settings: StoreSettings) -> Iterator[Finding]:
    """Whether it can be written, how long a flush takes, and how much room there is."""
    database = settings.database.absolute()
    folder = database.parent
    if not folder.is_dir():
        yield Finding(
            "store", "place", Level.WRONG, f"there is no directory {folder}", "make it: store.database"
        )
        return
    yield _place(database, settings)
    try:
        took_s = _flushed(folder)
    except OSError as error:
        said = f"{folder} cannot be written: {error.strerror}"
        yield Finding("store", "can write", Level.WRONG, said, f"its owner should be user {os.getuid()}")
        return
    yield _writable(database)
    yield _flush(took_s, settings)
    yield _room(database, settings)


def _place(database: Path, settings: StoreSettings) -> Finding:
    if why := unfit(database.parent, allow_fuse=settings.allow_fuse):
        return Finding("store", "place", Level.WRONG, f"{database} {why}", "store.database on a local disk")
    if what := _PASSING.get(filesystem_magic(database.parent)):
        advice = "lost with it: store.database on a volume"
        return Finding("store", "place", Level.NOTE, f"{database} is {what}", advice)
    return Finding("store", "place", Level.OK, f"{database}, SQLite {sqlite3.sqlite_version}")


def _writable(database: Path) -> Finding:
    files = [path for suffix in ("", "-wal", "-shm") if (path := beside(database, suffix)).exists()]
    others = [path.name for path in files if not os.access(path, os.R_OK | os.W_OK)]
    if others:
        advice = f"its owner should be user {os.getuid()}"
        return Finding("store", "can write", Level.WRONG, f"{', '.join(others)} cannot be opened", advice)
    return Finding("store", "can write", Level.OK, "yes" if files else "yes; the file is not there yet")


def _flushed(folder: Path) -> list[float]:
    """How long flushes took of a small write beside the database. Raises: OSError."""
    took_s = []
    with tempfile.NamedTemporaryFile(dir=folder, prefix=".backburner-doctor-") as file:
        for _ in range(_FLUSHES):
            file.write(os.urandom(_FLUSH_BYTES))
            started_s = time.perf_counter()
            file.flush()
            os.fsync(file.fileno())
            took_s.append(time.perf_counter() - started_s)
    return took_s


def _flush(took_s: list[float], settings: StoreSettings) -> Finding:
    middle_s, longest_s = statistics.median(took_s), max(took_s)
    said = f"{middle_s * 1000:.1f} ms, at most {longest_s * 1000:.1f} ms"
    if settings.durability == "process" or middle_s < _FLUSH_S_SLOW:
        return Finding("store", "flush time", Level.OK, said)
    level = Level.WRONG if middle_s >= _FLUSH_S_BAD else Level.NOTE
    advice = "each create waits for one: store.database on a local SSD"
    return Finding("store", "flush time", level, said, advice)


def _room(database: Path, settings: StoreSettings) -> Finding:
    there = sum(
        path.stat().st_size
        for suffix in ("", "-wal", ".ballast")
        if (path := beside(database, suffix)).exists()
    )
    free = shutil.disk_usage(database.parent).free
    wanted = settings.database_bytes_max + settings.wal_bytes_max + settings.ballast_bytes
    said = f"{free // _MIB} MiB, {there // _MIB} MiB are taken already"
    if free < _FREE_BYTES_MIN:
        return Finding("store", "free space", Level.WRONG, said, "new responses are refused when it is full")
    if free + there >= wanted:
        return Finding("store", "free space", Level.OK, said)
    least = free + there - settings.wal_bytes_max - settings.ballast_bytes
    fits = max(_FREE_BYTES_MIN, int(0.8 * least)) // _MIB * _MIB
    advice = f"the settings allow {wanted // _MIB} MiB: a larger disk, or"
    return Finding("store", "free space", Level.NOTE, said, advice, (("store.database_bytes_max", fits),))


# -- the clock


def clock(settings: StoreSettings, skews: list[float], gateway: dict[str, Any] | None) -> Iterator[Finding]:
    """Whether it is right, by the backends' clocks, the store's files, and the gateway that runs."""
    if skews:
        ahead_s = statistics.median(skews)
        said = f"backends are {abs(ahead_s):.0f} s {'ahead' if ahead_s > 0 else 'behind'}"
        level = (
            Level.OK
            if abs(ahead_s) < _SKEW_S_NOTE
            else Level.NOTE
            if abs(ahead_s) < _SKEW_S_BAD
            else Level.WRONG
        )
        advice = (
            ""
            if level is Level.OK
            else "run NTP here and there: tokens and signatures are judged by the time"
        )
        said = "as the backends' clocks" if level is Level.OK else said
        yield Finding("clock", "against backends", level, said, advice)
    else:
        yield Finding("clock", "against backends", Level.OK, "no backend has told its time")
    if not settings.is_shared:
        yield _against_store(settings.database.absolute())
    if gateway is not None:
        apart_s = abs(gateway["now_ms"] / 1000 - time.time())
        level = Level.OK if apart_s < _SKEW_S_NOTE else Level.NOTE
        advice = (
            "" if level is Level.OK else "the clock was set after its start: it keeps its own; restart it"
        )
        yield Finding("clock", "against the gateway", level, f"{apart_s:.1f} s apart", advice)


def _against_store(database: Path) -> Finding:
    check, now_s = "against the store", time.time()
    files = [path for suffix in ("", "-wal") if (path := beside(database, suffix)).exists()]
    if not files:
        return Finding("clock", check, Level.OK, "there is no file yet")
    ahead_s = max(path.stat().st_mtime for path in files) - now_s
    if ahead_s < _FUTURE_S:
        return Finding("clock", check, Level.OK, "the file is not from the future")
    advice = "the clock was set back, or the disk was another machine's: responses expire later than they say"
    return Finding("clock", check, Level.WRONG, f"the file is {ahead_s:.0f} s from the future", advice)


# -- the process


def descriptors(settings: Settings) -> Iterator[Finding]:
    """Whether there are enough for the connections that the settings allow."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = files_wanted(settings)
    said = f"{hard} allowed here, {wanted} wanted at most"
    if hard == resource.RLIM_INFINITY or not are_few_files(settings, hard):
        yield Finding("process", "file descriptors", Level.OK, said)
        return
    others = wanted - settings.server.connections_max
    level = Level.WRONG if hard < wanted / 2 else Level.NOTE
    advice = f"LimitNOFILE={wanted} (systemd), ulimit -Hn {wanted}"
    fits = (hard - others) // 10 * 10
    pasted = (("server.connections_max", fits),) if fits > 0 else ()
    yield Finding("process", "file descriptors", level, said, advice + (", or" if pasted else ""), pasted)


def gateway_status(admin: Admin | None) -> tuple[Finding, dict[str, Any] | None]:
    """Whether a gateway runs with these settings, and what it says of itself."""
    check = "answers"
    if admin is None:
        return Finding("gateway", check, Level.OK, "the settings do not say where"), None
    try:
        now = look(admin, "overview")
    except NotDone as error:
        return Finding("gateway", check, Level.OK, f"no: {error}"), None
    if now["store"] != "ok":
        return Finding("gateway", check, Level.WRONG, f"its store is {now['store']}", "see its log"), now
    said = f"version {now['version']}, {now['running']} running, {now['waiting']} waiting"
    return Finding("gateway", check, Level.OK, said), now
