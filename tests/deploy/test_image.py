"""The steps of the Dockerfile, played in a directory of its own: what they build starts, and is well.

What takes a container engine (the base image, its user, its root) is tried by `test_container.py`.
"""

from __future__ import annotations

import fnmatch
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.config import load
from tests.deploy.house import ROOT

STEPS = re.sub(r"\\\n", " ", (ROOT / "Dockerfile").read_text())


def _stage(number: int) -> list[tuple[str, str]]:
    """Instructions of a stage, in their order."""
    text = re.split(r"^FROM .*$", STEPS, flags=re.MULTILINE)[number]
    return re.findall(r"^([A-Z]+) (.*)$", text, re.MULTILINE)


def _context() -> Iterator[str]:
    """What .dockerignore lets in."""
    for line in (ROOT / ".dockerignore").read_text().splitlines():
        if line.startswith("!"):
            yield line[1:]


class Builder:
    """Plays a stage below a directory that stands for the root."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._at = root

    def _moved(self, text: str) -> str:
        return re.sub(r"(?<![\w.])/(opt|wheel|build)\b", rf"{self._root}/\1", text)

    def play(self, steps: list[tuple[str, str]]) -> None:
        for what, rest in steps:
            match what:
                case "WORKDIR":
                    self._at = Path(self._moved(rest))
                    self._at.mkdir(parents=True, exist_ok=True)
                case "COPY":
                    *sources, target = rest.split()
                    for source in sources:
                        self._copy(source, target)
                case "RUN":
                    self.run(rest)

    def _copy(self, source: str, target: str) -> None:
        top = source.partition("/")[0]
        assert any(fnmatch.fnmatch(top, known) for known in _context()), f"{source} is not in the context"
        from_, to = ROOT / source, self._at / target
        if from_.is_dir():
            shutil.copytree(from_, to, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(from_, to / from_.name if to.is_dir() else to)

    def run(self, command: str) -> None:
        # The image's python is this one; the test's own packages are not to be seen.
        bare = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "VIRTUAL_ENV")}
        python = getattr(sys, "_base_executable", sys.executable)
        bare["PATH"] = f"{Path(python).parent}:{bare['PATH']}"
        ran = subprocess.run(
            ["/bin/sh", "-ec", self._moved(command)],
            cwd=self._at, env=bare, capture_output=True, text=True, check=False, timeout=280,
        )  # fmt: skip
        assert ran.returncode == 0, f"{command}\n{ran.stdout}\n{ran.stderr}"


def _settings_of_the_image() -> dict[str, str]:
    texts = [rest for what, rest in _stage(3) if what == "ENV"]
    return dict(
        word.split("=", 1) for text in texts for word in text.split() if word.startswith("BACKBURNER_")
    )


def test_the_file_is_in_the_volume_and_nothing_hinders_a_database_that_is_shared(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    [volume] = [rest for what, rest in _stage(3) if what == "VOLUME"]
    [place] = [rest for what, rest in _stage(3) if what == "WORKDIR"]
    assert volume == place
    given = {
        **_settings_of_the_image(),
        "BACKBURNER_UPSTREAM__URL": "http://127.0.0.1:9/v1",
        "BACKBURNER_UPSTREAM__API_KEY": "none",
    }
    alone = load({}, environ=given, file=None)
    assert alone.store.database.absolute().parent == tmp_path
    url = {"BACKBURNER_STORE__URL": "postgresql://db/backburner"}
    shared = load({}, environ={**given, **url}, file=None)
    assert shared.store.is_shared


@pytest.mark.timeout(300)
def test_what_the_dockerfile_builds_starts_and_is_well(tmp_path: Path, in_full: None) -> None:
    Builder(tmp_path).play(_stage(1))
    [entry] = [rest for what, rest in _stage(3) if what == "ENTRYPOINT"]
    python, *flags = re.findall(r'"([^"]+)"', entry)
    command = [str(tmp_path / python.lstrip("/")), *flags]
    subprocess.run([command[0], "-I", "-c", "import asyncpg"], check=True, timeout=30)
    place = tmp_path / "elsewhere"
    place.mkdir()
    environ = {
        "BACKBURNER_UPSTREAM__URL": "http://127.0.0.1:9/v1",
        "BACKBURNER_STORE__DATABASE": str(tmp_path / "backburner.db"),
        "BACKBURNER_SERVER__PORT": "0",
        "BACKBURNER_SERVER__ADMIN_PORT": "0",
        "BACKBURNER_LOG__FORMAT": "json",
    }
    started = subprocess.Popen([*command, "serve"], cwd=place, env=environ, stderr=subprocess.PIPE, text=True)
    with started as gateway:
        try:
            assert gateway.stderr is not None
            [port] = re.findall(r'"admin":"http://127.0.0.1:(\d+)"', gateway.stderr.readline())
            [check] = re.findall(r"^HEALTHCHECK .*?CMD (.*)$", STEPS, re.MULTILINE)
            asked = [word.replace("/opt", f"{tmp_path}/opt") for word in re.findall(r'"([^"]+)"', check)]
            ran = subprocess.run(
                [*asked, "--admin-port", port], cwd=place, env=environ, check=False, timeout=30
            )
            assert ran.returncode == 0
        finally:
            gateway.terminate()
        assert gateway.wait(60) == 0
    assert list(place.iterdir()) == []  # so that the root can be read-only
