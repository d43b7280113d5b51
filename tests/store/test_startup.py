"""Which files are opened, which are refused or set aside, and that none is ever lost by it."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from gateway.core.job import StoreUnavailable
from gateway.store.port import QueueLimits
from gateway.store.refused import DatabaseDamaged, DatabaseRefused, DatabaseUnreachable
from gateway.store.sqlite.filesystem import filesystem_magic

PLENTY = QueueLimits(10_000, 10_000)
NFS, FUSE, P9 = 0x6969, 0x65735546, 0x01021997


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where `open_store` has its file."""
    return tmp_path / "jobs.db"


async def make(open_store: Any, kit: Any) -> None:
    store = await open_store()
    for number in range(40):
        await store.create(kit.job(f"j{number}", size=3000), PLENTY)
    await store.close()


def flip(path: Path, places: list[int]) -> None:
    content = bytearray(path.read_bytes())
    for place in places:
        content[place] ^= 0xFF
    path.write_bytes(content)


def damage(path: Path) -> None:
    size = path.stat().st_size
    flip(path, [page + byte for page in range(4 * 4096, size, 3 * 4096) for byte in range(16)])


# -- damaged files


async def test_a_damaged_file_is_refused_with_what_can_be_done_and_left_where_it_is(
    path: Path, open_store: Any, store_kit: Any
) -> None:
    await make(open_store, store_kit)
    damage(path)
    for _ in range(2):
        with pytest.raises(DatabaseDamaged, match=r"restore it or move it away, or .*on_corrupt: recreate"):
            await open_store()
    assert path.stat().st_size > 100_000


async def test_a_damaged_file_is_set_aside_whole_if_the_settings_say_so(
    path: Path, open_store: Any, store_kit: Any
) -> None:
    await make(open_store, store_kit)
    damage(path)
    path.with_name("jobs.db-wal").write_bytes(b"its log")
    path.with_name("jobs.db-wal").chmod(0o600)
    before = path.read_bytes()
    store = await open_store(on_corrupt="recreate")
    (aside,) = [file for file in path.parent.glob("jobs.db.corrupt-*") if not file.name.endswith("-wal")]
    assert aside.stat().st_mode & 0o077 == 0
    assert len(before) == aside.stat().st_size
    assert aside.read_bytes()[: 4 * 4096] == before[: 4 * 4096]
    await store.create(store_kit.job("new"), PLENTY)
    assert await store.find("j1", store_kit.TENANT, now_ms=store_kit.NOW) is None
    read = store._upkeep._observer.registry.get_sample_value
    assert read("backburner_store_recreated_total") == 1
    await store.close()
    store = await open_store(on_corrupt="recreate")  # a good one stays
    assert await store.find("new", store_kit.TENANT, now_ms=store_kit.NOW) is not None


async def test_a_file_that_was_emptied_is_not_taken_for_a_new_one(
    path: Path, open_store: Any, store_kit: Any
) -> None:
    await make(open_store, store_kit)
    path.write_bytes(b"")
    with pytest.raises(DatabaseDamaged, match="is empty, though it has been in use"):
        await open_store()
    await (await open_store(on_corrupt="recreate")).close()
    path.unlink()
    await open_store()  # one that somebody removed, is


@pytest.mark.parametrize("keep", [1, 100, 4096, 9000])
async def test_a_file_that_was_cut_short_is_refused(
    path: Path, open_store: Any, store_kit: Any, keep: int
) -> None:
    await make(open_store, store_kit)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(DatabaseDamaged):
        await open_store()


async def test_a_file_that_never_was_ours_is_never_set_aside(path: Path, open_store: Any) -> None:
    path.write_bytes(b"the only copy of somebody's thesis " * 200)
    path.chmod(0o600)
    before = path.read_bytes()
    with pytest.raises(DatabaseRefused, match="cannot be used"):
        await open_store(on_corrupt="recreate")
    assert path.read_bytes() == before
    path.unlink()
    with closing(sqlite3.connect(path)) as raw:
        raw.execute("CREATE TABLE recipes (name TEXT)")
    path.chmod(0o600)
    with pytest.raises(DatabaseRefused, match="of some other program"):
        await open_store(on_corrupt="recreate")
    assert list(path.parent.glob("*.corrupt-*")) == []


