"""Who may have a file: one process at a time, and only where it is the gateway's alone and locks hold."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import socket
import stat
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.torture import journal, oracle
from tests.torture.clients import Crowd, Mix
from tests.torture.gateway import Gateway
from tests.torture.journal import Journal
from tests.torture.model import Model, create_body
from tests.torture.trial import Bench, trial
from tests.torture.trials.kills import note_verdict, require_whole

_EX_TEMPFAIL, _EX_CONFIG = 75, 78
_CLIENTS = 6
_MIX = Mix(deltas=(3, 40), paces_ms=(2, 10))
_RACERS = 4
_AT_ONCE = 3
_PARTS = 3
"""Of the files and places: each round has one of them."""
_ANSWER_S = 60.0
_NOBODY = 65534
_NETWORKS = {"NFS": 0x6969, "CIFS": 0xFF534D42, "Ceph": 0x00C36400, "FUSE": 0x65735546}
_SETTINGS: dict[str, Any] = {"store__ballast_bytes": 2**16}


@dataclass(frozen=True, slots=True)
class _Attempt:
    """A start that must be refused.

    Attributes:
        prepare: Given a directory of its own and the database that is meant; returns the path to start on.
        status, reason: How it must leave, and words of what it must say.
        options: Of `launch`.
    """

    name: str
    prepare: Callable[[Path, Path], Path]
    status: int
    reason: str
    options: tuple[str, ...] = ()


# -- on a file that another process has


def _by_linked_directory(place: Path, database: Path) -> Path:
    (place / "link").symlink_to(database.parent, target_is_directory=True)
    return place / "link" / database.name


def _by_link(place: Path, database: Path) -> Path:
    (place / "link.db").symlink_to(database)
    return place / "link.db"


def _by_hard_link(place: Path, database: Path) -> Path:
    (place / "link.db").hardlink_to(database)
    return place / "link.db"


_IN_USE = [
    _Attempt("a second process", lambda _, database: database, _EX_TEMPFAIL, "is in use by process {pid}"),
    _Attempt("by a linked directory", _by_linked_directory, _EX_TEMPFAIL, "is in use by process {pid}"),
    _Attempt(
        "by a detour",
        lambda _, database: database.parent / ".." / database.parent.name / database.name,
        _EX_TEMPFAIL,
        "is in use by process {pid}",
    ),
    _Attempt("by a symbolic link", _by_link, _EX_CONFIG, "symbolic links are not followed"),
    _Attempt("by a hard link", _by_hard_link, _EX_CONFIG, "more than one hard link"),
]


# -- on a copy that nobody has


def _copied(place: Path, database: Path) -> Path:
    """As it was left by a gateway that has stopped."""
    for suffix in ("", ".lock", ".ballast"):
        shutil.copy2(f"{database}{suffix}", place / f"{database.name}{suffix}")
    return place / database.name


def _with(change: Callable[[Path], object]) -> Callable[[Path, Path], Path]:
    def prepare(place: Path, database: Path) -> Path:
        path = _copied(place, database)
        change(path)
        return path

    return prepare


def _mode(suffix: str, mode: int) -> Callable[[Path, Path], Path]:
    def change(path: Path) -> None:
        beside = path.with_name(path.name + suffix)
        beside.touch(mode=0o600)
        beside.chmod(mode)

    return _with(change)


def _linked(suffix: str) -> Callable[[Path, Path], Path]:
    """One of its files is a link to somebody's."""

    def change(path: Path) -> None:
        beside, elsewhere = path.with_name(path.name + suffix), path.with_name("elsewhere")
        elsewhere.touch(mode=0o600)
        beside.unlink(missing_ok=True)
        beside.symlink_to(elsewhere)

    return _with(change)


def _other_kind(make: Callable[[Path], object]) -> Callable[[Path, Path], Path]:
    def prepare(place: Path, database: Path) -> Path:
        make(place / database.name)
        return place / database.name

    return prepare


def _bind(path: Path) -> None:
    here = Path.cwd()
    os.chdir(path.parent)  # names of sockets are short
    try:
        with socket.socket(socket.AF_UNIX) as listening:
            listening.bind(path.name)
    finally:
        os.chdir(here)


def _below_a_file(place: Path, database: Path) -> Path:
    (place / "file").touch()
    return place / "file" / database.name


_ALONE = [
    *(
        _Attempt(f"mode {mode:o} of “{suffix}”", _mode(suffix, mode), _EX_CONFIG, f"mode {mode:04o}")
        for suffix, mode in (
            *(("", 0o644), ("", 0o660), ("", 0o604), ("-wal", 0o644), ("-shm", 0o666)),
            *((".lock", 0o640), (".ballast", 0o606), ("-journal", 0o622)),
        )
    ),
    *(
        _Attempt(f"{suffix} is a link", _linked(suffix), _EX_CONFIG, "symbolic links are not followed")
        for suffix in ("-wal", "-shm", ".lock", ".ballast")
    ),
    _Attempt("a directory in its place", _other_kind(Path.mkdir), _EX_CONFIG, "not a directory"),
    _Attempt("a pipe in its place", _other_kind(os.mkfifo), _EX_CONFIG, "not a regular file"),
    _Attempt("a socket in its place", _other_kind(_bind), _EX_CONFIG, "No such device or address"),
    _Attempt("below a file", _below_a_file, _EX_CONFIG, "exists|Not a directory"),
    *(
        _Attempt(f"on {name}", _with(lambda _: None), _EX_CONFIG, name, ("--filesystem", f"{magic:#x}"))
        for name, magic in _NETWORKS.items()
    ),
]
if os.geteuid() == 0:
    _ALONE.append(
        _Attempt(
            "another user's",
            _with(lambda path: os.chown(path, _NOBODY, _NOBODY)),
            _EX_CONFIG,
            f"belongs to user {_NOBODY}",
        )
    )


