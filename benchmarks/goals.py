"""What the gateway is to reach, as a table, and whether a run has reached it."""

from __future__ import annotations

from dataclasses import dataclass

from benchmarks.results import Run


@dataclass(frozen=True, slots=True)
class Goal:
    """One line of the table.

    Attributes:
        over: The limit is a ratio to this subject's value.
        plus: The limit is so much more than this subject's value, in its unit.
        at_least: Or at most.
    """

    text: str
    figure: str
    measure: str
    case: str
    limit: float
    over: str = ""
    plus: str = ""
    at_least: bool = False
    subject: str = "gateway"


FOLLOWED, CHAT = "200 × 50/s, 1 follower", "50 × 50/s, 1 follower"
ELSEWHERE = "10 × 10/s, each followed at the next gateway"
STORED = "10,000 events, from the store"
GOALS = (
    Goal("requests/s over nginx's", "requests", "requests", "small POST", 0.5, over="nginx", at_least=True),
    Goal("requests/s over aiohttp's", "requests", "requests", "small POST", 3, over="aiohttp", at_least=True),
    Goal("requests/s over LiteLLM's", "requests", "requests", "small POST", 100, "litellm", at_least=True),
    Goal("added latency p50 over nginx's", "latency", "added p50", "200/s", 2, over="nginx"),
    Goal("added latency p99, µs", "latency", "added p99", "16 connections", 600),
    Goal("CPU of a streamed event over nginx's", "streams", "cpu", "50 × 50/s", 1.5, over="nginx"),
    Goal("CPU of a logged event over nginx's relay", "background", "cpu", FOLLOWED, 1.7, over="nginx"),
    Goal("CPU of an event, chat over Responses", "chat", "cpu", CHAT, 1.5, "gateway", subject="chat-only"),
    Goal("first token over direct, ms", "first", "added p50", "50 streams begun a second", 1, plus="commit"),
    Goal("CPU of a create that runs and ends, ms", "jobs", "cpu", "10 events at once", 0.7),
    Goal("create → queued p50, ms", "creates", "p50", "200/s under 1,000 jobs at 1/s", 1, plus="commit"),
    Goal("create → queued p99, ms", "creates", "p99", "200/s under 1,000 jobs at 1/s", 25),
    Goal("MiB for 1,000 jobs in flight", "memory", "MiB per 1,000", "1,000 jobs × 1/s", 150),
    Goal("KiB for an idle reader", "memory", "KiB per reader", "1,000 idle readers", 40),
    Goal("cancel → upstream closed p99, ms", "cancel", "closed p99", "300 jobs × 10/s", 100),
    Goal("delay at another replica, ms", "replicas", "delay p99", ELSEWHERE, 100, subject="PostgreSQL, 3"),
    Goal("events/s replayed from the store", "replay", "events", STORED, 500_000, at_least=True),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Verdict:
    """A goal, and what a run says about it: None where the run has not measured it."""

    goal: Goal
    limit: float
    value: float | None

    @property
    def met(self) -> bool | None:
        if self.value is None:
            return None
        return self.value >= self.limit if self.goal.at_least else self.value <= self.limit


def judge(run: Run, goal: Goal) -> Verdict:
    """By the medians of the run."""
    row = run.row(goal.figure, goal.measure, goal.case, goal.subject)
    if row is None:
        return Verdict(goal, goal.limit, None)
    if goal.over:
        ratio = run.ratio(row, goal.over)
        return Verdict(goal, goal.limit, ratio.median if ratio else None)
    limit = goal.limit
    if goal.plus:
        # A derived measure has the plain one's name behind "added": what is added to is the plain one.
        other = run.row(goal.figure, goal.measure.removeprefix("added "), goal.case, goal.plus)
        if other is None:
            return Verdict(goal, limit, None)
        limit += other.spread.median
    return Verdict(goal, limit, row.spread.median)
