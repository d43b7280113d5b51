"""Pass-through: requests a second and CPU for each, added latency, and streams that are passed on."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from benchmarks.figure import Figure, Groups, Measure, Trial, Values, added
from benchmarks.lab import Lab
from benchmarks.load import SMALL, post, request

REQUESTS = {
    "GET": request("GET", "/v1/models"),
    "small POST": SMALL,
    "POST /v1/responses": post("/v1/responses", model="n10r0", input="Good day " * 25),
    "upload of 1 MB": request("POST", "/v1/files", b"x" * 1_000_000),
}
PROXIES = ("gateway", "nginx", "haproxy", "aiohttp")
IN_SHORT = ("small POST", "POST /v1/responses")
SLOW = {"litellm"}
"""Asked over fewer connections: they would only queue."""


def _usual(lab: Lab) -> tuple[str, ...]:
    """The proxies that a figure has: under SHORT only what the goals are measured by."""
    return PROXIES[:2] if lab.short else PROXIES


def _saturated(lab: Lab, case: str, name: str) -> Mapping[str, float]:
    proxy = lab.proxy(name)
    assert proxy is not None
    connections = 16 if name in SLOW or "upload" in case else 64
    seen = lab.driver.load(
        proxy.port, REQUESTS[case], connections=connections, seconds=1.0 if lab.short else 3.0, cpu=proxy.pids
    )
    return {"requests": seen.answers / seen.seconds, "cpu": seen.cpu_us / seen.answers}


def _requests(lab: Lab) -> Groups:
    for case in IN_SHORT if lab.short else REQUESTS:
        names = PROXIES if case == "small POST" else _usual(lab)
        if case == "small POST" and not lab.short:
            names = (*names, "litellm")  # it takes half a minute to start
        yield [Trial(case, name, partial(_saturated, lab, case, name)) for name in names if lab.proxy(name)]


def _latency(lab: Lab, name: str, connections: int, rate: float) -> Mapping[str, float]:
    port = lab.upstream.port if name == "direct" else getattr(lab.proxy(name), "port", 0)
    seconds = (1.0 if lab.short else 3.0) * (2 if rate else 1)
    seen = lab.driver.load(port, SMALL, connections=connections, seconds=seconds, rate=rate)
    return {"p50": seen.latency_us.p50, "p99": seen.latency_us.p99}


def _latencies(lab: Lab) -> Groups:
    cases = [("200/s", 16, 200.0), *((f"{count} connections", count, 0.0) for count in (1, 4, 16, 64))]
    if lab.short:
        cases = [each for each in cases if each[1] == 16]
    for case, connections, rate in cases:
        yield [
            Trial(case, name, partial(_latency, lab, name, connections, rate))
            for name in ("direct", *_usual(lab))
            if name == "direct" or lab.proxy(name)
        ]


def _added(values: Values) -> Values:
    return added("p50", "added p50")(values) | added("p99", "added p99")(values)


def _stream(lab: Lab, name: str, streams: int) -> Mapping[str, float]:
    window = 1.5 if lab.short else 4.0
    ramp = 0.3 + streams / 500
    asked = post(
        "/v1/responses", model=f"n{int((ramp + window + 0.6) * 50)}r50", stream=True, input="Good day"
    )
    proxy = None if name == "direct" else lab.proxy(name)
    seen = lab.driver.stream(
        proxy.port if proxy else lab.upstream.port,
        asked,
        connections=streams,
        seconds=ramp + window + 30,
        ramp=ramp,
        window=(ramp + 0.3, ramp + 0.3 + window),
        cpu=proxy.pids if proxy else (),
    )
    delays = {"delay p50": float(seen.delay_us.p50), "delay p99": float(seen.delay_us.p99)}
    return delays | ({"cpu": seen.cpu_us / seen.deltas} if proxy else {})


def _streams(lab: Lab) -> Groups:
    for streams in (50,) if lab.short else (50, 200, 400):
        yield [
            Trial(f"{streams} × 50/s", name, partial(_stream, lab, name, streams))
            for name in ("direct", *_usual(lab))
            if name == "direct" or lab.proxy(name)
        ]


PASSING = Figure(
    name="requests",
    title="Pass-through, saturated",
    measures={"requests": Measure("requests/s", more_is_better=True), "cpu": Measure("µs CPU/request")},
    groups=_requests,
    charted=("requests", "cpu"),
)
LATENCY = Figure(
    name="latency",
    title="Pass-through, latency that is added",
    measures={
        "p50": Measure("µs"),
        "p99": Measure("µs"),
        "added p50": Measure("µs"),
        "added p99": Measure("µs"),
    },
    groups=_latencies,
    charted=("added p50", "added p99"),
    derived=_added,
)
STREAMS = Figure(
    name="streams",
    title="Event streams that are passed on",
    measures={"cpu": Measure("µs CPU/event"), "delay p50": Measure("µs"), "delay p99": Measure("µs")},
    groups=_streams,
    charted=("cpu",),
)
