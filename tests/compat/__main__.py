"""Tries the package with every Python that this machine has: `make compat`.

For each: the wheel and its locked requirements in a virtualenv of their own, used by `smoke`, and then the
quick tests and those of the rooms with sockets and files. The first one installs the sdist, too. PYTHONS
names other interpreters than those that are found.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from gateway import __version__
from tests.compat.smoke import ROOT, Broken, smoke

VERSIONS = ("3.11", "3.12", "3.13", "3.14")
ROOMS = ("tests/api", "tests/outbound", "tests/engine", "tests/store")
_INSTALL_S = 600
_TESTS_S = 1200
_LINES_MAX = 60


def interpreters() -> Iterator[tuple[str, str]]:
    """Version and path of each, one for a version."""
    if named := os.environ.get("PYTHONS"):
        yield from ((_version_of(name), name) for name in named.split())
        return
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"), "versions")
    for version in VERSIONS:
        places = [shutil.which(f"python{version}"), *pyenv.glob(f"{version}.*/bin/python{version}")]
        working = [str(place) for place in places if place and _version_of(str(place))]
        if working:
            yield version, working[0]
        else:
            print(f"{version}: not on this machine")


def _version_of(python: str) -> str:
    """Empty if it does not start, as a stand-in of pyenv does not."""
    asked = [python, "-c", "import sys; print('%d.%d' % sys.version_info[:2])"]
    ran = subprocess.run(asked, capture_output=True, text=True, check=False, timeout=30)
    return ran.stdout.strip()


def _run(command: list[str], seconds: float) -> None:
    ran = subprocess.run(
        command,
        cwd=ROOT,
        timeout=seconds,
        text=True,
        check=False,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    if ran.returncode:
        said = [line for line in ran.stdout.splitlines() if not line.startswith("WARNING: ")]  # of pip
        raise Broken("\n".join([" ".join(command), *said[-_LINES_MAX:]]))


def _install(python: str, package: Path, place: Path) -> None:
    """With what is locked, and use it."""
    _run([python, "-m", "venv", str(place)], _INSTALL_S)
    pip = [str(place / "bin" / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    locked = ["--require-hashes", "--only-binary", ":all:", "-r", "requirements/runtime.txt"]
    _run([*pip, *locked], _INSTALL_S)
    _run([*pip, "--no-deps", str(package)], _INSTALL_S)
    smoke([str(place / "bin" / "backburner")], __version__)


def _quick(python: str, place: Path) -> None:
    _run(["make", f"VENV={place}", f"PYTHON={python}", "quick"], _TESTS_S)


def _rooms(place: Path) -> None:
    """Those with sockets, files and tasks: what interpreters differ in, and so do libraries on them."""
    _run([str(place / "bin" / "python"), "-m", "pytest", "--numprocesses", "2", *ROOMS], _TESTS_S)


def _trials(place: Path) -> Iterator[tuple[str, Callable[[], None]]]:
    packages = place / "packages"
    _run([sys.executable, "-m", "hatchling", "build", "-d", str(packages)], _INSTALL_S)
    [wheel], [sdist] = packages.glob("*.whl"), packages.glob("*.tar.gz")
    for number, (version, python) in enumerate(interpreters()):
        here = place / version
        yield f"{version}: the wheel", partial(_install, python, wheel, here / "wheel")
        if number == 0:
            yield f"{version}: the sdist", partial(_install, python, sdist, here / "sdist")
        yield f"{version}: the quick tests", partial(_quick, python, here / "tests")
        yield f"{version}: the rooms with sockets and files", partial(_rooms, here / "tests")


def main() -> int:
    failed = 0
    with tempfile.TemporaryDirectory() as place:
        for name, trial in _trials(Path(place)):
            began = time.monotonic()
            try:
                trial()
                said = "passed"
            except (Broken, OSError, subprocess.SubprocessError) as error:
                failed += 1
                said = f"FAILED\n{error}"
            print(f"{name}: {said} ({time.monotonic() - began:.0f} s)", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
