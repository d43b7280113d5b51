"""Where a run takes place: the upstream, the driver, the proxies, and a directory for their files."""

from __future__ import annotations

import http.client
import json
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks import proxies
from benchmarks.load import SMALL, BadAnswers, Driver, cache, compiled
from benchmarks.machine import Cores, Moment
from benchmarks.processes import DidNotStart, started, wait_for


@dataclass(frozen=True, slots=True)
class Upstream:
    """The model server: its port, and what it says."""

    port: int
    log: Path

    def counts(self) -> dict[str, int]:
        """Requests, deltas sent, and streams that have begun, have ended, or were left by their clients."""
        found: dict[str, int] = get_json(self.port, "/_stats")
        return found

    def under_way(self) -> int:
        """Streams now."""
        counts = self.counts()
        return counts["begun"] - counts["ended"] - counts["left"]

    def until_idle(self, seconds: float = 60) -> None:
        """Waits for the end of all streams, and a moment for what is done after it."""
        until = time.monotonic() + seconds
        while self.under_way():
            if time.monotonic() > until:
                raise TimeoutError("streams do not end")
            time.sleep(0.05)
        time.sleep(0.3)

    def closed(self) -> dict[int, int]:
        """When the clients of tagged streams have left, in microseconds of the monotonic clock."""
        lines = (line.split() for line in self.log.read_text().splitlines())
        return {int(words[1]): int(words[2]) for words in lines if words[0] == "closed"}


@dataclass(slots=True)
class Lab:
    """All that a figure needs; made by `open_lab`."""

    directory: Path
    cores: Cores
    upstream: Upstream
    driver: Driver
    gateway_command: Sequence[str]
    short: bool
    pids: list[int]
    stack: ExitStack
    known: dict[str, proxies.Proxy] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)

    @property
    def gateway_python(self) -> str:
        """The Python that has the gateway which is measured."""
        program = Path(self.gateway_command[0])
        beside = program.with_name("python")
        return str(beside if beside.exists() else program)

    def now(self) -> Moment:
        """What has been computed until now."""
        return Moment.now(self.pids)

    def proxy(self, name: str) -> proxies.Proxy | None:
        """A running proxy of this name, past its first requests; None if there is none (see `skipped`)."""
        if name not in self.known and name not in self.skipped:
            try:
                one = self.gateway() if name == "gateway" else self._start(proxies.OTHERS[name], name)
                found = self.stack.enter_context(one)
                self.driver.load(found.port, SMALL, connections=4, seconds=60, warm=0, count=100)
                self.known[name] = found
            except (proxies.Skipped, DidNotStart, BadAnswers) as why:
                if name == "gateway":
                    raise
                self.skipped[name] = str(why)[:300]
        return self.known.get(name)

    @contextmanager
    def gateway(self, folder: Path | None = None, /, **settings: dict[str, Any]) -> Iterator[proxies.Proxy]:
        """A gateway of its own until the end of the block, with an empty database if no folder is given."""
        folder = folder or Path(tempfile.mkdtemp(dir=self.directory))
        with self._start(proxies.Gateway(self.gateway_command, settings, folder), "gateway") as found:
            yield found

    @contextmanager
    def _start(self, kind: proxies.Kind, name: str) -> Iterator[proxies.Proxy]:
        place = proxies.Place(self.directory, self.cores.measured, self.upstream.port)
        with kind.start(place, self.directory / f"{name}.log") as proxy:
            self.pids.append(proxy.pid)
            try:
                yield proxy
            finally:
                self.pids.remove(proxy.pid)


def get_json(port: int, path: str) -> Any:
    """What a server of ours answers to a GET."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request("GET", path)
        return json.loads(connection.getresponse().read())
    finally:
        connection.close()


@contextmanager
def open_lab(*, gateway_command: Sequence[str], short: bool) -> Iterator[Lab]:
    """Compiles and starts what all figures share. Raises: NoCompiler."""
    cores = Cores.of_this_machine()
    cache().mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="run-", dir=cache())))
        log = directory / "upstream.log"
        process = stack.enter_context(started([str(compiled("upstream"))], core=cores.load, log=log))
        port = wait_for(process, log, lambda: _listening(log))
        driver = Driver(compiled("driver"), cores.load, directory)
        yield Lab(directory, cores, Upstream(port, log), driver, gateway_command, short, [process.pid], stack)


def _listening(log: Path) -> int | None:
    words = log.read_text().split()
    return int(words[1]) if words[:1] == ["listening"] else None
