"""Files that are taken away from a gateway that runs: deleted, moved, replaced; what must not come of it."""

from __future__ import annotations

import asyncio
import os
import random
import shutil
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import orjson

from tests.torture import journal, oracle
from tests.torture.clients import Crowd
from tests.torture.gateway import Gateway
from tests.torture.journal import Journal
from tests.torture.model import Model, create_body
from tests.torture.trial import Bench, trial
from tests.torture.trials.kills import note_verdict, require_whole

_CLIENTS = 12
_FILES = ("", "-wal", "-shm")
_NOTICED_S = 2.0
_AWAY_S = 1.5
_EX_TEMPFAIL = 75
_RESTORED = "backburner_store_restored_total"
_FOREIGN = b"another program's file"

PutBack = Callable[[], object]


def _beside(database: Path, suffix: str) -> Path:
    return database.with_name(database.name + suffix)


def _delete(database: Path) -> None:
    """All of its files, or some of them."""
    for suffix in random.choice((_FILES, ("",), ("-wal",), ("-shm",), ("-wal", "-shm"))):
        with suppress(FileNotFoundError):  # it is made anew before all are gone
            _beside(database, suffix).unlink()


def _delete_directory(database: Path) -> None:
    shutil.rmtree(database.parent, ignore_errors=True)  # it is made anew before it is gone


def _move_directory(database: Path) -> PutBack:
    elsewhere = database.parent.with_name("elsewhere")
    database.parent.rename(elsewhere)
    return lambda: elsewhere.rename(database.parent)


def _replace(database: Path) -> PutBack:
    """By another file, the log gone with its database."""
    elsewhere = database.parent / "elsewhere"
    elsewhere.mkdir(mode=0o700)
    for suffix in _FILES:
        _beside(database, suffix).rename(_beside(elsewhere / database.name, suffix))
    database.write_bytes(_FOREIGN)

    def put_back() -> None:
        assert database.read_bytes() == _FOREIGN, "it was written to"
        for suffix in _FILES:
            _beside(elsewhere / database.name, suffix).rename(_beside(database, suffix))
        elsewhere.rmdir()

    return put_back


def _change_link(database: Path) -> PutBack:
    """Of the directory: the files are where they were."""
    real = database.parent.with_name("real")
    database.parent.rename(real)
    elsewhere = database.parent.with_name("elsewhere")
    elsewhere.mkdir(mode=0o700)
    database.parent.symlink_to(elsewhere)

    def put_back() -> None:
        assert not list(elsewhere.iterdir()), "something was made there"
        elsewhere.rmdir()
        database.parent.unlink()
        real.rename(database.parent)

    return put_back


_FOR_GOOD = (_delete, _delete_directory)
_FOR_A_WHILE = (_move_directory, _replace, _change_link)


@trial(
    "T55",
    "under load, the database and its log are deleted, all or some; their directory is deleted, moved, or "
    "its link changed; another file is put there; the lock file is removed and a second process started",
    pass_mark=f"creates get 503 store_failing within {_NOTICED_S:g} s, or the file is there again; 0 "
    "accepted lost, 0 seen events missing, doubled or changed, also by a kill -9 after the first refusal; 0 "
    "refused and run; no other file is touched; the second process leaves with 75",
    runs=60,
    short_runs=6,
    round_s=30,
)
async def take_the_files_away(bench: Bench) -> None:
    model = await bench.model()
    gateway = await bench.prepared(model.url)
    gateway.database = gateway.database.parent / "kept" / gateway.database.name
    await gateway.start()
    harms = [*_FOR_GOOD, *_FOR_A_WHILE, None]
    random.shuffle(harms)
    async with Journal(bench.directory / "journal") as notes, Crowd(gateway, notes, _CLIENTS):
        for number in bench.rounds():
            await asyncio.sleep(random.uniform(0.3, 1.0))
            harm = harms[number % len(harms)]
            if harm is None:
                await _start_a_second(bench, model, gateway)
            elif harm in _FOR_GOOD:
                restored = await gateway.metric(_RESTORED)
                harm(gateway.database)
                await _until_noticed(bench, gateway, restored)
                bench.add("deleted")
                if number % 2:
                    await gateway.kill9()
                    require_whole(bench, gateway, f"kill {number}")
                    await gateway.restart()
            else:
                restored = await gateway.metric(_RESTORED)
                put_back = harm(gateway.database)
                await _until_noticed(bench, gateway, restored)
                await asyncio.sleep(random.uniform(0, _AWAY_S))
                bench.add("away")
                assert put_back is not None
                put_back()
            await _until_ok(bench, gateway)
    told = journal.read(notes.path)
    note_verdict(bench, await oracle.audit(gateway, told.stories.values()))
    run = {call.tag for call in await model.calls()}
    bench.figure("refused", len(told.refused))
    bench.figure("refused and run", len(run & set(told.refused)))
    bench.require(not run & set(told.refused), "creates were refused, and run all the same")


async def _until_noticed(bench: Bench, gateway: Gateway, restored: float) -> None:
    """A create is refused, or what was deleted is there again.

    Args:
        restored: How often it was so before.
    """
    started = time.monotonic()
    while time.monotonic() < started + 3 * _NOTICED_S:
        body = create_body(f"probe.{started}", stream=False, deltas=1)
        answer = await gateway.call("POST", "/responses", orjson.dumps(body))
        if answer.status != 200:
            found = answer.status, answer.error["code"]
            bench.require(found == (503, "store_failing"), f"a create was answered {found}")
            break
        if await gateway.metric(_RESTORED) > restored:
            break
        await asyncio.sleep(0.02)
    took_s = time.monotonic() - started
    bench.most("slowest to notice s", took_s)
    bench.require(took_s <= _NOTICED_S, f"it was noticed only after {took_s:.1f} s")


async def _until_ok(bench: Bench, gateway: Gateway) -> None:
    async with asyncio.timeout(20):
        while not await gateway.metric('backburner_store_state{state="ok"}'):
            await asyncio.sleep(0.05)
        while not gateway.database.exists():  # noticed at the next look
            await asyncio.sleep(0.05)


async def _start_a_second(bench: Bench, model: Model, gateway: Gateway) -> None:
    with suppress(FileNotFoundError):
        os.unlink(f"{gateway.database}.lock")
    second = await bench.prepared(model.url)
    second.database = gateway.database
    await second.spawn()
    async with asyncio.timeout(60):
        status = await second.exit_status()
    bench.require(status == _EX_TEMPFAIL, f"a second process left with {status}")
    bench.add("second processes")
    await second.end()
