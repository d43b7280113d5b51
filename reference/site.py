"""What the site does besides MkDocs (`mkdocs.yml`, hooks): it takes in what documents link outside of docs/.

Documents of the repository become pages below `project/`; other files that are linked lie below `files/`. So the same
Markdown works in the repository and on the site.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[1]
PAGES = {
    "CHANGELOG.md": "project/changelog.md",
    "ARCHITECTURE.md": "project/architecture.md",
    "CONTRIBUTING.md": "project/contributing.md",
    "deploy/README.md": "project/deploy.md",
    "gateway/store/sqlite/sql/migrations/README.md": "project/migrations.md",
    "README.md": "index.md",
}
_LINK = re.compile(r"\]\((?!https?:|#)([^)#\s]+)(#[^)\s]*)?\)")
_CHART = re.compile(r"^```mermaid\n.*?^```$", re.DOTALL | re.MULTILINE)
_STATES = "![The states of a response](../pictures/states.svg)"


def _home(uri: str) -> Path:
    """Where the text of a page lies in the repository."""
    for source, page in PAGES.items():
        if page == uri and page != "index.md":
            return ROOT / source
    return ROOT / "docs" / uri


def _uri(file: Path) -> str | None:
    """Where a linked file lies on the site; None if it is no file."""
    name = file.relative_to(ROOT).as_posix()
    if name in PAGES:
        return PAGES[name]
    if name.startswith("docs/"):
        return name.removeprefix("docs/")
    return f"files/{name}" if file.is_file() else None


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Take in the documents, and whatever a page links."""
    for source, uri in PAGES.items():
        if uri != "index.md":
            files.append(File.generated(config, uri, abs_src_path=str(ROOT / source)))
    linked = {
        target
        for page in files.documentation_pages()
        for target in _targets(_home(page.src_uri))
        if target.is_file() and (_uri(target) or "").startswith("files/")
    }
    for target in sorted(linked):
        files.append(File.generated(config, str(_uri(target)), abs_src_path=str(target)))
    return files


def _targets(page: Path) -> list[Path]:
    return [(page.parent / path).resolve() for path, _ in _LINK.findall(page.read_text(encoding="utf-8"))]


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Point links to where things are on the site. What is a directory there becomes its name."""
    home, here = _home(page.file.src_uri).parent, Path(page.file.src_uri).parent

    def moved(match: re.Match[str]) -> str:
        target = (home / match[1]).resolve()
        uri = _uri(target) if target.is_relative_to(ROOT) else None
        return match[0] if uri is None else f"]({os.path.relpath(uri, here)}{match[2] or ''})"

    return _LINK.sub(moved, _CHART.sub(_STATES, markdown))
