"""The site: every page is in its contents, every link leads somewhere, and nothing comes from elsewhere."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("mkdocs", reason="mkdocs is not installed: extra docs")
ROOT = Path(__file__).resolve().parents[2]
_LOADED = re.compile(r"""<(?:script|img|iframe|source)\b[^>]*\bsrc="([^"]+)|<link\b[^>]*\bhref="([^"]+)""")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built with every warning as an error: pages without a place, links and anchors that lead nowhere."""
    target = tmp_path_factory.mktemp("site")
    built = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(target)],
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert built.returncode == 0, built.stderr
    return target


def test_nothing_that_a_page_loads_comes_from_elsewhere(site: Path) -> None:
    pages = list(site.rglob("*.html"))
    loaded = {
        address
        for page in pages
        for found in _LOADED.findall(page.read_text())
        for address in found
        if address.startswith(("http:", "https:", "//"))
    }
    assert len(pages) > 40
    assert loaded == set()
    for style in site.rglob("*.css"):
        assert not re.search(r"@import|url\([\"']?(?:https?:)?//", style.read_text()), style.name


def test_what_documents_link_outside_of_docs_is_on_the_site(site: Path) -> None:
    assert "Keep a Changelog" in (site / "project" / "changelog" / "index.html").read_text()
    example = (site / "files" / "config.example.yaml").read_text()
    assert example == (ROOT / "config.example.yaml").read_text()


def test_a_chart_is_a_picture_there(site: Path) -> None:
    page = (site / "project" / "architecture" / "index.html").read_text()
    assert 'src="../../pictures/states.svg"' in page
    assert "stateDiagram" not in page