@trial(
    "T24",
    f"a second process on a file in use, by {len(_IN_USE)} ways to it; {_RACERS} at once on a free one; "
    f"{len(_ALONE)} files and places that are not the gateway's alone: modes, links, pipes, NFS",
    pass_mark="status 75 where another has it, else 78, and one line that says why; exactly one of several "
    "gets it; nothing is changed by it; the first process does not notice",
    runs=12,
    short_runs=1,
    round_s=120,
)
async def start_where_it_must_not(bench: Bench) -> None:
    model = await bench.model()
    gateway = await bench.gateway(model.url, **_SETTINGS)
    async with Journal(bench.directory / "journal") as notes, Crowd(gateway, notes, _CLIENTS, _MIX):
        for number in bench.rounds():
            pid = gateway.pid
            await _try_all(bench, model, _IN_USE, f"in-use-{number}", gateway)
            bench.require(gateway.is_running and gateway.pid == pid, "the first process is gone")
            answer = await gateway.http.get(f"{gateway.admin}/readyz")
            bench.require(answer.status == 200, f"the first process is not ready: {await answer.text()}")
            await gateway.kill9()
            require_whole(bench, gateway, f"round {number}")
            await _race(bench, model, gateway, number)
            await gateway.restart()
    told = journal.read(notes.path)
    note_verdict(bench, await oracle.audit(gateway, told.stories.values()))
    await gateway.stop()
    for number in range(bench.runs):
        await _try_all(bench, model, _ALONE[number % _PARTS :: _PARTS], f"alone-{number}", gateway)


async def _try_all(bench: Bench, model: Model, attempts: list[_Attempt], name: str, gateway: Gateway) -> None:
    gate = asyncio.Semaphore(_AT_ONCE)

    async def attempt(number: int, each: _Attempt) -> None:
        place = bench.directory / f"{name}-{number}"
        place.mkdir(mode=0o700)
        async with gate:
            await _attempt(bench, model, each, place, gateway)
        shutil.rmtree(place)

    await asyncio.gather(*(attempt(number, each) for number, each in enumerate(attempts)))


async def _attempt(bench: Bench, model: Model, each: _Attempt, place: Path, gateway: Gateway) -> None:
    other = await bench.prepared(model.url, **_SETTINGS)
    other.database = each.prepare(place, gateway.database)
    before = _state(place)
    other.next_start(*each.options)
    started = time.monotonic()
    await other.spawn()
    async with asyncio.timeout(_ANSWER_S):
        status = await other.exit_status()
    said = [line for line in other.lines if line["event"] != "process ended"]
    reasons = str([line.get("reason", line["event"]) for line in said if line.get("level") != "warning"])
    words = each.reason.format(pid=gateway.pid).split("|")
    bench.add("attempts")
    bench.most("slowest to leave s", time.monotonic() - started)
    bench.require(status == each.status, f"{each.name}: it left with {status}, and said {reasons}")
    bench.require(any(word in reasons for word in words), f"{each.name}: it said {reasons}")
    after = {name: _ for name, _ in _state(place).items() if name in before}
    changed = [name for name in before if before[name] != after.get(name)]
    bench.require(not changed, f"{each.name}: {changed} changed")
    await other.end()


def _state(place: Path) -> dict[str, object]:
    """Of the files there that hold something: kind, mode, and content, where that is no other's as well."""
    state: dict[str, object] = {}
    for path in sorted(place.iterdir()):
        if not path.name.endswith((".lock", "-shm")) or path.is_symlink():
            found = path.lstat()
            is_own = stat.S_ISREG(found.st_mode) and found.st_nlink == 1
            state[path.name] = found.st_mode, path.read_bytes() if is_own else b""
    return state


async def _race(bench: Bench, model: Model, gateway: Gateway, number: int) -> None:
    """Several processes start at once, on the file of one that was killed or on one that is not there yet."""
    racers = [await bench.prepared(model.url, **_SETTINGS) for _ in range(_RACERS)]
    for racer in racers:
        racer.database = gateway.database if number % 2 else racers[0].database
    await asyncio.gather(*(racer.spawn() for racer in racers))
    ends = {asyncio.create_task(racer.exit_status()): racer for racer in racers}
    async with asyncio.timeout(_ANSWER_S):
        pending = set(ends)
        while len(pending) > 1:
            _, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
    statuses = [end.result() for end in ends if end.done()]
    is_one = statuses == [_EX_TEMPFAIL] * (_RACERS - 1)
    bench.require(is_one, f"{_RACERS} at once: they left with {statuses}")
    bench.add("races")
    for end in pending:
        winner = ends[end]
        await winner.listening()
        created = await winner.call("POST", "/responses", create_body("won", stream=False, deltas=1))
        bench.require(created.status == 200, f"the one that got it answered {created.status}")
        winner.send(signal.SIGKILL)
        await end
    for racer in racers:
        await racer.end()
