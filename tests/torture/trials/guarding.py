"""The guards guarded: without any one of them, something must fail that passes with it."""

from __future__ import annotations

import asyncio
import random
import sqlite3
from contextlib import suppress
from dataclasses import replace

import aiohttp
import orjson

from gateway.core.job import TRANSITIONS
from tests.torture.clients import Crowd, Mix
from tests.torture.gateway import HEADERS, Gateway
from tests.torture.guards import GUARDS
from tests.torture.journal import Journal
from tests.torture.model import create_body, expected_text
from tests.torture.oracle import text_of
from tests.torture.trial import TRIALS, Bench, Play, Trial, trial
from tests.torture.trials.doors import ask_through_one_key, knock_without_a_key
from tests.torture.trials.kills import judge
from tests.torture.trials.secrets import fail_with_a_quoted_key
from tests.torture.trials.webhooks import lead_astray, tell_and_die

_STRANGER = "sk-torture-stranger-0123456789"


@trial(
    "T47",
    f"each of {len(GUARDS)} guards taken away: {', '.join(GUARDS)}",
    pass_mark="without it the trial that is meant for it fails; with it, the same trial passes",
    runs=3 * len(GUARDS),
    short_runs=5,
    round_s=120,
)
async def remove_guards(bench: Bench) -> None:
    for number in bench.rounds():
        name = [*GUARDS][number % len(GUARDS)]
        play, runs = _MEANT_FOR[name]
        own = replace(bench.result.trial, play=play, round_s=60)
        with_it, without = await asyncio.gather(
            _play(bench, own, runs, f"{number}-with-{name}", None),
            _play(bench, own, runs, f"{number}-without-{name}", name),
        )
        bench.require(not with_it, f"with {name} the trial for it fails already: {with_it[:1]}")
        bench.require(without, f"nothing fails without {name}: {GUARDS[name].what}")
        bench.add("taken away")
        bench.add("caught", bool(without))


async def _play(bench: Bench, own: Trial, runs: int, name: str, without: str | None) -> list[str]:
    """What fails in a trial, played on a bench of its own."""
    directory = bench.directory / name
    directory.mkdir(mode=0o700)
    result = await Bench(own, directory, runs, without=without).run()
    return result.failures


# -- the trials that are no more than this


async def hang_up_at_the_accept(bench: Bench) -> None:
    """A client that hangs up around the 200 leaves a job that runs, with the credential that it came with."""
    model = await bench.model()
    gateway = await bench.gateway(model.url)
    async with aiohttp.ClientSession(headers=HEADERS) as session:
        for number in bench.rounds():
            script = create_body(f"gone.{number}", stream=False, deltas=4, needs_key=True)
            body = orjson.dumps(script)
            key = {"Idempotency-Key": f"gone-{number}"}
            with suppress(TimeoutError, aiohttp.ClientError):
                async with asyncio.timeout(random.uniform(0.0, 0.012)):
                    await session.post(f"{gateway.url}/responses", data=body, headers=key)
            await asyncio.sleep(0.02)
            repeated = (await gateway.call("POST", "/responses", body, more=key)).json()
            ended = await _ended(gateway, repeated["id"])
            is_whole = text_of(ended) == expected_text(f"gone.{number}", 1, 4)
            bench.require(is_whole, f"{number}: {ended['status']}, {ended['error']}")


async def show_a_stranger(bench: Bench) -> None:
    """Another credential finds nothing under a known id."""
    model = await bench.model()
    gateway = await bench.gateway(model.url)
    for number in bench.rounds():
        body = create_body(f"mine.{number}", stream=True)
        log = (await gateway.call("POST", "/responses", body)).body
        response_id = log[log.index(b'"resp_') + 1 :].partition(b'"')[0].decode()
        path = f"/responses/{response_id}"
        for method, each in (
            *(("GET", path), ("GET", f"{path}?stream=true"), ("GET", f"{path}/input_items")),
            *(("POST", f"{path}/cancel"), ("DELETE", path)),
        ):
            found = await gateway.call(method, each, key=_STRANGER)
            bench.require(found.status == 404, f"a stranger's {method} {each} was answered {found.status}")


