"""The command, as somebody types it: in this process, or as a process, on a terminal or not."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import io
import json
import os
import pty
import re
import struct
import sys
import termios
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

from gateway.__main__ import main
from tests.acceptance.harness import KEY, ROOT, WAIT_S, Gateway, within

_STYLE = re.compile(rb"\x1b\[[0-9;?]*[A-Za-z]")


@dataclass(frozen=True, slots=True)
class Done:
    """What a command came to."""

    status: int
    out: str
    err: str

    @property
    def lines(self) -> list[list[str]]:
        """The words of each line."""
        return [line.split() for line in self.out.splitlines()]

    def json(self) -> Any:
        return json.loads(self.out)


async def asked(gateway: Gateway, command: str, *words: str) -> Done:
    """A command that asks a gateway."""
    return await typed(command, "--admin-port", port_of(gateway), *words)


async def typed(*words: str) -> Done:
    """Any command, its output no terminal."""
    return await asyncio.to_thread(_run, words)


def _run(words: tuple[str, ...]) -> Done:
    out, err = io.StringIO(), io.StringIO()
    status: object = 0
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main([*words])
        except SystemExit as left:
            status = left.code
    assert isinstance(status, int)
    return Done(status, out.getvalue(), err.getvalue())


def port_of(gateway: Gateway) -> str:
    """Its admin port."""
    return gateway.admin.rpartition(":")[2]


async def created(gateway: Gateway, key: str = KEY, **more: Any) -> str:
    """The id of a response that was accepted."""
    body = {"model": "tiny", "input": "Say ahoy.", "background": True, **more}
    answer = await gateway.call("POST", "/responses", body, key=key)
    assert answer.status == 200, answer.body
    found: str = answer.json()["id"]
    return found


@contextlib.asynccontextmanager
async def following(*words: str, **environ: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """The command as a process whose output is no terminal; it is ended with the block."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "gateway", *words),
        env={**os.environ, "PYTHONPATH": str(ROOT), **environ},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


class Terminal:
    """The command on a terminal of so many columns: what it has written so far, and what is typed."""

    def __init__(self, process: asyncio.subprocess.Process, end: int) -> None:
        self.process = process
        self._end = end
        self.raw = bytearray()
        self._news = asyncio.Event()
        asyncio.get_running_loop().add_reader(end, self._read)

    def _read(self) -> None:
        try:
            self.raw += os.read(self._end, 65536)
        except OSError:  # its other end is closed
            asyncio.get_running_loop().remove_reader(self._end)
        self._news.set()

    @property
    def text(self) -> str:
        """Without colours and movements."""
        return _STYLE.sub(b"", bytes(self.raw)).decode(errors="replace").replace("\r", "")

    async def shows(self, words: str) -> None:
        """Wait until it has."""
        async with asyncio.timeout(WAIT_S):
            while words not in self.text:
                self._news.clear()
                await self._news.wait()

    def type(self, text: str) -> None:
        os.write(self._end, text.encode())

    async def status(self) -> int:
        """Its exit status, when it has left."""
        found = await within(self.process.wait())
        with contextlib.suppress(BlockingIOError, OSError):
            os.set_blocking(self._end, False)
            while more := os.read(self._end, 65536):
                self.raw += more
        return found


@contextlib.asynccontextmanager
async def terminal(*words: str, columns: int = 120, program: str | None = None) -> AsyncIterator[Terminal]:
    """The command, or a shell, on a terminal; it is ended with the block."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
    command = (sys.executable, "-m", "gateway", *words) if program is None else (program, *words)
    clean = {
        name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "COLUMNS", "LINES")
    }
    process = await asyncio.create_subprocess_exec(
        *("setsid", "--ctty", *command),  # so that Ctrl-C reaches it
        env={**clean, "PYTHONPATH": str(ROOT), "TERM": "xterm-256color"},
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
    )
    os.close(theirs)
    seen = Terminal(process, ours)
    try:
        yield seen
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
        asyncio.get_running_loop().remove_reader(ours)
        os.close(ours)
