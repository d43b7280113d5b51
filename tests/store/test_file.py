"""The file itself: who may open it, what a kill leaves of it, and what a deletion leaves in it."""

from __future__ import annotations

import os
import random
import signal
import sqlite3
import stat
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, closing
from pathlib import Path
from typing import Literal

import pytest

from gateway.config import StoreSettings
from gateway.core.job import NewJob, Outcome, Status
from gateway.core.reason import Reason
from gateway.observe import Observer
from gateway.store.port import QueueLimits
from gateway.store.refused import DatabaseInUse, DatabaseRefused
from gateway.store.sqlite.connector import on_thread
from gateway.store.sqlite.store import SqliteStore
from gateway.wire.sse import encode, split_frames
from tests.store.jobs import NOW, TENANT, new_job

PLENTY = QueueLimits(10_000, 10_000)

_FILES = ("jobs.db", "jobs.db-wal", "jobs.db-shm", "jobs.db.lock", "jobs.db.ballast")

Open = Callable[..., Awaitable[SqliteStore]]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "jobs.db"


@pytest.fixture
async def opened(path: Path) -> AsyncIterator[Open]:
    async with AsyncExitStack() as stack:

        async def opener(
            durability: Literal["disk", "process"] = "disk", database: Path = path
        ) -> SqliteStore:
            settings = StoreSettings(database=database, durability=durability)
            store = await SqliteStore.open(settings, Observer())
            stack.push_async_callback(store.close)
            return store

        yield opener


def job_saying(name: str, text: str = "", previous_id: str | None = None) -> NewJob:
    said = text.encode()
    return new_job(
        name,
        request=b'{"instructions":"%b"}' % said,
        input=said,
        events=encode("response.created", said) + encode("response.queued", said),
        previous_id=previous_id,
    )


def mode(file: Path) -> int:
    return stat.S_IMODE(file.stat().st_mode)


# -- who may read it, and which files are refused


async def test_nobody_but_its_owner_can_read_any_of_the_files(path: Path, opened: Open) -> None:
    before = os.umask(0)  # the kindest there is
    try:
        store = await opened()
        await store.create(job_saying("a"), PLENTY)
    finally:
        os.umask(before)
    files = {file.name: mode(file) for file in path.parent.iterdir()}
    assert files == dict.fromkeys(_FILES, 0o600)


async def test_a_directory_that_is_missing_is_made_for_its_owner_only(tmp_path: Path, opened: Open) -> None:
    await opened(database=tmp_path / "new" / "jobs.db")
    assert mode(tmp_path / "new") == 0o700


async def made(opened: Open) -> None:
    store = await opened()
    await store.create(job_saying("a"), PLENTY)
    await store.close()


async def test_a_symbolic_link_is_refused(path: Path, opened: Open) -> None:
    await made(opened)
    real = path.rename(path.with_name("real.db"))
    path.symlink_to(real)
    with pytest.raises(DatabaseRefused, match="symbolic links are not followed"):
        await opened()


async def test_a_second_hard_link_is_refused(path: Path, opened: Open) -> None:
    await made(opened)
    path.with_name("other.db").hardlink_to(path)
    with pytest.raises(DatabaseRefused, match="more than one hard link"):
        await opened()


@pytest.mark.parametrize("wide", [0o644, 0o660, 0o604])
async def test_a_file_that_others_can_read_is_refused_and_the_refusal_says_what_to_do(
    path: Path, opened: Open, wide: int
) -> None:
    await made(opened)
    path.chmod(wide)
    with pytest.raises(DatabaseRefused, match=f"mode {wide:04o}.*make it 0600"):
        await opened()
    path.chmod(0o600)
    await opened()


async def test_a_directory_in_its_place_is_refused(path: Path, opened: Open) -> None:
    store_settings = StoreSettings(database=path)  # it was none yet when the settings were read
    path.mkdir()
    with pytest.raises(DatabaseRefused):
        await SqliteStore.open(store_settings, Observer())


def write_foreign(path: Path) -> None:
    with closing(sqlite3.connect(path)) as raw:
        raw.execute("CREATE TABLE recipes (name TEXT)")
        raw.execute("PRAGMA user_version = 1")
        raw.commit()
    path.chmod(0o600)


async def test_a_database_of_another_program_is_refused_and_left_as_it_is(path: Path, opened: Open) -> None:
    write_foreign(path)
    before = path.read_bytes()
    with pytest.raises(DatabaseRefused, match="of some other program"):
        await opened()
    assert path.read_bytes() == before
    assert not path.with_name("jobs.db-wal").exists()