async def start_a_second_process(bench: Bench) -> None:
    """It leaves at once, and the first goes on."""
    model = await bench.model()
    gateway = await bench.gateway(model.url)
    for _ in bench.rounds():
        second = Gateway(model.url, gateway.database.parent, bench.without)
        await second.spawn()
        try:
            async with asyncio.timeout(5):
                status = await second.exit_status()
            bench.require(status == 75, f"the second process left with {status}")
        except TimeoutError:
            bench.require(False, "a second process works on the same file")
        await second.end()


async def write_illegal_moves(bench: Bench) -> None:
    """Whoever writes to the file, by whatever statement: the database itself refuses them."""
    model = await bench.model()
    gateway = await bench.gateway(model.url)
    body = create_body("moved", stream=False)
    response_id = (await gateway.call("POST", "/responses", body)).json()["id"]
    await _ended(gateway, response_id)
    await gateway.kill9()
    for _ in bench.rounds():
        bench.require(gateway.look(_illegal_moves) == [], "the database let a job make an illegal move")


def _illegal_moves(raw: sqlite3.Connection) -> list[str]:
    """Those that the database lets through."""
    let_through = []
    terminal = {status for status in TRANSITIONS if status.is_terminal}
    for old, moves in TRANSITIONS.items():
        for new in set(TRANSITIONS) - moves - {old}:
            raw.execute("BEGIN")
            template = raw.execute("SELECT * FROM job LIMIT 1")
            row = dict(zip([column[0] for column in template.description], template.fetchone(), strict=True))
            ended = 1 if old in terminal else None
            row |= {"pk": None, "id": "resp_x", "status": old.value}
            row |= {"finished_at_ms": ended, "expires_at_ms": ended}
            names = ", ".join(row)
            raw.execute(f"INSERT INTO job ({names}) VALUES ({', '.join('?' * len(row))})", [*row.values()])
            ended = 1 if new in terminal else None
            move = "UPDATE job SET status = ?, finished_at_ms = ?, expires_at_ms = ? WHERE id = 'resp_x'"
            try:
                raw.execute(move, (new.value, ended, ended))
                let_through.append(f"{old} → {new}")
            except sqlite3.IntegrityError:
                pass
            raw.execute("ROLLBACK")
    return let_through


async def kill_in_mid_commit(bench: Bench) -> None:
    """Everybody reads streams, and each kill strikes between the write and its commit."""
    model = await bench.model()
    gateway = await bench.prepared(model.url)
    mix = Mix(streamed=1, acts=("wait",), paces_ms=(2, 10))
    gateway.next_start("--kill-at", "before-commit:40")
    await gateway.start()
    async with Journal(bench.directory / "journal") as notes, Crowd(gateway, notes, 8, mix, patience_s=10):
        for _ in bench.rounds():
            await gateway.exit_status()
            gateway.next_start("--kill-at", f"before-commit:{random.randint(20, 60)}")
            await gateway.start()
        await gateway.kill9()
        await gateway.start()
    await judge(bench, gateway, model, notes)


async def _ended(gateway: Gateway, response_id: str) -> dict[str, object]:
    async with asyncio.timeout(20):
        while True:
            found: dict[str, object] = orjson.loads(
                (await gateway.call("GET", f"/responses/{response_id}")).body
            )
            if found.get("status") not in ("queued", "in_progress"):
                return found
            await asyncio.sleep(0.02)


async def race(bench: Bench) -> None:
    await TRIALS["T9"].play(bench)


_MEANT_FOR: dict[str, tuple[Play, int]] = {
    "fence": (race, 600),  # with 60, one in two plays lost none
    "shield": (hang_up_at_the_accept, 60),
    "flock": (start_a_second_process, 1),
    "tenant": (show_a_stranger, 1),
    "commit-first": (kill_in_mid_commit, 4),
    "door": (knock_without_a_key, 1),
    "apart": (ask_through_one_key, 1),
    "redactor": (fail_with_a_quoted_key, 1),
    "trigger": (write_illegal_moves, 1),
    "outbox": (tell_and_die, 1),
    "dial": (lead_astray, 1),
}
"""For each guard a trial that misses it, and how many rounds it takes for that."""

assert set(_MEANT_FOR) == set(GUARDS)
