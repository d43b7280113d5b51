"""The benchmarks' programs, compiled for the tests; without a compiler, what needs them is skipped."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.lab import Upstream
from benchmarks.load import Driver, NoCompiler, compiled
from benchmarks.machine import Cores
from benchmarks.processes import started, wait_for


@pytest.fixture(scope="session")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Path]]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        try:
            yield {name: compiled(name) for name in ("upstream", "driver")}
        except NoCompiler as why:
            pytest.skip(str(why))


@pytest.fixture
def driver(programs: dict[str, Path], tmp_path: Path) -> Driver:
    return Driver(programs["driver"], Cores.of_this_machine().load, tmp_path)


@pytest.fixture
def upstream(programs: dict[str, Path], tmp_path: Path) -> Iterator[Upstream]:
    log = tmp_path / "upstream.log"
    with started([str(programs["upstream"])], core=Cores.of_this_machine().load, log=log) as process:

        def port() -> int | None:
            words = log.read_text().split()
            return int(words[1]) if words else None

        yield Upstream(wait_for(process, log, port), log)
