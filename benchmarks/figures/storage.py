"""What is kept: replays, bytes of an event on the disk, and the way back after a kill."""

from __future__ import annotations

import base64
import json
import tempfile
import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.client import client
from benchmarks.figure import Figure, Groups, Measure, Trial
from benchmarks.lab import Lab
from benchmarks.load import HERE, post, request
from benchmarks.processes import output_of
from benchmarks.proxies import Proxy


def _over_socket(lab: Lab, gateway: Proxy, response_id: str, readers: int) -> Mapping[str, float]:
    asked = request("GET", f"/v1/responses/{response_id}?stream=true")
    seen = lab.driver.stream(gateway.port, asked, connections=readers, seconds=60, cpu=gateway.pids)
    return {"events": seen.all_deltas / seen.ended_s, "cpu": seen.cpu_us / seen.all_deltas}


def _from_store(lab: Lab, database: Path, response_id: str) -> Mapping[str, float]:
    """Reads the job's pages in a process of its own, from a copy of the database."""
    command = [
        lab.gateway_python,
        str(HERE / "replay.py"),
        str(database),
        response_id,
        "1" if lab.short else "3",
    ]
    done = output_of(command, core=lab.cores.measured, seconds=120)
    found: dict[str, float] = json.loads(done)
    return found


def _replays(lab: Lab) -> Groups:
    events = 10_000
    with lab.gateway() as gateway:
        with client(gateway.port) as caller:
            response_id = caller.create_streamed(f"n{events}r0")
            caller.until_over(response_id)
        case = f"{events:,} events"
        trials = [
            Trial(
                f"{case}, {readers} at once",
                "gateway",
                partial(_over_socket, lab, gateway, response_id, readers),
            )
            for readers in (1, 16)
        ]
        yield trials
        folder = gateway.folder
    yield [
        Trial(
            f"{case}, from the store",
            "gateway",
            partial(_from_store, lab, folder / "backburner.db", response_id),
        )
    ]


def _bytes_of(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.glob("backburner.db*") if "ballast" not in file.name)


def _on_disk(lab: Lab, jobs: int, deltas: int) -> Mapping[str, float]:
    """The database of a gateway that has ended, with and without jobs."""
    sizes = []
    for count in (0, jobs):
        with lab.gateway() as gateway:
            if count:
                asked = post("/v1/responses", model=f"n{deltas}r100", input="Good day", background=True)
                lab.driver.load(gateway.port, asked, connections=8, seconds=60, warm=0, count=count)
                lab.upstream.until_idle()
        sizes.append(_bytes_of(gateway.folder))
    grown = sizes[1] - sizes[0]
    return {"per event": grown / (jobs * deltas), "per job": grown / 1024 / jobs}


def _database(lab: Lab) -> Groups:
    for deltas in (10, 200) if lab.short else (10, 100, 500):
        yield [Trial(f"{deltas} events a job", "gateway", partial(_on_disk, lab, 50, deltas))]


def _after_kill(lab: Lab, jobs: int) -> Mapping[str, float]:
    """Kills a gateway with a full queue, and starts it again."""
    key = base64.b64encode(bytes(32)).decode()
    settings: dict[str, dict[str, Any]] = {
        "upstream": {"concurrency_max": 16},
        "credentials": {"sealing_keys": [f"bench:{key}"]},
    }
    folder = Path(tempfile.mkdtemp(dir=lab.directory))
    create = post("/v1/responses", model="n100r1", input="Good day", background=True)
    with lab.gateway(folder, **settings) as gateway:
        lab.driver.load(gateway.port, create, connections=32, seconds=300, warm=0, count=jobs)
        gateway.process.kill()
        gateway.process.wait()
    (folder / "gateway.log").unlink()
    lab.upstream.until_idle()
    begun, killed = lab.upstream.counts()["begun"], time.monotonic()
    with lab.gateway(folder, **settings):
        listening = time.monotonic() - killed
        while lab.upstream.counts()["begun"] == begun and time.monotonic() < killed + 60:
            time.sleep(0.01)
        running = time.monotonic() - killed
    lab.upstream.until_idle()
    return {"listening": listening, "running": running}


def _recoveries(lab: Lab) -> Groups:
    for jobs in (100,) if lab.short else (100, 1000, 10_000):
        yield [Trial(f"{jobs:,} jobs queued", "gateway", partial(_after_kill, lab, jobs))]


REPLAY = Figure(
    name="replay",
    title="Replay of a response that has ended",
    measures={"events": Measure("events/s", more_is_better=True), "cpu": Measure("µs CPU/event")},
    groups=_replays,
    anchor="",
    rounds=3,
)
DATABASE = Figure(
    name="database",
    title="The database on the disk",
    measures={"per event": Measure("bytes/event"), "per job": Measure("KiB/job")},
    groups=_database,
    charted=("per event",),
    anchor="",
    rounds=1,
    short_rounds=0,
)
RECOVERY = Figure(
    name="recovery",
    title="From a start after kill -9 until it listens, and until the first job runs again",
    measures={"listening": Measure("s"), "running": Measure("s")},
    groups=_recoveries,
    charted=("running",),
    anchor="",
    rounds=3,
    short_rounds=0,
)
