"""The process and its machine: file descriptors, memory, and an event loop without long halts."""

from __future__ import annotations

import asyncio
import ctypes
import gc
import logging
import os
import resource
import sys
from pathlib import Path

from gateway.config import Settings
from gateway.observe import Observer, line

_OTHER_FILES = 64
"""File descriptors besides connections: the database, its log, the event loop, listeners, look-ups."""
_LOOK_EVERY_S = 0.05
_TRIM_EVERY_S, _TRIM_EVERY_S_MAX = 5.0, 60.0
_TRIMMED_BYTES_MIN = 16 * 2**20
"""Bytes of memory above the least seen, from which on a trim is tried: below that, nothing is left to
return."""
_WORTH_BYTES = 2**20
_COLLECTOR_THRESHOLDS = (10_000, 10, 10)
"""A full collection comes after a million new objects, not after 70,000."""


def keep_standard_files() -> None:
    """Open what was closed of standard input, output and error, as nothing: whatever the process opens next
    would get its number, and what a library prints would be written into a socket, or into the database."""
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number, which is this one
    if sys.stderr is None:  # Python found it closed
        sys.stderr = os.fdopen(2, "w", errors="backslashreplace")


def raise_file_limit() -> int:
    """Take as many file descriptors as the system allows. Returns how many.

    A shell gives 1024, and leaves it to the program to ask for more; each connection takes one. Without any
    left a gateway can neither be reached nor reach its backends.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        except (OSError, ValueError):  # macOS says "unlimited" and allows less
            return soft
    return hard


def files_wanted(settings: Settings) -> int:
    """How many file descriptors all the connections would take that the settings allow."""
    background = sum(one.concurrency_max * len(one.urls) for one in settings.all_backends.values())
    return settings.server.connections_max + background + _OTHER_FILES


def are_few_files(settings: Settings, files_max: int) -> bool:
    """Whether all those connections would need more, and somebody has asked for so many.

    The defaults are meant to be out of the way: nothing is said while there is half of what they allow.
    """
    wanted = files_wanted(settings)
    is_asked_for = "connections_max" in settings.server.model_fields_set or any(
        "concurrency_max" in one.model_fields_set for one in settings.all_backends.values()
    )
    return files_max < (wanted if is_asked_for else wanted / 2)


def warn_of_few_files(settings: Settings, files_max: int) -> None:
    """Say so in the log."""
    if are_few_files(settings, files_max):
        wanted = files_wanted(settings)
        line("few_open_files", level=logging.WARNING, limit=files_max, wanted=wanted)


def calm_collector() -> None:
    """Run the garbage collector less often, and never over what was there at the start.

    Reference counting frees what is dropped; the collector is there for cycles, and a job leaves none. A
    running job is some two hundred objects, and a full collection visits all of them in one halt: with ten
    thousand jobs that takes a second, and with CPython's own thresholds it comes every few seconds.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(*_COLLECTOR_THRESHOLDS)


async def watch_loop(observer: Observer) -> None:
    """Measure how late the event loop gives turns, until cancelled."""
    loop = asyncio.get_running_loop()
    while True:
        due = loop.time() + _LOOK_EVERY_S
        await asyncio.sleep(_LOOK_EVERY_S)
        observer.loop_lagged(loop.time() - due)


async def give_memory_back() -> None:
    """Return to the system what large responses have left free, until cancelled.

    The C library keeps freed memory for itself wherever something small lies behind it, and one response can
    leave a hundred megabytes so. It does not tell how much that is; it is asked to give it back, on a thread,
    as long as that is worth the milliseconds that it takes, and else now and then.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is None:  # another C library than GNU's, which does as it likes
        return
    least, pause_s = _resident_bytes(), _TRIM_EVERY_S
    while True:
        await asyncio.sleep(pause_s)
        resident = _resident_bytes()
        least = min(least, resident)
        if resident < least + _TRIMMED_BYTES_MIN:
            continue
        await asyncio.to_thread(trim, 0)
        is_worth_it = resident - _resident_bytes() >= _WORTH_BYTES
        pause_s = _TRIM_EVERY_S if is_worth_it else min(2 * pause_s, _TRIM_EVERY_S_MAX)


def _resident_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()
