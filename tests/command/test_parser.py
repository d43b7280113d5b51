"""The command line: what is refused, and what each command says of itself."""

from __future__ import annotations

import re

import pytest

from gateway.command.parser import parse

_COMMANDS = (
    *("serve", "check-config", "healthcheck", "jobs", "job", "tail", "cancel", "rerun", "pause", "resume"),
    *("top", "webhooks", "drain", "doctor", "version", "completion"),
)


def _nothing(_: object) -> None: ...


@pytest.mark.parametrize("command", _COMMANDS)
def test_each_command_explains_itself(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        parse([command, "--help"], before=_nothing)
    assert left.value.code == 0
    assert f"usage: backburner {command}" in capsys.readouterr().out


def test_all_commands_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse(["--help"], before=_nothing)
    listed = capsys.readouterr().out
    assert [name for name in _COMMANDS if not re.search(rf"\n    {name}\s", listed)] == []


@pytest.mark.parametrize(
    "words",
    [
        ["jobs", "--every", "soon"],
        ["jobs", "--every", "10ms"],
        ["jobs", "--every", "2d"],
        ["jobs", "--limit", "0"],
        ["jobs", "--limit", "99999"],
        ["jobs", "-o", "xml"],
        ["jobs", "resp_1"],
        ["job"],
        ["pause"],
        ["completion", "csh"],
        ["doctor", "--tokens", "x"],
    ],
)
def test_what_makes_no_sense_leaves_with_status_2(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as left:
        parse(words, before=_nothing)
    assert left.value.code == 2
    assert capsys.readouterr().err


@pytest.mark.parametrize(("text", "seconds"), [("2", 2), ("500ms", 0.5), ("1.5m", 90), ("1h", 3600)])
def test_lengths_of_time_have_units(text: str, seconds: float) -> None:
    assert parse(["jobs", "--every", text], before=_nothing).every == seconds
