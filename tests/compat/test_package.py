"""What is published: a wheel and an sdist that hold all that is needed, and nothing of a checkout."""

from __future__ import annotations

import subprocess
import sys
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

from gateway import __version__
from tests.compat.smoke import ROOT, smoke

NOT_SHIPPED = ("__pycache__",)


def build(source: Path, target: Path, *kinds: str) -> None:
    flags = [flag for kind in kinds for flag in ("-t", kind)]
    command = [sys.executable, "-m", "hatchling", "build", *flags, "-d", str(target)]
    subprocess.run(command, cwd=source, capture_output=True, check=True, timeout=60)


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel and an sdist of this checkout."""
    target = tmp_path_factory.mktemp("published")
    build(ROOT, target, "wheel", "sdist")
    return target


@pytest.fixture(scope="module")
def wheel(published: Path) -> Path:
    return published / f"backburner-{__version__}-py3-none-any.whl"


def contents(wheel: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(wheel) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def test_the_wheel_has_every_file_of_the_package_and_no_other(wheel: Path) -> None:
    files = [path for path in (ROOT / "gateway").rglob("*") if path.is_file()]
    of_the_package = {str(path.relative_to(ROOT)) for path in files if not set(NOT_SHIPPED) & set(path.parts)}
    packed = {name for name in contents(wheel) if ".dist-info/" not in name}
    assert packed == of_the_package


def test_the_sdist_alone_makes_the_same_wheel(published: Path, wheel: Path, tmp_path: Path) -> None:
    with tarfile.open(published / f"backburner-{__version__}.tar.gz") as archive:
        archive.extractall(tmp_path, filter="data")
    [unpacked] = tmp_path.iterdir()
    build(unpacked, tmp_path / "again", "wheel")
    assert contents(tmp_path / "again" / wheel.name) == contents(wheel)


def test_what_the_wheel_installs_serves_without_a_checkout(wheel: Path, tmp_path: Path) -> None:
    venv.create(tmp_path / "venv", with_pip=False, symlinks=True)
    [packages] = (tmp_path / "venv" / "lib").glob("python*/site-packages")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(packages)
    requirements = [path for path in sys.path if path.endswith("site-packages")]
    (packages / "requirements.pth").write_text("\n".join(requirements))
    smoke([str(tmp_path / "venv" / "bin" / "python"), "-I", "-m", "gateway"], __version__)
