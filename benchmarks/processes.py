"""Processes that a benchmark starts: each on one core, its words in a file, ended with the block."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")


class DidNotStart(Exception):
    """A process ended, or said nothing in time; with its last words."""


@contextmanager
def started(
    command: Sequence[str],
    *,
    core: int,
    log: Path,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
) -> Iterator[subprocess.Popen[bytes]]:
    """A process that runs on one core; killed if it does not end when told."""
    with log.open("ab") as words:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=words,
            stderr=words,
            cwd=cwd,
            env={**os.environ, **(env or {})},
            preexec_fn=lambda: os.sched_setaffinity(0, {core}),
        )
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def wait_for(
    process: subprocess.Popen[bytes], log: Path, found: Callable[[], T | None], *, seconds: float = 30
) -> T:
    """What `found` gives as soon as it is not None. Raises: DidNotStart."""
    until = time.monotonic() + seconds
    while (value := found()) is None:
        if process.poll() is not None or time.monotonic() > until:
            tail = log.read_text(errors="replace")[-1000:] if log.exists() else ""
            raise DidNotStart(f"{process.args!r} did not start: {tail}")
        time.sleep(0.02)
    return value


@asynccontextmanager
async def child(*arguments: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """A process of our Python with its words in pipes, until the end of the block."""
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(sys.executable, *arguments, stdout=pipe, stderr=pipe)
    try:
        yield process
    finally:
        process.terminate()
        await process.wait()


def output_of(command: Sequence[str], *, core: int, seconds: float) -> str:
    """What a program prints that runs on one core to its end. Raises: DidNotStart."""
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=seconds,
        check=False,
        preexec_fn=lambda: os.sched_setaffinity(0, {core}),
    )
    if done.returncode:
        raise DidNotStart(f"{command!r} failed: {done.stderr.strip()[-1000:]}")
    return done.stdout
