"""The machine: which cores who runs on, how much CPU a process has had, and how much of it strangers took."""

from __future__ import annotations

import os
import platform
import resource
import subprocess
import time
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

_CPU_CLOCK_OF_PROCESS = 2
"""The kind of clock in the kernel's clock ids: the time that a process was scheduled."""


@dataclass(frozen=True, slots=True)
class Cores:
    """Who runs where: what is measured has a core to itself."""

    measured: int
    load: int

    @classmethod
    def of_this_machine(cls) -> Cores:
        cores = sorted(os.sched_getaffinity(0))
        return cls(measured=cores[-1], load=cores[0])


def cpu_s(pid: int) -> float:
    """CPU time of a process so far, all its threads together, to the nanosecond."""
    return time.clock_gettime((~pid << 3) | _CPU_CLOCK_OF_PROCESS)


def descendants(pid: int) -> list[int]:
    """A process and those that it has started."""
    found = [pid]
    try:
        for task in Path(f"/proc/{pid}/task").glob("*/children"):
            for child in task.read_text().split():
                found += descendants(int(child))
    except OSError:
        pass  # it ended meanwhile
    return found


def all_cpu_s(pid: int) -> float:
    """CPU time of a server so far, and of the processes that it has started, those too that have ended."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    ended = (int(fields[13]) + int(fields[14])) / os.sysconf("SC_CLK_TCK")
    return ended + sum(_cpu_or_0(each) for each in descendants(pid))


def rss_bytes(pid: int) -> int:
    """Memory of a process that is resident."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True, slots=True)
class Moment:
    """What the machine, and what we, have computed until now."""

    at_s: float
    all_s: float
    ours_s: float

    @classmethod
    def now(cls, pids: Collection[int]) -> Moment:
        """Args: pids: processes of ours that run; those that have ended count by themselves."""
        ours = sum(_cpu_or_0(each) for pid in pids for each in descendants(pid))
        for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN):
            used = resource.getrusage(who)
            ours += used.ru_utime + used.ru_stime
        user, nice, system, _, _, _, _, steal = _stat_ticks()
        busy = (user + nice + system + steal) / os.sysconf("SC_CLK_TCK")
        return cls(time.monotonic(), busy, ours)


def strangers(before: Moment, after: Moment) -> float:
    """Cores that others took between two moments, the hypervisor's stealing included."""
    took = (after.all_s - before.all_s) - (after.ours_s - before.ours_s)
    return max(0.0, took / (after.at_s - before.at_s))


def _cpu_or_0(pid: int) -> float:
    try:
        return cpu_s(pid)
    except OSError:
        return 0.0


def _stat_ticks() -> list[int]:
    return [int(field) for field in Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]


def describe() -> dict[str, object]:
    """What the figures of a run depend on."""
    model = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    return {
        "cpu": model[0].partition(":")[2].strip() if model else platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "loop_ns": round(_loop_ns(), 1),
    }


def _loop_ns(steps: int = 1_000_000) -> float:
    """How long one step of an empty loop takes: how fast the machine is just now."""
    best = float("inf")
    for _ in range(3):
        started = time.perf_counter()
        for _ in range(steps):
            pass
        best = min(best, time.perf_counter() - started)
    return best / steps * 1e9


def said(*command: str) -> str:
    """What a command says, in one line; nothing if it fails."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    except OSError:
        return ""
    return (done.stdout + done.stderr).strip().partition("\n")[0]
