"""Growth: ten times what is usual of everything. Takes long, so that it is run only when it is named."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from functools import partial
from pathlib import Path

from benchmarks.figure import Figure, Groups, Measure, Trial
from benchmarks.figures.background import MEASURES, Load, trial
from benchmarks.figures.jobs import acknowledged, cost
from benchmarks.lab import Lab
from benchmarks.load import HERE, post
from benchmarks.processes import output_of
from benchmarks.proxies import Proxy

LOADS = [Load(10_000, 1, 0), Load(1000, 50, 0), Load(1000, 50, 1), Load(1, 10, 5000)]
FINISHED = 1_000_000


def _with_memory(gateway: Proxy, inner: Trial) -> Mapping[str, float]:
    found = dict(inner.run())
    return found | {"MiB": gateway.rss_bytes() / 2**20}


def _loads(lab: Lab) -> Groups:
    for load in LOADS[-1:] if lab.short else LOADS:
        with lab.gateway() as gateway:
            inner = trial(lab, gateway, load)
            yield [Trial(inner.case, "gateway", partial(_with_memory, gateway, inner))]


def _work(lab: Lab, gateway: Proxy) -> Mapping[str, float]:
    create = post("/v1/responses", model="n10r0", input="Good day", background=True)
    latency = acknowledged(lab, gateway.port, create)
    return {
        "create p50": latency["p50"],
        "create p99": latency["p99"],
        "job": cost(lab, gateway, "n10r0")["cpu"],
        "MiB": gateway.rss_bytes() / 2**20,
    }


def _history(lab: Lab) -> Groups:
    """The same work in an empty database, and in one that holds many jobs that have ended."""
    count = 20_000 if lab.short else FINISHED
    folder = Path(tempfile.mkdtemp(dir=lab.directory))
    seed = [lab.gateway_python, str(HERE / "seed.py"), str(folder / "backburner.db"), str(count)]
    output_of(seed, core=lab.cores.measured, seconds=3600)
    settings = {"store": {"database_bytes_max": 2**36}}
    with lab.gateway() as empty, lab.gateway(folder, **settings) as full:
        yield [
            Trial("0 jobs that have ended", "gateway", partial(_work, lab, empty)),
            Trial(f"{count:,} jobs that have ended", "gateway", partial(_work, lab, full)),
        ]


LOAD = Figure(
    name="growth",
    title="Growth: jobs, events and followers",
    measures=MEASURES | {"MiB": Measure("MiB in all")},
    groups=_loads,
    charted=("cpu",),
    anchor="",
    rounds=2,
    short_rounds=1,
    only_if_named=True,
)
HISTORY = Figure(
    name="history",
    title="Growth: jobs that have ended, and are kept",
    measures={
        "create p50": Measure("ms"),
        "create p99": Measure("ms"),
        "job": Measure("ms CPU/job"),
        "MiB": Measure("MiB in all"),
    },
    groups=_history,
    charted=("create p50", "job"),
    anchor="",
    rounds=3,
    short_rounds=1,
    only_if_named=True,
)
