"""Runs that hear nothing are named once, and counted until they hear again or are over."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass

from gateway.engine.silence import Silence
from gateway.observe import Observer


class Told(Observer):
    def __init__(self) -> None:
        super().__init__()
        self.named: list[str] = []
        self.counts: list[dict[str, int]] = []

    def job_silent(self, response_id: str, silence_s: float) -> None:
        self.named.append(response_id)

    def jobs_silent(self, backends: Mapping[str, int]) -> None:
        self.counts.append(dict(backends))


@dataclass(eq=False)
class Waiting:
    """An exchange, as far as its silence goes."""

    response_id: str
    backend: str = "big"
    since_s: float | None = None
    is_told: bool = False


def test_each_silence_is_told_once_and_counted_as_long_as_it_lasts() -> None:
    told = Told()
    silence = Silence(10, told)
    long_ago_s = time.monotonic() - 11
    one, two = Waiting("resp_1"), Waiting("resp_2")
    with silence.watched(one), silence.watched(two):
        silence.look()  # neither waits
        one.since_s = two.since_s = long_ago_s
        silence.look()
        silence.look()
        one.since_s = time.monotonic()
        silence.look()
        one.since_s = long_ago_s
        silence.look()
        two.since_s = None
        silence.look()
    silence.look()
    assert sorted(told.named) == ["resp_1", "resp_1", "resp_2"]
    assert told.counts == [{}, {"big": 2}, {"big": 2}, {"big": 1}, {"big": 2}, {"big": 1}, {}]