# -- other versions


@pytest.mark.parametrize(
    ("version", "reason"),
    [
        (0, "by an unreleased version .*run that version, or give another file"),
        (99, "by a newer version .*run that version, restore the backup from before the upgrade, or"),
    ],
)
async def test_a_file_of_another_version_is_refused_and_never_set_aside(
    path: Path, open_store: Any, store_kit: Any, version: int, reason: str
) -> None:
    await make(open_store, store_kit)
    with closing(sqlite3.connect(path)) as raw:
        raw.execute(f"PRAGMA user_version = {version}")
    with pytest.raises(DatabaseRefused, match=reason):
        await open_store(on_corrupt="recreate")
    assert list(path.parent.glob("*.corrupt-*")) == []


async def test_a_file_with_other_tables_under_the_same_version_is_refused(
    path: Path, open_store: Any, store_kit: Any
) -> None:
    await make(open_store, store_kit)
    with closing(sqlite3.connect(path)) as raw:
        raw.execute("UPDATE meta SET value = x'00' WHERE key = 'schema'")
        raw.commit()
    with pytest.raises(DatabaseRefused, match="unreleased version"):
        await open_store()


# -- where it lies, and what lies beside it


@pytest.mark.parametrize(
    ("magic", "options", "reason"),
    [
        (NFS, {}, r"network file system \(NFS\)"),
        (NFS, {"allow_fuse": True}, r"network file system \(NFS\)"),
        (0xFF534D42, {}, "CIFS"),
        (FUSE, {}, "FUSE.*store.allow_fuse"),
        (P9, {}, "9P.*store.allow_fuse"),
    ],
)
async def test_file_systems_whose_locks_cannot_be_relied_on_are_refused(
    path: Path, open_store: Any, monkeypatch: Any, magic: int, options: Any, reason: str
) -> None:
    monkeypatch.setattr("gateway.store.sqlite.filesystem.filesystem_magic", lambda _: magic)
    with pytest.raises(DatabaseRefused, match=reason):
        await open_store(**options)
    assert not path.exists()


@pytest.mark.parametrize("magic", [FUSE, P9])
async def test_a_file_system_that_is_vouched_for_is_used(
    open_store: Any, monkeypatch: Any, magic: int
) -> None:
    monkeypatch.setattr("gateway.store.sqlite.filesystem.filesystem_magic", lambda _: magic)
    await open_store(allow_fuse=True)


def test_the_kind_of_a_file_system_is_what_the_kernel_says() -> None:
    assert filesystem_magic(Path("/proc")) == 0x9FA0  # PROC_SUPER_MAGIC
    with pytest.raises(OSError, match="No such file"):
        filesystem_magic(Path("/does/not/exist"))


@pytest.mark.parametrize("suffix", ["-wal", "-shm", ".ballast"])
async def test_a_file_that_somebody_put_beside_it_is_refused(
    path: Path, open_store: Any, store_kit: Any, suffix: str
) -> None:
    """SQLite would write prompts into a log that others can read, or follow a link of theirs."""
    await make(open_store, store_kit)
    planted = path.with_name(path.name + suffix)
    planted.unlink(missing_ok=True)
    planted.touch(mode=0o600)
    planted.chmod(0o666)
    with pytest.raises(DatabaseRefused, match="mode 0666"):
        await open_store()
    planted.unlink()
    planted.symlink_to("/etc/passwd")
    with pytest.raises(DatabaseRefused, match="symbolic links"):
        await open_store()
    planted.unlink()
    await open_store()


async def test_a_disk_that_fails_at_the_start_is_no_fault_of_the_file(
    disk: Any, open_store: Any, store_kit: Any
) -> None:
    await make(open_store, store_kit)
    disk.breaks(call="read", file=".db")
    with pytest.raises(DatabaseUnreachable):
        await open_store(on_corrupt="recreate")
    disk.is_mended()
    store = await open_store()
    assert await store.find("j1", store_kit.TENANT, now_ms=store_kit.NOW) is not None


