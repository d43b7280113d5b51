"""Jobs: how soon they are accepted, show their first token and stop when told, and what one costs."""

from __future__ import annotations

import itertools
import os
import sqlite3
import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path

from benchmarks.client import client, rank
from benchmarks.figure import Figure, Groups, Measure, Trial, Values, added
from benchmarks.figures.background import CREATES_PER_S, begin
from benchmarks.lab import Lab
from benchmarks.load import post
from benchmarks.proxies import Proxy

PLAIN = post("/v1/responses", model="n10r0", input="Good day")


def commit_ms(folder: Path, count: int = 60) -> list[float]:
    """How long a commit of one row takes that is on the disk then: nothing durable is faster."""
    file = folder / "commits.db"
    connection = sqlite3.connect(file, isolation_level=None)
    try:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute("CREATE TABLE IF NOT EXISTS row (body BLOB)")
        took = []
        for _ in range(count):
            started = time.perf_counter()
            connection.execute("INSERT INTO row VALUES (?)", (os.urandom(1000),))
            took.append((time.perf_counter() - started) * 1000)
        return took
    finally:
        connection.close()


def commits(lab: Lab) -> Mapping[str, float]:
    """The same, as a trial."""
    took = commit_ms(lab.directory)
    return {"p50": rank(took, 0.5), "p99": rank(took, 0.99)}


def acknowledged(lab: Lab, port: int, request: bytes) -> Mapping[str, float]:
    """How long creates take to be answered, at 200 a second; their jobs run meanwhile."""
    seconds = 1.5 if lab.short else 4.0
    seen = lab.driver.load(port, request, connections=64, seconds=seconds, rate=200)
    lab.upstream.until_idle()
    return {"p50": seen.latency_us.p50 / 1000, "p99": seen.latency_us.p99 / 1000}


def _under_jobs(lab: Lab, gateway: Proxy, request: bytes, jobs: int) -> Mapping[str, float]:
    """The same while other jobs get an event a second."""
    seconds = 1.5 if lab.short else 4.0
    ramp = jobs / CREATES_PER_S
    begin(lab, gateway, f"n{int(ramp + seconds + 3)}r1", jobs)
    return acknowledged(lab, gateway.port, request)


def _creates(lab: Lab) -> Groups:
    create = post("/v1/responses", model="n10r0", input="Good day", background=True)
    jobs = 1000
    with lab.gateway() as gateway:
        yield [
            Trial("200/s", "gateway", partial(acknowledged, lab, gateway.port, create)),
            Trial("200/s", "direct", partial(acknowledged, lab, lab.upstream.port, PLAIN)),
            Trial("200/s", "commit", partial(commits, lab)),
        ]
        if lab.short:
            return  # it takes a minute until so many have begun and ended
        case = f"200/s under {jobs:,} jobs at 1/s"
        yield [
            Trial(case, "gateway", partial(_under_jobs, lab, gateway, create, jobs)),
            Trial(case, "commit", partial(commits, lab)),
        ]


def cost(lab: Lab, gateway: Proxy, model: str) -> Mapping[str, float]:
    """CPU of jobs from their creates to their ends."""
    count = 100 if lab.short else 400
    create = post("/v1/responses", model=model, input="Good day", background=True)
    before = gateway.cpu_s()
    lab.driver.load(gateway.port, create, connections=16, seconds=60, rate=100, warm=0, count=count)
    lab.upstream.until_idle()
    return {"cpu": (gateway.cpu_s() - before) / count * 1000}


def _costs(lab: Lab) -> Groups:
    with lab.gateway() as gateway:
        cost(lab, gateway, "n10r0")  # the first ones pay for what is made once
        yield [
            Trial(case, "gateway", partial(cost, lab, gateway, model))
            for case, model in {"10 events at once": "n10r0", "10 events at 100/s": "n10r100"}.items()
        ]


