"""Background events: what each costs, for how many jobs, at which rate, with how many followers."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass

from benchmarks.figure import Figure, Groups, Measure, Trial
from benchmarks.lab import Lab
from benchmarks.load import post
from benchmarks.proxies import Proxy

MEASURES = {
    "cpu": Measure("µs CPU/event"),
    "delay p50": Measure("ms"),
    "delay p99": Measure("ms"),
    "events": Measure("events/s", more_is_better=True),
}


@dataclass(frozen=True, slots=True)
class Load:
    """Jobs that are all under way at once."""

    jobs: int
    rate: float
    followers: int

    @property
    def case(self) -> str:
        many = "follower" if self.followers == 1 else "followers"
        return f"{self.jobs:,} × {self.rate:g}/s, {self.followers} {many}"


LOADS = [
    *(Load(jobs, 50, followers) for jobs in (10, 100, 200) for followers in (0, 1)),
    *(Load(1000, 1, followers) for followers in (0, 1)),
    Load(10, 50, 100),
    Load(100, 5, 100),
]
IN_SHORT = [Load(10, 50, 1), Load(200, 50, 1)]
CREATES_PER_S = 80
"""So slowly jobs begin, lest their creates be measured with their events."""


@dataclass(frozen=True, slots=True)
class Times:
    """Of one trial: the jobs begin within `ramp`, and what is measured begins a little later."""

    ramp: float
    window: float

    @classmethod
    def of(cls, load: Load, *, begun_per_s: float, short: bool) -> Times:
        ramp = max(0.5, load.jobs / begun_per_s, load.jobs * load.followers / 400)
        return cls(ramp, (1.5 if short else 4.0) * (2 if load.rate < 10 else 1))

    @property
    def start(self) -> float:
        return self.ramp + 0.4

    @property
    def end(self) -> float:
        return self.start + self.window

    def model(self, rate: float) -> str:
        """With so many deltas that a stream goes on until the end of the window."""
        return f"n{int((self.end + 0.4) * rate) + 2}r{rate:g}"

    def over(self, load: Load) -> float:
        """When even a gateway that takes 5,000 events a second has done with the last stream."""
        return self.ramp + self.end + 90 + load.jobs * load.rate * self.end / 5000


def followed(
    lab: Lab, proxy: Proxy, load: Load, *, begun_per_s: float = CREATES_PER_S, **fields: object
) -> Mapping[str, float]:
    """Streams that are read while they run: through the gateway as jobs, or through a proxy as they are."""
    times = Times.of(load, begun_per_s=begun_per_s, short=lab.short)
    seen = lab.driver.stream(
        proxy.port,
        post("/v1/responses", model=times.model(load.rate), input="Good day", stream=True, **fields),
        connections=load.jobs,
        followers=load.followers,
        seconds=times.over(load),
        ramp=times.ramp,
        window=(times.start, times.end),
        cpu=proxy.pids,
    )
    lab.upstream.until_idle(times.over(load))
    events = seen.deltas / load.followers
    return {
        "cpu": seen.cpu_us / events,
        "delay p50": seen.delay_us.p50 / 1000,
        "delay p99": seen.delay_us.p99 / 1000,
        "events": events / seen.seconds,
    }


def begin(lab: Lab, gateway: Proxy, model: str, jobs: int) -> None:
    """Jobs one after the other, until all are accepted."""
    asked = post("/v1/responses", model=model, input="Good day", background=True)
    seconds = jobs / CREATES_PER_S + 90
    lab.driver.load(
        gateway.port, asked, connections=16, seconds=seconds, rate=CREATES_PER_S, warm=0, count=jobs
    )


def unfollowed(lab: Lab, gateway: Proxy, load: Load) -> Mapping[str, float]:
    """Jobs that nobody reads: events are counted where they are sent."""
    times = Times.of(load, begun_per_s=CREATES_PER_S, short=lab.short)
    begun = time.monotonic()
    begin(lab, gateway, times.model(load.rate), load.jobs)
    time.sleep(max(0.0, times.start - (time.monotonic() - begun)))
    cpu, deltas, at = gateway.cpu_s(), lab.upstream.counts()["deltas"], time.monotonic()
    time.sleep(times.window)
    cpu, deltas, at = gateway.cpu_s() - cpu, lab.upstream.counts()["deltas"] - deltas, time.monotonic() - at
    lab.upstream.until_idle(times.over(load))
    return {"cpu": cpu / deltas * 1e6, "events": deltas / at}


def trial(lab: Lab, gateway: Proxy, load: Load, subject: str = "gateway") -> Trial:
    """A load of jobs through a gateway."""

    def run() -> Mapping[str, float]:
        if load.followers:
            return followed(lab, gateway, load, background=True)
        return unfollowed(lab, gateway, load)

    return Trial(load.case, subject, run)


def relay(lab: Lab, proxy: Proxy, load: Load) -> Trial:
    """The same streams relayed by a proxy, which does nothing else with them."""
    single = Load(load.jobs, load.rate, 1)
    return Trial(load.case, proxy.name, lambda: followed(lab, proxy, single, begun_per_s=1000))


def _groups(lab: Lab) -> Groups:
    nginx = lab.proxy("nginx")
    with lab.gateway() as gateway:
        for load in IN_SHORT if lab.short else LOADS:
            trials = [trial(lab, gateway, load)]
            if nginx:
                trials.append(relay(lab, nginx, load))
            yield trials


def _apis(lab: Lab) -> Groups:
    chat = lab.gateway(upstream={"api": "chat"})
    with lab.gateway() as gateway, chat as translating:
        for load in [Load(50, 50, 1)] if lab.short else [Load(50, 50, 1), Load(200, 50, 1), Load(1000, 1, 1)]:
            yield [trial(lab, gateway, load), trial(lab, translating, load, "chat-only")]


CHAT = Figure(
    name="chat",
    title="Background events of a chat-only backend, beside those of one with a Responses API",
    measures=MEASURES,
    groups=_apis,
    charted=("cpu",),
    anchor="gateway",
    rounds=3,
)
BACKGROUND = Figure(
    name="background",
    title="Background events, logged (nginx: the same streams relayed to one reader each)",
    measures=MEASURES,
    groups=_groups,
    charted=("cpu", "delay p50"),
    rounds=3,
)
