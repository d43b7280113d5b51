"""Where gateways come from: a process that has imported all of one, and forks.

Half of a start is imports, and the tests start more than a thousand gateways. What is forked has done nothing
yet: no loop, no thread, no file. It gets the flags, the directory and the environment that it would have been
started with. Run as a module this is that process; it ends with the socket that it was given.
"""

from __future__ import annotations

import asyncio
import functools
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

_MESSAGE_BYTES_MAX = 2**20


class Forked:
    """As much of `asyncio.subprocess.Process` as tests use."""

    def __init__(self, pid: int, stderr: asyncio.StreamReader) -> None:
        self.pid = pid
        self.stderr = stderr
        self.returncode: int | None = None
        self._over = asyncio.get_running_loop().create_future()
        self._pidfd = os.pidfd_open(pid)
        asyncio.get_running_loop().add_reader(self._pidfd, self._ended)

    def _ended(self) -> None:
        self._over.get_loop().remove_reader(self._pidfd)
        os.close(self._pidfd)
        self.returncode = _nursery().ask({"reap": self.pid})["status"]
        self._over.set_result(self.returncode)

    async def wait(self) -> int:
        status: int = await asyncio.shield(self._over)
        return status

    def send_signal(self, number: signal.Signals) -> None:
        if self.returncode is None:
            os.kill(self.pid, number)


async def fork(argv: Sequence[str], *, cwd: Path, env: Mapping[str, str]) -> Forked:
    """Start `python -m gateway ARGV`, its standard error a pipe."""
    reading, writing = os.pipe()
    try:
        what = {"argv": list(argv), "cwd": str(cwd), "env": dict(env)}
        pid = _nursery().ask(what, writing)["pid"]
    finally:
        os.close(writing)
    stderr = asyncio.StreamReader(limit=2**20)
    protocol, pipe = asyncio.StreamReaderProtocol(stderr), open(reading, "rb", buffering=0)  # noqa: SIM115
    await asyncio.get_running_loop().connect_read_pipe(lambda: protocol, pipe)
    return Forked(pid, stderr)


class _Nursery:
    """The process that forks, as the tests see it."""

    def __init__(self) -> None:
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", __name__, str(theirs.fileno())], pass_fds=[theirs.fileno()]
            )

    def ask(self, what: Mapping[str, Any], *descriptors: int) -> dict[str, Any]:
        """One message there and one back, at once: neither waits for anything."""
        socket.send_fds(self._socket, [json.dumps(what).encode()], descriptors)
        answer: dict[str, Any] = json.loads(self._socket.recv(_MESSAGE_BYTES_MAX))
        return answer


@functools.cache
def _nursery() -> _Nursery:
    return _Nursery()


def _serve(ours: socket.socket) -> None:
    import gateway.app  # noqa: F401  what `serve` imports late
    from gateway.__main__ import main

    while True:
        message, descriptors, _, _ = socket.recv_fds(ours, _MESSAGE_BYTES_MAX, 1)
        if not message:
            return
        what = json.loads(message)
        if "reap" in what:
            status = os.waitstatus_to_exitcode(os.waitpid(what["reap"], 0)[1])
            ours.send(json.dumps({"status": status}).encode())
        elif pid := os.fork():
            os.close(descriptors[0])
            ours.send(json.dumps({"pid": pid}).encode())
        else:
            ours.close()
            os.dup2(descriptors[0], 2)
            os.close(descriptors[0])
            os.chdir(what["cwd"])
            os.environ.clear()
            os.environ.update(what["env"])
            sys.argv = ["backburner", *what["argv"]]
            main()


if __name__ == "__main__":
    _serve(socket.socket(fileno=int(sys.argv[1])))