def _first(lab: Lab, port: int, **fields: object) -> Mapping[str, float]:
    streams = 40 if lab.short else 120
    asked = post("/v1/responses", model="n5r50", stream=True, input="Good day", **fields)
    seen = lab.driver.stream(port, asked, connections=streams, seconds=30, ramp=streams / 50)
    lab.upstream.until_idle()
    return {"p50": seen.first_us.p50 / 1000, "p99": seen.first_us.p99 / 1000}


def _firsts(lab: Lab) -> Groups:
    nginx = lab.proxy("nginx")
    case = "50 streams begun a second"
    with lab.gateway() as gateway:
        trials = [
            Trial(case, "direct", partial(_first, lab, lab.upstream.port)),
            Trial(case, "gateway", partial(_first, lab, gateway.port, background=True)),
            Trial(case, "gateway, passed on", partial(_first, lab, gateway.port)),
            Trial(case, "commit", partial(commits, lab)),
        ]
        if nginx:
            trials.append(Trial(case, "nginx", partial(_first, lab, nginx.port)))
        yield trials


_TAGS = itertools.count()
"""Of streams whose end at the upstream is looked for: no two have the same."""


def _cancelled(lab: Lab, gateway: Proxy, jobs: int, rate: float) -> Mapping[str, float]:
    """Cancels of running jobs, 50 a second."""
    model = f"n{int(rate * 60)}r{rate:g}"
    answered: list[float] = []
    with client(gateway.port) as caller:
        ids = {tag: caller.create(f"{model}i{tag}") for tag in itertools.islice(_TAGS, jobs)}
        time.sleep(0.5)
        sent = {}
        begun = time.monotonic()
        for number, (tag, response_id) in enumerate(ids.items()):
            time.sleep(max(0.0, begun + number / 50 - time.monotonic()))
            sent[tag] = time.monotonic_ns() // 1000
            caller.call("POST", f"/v1/responses/{response_id}/cancel")
            answered.append((time.monotonic_ns() // 1000 - sent[tag]) / 1000)
    lab.upstream.until_idle()
    when = lab.upstream.closed()
    closed = [(when[tag] - sent[tag]) / 1000 for tag in sent]
    return {
        "closed p50": rank(closed, 0.5),
        "closed p99": rank(closed, 0.99),
        "answered p50": rank(answered, 0.5),
        "answered p99": rank(answered, 0.99),
    }


def _cancels(lab: Lab) -> Groups:
    jobs = 60 if lab.short else 300
    with lab.gateway() as gateway:
        yield [Trial(f"{jobs} jobs × 10/s", "gateway", partial(_cancelled, lab, gateway, jobs, 10))]


def _added(values: Values) -> Values:
    return added("p50", "added p50")(values) | added("p99", "added p99")(values)


_MS = {"p50": Measure("ms"), "p99": Measure("ms")}
_ADDED = {"added p50": Measure("ms"), "added p99": Measure("ms")}
CREATES = Figure(
    name="creates",
    title="Create → queued (direct: a plain answer; commit: one row, on the disk)",
    measures=_MS,
    groups=_creates,
    anchor="direct",
    charted=("p50", "p99"),
    rounds=3,
    short_rounds=1,
)
COST = Figure(
    name="jobs",
    title="A background create that runs and ends",
    measures={"cpu": Measure("ms CPU/job")},
    groups=_costs,
    charted=("cpu",),
    anchor="",
)
FIRST = Figure(
    name="first",
    title="First token of a stream (gateway: in background)",
    measures=_MS | _ADDED,
    groups=_firsts,
    charted=("p50",),
    anchor="direct",
    derived=_added,
)
CANCEL = Figure(
    name="cancel",
    title="Cancel → the upstream's connection is closed, and → answered",
    measures={
        f"{what} {share}": Measure("ms") for what in ("closed", "answered") for share in ("p50", "p99")
    },
    groups=_cancels,
    anchor="",
    rounds=3,
)
