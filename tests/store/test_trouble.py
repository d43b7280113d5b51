"""A disk that is full, fails, or has damaged the file: what is refused, what goes on, and how it ends."""

from __future__ import annotations

import asyncio
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing, suppress
from pathlib import Path
from typing import Any

import pytest

from gateway.core.job import NewJob, Outcome, Status, StoreUnavailable
from gateway.core.reason import Reason
from gateway.store.port import QueueLimits
from gateway.store.refused import DatabaseDamaged
from gateway.store.sqlite.store import SqliteStore

PLENTY = QueueLimits(10_000, 10_000)
MIB = 2**20


async def refused(store: SqliteStore, job: NewJob) -> str:
    """The code by which a create is refused."""
    with pytest.raises(StoreUnavailable) as refusal:
        await store.create(job, PLENTY)
    return refusal.value.code


async def round_of(store: SqliteStore) -> str:
    """A round of upkeep, and how the store is then."""
    await store._upkeep.run_once()
    return store.state()


def ids_after_a_crash(database: Path) -> set[str]:
    """What would be there if the process ended now, and its log were recovered by the next one."""
    copy = database.with_name("copy.db")
    for suffix in ("", "-wal"):
        shutil.copy(f"{database}{suffix}", f"{copy}{suffix}")
    with closing(sqlite3.connect(copy)) as raw:
        assert raw.execute("PRAGMA quick_check").fetchall() == [("ok",)]
        return {row[0] for row in raw.execute("SELECT id FROM job")}


# -- a disk that fails


@pytest.mark.parametrize("call", ["sync", "write"])
async def test_a_commit_that_the_disk_failed_is_refused_and_never_comes_back(
    disk: Any, open_store: Any, store_kit: Any, tmp_path: Path, call: str
) -> None:
    store = await open_store()
    await store.create(store_kit.job("kept"), PLENTY)
    disk.breaks(call=call, file="-wal")
    assert await refused(store, store_kit.job("lost")) == "store_failing"
    assert store.state() == "failing"
    assert await refused(store, store_kit.job("too early")) == "store_failing"
    assert await store.find("kept", store_kit.TENANT, now_ms=store_kit.NOW) is not None
    assert await round_of(store) == "failing"
    disk.is_mended()
    assert await round_of(store) == "ok"
    assert ids_after_a_crash(tmp_path / "jobs.db") == {"kept"}
    await store.create(store_kit.job("after"), PLENTY)
    await store.close()
    assert ids_after_a_crash_of_a_closed(tmp_path / "jobs.db") == {"kept", "after"}


def ids_after_a_crash_of_a_closed(database: Path) -> set[str]:
    with closing(sqlite3.connect(database)) as raw:
        return {row[0] for row in raw.execute("SELECT id FROM job")}


async def test_a_failed_commit_does_not_come_back_though_the_process_dies_before_the_disk_is_mended(
    disk: Any, open_store: Any, store_kit: Any, tmp_path: Path
) -> None:
    store = await open_store()
    await store.create(store_kit.job("kept"), PLENTY)
    disk.breaks(call="sync", file="-wal")
    await refused(store, store_kit.job("lost"))
    assert ids_after_a_crash(tmp_path / "jobs.db") == {"kept"}
    disk.is_mended()


