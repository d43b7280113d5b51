"""Every command that docs/command.md shows is typed as it stands there, into a shell where it needs one."""

from __future__ import annotations

import asyncio
import os
import re
import shlex
import sys
from pathlib import Path

import pytest

from tests.acceptance.conftest import StartGateway
from tests.acceptance.harness import ROOT, Gateway, within
from tests.acceptance.test_admin_api import CONTENT
from tests.command.asking import created, port_of, typed

PAGE = (ROOT / "docs" / "command.md").read_text()
BLOCKS = re.findall(r"```console\n(.*?)```", PAGE, re.DOTALL)
_ID = re.compile(r"resp_[0-9a-f]+")
_ENDLESS = "# until Ctrl-C"
_INTERRUPTED_S = 3


def shown() -> list[tuple[str, str]]:
    """The commands of the page, each with the head of the table that it prints."""
    lines = [line for block in BLOCKS for line in block.splitlines()]
    assert lines[0].startswith("$ ")
    heads = [*lines[1:], "$"]
    return [
        (line.removeprefix("$ "), "" if head.startswith("$") else head)
        for line, head in zip(lines, heads, strict=True)
        if line.startswith("$ ")
    ]


async def came_to(command: str, place: Path, environ: dict[str, str]) -> tuple[int, str, str]:
    """Its status and output: of a command alone in this process, of anything else in bash."""
    if command.startswith("backburner") and not set(command) & set("|<>&#$;"):
        done = await typed(*shlex.split(command)[1:])
        return done.status, done.out, done.err
    process = await asyncio.create_subprocess_exec(
        *("bash", "--norc", "-c", command),
        cwd=place,
        env=environ,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await within(process.communicate(), 60)
    assert process.returncode is not None
    return process.returncode, out.decode(), err.decode()


def at_home(place: Path, gateway: Gateway, upstream: str) -> dict[str, str]:
    """A home in which `backburner` is there, and finds its gateway without a flag."""
    command = place / "bin" / "backburner"
    command.parent.mkdir()
    command.write_text(f'#!/bin/sh\nPYTHONPATH={ROOT} exec {sys.executable} -m gateway "$@"\n')
    command.chmod(0o755)
    (place / "config.yaml").write_text(f"upstream:\n  url: {upstream}\n")
    clean = {name: value for name, value in os.environ.items() if not name.startswith("BACKBURNER_")}
    return {
        **clean,
        "HOME": str(place),
        "PATH": f"{command.parent}:{os.environ['PATH']}",
        "BACKBURNER_SERVER__ADMIN_PORT": port_of(gateway),
    }


async def test_every_command_of_the_page_does_what_it_says(
    start_gateway: StartGateway, demo_server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gateway = await start_gateway(upstream=demo_server, **CONTENT, BACKBURNER_UPSTREAM__API_KEY="sk-own")
    response_id = await created(gateway, model="demo-model")
    await gateway.ended(response_id)
    place = tmp_path / "home"
    place.mkdir()
    environ = at_home(place, gateway, demo_server)
    monkeypatch.chdir(place)
    monkeypatch.setenv("BACKBURNER_SERVER__ADMIN_PORT", port_of(gateway))
    commands = shown()
    assert len(commands) > 15
    for command, head in commands:
        mine = _ID.sub(response_id[:17], command)
        status = 0
        if command.endswith(_ENDLESS):
            mine, status = f"timeout -s INT --preserve-status {_INTERRUPTED_S} {mine}", 130
        found, out, err = await came_to(mine, place, environ)
        assert found == status, (command, out, err)
        assert out.partition("\n")[0].split() == head.split() or not head, command
    assert (place / "answer.txt").read_text().strip()
    assert (place / ".config/fish/completions/backburner.fish").read_text().strip()
    assert await gateway.exit_status() == 0
    named = set(re.findall(r"`backburner ([a-z]+)", PAGE))
    assert named <= {command.split()[1] for command, _ in commands if command.startswith("backburner")} | {
        *("completion", "version", "drain")
    }
