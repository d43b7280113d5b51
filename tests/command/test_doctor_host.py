"""What the doctor finds at the store, the clock, the descriptors and the gateway that runs."""

from __future__ import annotations

import asyncio
import os
import resource
import shutil
import time
from pathlib import Path
from typing import Any

import pytest

from gateway.command.admin import Admin
from gateway.command.doctor import host
from gateway.command.doctor.findings import Finding, Level
from gateway.config import Settings, StoreSettings
from tests.acceptance.harness import Gateway


def _by_check(findings: Any) -> dict[str, Finding]:
    return {each.check: each for each in findings}


def test_a_store_with_room_and_a_quick_disk_is_well(tmp_path: Path) -> None:
    settings = StoreSettings(database=tmp_path / "a.db", database_bytes_max=2**26, ballast_bytes=0)
    found = _by_check(host.store(settings))
    assert list(found) == ["place", "can write", "flush time", "free space"]
    assert found["can write"].found == "yes; the file is not there yet"
    assert found["free space"].level is Level.OK
    assert " ms, at most " in found["flush time"].found
    assert list(tmp_path.iterdir()) == []


def test_a_store_that_may_outgrow_its_disk_gets_a_limit_that_fits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = StoreSettings(database=tmp_path / "a.db", database_bytes_max=2**31)
    for free, level in ((2**40, Level.OK), (2**30, Level.NOTE), (2**20, Level.WRONG)):
        monkeypatch.setattr(
            shutil, "disk_usage", lambda _folder, free=free: shutil._ntuple_diskusage(0, 0, free)
        )
        found = _by_check(host.store(settings))["free space"]
        assert found.level is level
        if level is Level.NOTE:
            ((name, value),) = found.settings
            assert name == "store.database_bytes_max"
            assert 2**28 < value < free - settings.wal_bytes_max


def test_a_place_that_is_not_there_or_cannot_be_written_is_wrong(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (missing,) = host.store(StoreSettings(database=tmp_path / "no" / "a.db"))
    assert (missing.level, "there is no directory" in missing.found) == (Level.WRONG, True)

    def refuse(_folder: Path) -> list[float]:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(host, "_flushed", refuse)  # a test that runs as root may write anywhere
    found = _by_check(host.store(StoreSettings(database=tmp_path / "a.db")))
    assert found["can write"].level is Level.WRONG
    assert "Permission denied" in found["can write"].found


@pytest.mark.parametrize(("middle_s", "level"), [(0.001, "ok"), (0.05, "note"), (0.5, "wrong")])
def test_a_slow_disk_is_told(
    middle_s: float, level: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(host, "_flushed", lambda _folder: [middle_s] * 3)
    found = _by_check(host.store(StoreSettings(database=tmp_path / "a.db")))
    assert found["flush time"].level == level
    lax = _by_check(host.store(StoreSettings(database=tmp_path / "a.db", durability="process")))
    assert lax["flush time"].level is Level.OK


def test_a_file_from_the_future_means_that_the_clock_was_set_back(tmp_path: Path) -> None:
    settings = StoreSettings(database=tmp_path / "a.db")
    assert _by_check(host.clock(settings, [], None))["against the store"].level is Level.OK
    settings.database.touch()
    assert _by_check(host.clock(settings, [], None))["against the store"].level is Level.OK
    os.utime(settings.database, (time.time() + 3600,) * 2)
    assert _by_check(host.clock(settings, [], None))["against the store"].level is Level.WRONG


@pytest.mark.parametrize(
    ("skews", "level"), [([], "ok"), ([0.4, -0.5], "ok"), ([9.0], "note"), ([-90.0, -91.0], "wrong")]
)
def test_the_clock_is_held_against_the_backends(skews: list[float], level: str, tmp_path: Path) -> None:
    found = _by_check(host.clock(StoreSettings(database=tmp_path / "a.db"), skews, None))
    assert found["against backends"].level == level


def test_the_gateways_own_clock_may_have_been_left_behind(tmp_path: Path) -> None:
    now_ms = time.time() * 1000
    settings = StoreSettings(database=tmp_path / "a.db")
    for apart_ms, level in ((0, Level.OK), (120_000, Level.NOTE)):
        found = _by_check(host.clock(settings, [], {"now_ms": now_ms - apart_ms}))
        assert found["against the gateway"].level is level


def test_descriptors_that_do_not_do_are_told_with_the_limit_and_the_setting(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    upstream = {"url": "http://m/v1", "concurrency_max": 100}
    settings = Settings.model_validate({"upstream": upstream, "server": {"connections_max": 1000}})
    for hard, level in (
        (2000, Level.OK),
        (resource.RLIM_INFINITY, Level.OK),
        (1000, Level.NOTE),
        (300, Level.WRONG),
    ):
        monkeypatch.setattr(resource, "getrlimit", lambda _what, hard=hard: (hard, hard))
        (found,) = host.descriptors(settings)
        assert found.level is level
        if level is not Level.OK:
            assert "LimitNOFILE=1164" in found.advice
            assert found.settings == (("server.connections_max", (hard - 164) // 10 * 10),)


async def test_a_gateway_that_runs_says_so_and_one_that_does_not_is_no_fault(gateway: Gateway) -> None:
    found, now = await asyncio.to_thread(host.gateway_status, Admin(gateway.admin))
    assert (found.level, found.found.endswith("0 running, 0 waiting")) == (Level.OK, True)
    assert now is not None
    assert now["store"] == "ok"
    for admin in (None, Admin("http://127.0.0.1:1")):
        found, now = await asyncio.to_thread(host.gateway_status, admin)
        assert (found.level, now) == (Level.OK, None)
