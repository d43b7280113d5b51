"""Starts on files that something has happened to: nothing is lost silently, and nothing is thrown away."""

from __future__ import annotations

import asyncio
import os
import random
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from tests.acceptance.harness import Reply
from tests.torture.damages import DAMAGES, Damage, Files
from tests.torture.gateway import Gateway
from tests.torture.model import Model, create_body
from tests.torture.trial import Bench, trial

_SUFFIXES = ("", "-wal", "-shm", "-journal", ".lock", ".ballast")
_CONTENT = ("", "-wal", "-journal")
_CORRUPT = {"store_corrupt"}
_EX_CONFIG = 78
_HALF = 12
_SETTINGS: dict[str, Any] = {
    "upstream__concurrency_max": 32,
    "store__ballast_bytes": 2**16,
    "background__resume": "any",
}


@trial(
    "T25",
    f"starts on a database that was damaged in one of {len(DAMAGES)} ways: cut, bits flipped, pages lost, "
    "its log lost or another's, other versions, other files",
    pass_mark="the documented path each time: what is whole is served, else status 78 and a reason, or set "
    "aside where the settings say so; 0 crashes, 0 silent wipes, 0 bytes thrown away",
    runs=200,
    short_runs=2,
    round_s=20,
)
async def start_on_damaged_files(bench: Bench) -> None:
    random.seed(seed := int(os.environ.get("SEED", random.randrange(2**32))))
    bench.figure("seed", seed)
    model = await bench.model()
    kept, other = await asyncio.gather(_keep(bench, model), _keep(bench, model))
    order = random.sample(DAMAGES, len(DAMAGES))
    for number in bench.rounds():
        damage = order[number % len(order)]
        files = dict(kept.files)
        damage.do(files, dict(other.files))
        for setting in ("refuse", "recreate"):
            gateway = await bench.prepared(model.url, **_SETTINGS, store__on_corrupt=setting)
            if not await _Start(bench, gateway, damage, kept, files, setting).judge():
                break  # it was not refused: the other setting makes no difference


@dataclass(frozen=True, slots=True)
class _Kept:
    """What a killed gateway has left.

    Attributes:
        checkpointed: What the API showed of each ended response that is in the database itself, by path.
        logged: The same, of those that are in the log. What had not ended is there, too.
    """

    files: Files
    checkpointed: dict[str, bytes]
    logged: dict[str, bytes]


async def _keep(bench: Bench, model: Model) -> _Kept:
    """Half of what there is lies in the database, the other half in its log."""
    gateway = await bench.gateway(model.url, **_SETTINGS)
    shown = []
    for half in range(2):
        ids = await asyncio.gather(*(_run(gateway, f"{half}.{each}") for each in range(_HALF)))
        shown.append(await _show(gateway, ids))
        if half == 0:
            await gateway.stop()
            await gateway.start()
    for each in range(4):
        await gateway.call(
            "POST", "/responses", create_body(f"live.{each}", stream=False, fault="hang", after=2)
        )
    await asyncio.sleep(0.3)
    await gateway.kill9()
    return _Kept(_read(gateway.database), *shown)


async def _run(gateway: Gateway, tag: str) -> str:
    body = create_body(tag, stream=False, deltas=random.randint(3, 30), pace_ms=0)
    body["input"] = "x" * random.choice((10, 1000, 20_000))
    created = (await gateway.call("POST", "/responses", body)).json()
    await gateway.log_of_end(created["id"])
    return str(created["id"])


async def _show(gateway: Gateway, ids: list[str]) -> dict[str, bytes]:
    paths = [path for each in ids for path in (f"/responses/{each}", f"/responses/{each}?stream=true")]
    return {path: (await gateway.call("GET", path)).body for path in paths}


def _read(database: Path) -> Files:
    found = {suffix: database.with_name(database.name + suffix) for suffix in _SUFFIXES}
    return {suffix: path.read_bytes() for suffix, path in found.items() if path.exists()}


