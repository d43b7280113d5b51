"""The model server and the driver, in C: compiled at first use, and fast enough to saturate nginx."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.processes import started

HERE = Path(__file__).parent
KEY = "sk-bench-6b8f1c0d2e4a59736b8f1c0d2e4a5973"
"""The credential of every request: what the driver makes, the client sees. LiteLLM wants a long one."""


class NoCompiler(Exception):
    """There is no C compiler; the message says what to do."""


def cache() -> Path:
    """Where compiled programs, and proxies that were installed, stay from run to run."""
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return base / "backburner-bench"


def compiled(name: str) -> Path:
    """A program of this directory, compiled unless it was before. Raises: NoCompiler."""
    compiler = os.environ.get("CC") or shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        raise NoCompiler("The benchmarks need a C compiler (cc); on Debian: apt-get install gcc libc6-dev")
    sources = (HERE / f"{name}.c", HERE / "http.h")
    digest = hashlib.sha256(b"".join(source.read_bytes() for source in sources)).hexdigest()[:16]
    program = cache() / f"{name}-{digest}"
    if not program.exists():
        program.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=program.parent) as folder:
            made = Path(folder) / name
            command = [compiler, "-O2", "-Wall", "-Wextra", "-Werror", "-o", str(made), str(sources[0])]
            subprocess.run(command, check=True)
            made.replace(program)
    return program


def request(method: str, path: str, body: bytes = b"") -> bytes:
    """The bytes of one request, as a client with a credential sends it."""
    head = f"{method} {path} HTTP/1.1\r\nHost: bench\r\nAuthorization: Bearer {KEY}\r\nAccept: */*\r\n"
    if body:
        head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n"
    return head.encode() + b"\r\n" + body


def post(path: str, **fields: object) -> bytes:
    """A POST of such an object."""
    return request("POST", path, json.dumps(fields, separators=(",", ":")).encode())


SMALL = post("/v1/chat/completions", model="n10r0", messages=[{"role": "user", "content": "Good day"}])
"""What every proxy passes on."""


@dataclass(frozen=True, slots=True)
class Quantiles:
    """Of times in microseconds."""

    count: int
    p50: int
    p90: int
    p99: int
    max: int


@dataclass(frozen=True, slots=True)
class Seen:
    """What the driver has seen between its two moments; `all_…` and what follows, in the whole run."""

    seconds: float
    cpu_us: float
    answers: int
    deltas: int
    all_answers: int
    all_deltas: int
    failures: int
    whole: int
    broken: int
    open: int
    bytes: int
    ended_s: float
    latency_us: Quantiles
    delay_us: Quantiles
    first_us: Quantiles


class BadAnswers(Exception):
    """The server did not answer as it should: there is no figure."""


@dataclass(frozen=True, slots=True)
class Driver:
    """Runs the driver on its core."""

    program: Path
    core: int
    directory: Path

    def load(
        self,
        port: int,
        request: bytes,
        *,
        connections: int,
        seconds: float,
        rate: float = 0,
        warm: float = 0.2,
        count: int = 0,
        cpu: Sequence[int] = (),
    ) -> Seen:
        """Requests, again and again. Raises: BadAnswers."""
        flags = ["--seconds", f"{seconds}", "--rate", f"{rate}", "--warm", f"{warm}", "--count", f"{count}"]
        seen = self._run("load", port, request, connections, flags, cpu, seconds + warm + 60)
        if seen.failures or not seen.answers:
            raise BadAnswers(f"{seen.failures} bad answers, {seen.answers} good ones in time")
        return seen

    def stream(
        self,
        port: int,
        request: bytes,
        *,
        connections: int,
        seconds: float,
        followers: int = 1,
        ramp: float = 0,
        window: tuple[float, float] | None = None,
        leave: bool = False,
        cpu: Sequence[int] = (),
    ) -> Seen:
        """One stream for each connection, read to its end unless `leave`. Raises: BadAnswers."""
        start, end = window or (0, seconds)
        flags = ["--followers", f"{followers}", "--ramp", f"{ramp}", "--seconds", f"{seconds}"]
        flags += ["--from", f"{start}", "--to", f"{end}", *(["--leave"] if leave else [])]
        seen = self._run("stream", port, request, connections, flags, cpu, seconds + 60)
        if seen.broken or (not leave and seen.whole != connections * followers):
            raise BadAnswers(f"{seen.broken} streams broke off, {seen.whole} are whole, {seen.open} go on")
        if not seen.deltas:
            raise BadAnswers("no delta came in time")
        return seen

    @contextmanager
    def watching(self, port: int, request: bytes, *, connections: int, seconds: float) -> Iterator[None]:
        """Streams that are read until the end of the block."""
        flags = ["--seconds", f"{seconds}"]
        with started(
            self._command("stream", port, request, connections, flags),
            core=self.core,
            log=self.directory / "driver.log",
        ):
            yield

    def _command(self, kind: str, port: int, request: bytes, connections: int, flags: list[str]) -> list[str]:
        file = self.directory / "request"
        file.write_bytes(request)
        command = [str(self.program), kind, "--port", str(port), "--request", str(file)]
        return [*command, "--connections", str(connections), *flags]

    def _run(
        self,
        kind: str,
        port: int,
        request: bytes,
        connections: int,
        flags: list[str],
        cpu: Sequence[int],
        timeout: float,
    ) -> Seen:
        command = self._command(kind, port, request, connections, flags)
        for pid in cpu:
            command += ["--cpu", str(pid)]
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
            preexec_fn=lambda: os.sched_setaffinity(0, {self.core}),
        )
        if done.returncode:
            raise BadAnswers(done.stderr.strip())
        found = json.loads(done.stdout)
        for name in ("latency_us", "delay_us", "first_us"):
            found[name] = Quantiles(**found[name])
        seen = Seen(**found)
        if done.stderr and (seen.failures or seen.broken):
            raise BadAnswers(done.stderr.strip())
        return seen
