"""Files that are taken away while they are in use: it is noticed, and nothing that was accepted is lost if it
can be helped."""

from __future__ import annotations

import asyncio
import os
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest

from gateway.core.job import StoreUnavailable
from gateway.store.port import QueueLimits
from gateway.store.refused import DatabaseInUse
from gateway.store.sqlite import database as database_module
from gateway.store.sqlite.store import SqliteStore

PLENTY = QueueLimits(10_000, 10_000)
FILES = ["", "-wal", "-shm"]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "kept" / "jobs.db"


@pytest.fixture
async def store(path: Path, open_store: Any, store_kit: Any) -> SqliteStore:
    """With one job, and looking for its files at every create."""
    store: SqliteStore = await open_store(database=path, found_within_ms=0)
    await store.create(store_kit.job("first"), PLENTY)
    return store


def beside(path: Path, suffix: str) -> Path:
    return path.with_name(path.name + suffix)


async def refused(store: SqliteStore, job: Any) -> None:
    with pytest.raises(StoreUnavailable, match="taken_away") as refusal:
        await store.create(job, PLENTY)
    assert (refusal.value.code, refusal.value.meaning) == ("store_failing", "its file was taken away")


async def state_after_a_round(store: SqliteStore) -> str:
    await store._upkeep.run_once()
    return store.state()


def after_a_crash(path: Path) -> set[str]:
    """The jobs that would be there if the process ended now. Another one copies: that takes no locks away."""
    copy = path.parent.with_name("copy") / path.name
    shutil.rmtree(copy.parent, ignore_errors=True)
    copy.parent.mkdir()
    subprocess.run(["cp", path, beside(path, "-wal"), copy.parent], check=True)
    with closing(sqlite3.connect(copy)) as raw:
        assert raw.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        return {row[0] for row in raw.execute("SELECT id FROM job")}


@pytest.mark.parametrize("gone", [FILES, [""], ["-wal"], ["-shm"], ["-wal", "-shm"]], ids="+".join)
async def test_what_was_deleted_is_written_anew_before_the_refusal_is_told(
    store: SqliteStore, store_kit: Any, path: Path, gone: list[str]
) -> None:
    for suffix in gone:
        beside(path, suffix).unlink()
    await refused(store, store_kit.job("refused"))
    assert after_a_crash(path) == {"first"}
    assert store.state() == "ok"
    await store.create(store_kit.job("second"), PLENTY)
    (claim,) = await store.claim(1, attempts_max=2, now_ms=store_kit.NOW)
    await store.append(claim, 2, 1, b"event: e\ndata: {}\n\n", has_output=True)
    assert after_a_crash(path) == {"first", "second"}
    assert (path.stat().st_mode & 0o777, path.stat().st_nlink) == (0o600, 1)
    assert sorted(path.parent.iterdir()) == sorted(
        beside(path, suffix) for suffix in ("", "-shm", "-wal", ".ballast", ".lock")
    )


async def test_a_directory_that_was_deleted_is_made_anew(
    store: SqliteStore, store_kit: Any, path: Path
) -> None:
    shutil.rmtree(path.parent)
    await refused(store, store_kit.job("refused"))
    assert path.parent.stat().st_mode & 0o777 == 0o700
    assert after_a_crash(path) == {"first"}


async def test_a_second_process_is_refused_after_the_file_was_written_anew(
    store: SqliteStore, store_kit: Any, path: Path, open_store: Any
) -> None:
    shutil.rmtree(path.parent)
    await refused(store, store_kit.job("refused"))
    with pytest.raises(DatabaseInUse, match=str(os.getpid())):
        await open_store(database=path)


async def test_it_is_noticed_within_a_round_though_nothing_is_sent(
    store: SqliteStore, store_kit: Any, path: Path
) -> None:
    for suffix in FILES:
        beside(path, suffix).unlink()
    assert await state_after_a_round(store) == "ok"
    assert after_a_crash(path) == {"first"}
    read = store._upkeep._observer.registry.get_sample_value
    assert read("backburner_store_restored_total") == 1


async def test_what_was_accepted_before_it_was_noticed_is_kept_too(
    path: Path, open_store: Any, store_kit: Any
) -> None:
    store = await open_store(database=path, found_within_ms=60_000)
    await store.create(store_kit.job("first"), PLENTY)
    for suffix in FILES:
        beside(path, suffix).unlink()
    await store.create(store_kit.job("late"), PLENTY)
    await state_after_a_round(store)
    assert after_a_crash(path) == {"first", "late"}


async def test_what_is_written_while_it_is_copied_is_in_the_copy(
    store: SqliteStore, store_kit: Any, path: Path
) -> None:
    """Creates and events go on all the time; all that succeeded are there, the events without a gap."""
    (claim,) = await store.claim(1, attempts_max=2, now_ms=store_kit.NOW)
    kept = {"first"}
    next_seq = 2

    async def create(number: int) -> None:
        for part in range(20):
            with suppress(StoreUnavailable):
                await store.create(store_kit.job(f"{number}-{part}", size=2000), PLENTY)
                kept.add(f"{number}-{part}")

    async def append() -> None:
        nonlocal next_seq
        for _ in range(60):
            await store.append(claim, next_seq, 1, b"event: e\ndata: {}\n\n", has_output=True)
            next_seq += 1

    writers = [asyncio.create_task(work) for work in (append(), *(create(number) for number in range(8)))]
    while next_seq < 10:
        await asyncio.sleep(0)
    for suffix in FILES:
        beside(path, suffix).unlink()
    await asyncio.gather(*writers)
    assert len(kept) < 8 * 20, "some came while it was away"
    assert after_a_crash(path) == kept
    page = await store.page("first", store_kit.TENANT, after=-1, bytes_max=2**20, now_ms=store_kit.NOW)
    assert page is not None
    assert page.last_seq == next_seq - 1 == 61