async def test_what_an_open_store_cannot_reopen_stays_off(
    disk: Any, open_store: Any, store_kit: Any, path: Path
) -> None:
    store = await open_store()
    await store.create(store_kit.job("a"), PLENTY)
    disk.breaks(call="sync", file="-wal")
    with pytest.raises(StoreUnavailable):
        await store.create(store_kit.job("b"), PLENTY)
    for _ in range(3):
        await store._upkeep.run_once()
        assert store.state() == "failing"
    disk.is_mended()
    await store.close()  # in whatever state
    assert await (await open_store()).find("a", store_kit.TENANT, now_ms=store_kit.NOW) is not None


# -- what is refused stays as it was found, its log included


async def left_by_a_kill(path: Path, open_store: Any, kit: Any) -> dict[str, bytes]:
    """What lies there after one, by suffix; half of it in the log. It lies at `path`, where nobody has it."""
    await make(open_store, kit)
    store = await open_store()
    for number in range(20):
        await store.create(kit.job(f"late{number}", size=3000), PLENTY)
    left = {suffix: path.with_name(path.name + suffix).read_bytes() for suffix in ("", "-wal", ".lock")}
    await store.close()
    put(path, left)
    assert len(left["-wal"]) > 20 * 3000
    return left


def put(path: Path, files: dict[str, bytes]) -> None:
    for suffix, content in files.items():
        path.with_name(path.name + suffix).write_bytes(content)
        path.with_name(path.name + suffix).chmod(0o600)


def found(path: Path) -> dict[str, bytes]:
    """What lies there and is part of the database, by suffix."""
    names = {suffix: path.with_name(path.name + suffix) for suffix in ("", "-wal", "-journal")}
    return {suffix: file.read_bytes() for suffix, file in names.items() if file.exists()}


def aside(path: Path) -> list[bytes]:
    return sorted(file.read_bytes() for file in path.parent.glob("jobs.db.corrupt-*"))


@pytest.mark.parametrize("is_damaged", [True, False], ids=["damaged", "another version"])
async def test_nothing_is_written_to_a_file_that_is_refused(
    path: Path, open_store: Any, store_kit: Any, is_damaged: bool
) -> None:
    await left_by_a_kill(path, open_store, store_kit)
    if is_damaged:
        damage(path)
    else:
        with closing(sqlite3.connect(path)) as raw, closing(sqlite3.connect(path)) as other:
            other.execute("SELECT count(*) FROM job").fetchall()
            raw.execute("PRAGMA user_version = 99")
            before = found(path)
        put(path, before)
    before = found(path)
    assert set(before) == {"", "-wal"}
    for _ in range(2):
        with pytest.raises(DatabaseRefused):
            await open_store()
        assert found(path) == before
    if is_damaged:
        await open_store(on_corrupt="recreate")
        assert aside(path) == sorted(before.values())


@pytest.mark.parametrize("is_empty", [True, False], ids=["empty", "gone"])
@pytest.mark.parametrize("is_remembered", [True, False])
async def test_a_log_without_its_database_is_kept(
    path: Path, open_store: Any, store_kit: Any, is_empty: bool, is_remembered: bool
) -> None:
    """SQLite would delete it, and with it all that was acknowledged last."""
    left = await left_by_a_kill(path, open_store, store_kit)
    path.write_bytes(b"") if is_empty else path.unlink()
    if not is_remembered:
        path.with_name("jobs.db.lock").unlink()
    with pytest.raises(DatabaseDamaged, match="is empty" if is_empty else "is missing, and its log is there"):
        await open_store()
    assert found(path)["-wal"] == left["-wal"]
    store = await open_store(on_corrupt="recreate")
    assert left["-wal"] in aside(path)
    await store.create(store_kit.job("new"), PLENTY)


