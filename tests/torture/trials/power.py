"""Power cuts: what was acknowledged was flushed, and what was not leaves nothing half done."""

from __future__ import annotations

import asyncio
import random
import sqlite3

from tests.torture import journal, oracle, powercut
from tests.torture.clients import Crowd, Mix
from tests.torture.gateway import Gateway
from tests.torture.journal import Journal
from tests.torture.trial import Bench, trial
from tests.torture.trials.kills import note_verdict

_CLIENTS = 12
_SHORT = Mix(deltas=(3, 40), paces_ms=(0, 2, 10))
_PATIENCE_S = 3
"""Of clients that have seen events which are gone, as they may be there: they wait for more in vain."""


@trial(
    "T3",
    "power cuts under load: what was not flushed is dropped, torn in sectors, or there, at random",
    pass_mark="disk: 0 accepted lost, 0 seen events missing, doubled or changed; process: the file opens, "
    "quick_check ok, no hole in any stream that is left",
    runs=50,
    short_runs=1,
    round_s=40,
)
async def cut_the_power(bench: Bench) -> None:
    model = await bench.model()
    safe = await bench.prepared(model.url, store__durability="disk")
    fast = await bench.prepared(model.url, store__durability="process")
    cuts = [_Recorded(safe), _Recorded(fast)]
    for each in cuts:
        await each.start()
    async with (
        Journal(bench.directory / "journal") as notes,
        Journal(bench.directory / "journal-fast") as others,
        Crowd(safe, notes, _CLIENTS, _SHORT),
        Crowd(fast, others, _CLIENTS, _SHORT, patience_s=_PATIENCE_S),
    ):
        for number in bench.rounds():
            await asyncio.sleep(random.uniform(0.5, 2.0))
            for each in cuts:
                damage = await each.cut()
                name = "disk" if each.gateway is safe else "process"
                bench.add(f"unflushed changes lost, {name}", damage.lost)
                found = each.gateway.damage()
                bench.require(found is None, f"{name}, after cut {number}: {found}")
                for problem in each.gateway.look(holes):
                    bench.require(False, f"{name}, after cut {number}: {problem}")
                await each.start()
    told = journal.read(notes.path)
    note_verdict(bench, await oracle.audit(safe, told.stories.values()))
    told = journal.read(others.path)
    without = await oracle.audit(fast, [one for one in told.stories.values() if not one.is_delete_asked])
    bench.figure("accepted lost, process", len(without.missing))  # it may: that is what flushing is for


class _Recorded:
    """A gateway whose writes are recorded, so that its power can be cut."""

    def __init__(self, gateway: Gateway) -> None:
        self.gateway = gateway
        self._record = gateway.database.with_name("record")
        self._before: dict[str, bytes] = {}

    async def start(self) -> None:
        self._record.unlink(missing_ok=True)
        self._before = powercut.remember(self.gateway.database)
        self.gateway.next_start("--record", str(self._record))
        await self.gateway.start()

    async def cut(self) -> powercut.Damage:
        await self.gateway.kill9()
        return powercut.cut(self.gateway.database, self._before, self._record)


def holes(raw: sqlite3.Connection) -> list[str]:
    """Streams whose stored events are not 0, 1, 2 … to where the job's row says that they end."""
    found = []
    for pk, response_id, next_seq in raw.execute("SELECT pk, id, next_seq FROM job"):
        expected = 0
        rows = raw.execute("SELECT first_seq, last_seq FROM segment WHERE job = ? ORDER BY first_seq", (pk,))
        for first_seq, last_seq in rows:
            if first_seq != expected:
                found.append(f"{response_id}: {first_seq} comes after {expected - 1}")
            expected = last_seq + 1
        if expected not in (next_seq, 0):  # 0: its events were purged before its row
            found.append(f"{response_id}: ends at {expected}, not at {next_seq}")
    return found
