"""What the documents say of files, tests and settings is so."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from gateway.__main__ import main
from gateway.config import load_with_origins

ROOT = Path(__file__).resolve().parents[1]
BACKENDS = (ROOT / "docs" / "backends.md").read_text()
EXAMPLES = [
    example
    for page in (BACKENDS, (ROOT / "README.md").read_text())
    for example in re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)
]
CITING = [line for line in BACKENDS.splitlines() if re.search(r"tests/transcripts/\w", line)]


@pytest.mark.parametrize("example", EXAMPLES)
def test_every_configuration_shown_is_accepted(example: str, tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text(example.replace("PUT-THE-SHA256-OF-A-KEY-HERE", "0123456789abcdef" * 4))
    has_backends = "backends:" in example
    environ = {"BILLING_SECRET": f"whsec_{'A' * 44}"}
    if not has_backends:
        environ["BACKBURNER_UPSTREAM__URL"] = "http://localhost:8000/v1"
    settings, _ = load_with_origins({}, environ=environ, file=file)
    assert len(settings.all_backends) == (example.count("url:") if has_backends else 1)


SERVING = [
    command
    for page in sorted((ROOT / "docs").rglob("*.md"))
    for command in re.findall(r"^\$ backburner (serve .*)$", page.read_text(), re.MULTILINE)
]


@pytest.mark.parametrize("command", SERVING)
def test_every_command_shown_is_understood(command: str) -> None:
    arguments = command.replace("serve", "check-config", 1).split()
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 0


@pytest.mark.parametrize("row", CITING)
def test_every_transcript_that_is_cited_is_there(row: str) -> None:
    [folder] = re.findall(r"tests/transcripts/([\w-]+)/", row)
    cited = re.findall(r"`((?:responses|chat)-[\w-]+)`", row)
    assert [name for name in cited if not (ROOT / f"tests/transcripts/{folder}/{name}.txt").exists()] == []


def test_every_test_that_is_cited_is_there() -> None:
    cited = set(re.findall(r"`(test_\w+\.py)`", BACKENDS))
    assert cited
    assert {name for name in cited if not list((ROOT / "tests").rglob(name))} == set()