async def test_without_its_log_a_young_file_is_no_new_one(
    path: Path, open_store: Any, store_kit: Any
) -> None:
    store = await open_store()
    await store.create(store_kit.job("a"), PLENTY)
    pepper, without = store.pepper, path.read_bytes()
    await store.close()
    path.write_bytes(without)
    assert (await open_store()).pepper == pepper


async def test_a_file_that_has_lost_all_its_tables_is_no_new_one(
    path: Path, open_store: Any, store_kit: Any
) -> None:
    await make(open_store, store_kit)
    path.unlink()
    with closing(sqlite3.connect(path)) as raw:
        raw.execute("PRAGMA journal_mode = WAL")
    path.chmod(0o600)
    with pytest.raises(DatabaseDamaged, match="is empty, though it has been in use"):
        await open_store()


async def test_an_unfinished_change_of_another_program_is_not_undone(
    path: Path, open_store: Any, store_kit: Any
) -> None:
    """A journal beside the file is played back by whoever opens it next."""
    await make(open_store, store_kit)
    with closing(sqlite3.connect(path, isolation_level=None)) as raw:
        raw.execute("PRAGMA journal_mode = DELETE")
        raw.execute("PRAGMA cache_size = 1")
        raw.execute("BEGIN")
        raw.execute("UPDATE call SET input = zeroblob(length(input))")
        before = found(path)
    put(path, before)
    with pytest.raises(DatabaseDamaged, match="another program has begun to change it"):
        await open_store()
    assert found(path) == before
    await open_store(on_corrupt="recreate")
    assert aside(path) == sorted(before.values())


async def test_what_an_index_has_lost_is_found(path: Path, open_store: Any, store_kit: Any) -> None:
    await make(open_store, store_kit)
    content = path.read_bytes()
    _, index = [place for place in range(len(content)) if content.startswith(b"j17", place)]
    path.write_bytes(content[:index] + b"k17" + content[index + 3 :])
    with pytest.raises(DatabaseDamaged, match="missing from index"):
        await open_store()


async def test_a_file_that_no_longer_knows_its_tenants_is_damaged(
    path: Path, open_store: Any, store_kit: Any
) -> None:
    await make(open_store, store_kit)
    with closing(sqlite3.connect(path, isolation_level=None)) as raw:
        raw.execute("UPDATE meta SET value = zeroblob(32) WHERE key = 'pepper'")
    with pytest.raises(DatabaseDamaged, match="knows its tenants is not what it was"):
        await open_store()


async def test_what_is_set_aside_takes_the_place_of_nothing(
    path: Path, open_store: Any, store_kit: Any, monkeypatch: Any
) -> None:
    monkeypatch.setattr("gateway.store.sqlite.file.time.strftime", lambda *_: ".corrupt-now")
    for _ in range(3):  # in one second
        await make(open_store, store_kit)
        path.write_bytes(b"")
        await (await open_store(on_corrupt="recreate")).close()
        path.unlink()
    names = {file.name for file in path.parent.glob("jobs.db.corrupt-*")}
    assert names == {"jobs.db.corrupt-now", "jobs.db.corrupt-now-2", "jobs.db.corrupt-now-3"}


async def test_a_file_that_vanishes_while_it_is_in_use_is_not_made_anew(
    disk: Any, open_store: Any, store_kit: Any, path: Path
) -> None:
    """What was acknowledged can still be read; an empty file would say that it never was."""
    store = await open_store()
    await store.create(store_kit.job("a"), PLENTY)
    disk.breaks(call="sync", file="-wal")
    with pytest.raises(StoreUnavailable):
        await store.create(store_kit.job("b"), PLENTY)
    disk.is_mended()
    path.unlink()
    path.with_name("jobs.db-wal").unlink()
    for _ in range(2):
        await store._upkeep.run_once()
        with pytest.raises(StoreUnavailable):
            await store.create(store_kit.job("c"), PLENTY)
        assert await store.find("a", store_kit.TENANT, now_ms=store_kit.NOW) is not None
        assert not path.exists()
