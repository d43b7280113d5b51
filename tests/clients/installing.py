"""Clients as their registries ship them, each in an environment of its own, installed once for a lock file.

They stay out of the project's own environment: their requirements exclude each other's, and some are large.
Where a client cannot be had, its tests are skipped with the reason.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

HERE = Path(__file__).parent
PROGRAMS, NODE = HERE / "programs", HERE / "node"
INSTALL_TIMEOUT_S = 420
LARGE = frozenset({"langchain", "litellm", "llama_index", "microsoft", "openai_agents", "pydantic_ai"})
"""Hundreds of megabytes together, and six minutes of a core to install and import."""


def python_with(name: str, shared: Path) -> str:
    """The Python of an environment with what `requirements/NAME.txt` lists."""
    if name in LARGE and os.environ.get("CLIENTS") != "all":
        pytest.skip(f"{name} is large: `make clients` installs it and runs its tests")
    locked = HERE / "requirements" / f"{name}.txt"
    place = shared / f"client-{name}-{_digest(locked)}"
    python = place / "bin" / "python"
    with _alone(place):
        if not (place / "done").exists():
            _run([sys.executable, "-m", "venv", "--clear", "--without-pip", str(place)], name)
            pip = [sys.executable, "-m", "pip", "--python", str(python), "--disable-pip-version-check"]
            install = [*pip, "install", "--quiet", "--no-compile"]  # most of it is never imported
            _run([*install, "--no-deps", "-r", str(locked)], name)
            (place / "done").touch()
    return str(python)


def node_place(shared: Path, of: Path = NODE) -> Path:
    """A folder with the locked npm packages, and the programs that use them, of a folder of the tests."""
    for program in ("node", "npm"):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed")
    place = shared / f"{of.parent.name}-node-{_digest(of / 'package-lock.json')}"
    with _alone(place):
        place.mkdir(exist_ok=True)
        for source in of.iterdir():
            if source.is_file():
                shutil.copy(source, place)
        if not (place / "done").exists():
            _run(["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"], "npm ci", cwd=place)
            (place / "done").touch()
    return place


def _digest(locked: Path) -> str:
    return hashlib.sha256(locked.read_bytes()).hexdigest()[:16]


@contextmanager
def _alone(place: Path) -> Iterator[None]:
    """Two test processes want the same client at once: one installs it, the other waits."""
    with place.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _run(command: list[str], what: str, cwd: Path | None = None) -> None:
    try:
        done = subprocess.run(
            command, cwd=cwd, capture_output=True, text=True, timeout=INSTALL_TIMEOUT_S, check=False
        )
    except subprocess.TimeoutExpired:
        pytest.skip(f"{what} could not be installed in {INSTALL_TIMEOUT_S} s")
    if "EINTEGRITY" in done.stderr:
        pytest.fail(f"{what}: {done.stderr[-2000:]}")
    if done.returncode != 0:
        pytest.skip(f"{what} could not be installed, perhaps without a network: {done.stderr[-300:]}")


def free_port() -> int:
    """A port that nobody listens on now, for programs that cannot say which one they took."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
