"""The documents say what the code does: names of tests, the state chart, the settings."""

from __future__ import annotations

import re
from pathlib import Path

from gateway.config import GROUPS, NAMES
from gateway.core.job import TRANSITIONS
from tests.torture.figures import part
from tests.torture.trial import all_trials

ROOT = Path(__file__).parent.parent
DOCUMENTS = [
    *(ROOT / f"{name}.md" for name in ("README", "ARCHITECTURE", "CONTRIBUTING")),
    *sorted((ROOT / "docs").rglob("*.md")),
]


def _tests() -> set[str]:
    defined = re.compile(r"^(?:async )?def (test_\w+)", re.MULTILINE)
    files = [*(ROOT / "tests").rglob("test_*.py"), *(ROOT / "tests").rglob("exercise*.py")]
    return {name for file in files for name in defined.findall(file.read_text())}


def test_every_test_that_a_document_names_exists() -> None:
    existing = _tests()
    named = {name for page in DOCUMENTS for name in re.findall(r"`(test_\w+)`", page.read_text())}
    assert len(named) > 20
    assert named <= existing


def test_every_file_that_a_document_links_exists() -> None:
    for page in DOCUMENTS:
        for target in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name} links {target}"


def test_the_state_chart_is_the_table_of_moves() -> None:
    chart = (ROOT / "ARCHITECTURE.md").read_text()
    drawn = set(re.findall(r"^    (\S+) --> (\S+)$", chart, re.MULTILINE))
    moves = {(old.value, new.value) for old, news in TRANSITIONS.items() for new in news}
    ends = {(status.value, "[*]") for status, news in TRANSITIONS.items() if not news}
    assert drawn == moves | ends | {("[*]", "queued")}


def test_the_settings_that_the_documents_name_exist() -> None:
    sections = {name.partition(".")[0] for name in NAMES if "." in name}
    pattern = re.compile(rf"`((?:{'|'.join(sorted(sections))})\.[a-z_]+)")
    for page in DOCUMENTS:
        for name in pattern.findall(page.read_text()):
            assert name in (*NAMES, *GROUPS), f"{page.name} names {name}"


def test_every_promise_is_held_by_trials_that_there_are_and_every_trial_holds_one() -> None:
    promises = (ROOT / "docs" / "promises.md").read_text().partition("## What it does")[0]
    figures = (ROOT / "docs" / "figures.md").read_text()
    cited = set(re.findall(r"\[(T\d+b?)\]", promises))
    there = {trial.name: trial for trial in all_trials()}
    assert cited | {"T47"} == there.keys()
    for name, trial in there.items():
        assert part(trial, "").rstrip() in figures, f"make figures: {name}"


def test_every_promise_and_every_claim_names_what_holds_it() -> None:
    page = (ROOT / "docs" / "promises.md").read_text()
    _, promises, claims, _ = re.split(
        r"^## (?:The promises|What it does|Try it yourself)$", page, flags=re.MULTILINE
    )
    said = re.findall(r"^\d+\.  ?\*\*", promises, re.MULTILINE)
    assert len(said) == len(re.findall(r"^    Held by (?:\[T|`test_)", promises, re.MULTILINE)) >= 28
    claimed = re.findall(r"^- \*\*.*$", claims, re.MULTILINE)
    assert len(claimed) >= 15
    assert [line for line in claimed if "Held by `test_" not in line] == []


def test_every_room_is_in_the_architecture() -> None:
    page = (ROOT / "ARCHITECTURE.md").read_text()
    for room in (path.name for path in (ROOT / "gateway").iterdir() if (path / "__init__.py").exists()):
        assert f"{room}/" in page, room


def test_every_path_that_a_document_names_exists() -> None:
    for page in DOCUMENTS:
        for path in re.findall(r"`((?:gateway|tests|docs|demo)/[\w./-]+)`", page.read_text()):
            is_there = (ROOT / path).exists() or (ROOT / f"{path}.txt").exists()  # recordings, by their stem
            assert is_there, f"{page.name} names {path}"


def test_the_glossary_has_each_word_once() -> None:
    page = (ROOT / "docs" / "glossary.md").read_text()
    words = [word for row in re.findall(r"^\| ([^|]+) \|", page, re.MULTILINE) for word in row.split(", ")]
    words = [word for word in words if word not in ("word", "---")]
    assert len(words) == len(set(words))