@pytest.mark.parametrize("how", ["moved", "its directory moved", "replaced", "a link changed"])
async def test_what_lies_elsewhere_is_left_alone_until_it_is_back(
    path: Path, open_store: Any, store_kit: Any, how: str
) -> None:
    """New responses are refused; those that run go on, and are there when the files are."""
    link = path.parent.with_name("link")
    path.parent.mkdir(mode=0o700)
    link.symlink_to(path.parent)
    database = link / path.name if how == "a link changed" else path
    store = await open_store(database=database, found_within_ms=0)
    await store.create(store_kit.job("first"), PLENTY)
    (claim,) = await store.claim(1, attempts_max=2, now_ms=store_kit.NOW)
    other = path.parent.with_name("other")
    match how:
        case "its directory moved":
            path.parent.rename(other)
        case "a link changed":
            other.mkdir(mode=0o700)
            link.unlink()
            link.symlink_to(other)
        case _:
            other.mkdir(mode=0o700)
            for suffix in FILES:
                beside(path, suffix).rename(other / beside(path, suffix).name)
    if how == "replaced":
        path.write_bytes(b"another's")
    await refused(store, store_kit.job("refused"))
    for _ in range(2):
        assert await state_after_a_round(store) == "taken_away"
    await store.append(claim, 2, 1, b"event: e\ndata: {}\n\n", has_output=True)
    assert await store.find("first", store_kit.TENANT, now_ms=store_kit.NOW) is not None
    match how:
        case "its directory moved":
            assert not path.parent.exists()
            other.rename(path.parent)
        case "a link changed":
            assert list(other.iterdir()) == []
            link.unlink()
            link.symlink_to(path.parent)
        case _:
            assert not path.exists() or path.read_bytes() == b"another's"
            for suffix in FILES:
                (other / beside(path, suffix).name).rename(beside(path, suffix))
    assert await state_after_a_round(store) == "ok"
    await store.create(store_kit.job("second"), PLENTY)
    assert after_a_crash(path) == {"first", "second"}


async def test_a_failed_disk_opens_no_other_file_that_lies_there_now(
    disk: Any, path: Path, open_store: Any, store_kit: Any
) -> None:
    other = await open_store(database=path.with_name("other.db"))
    await other.create(store_kit.job("foreign"), PLENTY)
    await other.close()
    before = path.with_name("other.db").read_bytes()
    store = await open_store(database=path, found_within_ms=0)
    await store.create(store_kit.job("first"), PLENTY)
    path.with_name("other.db").rename(path)
    disk.breaks(call="sync", file="-wal")
    with pytest.raises(StoreUnavailable):
        await store.claim(1, attempts_max=2, now_ms=store_kit.NOW)
    disk.is_mended()
    for _ in range(2):
        assert await state_after_a_round(store) == "failing"
    await store.close()
    assert path.read_bytes() == before


async def test_a_copy_that_cannot_be_made_is_tried_again(
    store: SqliteStore, store_kit: Any, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database_module, "_RESTORE_INTERVAL_S", 0)
    beside(path, ".restored").mkdir()
    for suffix in FILES:
        beside(path, suffix).unlink()
    await refused(store, store_kit.job("refused"))
    assert await state_after_a_round(store) == "taken_away"
    (claim,) = await store.claim(1, attempts_max=2, now_ms=store_kit.NOW)
    beside(path, ".restored").rmdir()
    assert await state_after_a_round(store) == "ok"
    await store.append(claim, 2, 1, b"event: e\ndata: {}\n\n", has_output=True)
    assert after_a_crash(path) == {"first"}


async def test_a_copy_that_was_not_finished_does_not_stay(
    path: Path, open_store: Any, store_kit: Any
) -> None:
    store = await open_store(database=path)
    await store.close()
    beside(path, ".restored").write_bytes(b"prompts and answers")
    await open_store(database=path)
    assert not beside(path, ".restored").exists()


_SECOND = """
import asyncio, sys
from gateway.config import StoreSettings
from gateway.observe import Observer
from gateway.store.refused import DatabaseInUse
from gateway.store.sqlite.store import SqliteStore
async def main():
    try:
        await SqliteStore.open(StoreSettings(database=sys.argv[1]), Observer())
    except DatabaseInUse as error:
        print(error)
asyncio.run(main())
"""


async def test_a_second_process_is_refused_though_the_lock_file_was_removed(
    store: SqliteStore, store_kit: Any, path: Path
) -> None:
    beside(path, ".lock").unlink()
    command = [sys.executable, "-c", _SECOND, str(path)]
    said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert said == f"{path} is in use by another process, whose lock file was removed\n"
    assert await state_after_a_round(store) == "ok"
    said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert said == f"{path} is in use by process {os.getpid()}\n", "it was made again"
    await store.create(store_kit.job("second"), PLENTY)
