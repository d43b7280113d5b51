"""Completion, in the shells themselves, as far as they are installed."""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
from pathlib import Path

import pytest

from tests.acceptance.harness import ROOT, Gateway, within
from tests.command.asking import created, port_of, terminal, typed


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory in the PATH that has `backburner`; the shells have an empty home."""
    command = tmp_path / "bin" / "backburner"
    command.parent.mkdir()
    command.write_text(f'#!/bin/sh\nPYTHONPATH={ROOT} exec {sys.executable} -m gateway "$@"\n')
    command.chmod(0o755)
    monkeypatch.setenv("PATH", f"{command.parent}:{os.environ['PATH']}")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("ZDOTDIR", str(tmp_path))
    return tmp_path


def shell(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"no {name}")
    return found


async def said(program: str, *words: str, script: str) -> list[str]:
    """What a shell prints that runs a script."""
    process = await asyncio.create_subprocess_exec(
        program, *words, "-c", script, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    out, err = await within(process.communicate())
    assert process.returncode == 0, err.decode()
    return out.decode().split()


_BASH = """
eval "$(backburner completion bash)"
complete -p backburner >&2
function=$(complete -p backburner | sed 's/.*-F \\([^ ]*\\).*/\\1/')
for line in "$@"; do
    COMP_LINE="$line" COMP_POINT=${#line} COMP_TYPE=9 COMP_WORDS=($line) COMP_CWORD=$((${#COMP_WORDS[@]}-1))
    "$function" backburner "${COMP_WORDS[COMP_CWORD]}" backburner
    printf '%s\\n' "${COMPREPLY[@]}"
done
"""


async def test_bash_completes_commands_flags_backends_and_ids(path: Path, gateway: Gateway) -> None:
    bash = shell("bash")
    response_id = await created(gateway)
    await gateway.ended(response_id)
    where = f"--admin-port {port_of(gateway)}"
    lines = [
        "backburner do",
        "backburner jobs --ten",
        f"backburner pause {where} de",
        f"backburner job {where} {response_id[:8]}",
    ]
    process = await asyncio.create_subprocess_exec(
        *(bash, "--norc", "-c", _BASH, "bash", *lines),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await within(process.communicate())
    assert out.decode().split() == ["doctor", "--tenant", "default", response_id], err.decode()


async def test_fish_completes_commands_and_flags(path: Path) -> None:
    fish = shell("fish")
    script = "backburner completion fish | source"
    for line in ("backburner do", "backburner jobs --ten"):
        script += f"; complete -C '{line}'"
    found = await said(fish, "--no-config", script=script)
    assert {"doctor", "--tenant"} <= set(found)


async def test_zsh_completes_commands_on_a_terminal(path: Path) -> None:
    zsh = shell("zsh")
    async with terminal("-f", "-i", program=zsh, columns=200) as screen:
        screen.type(
            "PS1='> '; autoload -U compinit; compinit -u -D; "
            "eval \"$(backburner completion zsh)\"; echo rea''dy\n"
        )
        await screen.shows("\nready")
        screen.type("backburner doc\t --hel\t\n")
        await screen.shows("usage: backburner doctor")


@pytest.mark.parametrize("name", ["bash", "zsh", "fish"])
async def test_each_shell_gets_its_lines_without_a_gateway(name: str) -> None:
    done = await typed("completion", name)
    assert (done.status, done.err) == (0, "")
    assert "backburner" in done.out
