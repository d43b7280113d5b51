"""What happens to the store, as counters and log lines; a part of the observer."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping

from gateway.logs import line
from gateway.observe.metrics import Metrics


class StoreObserver(Metrics):
    """The happenings of the store."""

    def store_became(self, state: str, was: str, *, is_worse: bool) -> None:
        self.store_state.labels(was).set(0)
        self.store_state.labels(state).set(1)
        line("store", level=logging.ERROR if is_worse else logging.INFO, to=state, was=was)

    def store_failed(self, kind: str) -> None:
        """kind: `full` | `io` | `corrupt` | `busy` | `interrupted` | `other`."""
        self.store_errors.labels(kind).inc()

    def store_recreated(self, aside: str, reason: str) -> None:
        self.store_recreations.inc()
        line("store_recreated", level=logging.ERROR, aside=aside, reason=reason)

    def store_upgraded(self, *, was: int, to: int) -> None:
        """The file has the tables of this release now: see docs/operations.md, Upgrade."""
        line("store_upgraded", was=was, to=to)

    def store_taken_away(self, what: str) -> None:
        """what: The file that is missing: `database` | `-wal` | `-shm`."""
        line("store_taken_away", level=logging.ERROR, file=what)

    def store_left(self, what: str) -> None:
        """The file was still missing at the end. The next process will not find what was stored since."""
        line("store_left", level=logging.ERROR, file=what)

    def store_restored(self) -> None:
        self.store_restorations.inc()
        line("store_restored", level=logging.WARNING)

    def store_not_restored(self, reason: str) -> None:
        line("store_not_restored", level=logging.ERROR, reason=reason)

    def log_too_large(self, size: int, *, is_ours: bool) -> None:
        """is_ours: One of our own reads held the log; it was interrupted."""
        self.log_alarms.inc()
        line("store_log_too_large", level=logging.ERROR, bytes=size, read_broken_off=is_ours)

    def store_measured(self, jobs: Mapping[str, int], oldest_s: float, sizes: Mapping[str, int]) -> None:
        """Jobs by status, the age of the one that is queued for longest, and bytes by file."""
        for status, count in jobs.items():
            self.jobs.labels(status).set(count)
        self.queue_age.set(oldest_s)
        for file, size in sizes.items():
            self.database_bytes.labels(file).set(size)

    def store_is_measured_elsewhere(self) -> None:
        """By another gateway on the same store: no series of it are left here."""
        for gauge in (
            self.jobs,
            self.database_bytes,
            self.webhook_waiting,
            self.webhook_oldest,
            self.webhook_is_disabled,
            self.webhook_is_down,
        ):
            gauge.clear()
        self.queue_age.set(math.nan)  # one without labels cannot be left out

    def commit_times(self) -> tuple[float, float]:
        """How many there were, and how many seconds they took together."""
        found = {each.name: each.value for metric in self.commit.collect() for each in metric.samples}
        return found["backburner_commit_seconds_count"], found["backburner_commit_seconds_sum"]

    def committed(self, operations: int, seconds: float) -> None:
        self.commit_ops.observe(operations)
        self.commit.observe(seconds)

    def link_lost(self, reason: str) -> None:
        """reason: `closed` | `unproved` | `slow` | `silent` | `damaged`."""
        self.links_lost.labels(reason).inc()
