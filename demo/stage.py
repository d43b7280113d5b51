"""The processes a play needs: starts them, waits until they are ready, and always clears them away.

Children get their own session, so that Ctrl-C reaches only the play, which then ends them in order.
"""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import time
import urllib.error
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from demo.proof import DIRECT

READY_TIMEOUT_S = 20
END_TIMEOUT_S = 10
_POLL_S = 0.05
_LOG_LINES_SHOWN = 30
_ROOT = Path(__file__).resolve().parent.parent


class StageError(Exception):
    """A process did not start or did not live; the message says why, with the end of its log."""


@dataclass(frozen=True, slots=True)
class Child:
    name: str
    process: subprocess.Popen[bytes]
    log: Path

    def tail(self) -> str:
        lines = self.log.read_text(errors="replace").splitlines()
        return "\n".join(lines[-_LOG_LINES_SHOWN:])


class Stage:
    """Owns the children; leaving the `with` block ends them: SIGTERM, and SIGKILL for who stays."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._children: list[Child] = []

    def __enter__(self) -> Stage:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.clear()

    def start_model_server(self, *, words_per_second: float) -> str:
        """Start the simulated model server on a free port; returns its root URL."""
        arguments = ["demo.model_server", "--port", "0", "--words-per-second", str(words_per_second)]
        child = self._start("model server", arguments)

        def announced() -> str | None:
            found = re.search(r"listens at (http://\S+)/v1\s", child.log.read_text(errors="replace"))
            return found[1] if found else None

        return self._wait(child, announced)

    def start_gateway(self, upstream: str, *, port: int, admin_port: int) -> str:
        """Start the gateway with a database of its own; returns its root URL once it is ready."""
        address = ["--host", "127.0.0.1", "--port", str(port), "--admin-port", str(admin_port)]
        database = ["--database", str(self._directory / "backburner.db")]
        child = self._start("gateway", ["gateway", "serve", "--upstream", upstream, *address, *database])
        url = f"http://127.0.0.1:{port}"
        return self._wait(child, lambda: url if is_ok(f"http://127.0.0.1:{admin_port}/readyz") else None)

    def start_replica(
        self, name: str, upstream: str, database_url: str, *, port: int, admin_port: int
    ) -> Child:
        """Start one of several gateways on a PostgreSQL; returns when it is ready."""
        address = ["--host", "127.0.0.1", "--port", str(port), "--admin-port", str(admin_port)]
        arguments = ["gateway", "serve", "--upstream", upstream, "--log-format", "json", *address]
        given = {"BACKBURNER_STORE__URL": database_url, "BACKBURNER_UPSTREAM__API_KEY": "demo"}
        child = self._start(name, arguments, **given)
        ready = f"http://127.0.0.1:{admin_port}/readyz"
        self._wait(child, lambda: ready if is_ok(ready) else None)
        return child

    def fallen(self) -> Child | None:
        """The first child that has ended by itself, if any."""
        return next((child for child in self._children if child.process.poll() is not None), None)

    def clear(self) -> None:
        """End all children within one deadline; the gateway, started last, gets the signal first."""
        for child in reversed(self._children):
            child.process.terminate()
        deadline = time.monotonic() + END_TIMEOUT_S
        for child in reversed(self._children):
            try:
                child.process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                child.process.kill()
                child.process.wait()
        self._children.clear()

    def _start(self, name: str, arguments: list[str], **environ: str) -> Child:
        # A file, not a pipe: nobody reads while the play goes on, and a full pipe would stop the child.
        log = self._directory / f"{name.replace(' ', '-')}.log"
        with log.open("wb") as sink:
            process = subprocess.Popen(
                [sys.executable, "-m", *arguments],
                cwd=_ROOT,
                env={**os.environ, **environ},
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        child = Child(name, process, log)
        self._children.append(child)
        return child

    def _wait(self, child: Child, ready: Callable[[], str | None]) -> str:
        deadline = time.monotonic() + READY_TIMEOUT_S
        while time.monotonic() < deadline:
            if child.process.poll() is not None:
                status = child.process.returncode
                raise StageError(f"The {child.name} ended at once (exit status {status}):\n{child.tail()}")
            if (url := ready()) is not None:
                return url
            time.sleep(_POLL_S)
        raise StageError(f"The {child.name} was not ready after {READY_TIMEOUT_S} s:\n{child.tail()}")


def is_ok(url: str) -> bool:
    """Whether GET `url` answers 200 now."""
    try:
        with DIRECT.open(url, timeout=2) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def free_port(wanted: int, *, taken: tuple[int, ...] = ()) -> int:
    """Return `wanted` if one can listen there, else some free port; never one of `taken`."""
    for port in (wanted, 0, 0):
        with socket.socket() as probe:
            # As servers do: a port whose last connections are only lingering counts as free.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            found: int = probe.getsockname()[1]
        if found not in taken:
            return found
    raise StageError("No free port was found.")
