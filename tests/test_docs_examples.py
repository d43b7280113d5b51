"""Every block of every document is tried: here, or by the test that `PLAYED` names."""

from __future__ import annotations

import ast
import inspect
import re
import shlex
import tomllib
from pathlib import Path

import pytest

from gateway.__main__ import main
from gateway.config import load_with_origins
from tests.support.pages import BLOCKS, PAGES, ROOT, Block, only
from tests.torture.trial import Bench, trial

PLAYED: dict[str, list[tuple[str, ...]]] = {  # a page alone: all of its blocks
    # pasted in order by somebody who has read nothing else, in real processes
    "tests/acceptance/test_readme.py": [
        ("README.md", "console", "pip install ."),
        ("README.md", "python", "background=True"),
        ("docs/quickstart.md", "console", "pip install ."),
        ("docs/quickstart.md", "python", "background=True"),
        ("docs/quickstart.md", "js", "retrieve"),
        ("docs/quickstart.md", "console", "curl"),
        ("docs/clients/openai.md", "python", "starting_after"),
        ("docs/clients/openai.md", "js", "stream: true"),
        ("docs/clients/openai.md", "console", "curl -N"),
        ("docs/webhooks.md", "console", "BILLING_SECRET"),
        ("docs/webhooks.md", "python", "webhooks.unwrap"),
        ("docs/security.md", "console", "sha256sum"),
    ],
    "tests/command/test_command_page.py": [("docs/command.md",)],
    "tests/deploy/test_operations_page.py": [
        ("docs/operations.md", "console", "umask 077"),
        ("docs/runbooks.md", "console", "readyz"),
    ],
    "tests/test_docs_examples.py": [("docs/torture.md", "python", "@trial")],
    "tests/test_docs.py": [("ARCHITECTURE.md", "mermaid", "stateDiagram")],
}
FOREIGN = (
    *("vllm serve ", "llama-server ", "transformers serve ", "ollama serve", "python -m llama_cpp.server "),
    *("python -m sglang.launch_server ", "docker ", "podman ", "helm ", "cyclonedx-py "),
    "kubectl ",
)
"""Commands of programs that no test has. What they are in the deploy folder, its own tests look at."""

MAKEFILE = (ROOT / "Makefile").read_text()
COMMANDS = [
    (block.page, command) for block in BLOCKS if block.language == "console" for command in block.commands
]
PLAYED_BLOCKS = {
    block
    for places in PLAYED.values()
    for page, *which in places
    for block in ([only(page, *which)] if which else [each for each in BLOCKS if each.page == page])
}


def _of(language: str) -> list[Block]:
    return [block for block in BLOCKS if block.language == language]


@pytest.mark.parametrize("block", _of("yaml"), ids=lambda block: block.page)
def test_every_configuration_shown_is_accepted(block: Block, tmp_path: Path) -> None:
    example = block.text
    file = tmp_path / "config.yaml"
    keys = tmp_path / "sealing-keys"
    keys.write_text(f"1:{'A' * 43}=\n")
    keys.chmod(0o600)
    example = example.replace("/etc/backburner/sealing-keys", str(keys))
    file.write_text(example.replace("PUT-THE-SHA256-OF-A-KEY-HERE", "0123456789abcdef" * 4))
    has_backends = "backends:" in example
    environ = {"BILLING_SECRET": f"whsec_{'A' * 44}"}
    if not has_backends:
        environ["BACKBURNER_UPSTREAM__URL"] = "http://localhost:8000/v1"
    settings, _ = load_with_origins({}, environ=environ, file=file)
    assert len(settings.all_backends) == (example.count("url:") if has_backends else 1)


@pytest.mark.parametrize(
    "command", sorted({command for _, command in COMMANDS if command.startswith("backburner serve ")})
)
def test_every_gateway_that_is_started_somewhere_has_settings_that_hold(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = tmp_path / "key"
    key.write_text("sk-provider")
    key.chmod(0o600)
    arguments = shlex.split(command)[1:]
    arguments[0] = "check-config"
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as ended:
        main([str(key) if each.startswith("/etc/") else each for each in arguments])
    assert ended.value.code == 0


@pytest.mark.parametrize(
    "command", sorted({command for _, command in COMMANDS if command.startswith("make ")})
)
def test_every_make_that_is_shown_is_one_of_the_makefile(command: str) -> None:
    target, *variables = shlex.split(command)[1:]
    assert re.search(rf"^{target}:", MAKEFILE, re.MULTILINE)
    assert [name for name, _, _ in (each.partition("=") for each in variables) if name not in _known()] == []


def _known() -> set[str]:
    """Variables that the Makefile, or the trials that it starts, look at."""
    trials = (ROOT / "tests" / "torture" / "__main__.py").read_text()
    return set(re.findall(r"\b[A-Z]+\b", MAKEFILE + trials))


@pytest.mark.parametrize("block", _of("toml"), ids=lambda block: block.page)
def test_every_file_in_toml_can_be_read_and_leads_to_the_gateway(block: Block) -> None:
    [provider] = tomllib.loads(block.text)["model_providers"].values()
    assert provider["base_url"] == "http://127.0.0.1:9000/v1"


def test_every_block_is_tried_somewhere() -> None:
    untried = []
    for block in BLOCKS:
        if block in PLAYED_BLOCKS or block.language in ("yaml", "toml"):
            continue
        if block.language == "console" and all(_is_tried(command) for command in block.commands):
            continue
        untried.append(f"{block.page}: {block.text.splitlines()[0]}")
    assert untried == []


def _is_tried(command: str) -> bool:
    return command.startswith(("backburner serve ", "make ", *FOREIGN))


def test_the_trial_that_is_shown_is_one() -> None:
    [coroutine] = ast.parse(only("docs/torture.md", "python", "@trial").text).body
    assert isinstance(coroutine, ast.AsyncFunctionDef)
    [entered] = coroutine.decorator_list
    assert isinstance(entered, ast.Call)
    given = {str(each.arg): ast.literal_eval(each.value) for each in entered.keywords}
    inspect.signature(trial).bind(*map(ast.literal_eval, entered.args), **given)
    used = {each.attr for each in ast.walk(coroutine) if isinstance(each, ast.Attribute)} - {"url"}
    assert {name for name in used if not hasattr(Bench, name)} == set()


def test_every_test_that_plays_a_block_is_there() -> None:
    assert [name for name in PLAYED if not (ROOT / name).exists()] == []


BACKENDS = "\n".join(page.read_text() for page in PAGES)
CITING = [line for line in BACKENDS.splitlines() if re.search(r"^\|.*tests/transcripts/\w", line)]


@pytest.mark.parametrize("row", CITING)
def test_every_transcript_that_is_cited_is_there(row: str) -> None:
    [folder] = re.findall(r"tests/transcripts/([\w-]+)/", row)
    cited = re.findall(r"`((?:responses|chat)-[\w-]+)`", row)
    assert [name for name in cited if not (ROOT / f"tests/transcripts/{folder}/{name}.txt").exists()] == []


def test_every_test_file_that_is_cited_is_there() -> None:
    cited = set(re.findall(r"`(test_\w+\.py)`", BACKENDS))
    assert cited
    assert {name for name in cited if not list((ROOT / "tests").rglob(name))} == set()