@pytest.mark.parametrize(
    ("version", "reason"), [(0, "unreleased version"), (99, "schema 99; this one knows")]
)
async def test_another_schema_version_is_refused_and_left_as_it_is(
    path: Path, opened: Open, version: int, reason: str
) -> None:
    await made(opened)
    with closing(sqlite3.connect(path)) as raw:
        raw.execute(f"PRAGMA user_version = {version}")
        raw.execute("PRAGMA journal_mode = DELETE")
    before = path.read_bytes()
    with pytest.raises(DatabaseRefused, match=reason):
        await opened()
    assert path.read_bytes() == before


@pytest.mark.parametrize("content", [b"not a database at all " * 300, b"SQLite format 3\0" + b"\xff" * 5000])
async def test_garbage_is_refused_and_left_as_it_is(path: Path, opened: Open, content: bytes) -> None:
    path.write_bytes(content)
    path.chmod(0o600)
    with pytest.raises(DatabaseRefused, match="cannot be used"):
        await opened()
    assert path.read_bytes() == content


async def test_a_damaged_file_is_refused(path: Path, opened: Open) -> None:
    store = await opened()
    for number in range(50):
        await store.create(job_saying(f"j{number}", text="x" * 3000), PLENTY)
    await store.close()
    content = bytearray(path.read_bytes())
    for page in range(4, len(content) // 4096, 3):
        content[page * 4096 : page * 4096 + 64] = b"\xa5" * 64
    path.write_bytes(content)
    with pytest.raises(DatabaseRefused, match=r"is damaged|cannot be used"):
        await opened()


async def test_an_empty_file_is_made_ours(path: Path, opened: Open) -> None:
    path.touch(mode=0o600)
    store = await opened()
    await store.create(job_saying("a"), PLENTY)
    assert await store.find("a", TENANT, now_ms=NOW) is not None


async def test_a_refused_file_can_be_opened_once_it_is_in_order(path: Path, opened: Open) -> None:
    write_foreign(path)
    for _ in range(2):
        with pytest.raises(DatabaseRefused):
            await opened()
    path.unlink()
    await opened()


async def test_the_pepper_stays_with_the_file_and_differs_between_files(path: Path, opened: Open) -> None:
    first = await opened()
    await first.close()
    assert len(first.pepper) == 32
    assert (await opened()).pepper == first.pepper
    assert (await opened(database=path.with_name("other.db"))).pepper != first.pepper


async def test_a_kill_while_the_file_was_being_made_leaves_one_that_can_be_opened(
    path: Path, opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All of it is there or nothing: a schema without its version would be refused for ever."""
    seen: list[tuple[str, bytes]] = []
    lock: list[bytes] = []

    def snapshot(size: int) -> bytes:
        lock.append(path.with_name("jobs.db.lock").read_bytes())
        for suffix in ("", "-wal"):  # what lies there when the last piece of the file is being thought of
            file = path.with_name(path.name + suffix)
            seen.append((suffix, file.read_bytes() if file.exists() else b""))
        return b"p" * size

    monkeypatch.setattr("gateway.store.sqlite.connection.secrets.token_bytes", snapshot)
    await opened()
    assert seen[0][1].startswith(b"SQLite format 3")
    monkeypatch.undo()
    left = path.with_name("left.db")
    left.with_name("left.db.lock").write_bytes(lock[0])
    left.with_name("left.db.lock").chmod(0o600)
    for suffix, content in seen[:2]:  # it is called for other things later
        left.with_name(left.name + suffix).write_bytes(content)
        left.with_name(left.name + suffix).chmod(0o600)
    store = await opened(database=left)
    await store.create(job_saying("a"), PLENTY)


# -- one process at a time, and kills

_HOLDER = """
import asyncio, sys
from pathlib import Path
from gateway.config import StoreSettings
from gateway.observe import Observer
from gateway.store.sqlite.store import SqliteStore

async def main():
    settings = StoreSettings(database=Path(sys.argv[1]))
    store = await SqliteStore.open(settings, Observer())
    print("open", flush=True)
    await asyncio.to_thread(sys.stdin.read)
    await store.close()

asyncio.run(main())
"""

# Four jobs are written at once; a line is printed when an append has been acknowledged, and not before.
_WRITER = """
import asyncio, sys
from pathlib import Path
from gateway.config import StoreSettings
from gateway.core.job import NewJob
from gateway.store.port import QueueLimits
from gateway.observe import Observer
from gateway.store.sqlite.store import SqliteStore
from gateway.wire.sse import encode

def event(name, number):
    pad = "x" * (number * 37 % 900)
    return encode("response.test", f'{{"job":"{name}","n":{number},"pad":"{pad}"}}'.encode())

async def one(store, name):
    first = event(name, 0) + event(name, 1)
    await store.create(NewJob(
        id=name, tenant=b"t" * 32, previous_id=None, created_at_ms=1, deadline_ms=10**12, response=b"{}",
        request=b"{}", input=b"1", target="/", headers=b"{}", is_streamed=True, is_followable=True,
        is_rerunnable=True, events=first, next_seq=2), QueueLimits(10**6, 10**6))
    print(name, 2, flush=True)
    (claim,) = await store.claim(1, attempts_max=2, now_ms=2)
    number, name = 2, claim.id
    while True:
        count = number % 3 + 1
        block = b"".join(event(name, n) for n in range(number, number + count))
        await store.append(claim, number, count, block, has_output=True)
        number += count
        print(name, number, flush=True)

async def main():
    store = await SqliteStore.open(StoreSettings(database=Path(sys.argv[1])), Observer())
    async with asyncio.TaskGroup() as group:
        for n in range(4):
            group.create_task(one(store, f"{sys.argv[2]}-{n}"))

asyncio.run(main())
"""


def expected_event(name: str, number: int) -> bytes:
    pad = "x" * (number * 37 % 900)
    return encode("response.test", f'{{"job":"{name}","n":{number},"pad":"{pad}"}}'.encode())


Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def start(path: Path) -> Iterator[Start]:
    """Starts a script in a process of its own; whatever still runs at the end is killed."""
    started: list[subprocess.Popen[str]] = []

    def starter(script: str, *arguments: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-c", script, str(path), *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).parents[2],
        )
        started.append(process)
        return process

    yield starter
    for process in started:
        process.kill()
        process.wait()
        for stream in (process.stdin, process.stdout):
            if stream is not None:
                stream.close()


def read_line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline()


async def test_a_second_process_is_refused_and_told_who_has_the_file(
    path: Path, opened: Open, start: Start
) -> None:
    holder = start(_HOLDER)
    assert read_line(holder) == "open\n"
    for _ in range(2):
        with pytest.raises(DatabaseInUse, match=rf"in use by process {holder.pid}$"):
            await opened()
    holder.kill()
    holder.wait(timeout=10)
    store = await opened()  # a lock dies with its process
    await store.create(job_saying("a"), PLENTY)


async def test_a_second_store_in_the_same_process_is_refused_too(opened: Open) -> None:
    first = await opened()
    with pytest.raises(DatabaseInUse, match=str(os.getpid())):
        await opened()
    await first.close()
    await opened()


async def test_what_was_acknowledged_survives_a_kill_at_any_moment(
    path: Path, opened: Open, start: Start
) -> None:
    """Five kills of one file, each a random number of acknowledgements after the writer's start."""
    moments = random.Random(7)
    acknowledged: dict[str, int] = {}
    for kill in range(5):
        writer = start(_WRITER, f"run{kill}")
        for _ in range(moments.randrange(6, 150)):
            name, count = read_line(writer).split()
            acknowledged[name] = int(count)
        writer.send_signal(signal.SIGKILL)
        assert writer.stdout is not None
        for line in writer.stdout.read().splitlines(keepends=True):  # printed before it died
            if line.endswith("\n"):
                name, count = line.split()
                acknowledged[name] = int(count)
        assert writer.wait(timeout=10) == -signal.SIGKILL

        store = await opened()  # it checks the file, and would refuse a damaged one
        for name, least in acknowledged.items():
            stored = split_frames(await store.all_events(name))
            assert len(stored) >= least, f"{name}: {least} acknowledged, {len(stored)} there"
            assert stored == [expected_event(name, number) for number in range(len(stored))]
            job = await store.find(name, TENANT, now_ms=NOW)
            assert job is not None
            assert job.next_seq == len(stored)
        await store.abandon(dead_after_s=0)
        for name in await store.overdue(now_ms=10**13, limit=100):  # all: claims are to go to new jobs
            if taken := await store.take_over(name):
                last = expected_event(name, taken.job.next_seq)
                outcome = Outcome(Status.FAILED, b"{}", taken.job.next_seq, last, 1, None, Reason.ENDED)
                await store.finish(taken, outcome, now_ms=NOW, expires_at_ms=NOW * 1000)
        await store.close()
        with closing(sqlite3.connect(path)) as raw:
            assert raw.execute("PRAGMA quick_check").fetchall() == [("ok",)]
    assert len(acknowledged) >= 20


# -- what is promised of the disk


@pytest.mark.parametrize(("durability", "level"), [("disk", 2), ("process", 1)])
async def test_each_durability_level_is_the_pragma_it_promises(
    opened: Open, durability: str, level: int
) -> None:
    store = await opened(durability=durability)

    def pragmas(raw: sqlite3.Connection) -> list[int | str]:
        names = ("synchronous", "journal_mode", "secure_delete", "foreign_keys", "auto_vacuum")
        return [raw.execute(f"PRAGMA {name}").fetchone()[0] for name in names]

    assert await on_thread(store._writer._connection, pragmas) == [level, "wal", 1, 1, 2]


async def test_the_readers_cannot_write(opened: Open) -> None:
    store = await opened()
    for reader in store._database.readers._all:
        with pytest.raises(sqlite3.OperationalError, match="readonly"):
            await on_thread(reader.connection, lambda raw: raw.execute("DELETE FROM job"))


@pytest.mark.parametrize("way", ["deleted", "deleted while it ran", "expired"])
async def test_deleted_bytes_are_in_none_of_the_files(path: Path, opened: Open, way: str) -> None:
    store = await opened()
    canaries = [f"canary-{where}-{random.randbytes(8).hex()}" for where in ("input", "output", "events")]
    for number in range(30):  # neighbours, before and after: the bytes lie among others
        await store.create(job_saying(f"before{number}", text="y" * 700), PLENTY)
    await store.create(job_saying("a", text=canaries[0] * 100), PLENTY)
    claims = await store.claim(31, attempts_max=2, now_ms=NOW)
    claim = next(claim for claim in claims if claim.id == "a")
    for number in range(2, 60):
        block = encode("response.test", canaries[2].encode() * 20)
        await store.append(claim, number, 1, block, has_output=True)
        await store.append(claims[0], number, 1, encode("response.test", b"z" * 600), has_output=True)
    if way != "deleted while it ran":
        last = encode("response.completed", canaries[2].encode())
        outcome = Outcome(Status.COMPLETED, canaries[1].encode() * 500, 60, last, 1, None, Reason.ENDED)
        await store.finish(claim, outcome, now_ms=NOW, expires_at_ms=NOW + 1000)
    files = [path, path.with_name(path.name + "-wal")]
    there = b"".join(file.read_bytes() for file in files)
    assert canaries[0].encode() in there
    assert canaries[2].encode() in there

    if way.startswith("deleted"):
        assert await store.delete("a", TENANT, now_ms=NOW)
    while await store.sweep(now_ms=NOW if way.startswith("deleted") else NOW + 1000):
        pass
    await store.reclaim_space()
    for file in files:
        content = file.read_bytes()
        assert [canary for canary in canaries if canary.encode() in content] == []
    assert len(await store.all_events(claims[0].id)) > 0
    assert (await store.sizes())["wal"] == 0


async def test_deleted_bytes_go_also_if_the_process_died_before_it_emptied_the_log(
    path: Path, opened: Open
) -> None:
    store = await opened()
    canary = f"canary-{random.randbytes(8).hex()}"
    await store.create(job_saying("a", text=canary * 100), PLENTY)
    await store.delete("a", TENANT, now_ms=NOW)
    await store.sweep(now_ms=NOW)
    left = path.with_name("left.db")
    for suffix in ("", "-wal", ".lock"):  # as a kill would leave it
        beside = left.with_name(left.name + suffix)
        beside.write_bytes(path.with_name(path.name + suffix).read_bytes())
        beside.chmod(0o600)
    assert canary.encode() in left.with_name("left.db-wal").read_bytes()
    store = await opened(database=left)
    await store._upkeep.run_once()
    for suffix in ("", "-wal"):
        assert canary.encode() not in left.with_name(left.name + suffix).read_bytes()


async def test_freed_pages_are_given_back(opened: Open) -> None:
    store = await opened()
    for number in range(15):
        await store.create(job_saying(f"j{number}", text="x" * 50_000), PLENTY)
    await store.reclaim_space()
    full = (await store.sizes())["db"]
    for number in range(15):
        await store.delete(f"j{number}", TENANT, now_ms=NOW)
    while await store.sweep(now_ms=NOW):
        pass
    while (before := (await store.sizes())["db"]) > full // 10:
        await store.reclaim_space()
        given_back = before - (await store.sizes())["db"]
        assert given_back > 100 * 4096 or before - given_back <= full // 10, "hardly a page was given back"