class _Start:
    """A gateway that is started on damaged files, with one setting of `store.on_corrupt`."""

    def __init__(
        self, bench: Bench, gateway: Gateway, damage: Damage, kept: _Kept, files: Files, setting: str
    ) -> None:
        self._bench = bench
        self._damage = damage
        self._kept = kept
        self._files = files
        self._is_recreating = setting == "recreate"
        self._what = f"{damage.name}, {setting}"
        self._gateway = gateway
        for suffix, content in files.items():
            path = self._gateway.database.with_name(self._gateway.database.name + suffix)
            path.write_bytes(content)
            path.chmod(0o600)

    def _require(self, condition: object, message: str) -> bool:
        return self._bench.require(condition, f"{self._what}: {message}")

    async def judge(self) -> bool:
        """All of it, in a directory of its own. Returns whether the start was refused."""
        failed = self._bench.result.failed
        try:
            return await self._judge()
        finally:
            await self._gateway.end()
            if self._bench.result.failed == failed:
                shutil.rmtree(self._gateway.database.parent)

    async def _judge(self) -> bool:
        status = await self._come_up()
        if status is not None:
            self._judge_refusal(status)
        elif any(line["event"] == "store_recreated" for line in self._gateway.lines):
            self._bench.add("set aside")
            self._judge_aside()
            await self._judge_work()
            await self._judge_next_start()
        else:
            self._bench.add("started")
            await self._judge_served()
            await self._judge_work()
            await self._judge_next_start()
        return status is not None

    async def _come_up(self) -> int | None:
        """The exit status; None if it listens, and has done so for a moment."""
        await self._gateway.spawn()
        ended = asyncio.create_task(self._gateway.exit_status())
        listening = asyncio.create_task(self._gateway.line(event="listening"))
        await asyncio.wait({ended, listening}, return_when=asyncio.FIRST_COMPLETED)
        if not ended.done():
            await asyncio.wait({ended}, timeout=0.3)
        for task in (ended, listening):
            task.cancel()
        await asyncio.gather(ended, listening, return_exceptions=True)
        return ended.result() if not ended.cancelled() else None

    def _judge_refusal(self, status: int) -> None:
        self._bench.add("refused")
        reasons = [line["reason"] for line in self._gateway.lines if line["event"] == "refused"]
        self._require(status == _EX_CONFIG, f"left with {status}: {self._gateway.stderr[-300:]!r}")
        is_named = len(reasons) == 1 and str(self._gateway.database) in reasons[0]
        self._require(is_named, f"gave as reasons {reasons}")
        self._require(self._damage.path != "served", f"was refused: {reasons}")
        is_foreign = self._is_recreating and self._damage.path in ("damaged", "older")
        self._require(not is_foreign, f"was refused, though it is to be set aside: {reasons}")
        left = _read(self._gateway.database)
        for suffix in _CONTENT:
            is_kept = left.get(suffix, b"") == self._files.get(suffix, b"")
            self._require(
                is_kept, f"was refused ({reasons}), and is another one now ({suffix or 'the database'})"
            )
        aside = list(self._gateway.database.parent.glob("*.corrupt-*"))
        self._require(not aside, f"was refused, and set aside all the same: {aside}")

    def _judge_aside(self) -> None:
        """All of it is there, under another name."""
        self._require(self._is_recreating, "was set aside against the settings")
        self._require(self._damage.path not in ("served", "foreign"), "was set aside")
        found = self._gateway.database.parent.glob(f"{self._gateway.database.name}.corrupt-*")
        aside = sorted(path.read_bytes() for path in found)
        expected = sorted(self._files[suffix] for suffix in _CONTENT if suffix in self._files)
        self._require(aside == expected, f"of {len(expected)} files {len(aside)} are kept as they were")

    async def _judge_served(self) -> None:
        """What the API shows is what it showed; of what was in a log that is lost, the state before."""
        path = self._damage.path
        self._require(path not in ("damaged", "foreign"), "was started on")
        known = self._kept.checkpointed if path == "older" else self._kept.checkpointed | self._kept.logged
        touched = set()
        for each, before in known.items():
            answer = await self._gateway.call("GET", each)
            if (answer.status, answer.body) != (200, before):
                touched.add(each.partition("?")[0])
                self._judge_answer(each, answer)
        self._bench.add("responses touched", len(touched))
        limit = self._damage.places if path == "judged" else 0
        self._require(
            len(touched) <= limit, f"{len(touched)} responses are not what they were: {sorted(touched)}"
        )

    def _judge_answer(self, path: str, answer: Reply) -> None:
        is_said = answer.status == 503 and answer.error.get("code") in _CORRUPT
        self._require(
            answer.status in (200, 404) or is_said, f"{path}: {answer.status}, {answer.body[:200]!r}"
        )

    async def _judge_work(self) -> None:
        """A new response is accepted and ends; or it is refused for what ails the file."""
        body = create_body("new", stream=False, deltas=3)
        plain = await self._gateway.call("POST", "/responses", {**body, "background": False})
        self._require(plain.status == 200, f"a plain request was answered {plain.status}")
        created = await self._gateway.call("POST", "/responses", body)
        if created.status == 503 and created.error["code"] in _CORRUPT:
            self._bench.add("found out at work")
            return
        if self._require(
            created.status == 200, f"a create was answered {created.status}, {created.body[:200]!r}"
        ):
            status, response_id = "queued", created.json()["id"]
            deadline = asyncio.get_running_loop().time() + 15
            while status in ("queued", "in_progress") and asyncio.get_running_loop().time() < deadline:
                await asyncio.sleep(0.05)
                shown = await self._gateway.call("GET", f"/responses/{response_id}")
                status = (
                    orjson.loads(shown.body).get("status", "") if shown.status == 200 else f"{shown.status}"
                )
            self._require(status == "completed", f"a new response is {status}")

    async def _judge_next_start(self) -> None:
        """It comes up again, or is refused in the same way: no supervisor starts it over and over."""
        before = len(list(self._gateway.database.parent.glob("*.corrupt-*")))
        self._gateway.next_start()
        await self._gateway.kill9()
        status = await self._come_up()
        self._require(status in (None, _EX_CONFIG), f"its next start left with {status}")
        if before:
            self._require(status is None, "its next start was refused")
            again = len(list(self._gateway.database.parent.glob("*.corrupt-*")))
            self._require(again == before, "the new one was set aside, too")