async def test_without_the_fence_a_failed_commit_would_come_back(
    disk: Any, open_store: Any, store_kit: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The tests above can fail: this is what lies in the log after a flush that failed."""
    monkeypatch.setattr("gateway.store.sqlite.writer.fence", lambda raw: None)
    store = await open_store()
    await store.create(store_kit.job("kept"), PLENTY)
    disk.breaks(call="sync", file="-wal")
    await refused(store, store_kit.job("lost"))
    assert ids_after_a_crash(tmp_path / "jobs.db") == {"kept", "lost"}
    disk.is_mended()


async def test_all_of_a_batch_that_the_disk_failed_are_told_so(
    disk: Any, open_store: Any, store_kit: Any
) -> None:
    store = await open_store()
    disk.breaks(call="sync", file="-wal")
    creates = (store.create(store_kit.job(f"j{n}"), PLENTY) for n in range(20))
    results = await asyncio.gather(*creates, return_exceptions=True)
    assert {type(result) for result in results} == {StoreUnavailable}
    disk.is_mended()
    assert await round_of(store) == "ok"
    assert (await store.insight.backlog(now_ms=store_kit.NOW)).by_status[Status.QUEUED] == 0


async def test_a_page_that_cannot_be_read_is_one_readers_trouble(
    disk: Any, open_store: Any, store_kit: Any
) -> None:
    store = await open_store()
    await store.create(store_kit.job("a", size=300_000), PLENTY)
    await store.close()
    store = await open_store()
    disk.breaks(call="read", file=".db")
    with pytest.raises(StoreUnavailable):
        await store.request_of("a")
    disk.is_mended()
    assert store.state() == "ok"
    assert await store.request_of("a") is not None


# -- a full disk


async def test_a_full_disk_stops_new_work_until_a_commit_succeeds(
    disk: Any, open_store: Any, store_kit: Any
) -> None:
    store = await open_store()
    await store.create(store_kit.job("a"), PLENTY)
    await store.create(store_kit.job("waits"), PLENTY)
    (claim,) = await store.claim(1, attempts_max=2, now_ms=store_kit.NOW)
    disk.breaks(call="full", file="-wal")
    with pytest.raises(StoreUnavailable) as refusal:
        await store.append(claim, 2, 1, b"event", has_output=False)
    assert refusal.value.code == "store_full"
    assert store.state() == "full"
    assert await refused(store, store_kit.job("new")) == "store_full"
    with pytest.raises(StoreUnavailable):  # what it produced could not be kept
        await store.claim(1, attempts_max=2, now_ms=store_kit.NOW)
    assert await round_of(store) == "full"
    disk.is_mended()
    assert await round_of(store) == "ok"
    await store.append(claim, 2, 1, b"event", has_output=False)
    assert len(await store.claim(1, attempts_max=2, now_ms=store_kit.NOW)) == 1


async def test_the_last_tenth_of_the_quota_is_for_what_was_accepted(open_store: Any, store_kit: Any) -> None:
    store = await open_store(database_bytes_max=4 * MIB)
    accepted = 0
    code = None
    while code is None:
        try:
            await store.create(store_kit.job(f"j{accepted}", size=200_000), PLENTY)
            accepted += 1
        except StoreUnavailable as error:
            code = error.code
    assert code == "store_full"
    assert accepted * 200_000 > 3.3 * MIB
    (claim,) = await store.claim(1, attempts_max=2, now_ms=store_kit.NOW)
    await store.append(claim, 2, 1, b"e" * 200_000, has_output=True)
    assert await round_of(store) == "nearly_full"
    assert len(await store.claim(1, attempts_max=2, now_ms=store_kit.NOW)) == 1, "the queue goes on"
    for number in range(accepted):
        await store.delete(f"j{number}", store_kit.TENANT, now_ms=store_kit.NOW)
    await store.sweep(now_ms=store_kit.NOW)
    assert await round_of(store) == "ok"
    await store.create(store_kit.job("new", size=200_000), PLENTY)


async def test_a_body_that_has_no_room_is_refused_alone(open_store: Any, store_kit: Any) -> None:
    store = await open_store(database_bytes_max=4 * MIB)
    jobs = [store_kit.job(name, size=size) for name, size in (("a", 10), ("big", 5 * MIB), ("b", 10))]
    results = await asyncio.gather(*(store.create(job, PLENTY) for job in jobs), return_exceptions=True)
    assert [type(result) for result in results] == [str, StoreUnavailable, str]
    assert store.state() == "ok"


async def test_what_has_no_room_at_the_very_end_does_not_spoil_its_commit(
    open_store: Any, store_kit: Any
) -> None:
    """SQLite rolls the whole transaction back: those that fit are written all the same, each exactly once."""
    store = await open_store(database_bytes_max=2 * MIB, ballast_bytes=0)
    names = [f"j{number}" for number in range(9)]
    for name in names:
        await store.create(store_kit.job(name), PLENTY)
    claims = await store.claim(9, attempts_max=2, now_ms=store_kit.NOW)
    sizes = [100, 100, 3 * MIB, 100, 100, 100, 3 * MIB, 3 * MIB, 100]
    results = await asyncio.gather(
        *(
            store.append(claim, 2, 1, b"e" * size, has_output=True)
            for claim, size in zip(claims, sizes, strict=True)
        ),
        return_exceptions=True,
    )
    fits = [size == 100 for size in sizes]
    assert [result is None for result in results] == fits
    lengths = [len(await store.all_events(claim.id)) for claim in claims]
    first = len(store_kit.job("x").events)
    assert lengths == [first + 100 if fit else first for fit in fits]
    assert await round_of(store) == "ok"  # there is room, if not for so much


async def test_creates_that_wait_for_a_slow_disk_are_bounded(open_store: Any, store_kit: Any) -> None:
    store = await open_store(waiting_bytes_max=MIB)
    creates = (store.create(store_kit.job(f"j{n}", size=300_000), PLENTY) for n in range(10))
    results = await asyncio.gather(*creates, return_exceptions=True)
    refusals = [result for result in results if isinstance(result, StoreUnavailable)]
    assert [result for result in results if isinstance(result, str)] == ["j0", "j1", "j2"]
    assert {refusal.code for refusal in refusals} == {"store_busy"}
    await store.create(store_kit.job("later", size=300_000), PLENTY)


@asynccontextmanager
async def small_volume(place: Path, size: str) -> AsyncIterator[Path]:
    """A real file system of its own."""
    place.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", place], check=False)
    if mounted.returncode:
        pytest.skip("no right to mount a file system here")
    try:
        yield place
    finally:
        subprocess.run(["umount", "--lazy", place], check=True)


async def test_on_a_full_volume_the_ballast_lets_a_sweep_make_room(
    open_store: Any, store_kit: Any, tmp_path: Path
) -> None:
    async with small_volume(tmp_path / "volume", "8m") as volume:
        store = await open_store(database=volume / "jobs.db")
        assert (await store.sizes())["ballast"] == MIB  # an eighth
        for number in range(6):
            await store.create(store_kit.job(f"j{number}", size=400_000), PLENTY)
        await store.reclaim_space()
        leave_no_byte(volume / "filler")
        assert await refused(store, store_kit.job("new", size=400_000)) == "store_full"
        for number in range(6):
            assert await store.delete(f"j{number}", store_kit.TENANT, now_ms=store_kit.NOW)
        assert await store.sweep(now_ms=store_kit.NOW) == 6
        assert await round_of(store) == "ok"
        assert (await store.sizes())["ballast"] == MIB
        await store.create(store_kit.job("new", size=400_000), PLENTY)
        await store.close()


async def test_a_store_opens_on_a_full_volume(open_store: Any, store_kit: Any, tmp_path: Path) -> None:
    async with small_volume(tmp_path / "volume", "8m") as volume:
        store = await open_store(database=volume / "jobs.db")
        await store.create(store_kit.job("a"), PLENTY)
        await store.close()
        leave_no_byte(volume / "filler")
        store = await open_store(database=volume / "jobs.db")
        assert store.state() == "full"
        assert await store.find("a", store_kit.TENANT, now_ms=store_kit.NOW) is not None
        (volume / "filler").unlink()
        assert await round_of(store) == "ok"
        await store.create(store_kit.job("b"), PLENTY)
        await store.close()


def leave_no_byte(path: Path) -> None:
    with path.open("ab", buffering=0) as file:
        for size in (MIB, 4096, 1):
            with suppress(OSError):
                while file.write(b"f" * size) == size:
                    pass


@pytest.mark.parametrize(
    ("settings", "size"),
    [
        ({}, 16 * MIB),
        ({"database_bytes_max": 64 * MIB}, 8 * MIB),
        ({"ballast_bytes": 4096}, 4096),
        ({"ballast_bytes": 0}, 0),
    ],
)
async def test_the_ballast_takes_an_eighth_of_the_quota_at_most(
    open_store: Any, settings: dict[str, int], size: int
) -> None:
    store = await open_store(**settings)
    assert (await store.sizes())["ballast"] == size
    await store.close()
    store = await open_store(**settings)
    assert (await store.sizes())["ballast"] == size


# -- a damaged file


def scribble(database: Path) -> None:
    """Write over every page but the first, from another process: closing the file in this one would take
    SQLite's locks from it."""
    script = (
        "import sys; f = open(sys.argv[1], 'r+b'); f.seek(0, 2); n = f.tell()\n"
        "for at in range(4096, n, 4096): f.seek(at); f.write(b'\\xa5' * 64)"
    )
    subprocess.run([sys.executable, "-c", script, database], check=True)


async def test_damage_that_shows_at_run_time_stops_all_writing(
    open_store: Any, store_kit: Any, tmp_path: Path
) -> None:
    store = await open_store()
    for number in range(30):
        await store.create(store_kit.job(f"j{number}", size=3000), PLENTY)
    await store.close()
    store = await open_store()
    scribble(tmp_path / "jobs.db")
    finds = (store.find(f"j{n}", store_kit.TENANT, now_ms=store_kit.NOW) for n in range(30))
    with pytest.raises(StoreUnavailable) as refusal:
        await asyncio.gather(*finds)
    assert refusal.value.code == "store_corrupt"
    assert await refused(store, store_kit.job("new")) == "store_corrupt"
    with pytest.raises(StoreUnavailable):
        await store.abandon(dead_after_s=0)
    assert await round_of(store) == "corrupt"
    await store.close()
    with pytest.raises(DatabaseDamaged):  # a file of this size is not checked otherwise
        await open_store(check_bytes_max=0)


async def test_a_large_file_is_checked_while_it_is_in_use(
    open_store: Any, store_kit: Any, tmp_path: Path
) -> None:
    store = await open_store()
    for number in range(30):
        await store.create(store_kit.job(f"j{number}", size=3000), PLENTY)
    claims = await store.claim(1, attempts_max=2, now_ms=store_kit.NOW)
    await store.close()
    content = bytearray((tmp_path / "jobs.db").read_bytes())
    at = content.rindex(b"x" * 3000) // 4096 * 4096
    content[at : at + 8] = b"\xa5" * 8
    (tmp_path / "jobs.db").write_bytes(content)
    store = await open_store(check_bytes_max=0)
    assert claims
    tending = asyncio.create_task(store.tend())
    async with asyncio.timeout(10):
        while store.state() != "corrupt":
            await asyncio.sleep(0.01)
    tending.cancel()
    await asyncio.wait([tending])


# -- a log that grows


async def grow(store: SqliteStore, kit: Any, names: str, size: int) -> None:
    for number in range(8):
        await store.create(kit.job(f"{names}{number}", size=size // 8), PLENTY)


async def test_a_log_that_has_grown_is_emptied(open_store: Any, store_kit: Any) -> None:
    store = await open_store(wal_truncate_bytes=MIB, wal_bytes_max=2 * MIB)
    await grow(store, store_kit, "a", 3 * MIB)
    assert (await store.sizes())["wal"] > MIB
    assert await round_of(store) == "ok"
    assert (await store.sizes())["wal"] == 0


def long_read(raw: sqlite3.Connection) -> int:
    """Reads an old state of the file, for as long as it is let."""
    endless = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n, job"
    return int(raw.execute(endless).fetchone()[0])


async def test_a_read_that_keeps_a_large_log_from_being_emptied_is_broken_off(
    open_store: Any, store_kit: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    # No short one, on a busy machine.
    monkeypatch.setattr("gateway.store.sqlite.read_connections._INTERRUPTED_AFTER_S", 0.4)
    monkeypatch.setattr("gateway.store.sqlite.upkeep._TRUNCATION_INTERVAL_S", 0)
    store = await open_store(wal_truncate_bytes=MIB, wal_bytes_max=2 * MIB, readers=2)
    await store.create(store_kit.job("a"), PLENTY)
    reading = asyncio.create_task(store._database.readers.read(long_read))
    async with asyncio.timeout(10):
        while store._database.readers._all[0].since_s is None:
            await asyncio.sleep(0.01)
    await asyncio.sleep(0.5)
    await grow(store, store_kit, "b", 3 * MIB)
    await round_of(store)
    with pytest.raises(StoreUnavailable):
        await reading
    assert await round_of(store) == "ok"
    assert (await store.sizes())["wal"] == 0
    read = store._upkeep._observer.registry.get_sample_value
    assert read("backburner_store_log_too_large_total") == 1


async def test_a_read_is_broken_off_though_upkeep_itself_waits_behind_it(
    open_store: Any, store_kit: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    # No short one, on a busy machine.
    monkeypatch.setattr("gateway.store.sqlite.read_connections._INTERRUPTED_AFTER_S", 0.4)
    monkeypatch.setattr("gateway.store.sqlite.upkeep._TRUNCATION_INTERVAL_S", 0)
    monkeypatch.setattr("gateway.store.sqlite.upkeep._TICK_S", 0.05)
    store = await open_store(wal_truncate_bytes=MIB, wal_bytes_max=2 * MIB, readers=1)
    await store.create(store_kit.job("a"), PLENTY)
    reading = asyncio.create_task(store._database.readers.read(long_read))
    tending = asyncio.create_task(store.tend())
    try:
        async with asyncio.timeout(10):
            while store._database.readers._all[0].waiting < 2:
                await asyncio.sleep(0.01)
            await grow(store, store_kit, "b", 3 * MIB)
            with pytest.raises(StoreUnavailable):
                await asyncio.shield(reading)
            while store._database.sizes()["wal"] > MIB:
                await asyncio.sleep(0.01)
    finally:
        await store._database.readers._all[0].connection.interrupt()  # or nothing would end
        tending.cancel()
        await asyncio.wait([tending, reading])


async def test_deleted_bytes_leave_the_log_as_soon_as_nobody_reads_an_old_state(
    open_store: Any, store_kit: Any, tmp_path: Path
) -> None:
    store = await open_store()
    await store.create(store_kit.job("a", input=b"canary" * 100), PLENTY)
    await store.delete("a", store_kit.TENANT, now_ms=store_kit.NOW)
    with subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import sqlite3, sys\nc = sqlite3.connect(sys.argv[1])\nc.execute('BEGIN')\n"
            "print(c.execute('SELECT count(*) FROM job').fetchone()[0], flush=True)\nsys.stdin.read()",
            tmp_path / "jobs.db",
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as reader:
        assert reader.stdout is not None
        assert reader.stdout.readline() == b"1\n"
        started = time.monotonic()
        await store.sweep(now_ms=store_kit.NOW)
        await store.reclaim_space()
        assert time.monotonic() - started < 2, "writes must not wait for a reader"
        assert b"canary" in (tmp_path / "jobs.db-wal").read_bytes()
        await round_of(store)
        assert b"canary" in (tmp_path / "jobs.db-wal").read_bytes()
        reader.communicate(b"")
    await round_of(store)
    assert (await store.sizes())["wal"] == 0


async def test_a_file_that_is_largely_free_gives_its_pages_back_while_it_is_idle(
    open_store: Any, store_kit: Any
) -> None:
    store = await open_store()
    await grow(store, store_kit, "a", 8 * MIB)
    await store.reclaim_space()
    full = (await store.sizes())["db"]
    for number in range(8):
        await store.delete(f"a{number}", store_kit.TENANT, now_ms=store_kit.NOW)
    await store.sweep(now_ms=store_kit.NOW)
    for _ in range(12):
        await round_of(store)
    assert (await store.sizes())["db"] < full / 8


async def test_an_ending_without_room_is_stored_when_there_is_room_again(
    disk: Any, open_store: Any, store_kit: Any
) -> None:
    store = await open_store()
    await store.create(store_kit.job("a"), PLENTY)
    (claim,) = await store.claim(1, attempts_max=2, now_ms=store_kit.NOW)
    outcome = Outcome(Status.FAILED, b"{}", 2, b"end", 1, None, Reason.ENDED)
    times = {"now_ms": store_kit.NOW, "expires_at_ms": store_kit.NOW + 1000}
    disk.breaks(call="full", file="-wal")
    with pytest.raises(StoreUnavailable):
        await store.finish(claim, outcome, **times)
    disk.is_mended()
    await store.finish(claim, outcome, **times)
    found = await store.find("a", store_kit.TENANT, now_ms=store_kit.NOW)
    assert found is not None
    assert found.status is Status.FAILED
