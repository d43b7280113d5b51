"""Memory: of jobs that are under way, and of readers that wait."""

from __future__ import annotations

import time
from collections.abc import Mapping
from functools import partial

from benchmarks.client import client
from benchmarks.figure import Figure, Groups, Measure, Trial
from benchmarks.figures.background import CREATES_PER_S, begin
from benchmarks.lab import Lab
from benchmarks.load import post, request
from benchmarks.proxies import Proxy

MIB, KIB = 2**20, 2**10


def _of_jobs(lab: Lab, jobs: int) -> Mapping[str, float]:
    """A gateway with so many jobs at an event a second, some seconds after the last has begun."""
    ramp = jobs / CREATES_PER_S
    with lab.gateway() as gateway:
        _warm(lab, gateway.port)
        before = gateway.rss_bytes()
        begin(lab, gateway, f"n{int(ramp + 30)}r1", jobs)
        until = time.monotonic() + 20
        while lab.upstream.under_way() < jobs:
            if time.monotonic() > until:
                raise TimeoutError(f"{jobs} jobs are never under way at once")
            time.sleep(0.1)
        time.sleep(4)
        now = gateway.rss_bytes()
    lab.upstream.until_idle(ramp + 60)
    return {"MiB": now / MIB, "MiB per 1,000": (now - before) / MIB / jobs * 1000}


def _of_readers(lab: Lab, readers: int) -> Mapping[str, float]:
    """A gateway with so many readers of a response that says nothing."""
    with lab.gateway() as gateway:
        _warm(lab, gateway.port)
        with client(gateway.port) as caller:
            response_id = caller.create_streamed("n2r0.01")
        asked = request("GET", f"/v1/responses/{response_id}?stream=true")
        time.sleep(0.5)
        before = gateway.rss_bytes()
        with lab.driver.watching(gateway.port, asked, connections=readers, seconds=60):
            _until_served(gateway, readers)
            now = gateway.rss_bytes()
    lab.upstream.until_idle()
    return {"KiB per reader": (now - before) / KIB / readers}


def _until_served(gateway: Proxy, readers: int) -> None:
    """Waits until all are connected, and have what there is: nothing is computed for them any more."""
    until = time.monotonic() + 60
    before = 0.0
    while gateway.connections() < readers or gateway.cpu_s() - before > 0.02:
        if time.monotonic() > until:
            raise TimeoutError(f"{readers} readers are never served")
        before = gateway.cpu_s()
        time.sleep(0.5)


def _warm(lab: Lab, port: int) -> None:
    asked = post("/v1/responses", model="n10r0", input="Good day", background=True)
    lab.driver.load(port, asked, connections=8, seconds=30, warm=0, count=100)
    lab.upstream.until_idle()


def _groups(lab: Lab) -> Groups:
    for jobs in (1000,) if lab.short else (250, 1000, 4000):
        yield [Trial(f"{jobs:,} jobs × 1/s", "gateway", partial(_of_jobs, lab, jobs))]
    for readers in (1000,) if lab.short else (1000, 4000):
        yield [Trial(f"{readers:,} idle readers", "gateway", partial(_of_readers, lab, readers))]


MEMORY = Figure(
    name="memory",
    title="Memory",
    measures={
        "MiB": Measure("MiB in all"),
        "MiB per 1,000": Measure("MiB/1,000 jobs"),
        "KiB per reader": Measure("KiB/reader"),
    },
    groups=_groups,
    charted=("MiB per 1,000", "KiB per reader"),
    anchor="",
    rounds=2,
    short_rounds=0,
)
